"""Records: one immutable JSON a run, one manifest a sweep, and the long pandas table made of them.

A results folder (`results_dir`) holds

    records/<id>.json        one Record each
    sweeps/<id>.json         the cells a sweep expects, so that a report can print holes
    media/<id>/*.png|*.csv   pictures and curves a record refers to

    records, damaged = load_records("results/runs")
    table = to_frame(records)                       # one row a measurement

The annotations state what a file may hold: whatever is of another type, or out of range, is damaged. So is a file whose
content has not the sha256 it states; older ones state none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import pandas as pd

from bench.printable import one_line
from bench.provenance import content_id
from bench.store.files import write_text
from bench.typed_json import AtMost, Holds, Malformed, Matches, Within, bounded, fit, read_json

Status = Literal["ok", "failed", "unsupported", "partial"]
Role = Literal["prior", "reconstruction", "real", "source", "edit", "speed comparison"]
FORMAT = 1
SEAL = "sha256"
Number = Annotated[float, Within(-1e30, 1e30)]
Positive = Annotated[float, Within(0, 1e30)]
Count = Annotated[int, Within(0, 2**53)]
Seed = Annotated[int, Within(-2**64, 2**64)]
Line = Annotated[str, AtMost(4_000)]
Name = Annotated[str, AtMost(200)]
Id = Annotated[str, Matches(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", "a short name of letters, digits, '.', '_' and '-'")]
MAX_PIXELS = 64_000_000
"""Of a contact sheet."""


class TrainingOf(TypedDict, total=False):
    """What readers of a specification rely on; records of other versions may lack any of it and hold more."""

    steps: Count | None
    images: Count | None


class ModelOptions(TypedDict, total=False):
    """Options of tokenizers and priors that a report reads."""

    channel_multipliers: Annotated[list[Number], AtMost(32)] | None
    timesteps: Count | None
    disc_start_step: Count | None
    objective: Name | None


class ModelOf(TypedDict, total=False):
    """`vq` or `prior`."""

    name: Name
    target: Line | None
    schema: Line | None
    seed: Seed | None
    options: Annotated[dict[str, Any], Holds(ModelOptions)]
    training: Annotated[dict[str, Any], Holds(TrainingOf)]


class SamplerOf(TypedDict, total=False):
    """`sampler`."""

    steps: Count | None
    temperature: Annotated[float, Within(-1e6, 1e6)] | None
    seed: Seed | None


class DatasetOf(TypedDict, total=False):
    """`dataset`."""

    name: Name
    resolution: Annotated[int, Within(1, 2**20)] | None


class ProtocolOf(TypedDict, total=False):
    """`protocol`."""

    name: Name


class SideOf(TypedDict, total=False):
    """One side of a speed comparison: whose weights were sampled, and how."""

    label: Line
    prior: Name
    sampler: dict[str, Any]


class SpecOf(TypedDict, total=False):
    """The complete configuration of a run, as far as it is relied upon."""

    source: Line
    seed: Seed | None
    results_dir: Line
    dataset: Annotated[dict[str, Any], Holds(DatasetOf)]
    protocol: Annotated[dict[str, Any], Holds(ProtocolOf)]
    vq: Annotated[dict[str, Any], Holds(ModelOf)]
    prior: Annotated[dict[str, Any], Holds(ModelOf)]
    sampler: Annotated[dict[str, Any], Holds(SamplerOf)]
    sampling: dict[str, Any]
    backbone: dict[str, Any]
    autoencoder: dict[str, Any]
    sides: Annotated[list[Annotated[dict[str, Any], Holds(SideOf)]], AtMost(64)]


class HardwareOf(TypedDict, total=False):
    """`provenance.hardware`."""

    cpu: Line | None


class SampledOf(TypedDict, total=False):
    """`provenance.sampling`."""

    num_tokens: Positive | None


class ProvenanceOf(TypedDict, total=False):
    """What made a record, as far as it is relied upon."""

    artefacts: dict[str, dict[str, Any]]
    git_commit: Line | None
    git_dirty: bool | None
    versions: dict[str, Line | None]
    hardware: Annotated[dict[str, Any], Holds(HardwareOf)]
    device: Line | None
    threads: Count | None
    parameters: dict[str, Count]
    protocol: dict[str, Any]
    sampling: Annotated[dict[str, Any], Holds(SampledOf)] | None
    wall_seconds: Number | None


class ExtraOf(TypedDict, total=False):
    """Further numbers of a measurement that a report reads."""

    rounds: list[Number]
    kind: Name
    images: Name
    side: Count
    batch: Count
    threads: Count | None
    device: Line | None


Spec = Annotated[dict[str, Any], Holds(SpecOf)]


@dataclass(frozen=True)
class Measurement:
    """One number and what it means.

    metric: column name, such as "fid", "kid", "precision", "bits_per_token", "seconds_per_image".
    value: None where it could not be measured; `note` then says why.
    ci_low, ci_high: 95% interval, None where no sound one is available (`note` says why).
    standard_error: of `value`; n: how many images (or pairs, tokens) stand behind it.
    protocol: the id of the protocol it was measured under; only equal ids may be compared.
    bound: "upper" where the value is an upper bound on what the column names.
    extra: further numbers of the same measurement, such as {"monte_carlo_se": ..., "fid_infinity": ...}.
    """

    metric: Name
    value: Number | None
    protocol: Name
    n: Count | None = None
    ci_low: Number | None = None
    ci_high: Number | None = None
    standard_error: Positive | None = None
    unit: Name = ""
    better: Literal["lower", "higher", "none"] = "none"
    bound: Literal["", "upper"] = ""
    note: Line = ""
    extra: Annotated[dict[str, Any], Holds(ExtraOf)] = field(default_factory=dict)


@dataclass(frozen=True)
class Sheet:
    """A contact sheet: equal tiles without margins in one lossless PNG, row by row.

    path: relative to the results folder, in the record's own folder below media/.  tile: (height, width) in pixels.
    labels: one text a tile or a row, where there is something to say (an LPIPS distance, a step).
    """

    path: Line
    rows: Annotated[int, Within(1, 4096)]
    columns: Annotated[int, Within(1, 4096)]
    tile: tuple[Annotated[int, Within(1, 8192)], Annotated[int, Within(1, 8192)]]
    labels: tuple[Line, ...] = ()


@dataclass(frozen=True)
class Record:
    """What one run measured, immutable.

    role: "prior" for a prior's samples; "reconstruction", "real" (real against real) and "source" (images from
        elsewhere) for the rows that keep everyone honest; "edit" for held-out images that a prior completed; "speed
        comparison" for several samplers timed in turn in one process, which is of no row.
    spec: the complete configuration of the run, nested (spec["prior"]["name"], spec["sampler"]["steps"]).
    run_key: hash of what the run measures; two records of one run_key are repeats.
    provenance: {"artefacts": {stage: {"key", "wall_seconds", "peak_resident_gb", "built_at"}}, "git_commit",
        "git_dirty", "versions": {...}, "hardware": {...}, "protocol": {...}}.
    media: name -> Sheet, such as "samples", "neighbours", "reconstruction".
    curves: name -> path of a CSV (columns step, metric, value) relative to the results folder.
    message: the reason of an "unsupported" run, the traceback of a "failed" one.
    """

    id: Id
    created: Name
    role: Role
    label: Line
    spec: Spec
    run_key: Name
    status: Status
    measurements: tuple[Measurement, ...] = ()
    provenance: Annotated[dict[str, Any], Holds(ProvenanceOf)] = field(default_factory=dict)
    media: dict[str, Sheet] = field(default_factory=dict)
    curves: dict[str, Line] = field(default_factory=dict)
    message: Annotated[str, AtMost(4_000_000)] = ""
    format: int = FORMAT


class CellOf(TypedDict, total=False):
    """One cell of a sweep."""

    run_key: Name
    label: Line
    overrides: list[str]
    spec: Spec
    unsupported: Line | None
    role: Role


@dataclass(frozen=True)
class Sweep:
    """The cells one command asked for, in the order asked, so that a report can print what is missing.

    cells: [{"run_key", "label", "overrides": [...], "spec": {...}, "unsupported": "" or why it cannot be run}]; of
        edits also "role", which their spec does not tell.
    """

    id: Id
    created: Name
    command: str
    cells: tuple[Annotated[dict[str, Any], Holds(CellOf)], ...]


def media_folders(record: Record) -> set[str]:
    """The folders below the results folder where files of this record may lie."""
    return {f"media/{record.id}", f"media/edit-{record.run_key}"}


def save_record(record: Record, results_dir: str | Path) -> Path:
    """Write `records/<id>.json`, atomically."""
    return _write_json(Path(results_dir) / "records" / f"{record.id}.json", asdict(record))


def save_sweep(sweep: Sweep, results_dir: str | Path) -> Path:
    """Write `sweeps/<id>.json`, atomically."""
    return _write_json(Path(results_dir) / "sweeps" / f"{sweep.id}.json", asdict(sweep))


def load_records(results_dir: str | Path) -> tuple[list[Record], list[tuple[Path, str]]]:
    """All records in order of creation, and the damaged files with what is wrong with each."""
    return _load_all(Path(results_dir) / "records", load_record)


def load_record(path: str | Path) -> Record:
    """One record by its path. Raises Malformed (a ValueError) if the file is damaged, OSError if it cannot be read."""
    raw = _unsealed(read_json(Path(path)), "record")
    if isinstance(raw, dict) and raw.get("format") != FORMAT:
        raise Malformed(f"format {one_line(repr(raw.get('format')))[:80]}, expected {FORMAT}")
    record: Record = _fit_named(Record, raw, "record", Path(path))
    for name, sheet in record.media.items():
        pixels = sheet.rows * sheet.columns * sheet.tile[0] * sheet.tile[1]
        if pixels > MAX_PIXELS:
            raise Malformed(f"record.media.{name} is a sheet of {pixels:,} pixels, expected at most {MAX_PIXELS:,}")
    for measured in record.measurements:
        if measured.ci_low is not None and measured.ci_high is not None and measured.ci_low > measured.ci_high:
            raise Malformed(f"{measured.metric}: its interval begins at {measured.ci_low} and ends at "
                            f"{measured.ci_high}")
    return record


def load_sweeps(results_dir: str | Path) -> tuple[list[Sweep], list[tuple[Path, str]]]:
    """All sweep manifests in order of creation, and the damaged files with what is wrong with each."""
    return _load_all(Path(results_dir) / "sweeps", _load_sweep)


def _load_sweep(path: Path) -> Sweep:
    sweep: Sweep = _fit_named(Sweep, _unsealed(read_json(path), "sweep"), "sweep", path)
    return sweep


def to_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row a measurement: the record's identity, every spec key as `spec.a.b`, and the measurement's fields."""
    rows = []
    for record in records:
        identity = {"record": record.id, "created": record.created, "role": record.role, "label": record.label,
                    "run_key": record.run_key, "status": record.status, **_flatten(record.spec, "spec")}
        rows += [{**identity, **asdict(measurement)} for measurement in record.measurements]
    return pd.DataFrame(rows)


