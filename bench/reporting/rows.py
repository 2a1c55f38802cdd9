"""From records and sweep manifests to the rows of a report: runs that differ in seeds alone are one row.

    book = gather("results/runs")
    book.groups[0].rows[0].cells["fid"].value

A group is one (data set, protocol): rows of different groups are never compared. A cell knows the records behind it.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.errors import InputError, did_you_mean
from bench.records import Measurement, Record, Role, Sweep, load_records, load_sweeps
from bench.reporting.attachments import usable
from bench.reporting.catalogue import Better, metric_of
from bench.reporting.conditions import Conditions, alike, conditions_of
from bench.reporting.defaults import defaults_of
from bench.reporting.estimates import Point, combine_runs
from bench.reporting.extras import bound_of_steps, superseded
from bench.reporting.holes import Hole, holes_of, protocols_of
from bench.reporting.identity import (
    condition_of,
    dataset_of,
    identity,
    num_tokens,
    protocol_name_of,
    role_of,
    row_key,
    seeds_of,
    steps_of,
    tokenizer_of,
)
from bench.reporting.words import first_line, plural, slugify, untaken

ROLE_ORDER = {"real": 0, "reconstruction": 1, "prior": 2, "source": 3, "edit": 4}
TIMING: Role = "speed comparison"
UNSET = object()
KINDS = {"exact": "exact", "bound_T": "bound_T: an upper bound, that of the T steps trained",
         "bound_continuous": "bound_infinity: an upper bound, that of infinitely many steps"}
"""What a likelihood is, by the kind that its record tells."""
KIND_UNTOLD = "an upper bound of a kind that its record does not tell"
QUALITY = {"ok": 3, "partial": 2, "unsupported": 1, "failed": 0}


@dataclass(frozen=True)
class Observation:
    """One measurement and the run it came from."""

    record: str
    training_seed: int
    sampling_seed: int
    measurement: Measurement


@dataclass(frozen=True)
class Cell:
    """One number of a table, or a hole (value None) whose note says why.

    basis: where the interval comes from.  sources: the measurements behind it, one a run.
    kind, remark: of a likelihood: "exact", "bound_T" or "bound_continuous", and the same in words.
    scored: of a likelihood: on which part of the held-out images; "" for all.
    tokenizer: whose tokens it counts, where it counts tokens.
    shown_n: its number of images, where the column's heading gives another.
    timed: of a timing: under what.  shown_timed: the same in words, where most of its column was timed otherwise.
    """

    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    better: Better = "none"
    bound: str = ""
    unit: str = ""
    n: int | None = None
    note: str = ""
    basis: str = ""
    kind: str = ""
    remark: str = ""
    scored: str = ""
    tokenizer: str = ""
    shown_n: int | None = None
    timed: Conditions | None = None
    shown_timed: str = ""
    sources: tuple[Observation, ...] = ()
    printed: str = ""
    """A published number as its paper prints it."""

    def points(self) -> list[Point]:
        """The runs behind this cell that have a value, in order of (training seed, sampling seed)."""
        found = sorted((s for s in self.sources if s.measurement.value is not None),
                       key=lambda s: (s.training_seed, s.sampling_seed))
        return [Point(float(m.value or 0.0), m.ci_low, m.ci_high, m.standard_error)
                for m in (s.measurement for s in found)]

    def seeds(self) -> list[tuple[int, int]]:
        """(training seed, sampling seed) of each of `points()`."""
        return sorted((s.training_seed, s.sampling_seed) for s in self.sources if s.measurement.value is not None)


@dataclass(frozen=True)
class Row:
    """All runs of one configuration, seeds apart.

    status: of its best run, or "missing" where a sweep asked for it and no record is there.
    reason: why it is not ok, or which of its runs are missing.
    variant: what its label says in brackets, the options in which it differs from the plain row of that name.
    """

    key: str
    role: str
    name: str
    label: str
    status: str
    reason: str = ""
    spec: dict[str, Any] = field(default_factory=dict)
    records: tuple[Record, ...] = ()
    cells: dict[str, Cell] = field(default_factory=dict)
    variant: str = ""

    @property
    def steps(self) -> int | None:
        """Diffusion steps, None for a prior that has none."""
        return steps_of(self.spec)

    @property
    def temperature(self) -> float:
        return float(self.spec.get("sampler", {}).get("temperature") or 1.0)

    def option(self, stage: str, key: str) -> Any:
        """`prior.<key>` or `vq.<key>` as on the command line; None where the stage has no such option."""
        return self.spec.get(stage, {}).get("options", {}).get(key)


@dataclass(frozen=True)
class Group:
    """The rows of one data set under one protocol.

    slug: for file names. heading: the protocol's name and condition, or its id where two of a data set share both.
    timings: speed comparisons on the data set, which are of no row, the earliest first.
    """

    dataset: str
    protocol: str
    protocol_name: str
    slug: str
    rows: tuple[Row, ...]
    heading: str
    timings: tuple[Record, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.dataset}, protocol {self.heading}"

    @property
    def cited(self) -> str:
        """The title with the protocol's id, once."""
        return self.title if self.heading == self.protocol else f"{self.title} ({self.protocol})"

    @property
    def of_edits(self) -> bool:
        """Whether these are completed images, which no claim, table or curve of the paper is about."""
        return any(row.role == "edit" for row in self.rows)

    def measured(self, role: str = "prior", name: str | None = None) -> list[Row]:
        """Rows of a role (and prior) that have at least one number."""
        return [row for row in self.rows if row.role == role and (name is None or row.name == name)
                and any(cell.value is not None for cell in row.cells.values())]


@dataclass(frozen=True)
class Book:
    """Everything a report is a function of, the published numbers apart."""

    results_dir: Path
    groups: tuple[Group, ...]
    records: dict[str, Record]
    damaged: tuple[tuple[Path, str], ...]

    @property
    def num_priors(self) -> int:
        return len({row.name for group in self.groups for row in group.rows if row.role == "prior"})


def gather(results_dir: str | Path, *, datasets: Sequence[str] = (), protocols: Sequence[str] = ()) -> Book:
    """Read a results folder. datasets, protocols: keep these only (protocols by name or id); empty keeps all.

    Raises InputError (exit code 2) for a folder without records or manifests and for a filter that matches nothing.
    """
    records, damaged = load_records(results_dir)
    sweeps, damaged_sweeps = load_sweeps(results_dir)
    records, damaged_files = usable(records, Path(results_dir))
    damaged = damaged + damaged_sweeps + damaged_files
    if not records and not sweeps and not damaged:
        raise InputError(f"no records in {str(results_dir)!r}: expected records/*.json there. Make some with "
                         "`python -m bench.run prior=absorbing`, or point at them with results_dir=...")
    timings = [record for record in records if record.role == TIMING]
    groups = [replace(group, timings=tuple(r for r in timings if dataset_of(r.spec) == group.dataset))
              for group in groups_of(records, sweeps)]
    for key, wanted, names in (("dataset", datasets, lambda g: {g.dataset}),
                               ("protocol", protocols, lambda g: {g.protocol, g.protocol_name})):
        exists = {name for group in groups for name in names(group)}
        for value in wanted:
            if value not in exists:
                raise InputError(f"{key}={value}: no record has it. {did_you_mean(value, exists)}")
        groups = [group for group in groups if not wanted or names(group) & set(wanted)]
    return Book(Path(results_dir), tuple(groups), {r.id: r for r in records}, tuple(damaged))