def _fit_named(kind: Any, raw: Any, what: str, path: Path) -> Any:
    """What the file holds, which must be what its name says: so no two files are one record."""
    found = fit(kind, raw, what)
    if found.id != path.stem:
        raise Malformed(f"{what}.id is {found.id!r}, but the file is named {one_line(path.name)!r}")
    return found


def _load_all(folder: Path, parse: Callable[[Path], Any]) -> tuple[list[Any], list[tuple[Path, str]]]:
    good, damaged = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            good.append(parse(path))
        except (Malformed, OSError) as error:
            damaged.append((path, str(error)))
    return sorted(good, key=lambda item: (item.created, item.id)), damaged


def _flatten(tree: dict[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}.{key}") if isinstance(value, dict) else {f"{prefix}.{key}": value}
    return flat


def _write_json(path: Path, value: dict[str, Any]) -> Path:
    read_back = bounded(json.loads(json.dumps(value)))
    write_text(path, json.dumps({SEAL: content_id(read_back, 64), **value}, indent=1, allow_nan=False))
    return path


def _unsealed(raw: Any, what: str) -> Any:
    """The content without its sha256. Raises Malformed where it is of another content."""
    if not isinstance(raw, dict) or SEAL not in raw:
        return raw
    content = {key: value for key, value in raw.items() if key != SEAL}
    if raw[SEAL] != content_id(content, 64):
        raise Malformed(f"{what} is not as it was written: its content is not that of its sha256. Restore it, run it "
                        "again, or take the line away if the change was meant")
    return content