def groups_of(records: list[Record], sweeps: Sequence[Sweep] = ()) -> list[Group]:
    """Records of rows, and the cells that sweeps asked for, by data set and protocol."""
    records = [record for record in records if record.role != TIMING]
    placed: dict[tuple[str, str], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        key = row_key(role_of(record), record.label, record.spec)
        for protocol in sorted({m.protocol for m in record.measurements}) or protocols_of(record.spec, records):
            placed[dataset_of(record.spec), protocol][key].append(record)
    holes: dict[tuple[str, str], list[Hole]] = defaultdict(list)
    for hole in holes_of(sweeps, records):
        holes[dataset_of(hole.spec), protocols_of(hole.spec, records)[0]].append(hole)
    groups: list[Group] = []
    for dataset, protocol in sorted(set(placed) | set(holes)):
        rows = _rows(placed.get((dataset, protocol), {}), protocol, holes.get((dataset, protocol), []))
        name = next((protocol_name_of(row.spec) for row in rows if row.spec), protocol)
        told = next((condition for row in rows if (condition := condition_of(row.spec))), "")
        free = untaken(slugify(f"{dataset}-{name}-{told}"), {group.slug for group in groups})
        groups.append(Group(dataset, protocol, name, free, rows, f"{name}, condition={told}" if told else name))
    shared = Counter((group.dataset, group.heading) for group in groups)
    return [replace(group, heading=group.protocol) if shared[group.dataset, group.heading] > 1 else group
            for group in groups]


def _rows(by_key: dict[str, list[Record]], protocol: str, holes: list[Hole]) -> tuple[Row, ...]:
    missing: dict[str, list[Hole]] = defaultdict(list)
    for hole in holes:
        missing[hole.key].append(hole)
    rows = [_row(key, runs, protocol, missing.pop(key, [])) for key, runs in by_key.items()]
    rows += [_missing_row(key, found) for key, found in missing.items()]
    return tuple(sorted(distinguish(rows), key=_position))


def _row(key: str, records: list[Record], protocol: str, missing: list[Hole]) -> Row:
    runs = _standing(records)
    best = max(runs, key=lambda r: QUALITY.get(r.status, 0))
    num_runs = len({seeds_of(r.spec) for r in runs}) + len(missing)
    reasons = [f"{r.status}: {first_line(r.message)}" for r in runs if r.status != "ok"]
    reasons += [f"{plural(len(missing), 'run')} of {num_runs} not there yet"] if missing else []
    sources: dict[str, dict[tuple[int, int], Observation]] = defaultdict(dict)
    for record in runs:
        for measurement in (m for m in record.measurements if m.protocol == protocol):
            seeds = seeds_of(record.spec)
            old = sources[measurement.metric].get(seeds)
            if old is None or measurement.value is not None or old.measurement.value is None:
                sources[measurement.metric][seeds] = Observation(record.id, *seeds, measurement)
    role = role_of(best)
    called = next((r for r in reversed(runs) if r.spec.get("label")), best)   # the last label given
    name = str(best.spec.get("prior", {}).get("name", "")) if role == "prior" else role
    return Row(key, role, name, describe(role, called.spec, called.label), best.status,
               "; ".join(dict.fromkeys(reasons)), best.spec, tuple(runs),
               _cells(sources, runs, tokenizer_of(best.spec)))


def _cells(sources: Mapping[str, Mapping[tuple[int, int], Observation]], runs: Sequence[Record],
           tokenizer: str) -> dict[str, Cell]:
    """One cell a metric; beside bits per token those of an image, where the records know how many tokens it has."""
    cells = {metric: cell_of(metric, list(by_seed.values())) for metric, by_seed in sources.items()}
    counts = {tokens_of(record) for record in runs}
    if "bits_per_token" in cells and len(counts) == 1 and (count := counts.pop()):
        whole = [replace(source, measurement=_times(source.measurement, count, "bits_per_image"))
                 for source in cells["bits_per_token"].sources]
        cells["bits_per_image"] = cell_of("bits_per_image", whole)
    of_steps = [replace(source, measurement=bound) for source in sources.get("bits_per_token", {}).values()
                if (bound := bound_of_steps(source.measurement))]
    cells |= {"bits_per_token_T": cell_of("bits_per_token_T", of_steps)} if of_steps else {}
    return {metric: replace(cell, tokenizer=tokenizer) if metric_of(metric).within_tokenizer else cell
            for metric, cell in cells.items()}


def tokens_of(record: Record) -> int | None:
    """Tokens an image: as counted while sampling, or as the tokenizer's options say."""
    counted = (record.provenance.get("sampling") or {}).get("num_tokens")
    return int(counted) if counted else num_tokens(record.spec)


def _times(m: Measurement, factor: int, metric: str) -> Measurement:
    def scaled(value: float | None) -> float | None:
        return None if value is None else value * factor

    return replace(m, metric=metric, value=scaled(m.value), ci_low=scaled(m.ci_low), ci_high=scaled(m.ci_high),
                   standard_error=scaled(m.standard_error), unit=metric_of(metric).unit,
                   extra={key: m.extra[key] for key in ("kind", "budget", "images") if key in m.extra})


def _missing_row(key: str, holes: list[Hole]) -> Row:
    first = holes[0]
    name = str(first.spec.get("prior", {}).get("name", "")) if first.role == "prior" else first.role
    status = "unsupported" if first.unsupported else "missing"
    reason = f"unsupported: {first.unsupported}" if first.unsupported else \
        f"no record: {plural(len(holes), 'run')} asked for by a sweep and not there yet"
    return Row(key, first.role, name, describe(first.role, first.spec, first.label), status, reason, first.spec)


def cell_of(metric: str, sources: Sequence[Observation]) -> Cell:
    """One cell from the measurements of the same row, one a run; of timings those of one number of threads."""
    sources, left_out = alike(sources)
    first = next((s.measurement for s in sources if s.measurement.value is not None), sources[0].measurement)
    notes = "; ".join(dict.fromkeys(filter(None, [*(s.measurement.note for s in sources), left_out])))
    cell = Cell(metric, None, better=metric_of(metric, first.better).better, unit=first.unit, n=first.n,
                note=notes, sources=tuple(sources), timed=conditions_of(first))
    points = cell.points()
    if not points:
        return replace(cell, note=notes or "the run gave no value and no reason")
    mean = combine_runs(dict(zip(cell.seeds(), points, strict=True)))
    kinds = sorted({str(kind) for s in sources if (kind := s.measurement.extra.get("kind"))})
    remark = "; ".join(KINDS.get(kind, kind) for kind in kinds) or (KIND_UNTOLD if first.bound else "")
    scored = str(first.extra.get("images", ""))
    remark += f"; on the {scored} of the held-out images" if remark and scored else ""
    if metric.startswith("bits_per_dim") and kinds:
        remark = f"an upper bound, for other tokens could give the same image; the prior's part: {remark}"
    remark = remark or superseded(metric, [source.measurement for source in sources])
    return replace(cell, value=mean.value, low=mean.low, high=mean.high, bound=first.bound, basis=mean.basis,
                   kind=", ".join(kinds), remark=remark, scored=scored, note="; ".join(filter(None, [remark, notes])))


def describe(role: str, spec: dict[str, Any], label: str) -> str:
    """A row's name for people: the label it was given, or "absorbing, 16 steps, temperature 0.9"."""
    if spec.get("label"):
        return str(spec["label"])
    if role == "real":
        return "real against real"
    if role == "reconstruction":
        return "reconstruction"
    name = spec.get("prior", {}).get("name")
    if role == "source" or not name:
        return label
    sampler = spec.get("sampler", {})
    if name == "plugin":
        name = str(spec["prior"].get("target") or label).split(":")[-1]
    steps = steps_of(spec)
    parts = [spec["prior"].get("recipe") or name] + ([f"{steps} steps"] if steps else [])
    temperature = sampler.get("temperature")
    return ", ".join(parts + ([f"temperature {temperature:g}"] if temperature not in (None, 1, 1.0) else []))


def distinguish(rows: Iterable[Row]) -> list[Row]:
    """Rows that share a label get the options that tell them apart, but for defaults: "absorbing (prior.width=256)"."""
    by_label: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_label[row.label].append(row)
    return [replace(row, label=f"{label} ({variant})", variant=variant) if variant else row
            for label, twins in by_label.items() for row, variant in zip(twins, _variants(twins), strict=True)]


def _variants(twins: Sequence[Row]) -> list[str]:
    """What each row sets differently from the others; the defaults are named too where it takes them to differ."""
    if len(twins) == 1:
        return [""]
    flat = [identity(row.role, row.spec) | _origin(row, twins) for row in twins]
    differing = [key for key in sorted({key for own in flat for key in own})
                 if len({json.dumps(own.get(key), default=str) for own in flat}) > 1]
    chosen = [{key: own[key] for key in differing if key in own and own[key] != defaults_of(row.spec).get(key, UNSET)}
              for row, own in zip(twins, flat, strict=True)]
    named = [_named(own) for own in chosen]
    return named if len(set(named)) == len(named) else [
        _named({key: own[key] for key in differing if key in own}) for own in flat]


def _origin(row: Row, twins: Sequence[Row]) -> dict[str, Any]:
    """Of samples from elsewhere: where they lay, or the beginning of their hash if others lay there too."""
    if row.role != "source":
        return {}
    path = row.spec.get("source")
    if sum(other.spec.get("source") == path for other in twins) == 1:
        return {"source": path}
    return {"source": path, "sha256": str(row.spec.get("source_sha256"))[:8]}


def _named(options: dict[str, Any]) -> str:
    return ", ".join(f"{key.replace('.options.', '.')}={value}" for key, value in options.items())


def _standing(records: list[Record]) -> list[Record]:
    """In order of creation, without runs whose repetition (same seeds) ended better."""
    best: dict[tuple[int, int], int] = {}
    for record in records:
        quality = QUALITY.get(record.status, 0)
        best[seeds_of(record.spec)] = max(quality, best.get(seeds_of(record.spec), 0))
    standing = [r for r in records if QUALITY.get(r.status, 0) == best[seeds_of(r.spec)]]
    latest_failure = {seeds_of(r.spec): r.id for r in standing if not r.measurements}
    return [r for r in standing if r.measurements or latest_failure[seeds_of(r.spec)] == r.id]


def _position(row: Row) -> tuple[Any, ...]:
    steps = row.steps if row.steps is not None else 10**9
    return ROLE_ORDER.get(row.role, 9), row.name, -row.temperature, steps, row.label
