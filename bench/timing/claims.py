"""The speeds that the paper's claims compare, timed in turn in one process: `python -m bench.speed claims`.

    python -m bench.speed claims results_dir=results/runs              # both sides of every speed claim, some minutes
    python -m bench.speed claims results_dir=results/runs rounds=15 batches=8,32,128 threads=2 dataset=cifar10

The two trained priors are those of the compared records, taken from the store by the keys the records give. Each is
sampled as the claims ask, all with the same threads, with draws of their own every round; whole samplings warm up. The
batch of the throughput is chosen for each side before the rounds that are judged. The record (role "speed comparison")
keeps every round of every side; `python -m bench.report` judges it.
"""

from __future__ import annotations

import dataclasses
import statistics
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from bench.errors import InputError
from bench.provenance import provenance, utc_now
from bench.records import Measurement, Record
from bench.reporting.rows import TIMING, Group, Row
from bench.reporting.speeds import CONTESTS, LEAST_ROUNDS
from bench.words import pairs_of, split_commas

PROTOCOL = "speed-in-turn-1"
"""Raised whenever what is timed, or how, changes."""


@dataclass(frozen=True)
class Options:
    """results_dir: whose records are compared, and where the new record goes.  dataset: of these only.

    rounds: turns that every side takes.  batches: those among which each side's best is chosen for its throughput.
    threads: of torch, for all sides (default: torch's own choice).  device: as of bench.run, without "auto".
    missing: only what no record tells yet; otherwise a record is added, as of another process.
    """

    results_dir: str = "results/runs"
    dataset: tuple[str, ...] = ()
    rounds: int = 9
    batches: tuple[int, ...] = (8, 32, 128)
    threads: int | None = None
    device: str = "cpu"
    missing: bool = False


@dataclass(frozen=True)
class Side:
    """One sampler of one trained prior. prior: the key of its weights; record: one that they are of."""

    label: str
    prior: str
    sampler: dict[str, Any]
    record: Record

    @property
    def described(self) -> dict[str, Any]:
        return {"label": self.label, "prior": self.prior, "sampler": self.sampler, "record": self.record.id}


def parse(arguments: Sequence[str]) -> Options:
    """key=value options. Raises InputError for an unknown or repeated key and a value of the wrong kind."""
    pairs = pairs_of(arguments, [f.name for f in fields(Options)])
    values = {key: _value(key, text) for key, text in pairs.items()}
    options = Options(**values)
    if options.rounds < LEAST_ROUNDS:
        raise InputError(f"rounds={options.rounds}: expected at least {LEAST_ROUNDS}; fewer tell no interval of a "
                         "median.")
    return options


def sides_of(group: Group, pair: tuple[Row, Row]) -> list[Side]:
    """What the claims compare, each once: the row's sampler with what a claim sets."""
    found: dict[str, Side] = {}
    for contest in CONTESTS:
        for row, changes in zip(pair, (contest.ours, contest.theirs), strict=True):
            label = f"{row.label}, {', '.join(f'{key}={str(value).lower()}' for key, value in changes.items())}"
            if label not in found:
                found[label] = _side(row, label, dict(changes))
    return list(found.values())


def distinct(contests: list[list[Side]]) -> list[list[Side]]:
    """Groups under several protocols may compare the same weights: those are timed once."""
    kept: list[list[Side]] = []
    for sides in contests:
        known = [[(s.prior, s.sampler) for s in other] for other in kept]
        if [(s.prior, s.sampler) for s in sides] not in known:
            kept.append(sides)
    return kept


def record_of(sides: list[Side], measurements: list[Measurement], conditions: dict[str, Any],
              options: Options) -> Record:
    """What is saved: the sides, every round, and the conditions."""
    first = sides[0].record
    spec = {"dataset": first.spec.get("dataset", {}), "protocol": {"name": PROTOCOL},
            "sides": [side.described for side in sides],
            "speed": {"rounds": options.rounds, "warmup": 1, "batches": list(options.batches),
                      "threads": conditions["threads"]}}
    return Record(id=f"speed-{uuid.uuid4().hex[:12]}", created=utc_now(), role=TIMING,
                  label=" against ".join(dict.fromkeys(side.record.label for side in sides)), spec=spec, run_key="",
                  status="ok", measurements=tuple(measurements),
                  provenance={**provenance(), "threads": conditions["threads"], "device": options.device,
                              "conditions": conditions})


def median_measurement(metric: str, side: int, batch: int, rounds: list[float], unit: str,
                       conditions: dict[str, Any]) -> Measurement:
    """One side's median; rounds: in the unit of the column."""
    return Measurement(metric, statistics.median(rounds), PROTOCOL, n=len(rounds), unit=unit,
                       better="lower" if metric == "seconds_per_image" else "higher",
                       note=f"median of {len(rounds)} rounds in turn with the other sides, batch {batch}; no interval",
                       extra={"side": side, "batch": batch, "rounds": rounds, **conditions})


def _side(row: Row, label: str, changes: dict[str, Any]) -> Side:
    """Of the row's first training whose weights a record names."""
    for record in sorted(row.records, key=lambda r: int(r.spec.get("seed") or 0)):
        key = (record.provenance.get("artefacts") or {}).get("prior", {}).get("key")
        if key:
            sampler = {k: v for k, v in record.spec.get("sampler", {}).items() if k != "seed"} | changes
            return Side(label, str(key), _complete(record, sampler), record)
    raise InputError(f"{row.label}: none of its records names the weights it sampled. Run it again.")


def _complete(record: Record, sampler: dict[str, Any]) -> dict[str, Any]:
    """All fields of the prior's Sampler, so that the record tells what was timed. Raises InputError."""
    from bench.schema import schema_of

    cls = schema_of(stage_of(record), "priors")[1]
    try:
        return dataclasses.asdict(cls(**sampler)) if cls else {}
    except (TypeError, ValueError) as error:
        raise InputError(f"{record.label}: its sampler cannot be used here: {error}") from error


def stage_of(record: Record) -> Any:
    """The prior of a record, as far as it must be known to be made anew."""
    from bench.config.models import PriorConfig

    raw = record.spec.get("prior", {})
    return PriorConfig(name=str(raw.get("name", "")), target=raw.get("target"), schema=raw.get("schema"),
                       options=dict(raw.get("options", {})))


def _value(key: str, text: str) -> Any:
    parts = split_commas(text)
    if not all(parts):
        raise InputError(f"{key}={text}: an empty value")
    if key == "dataset":
        return tuple(parts)
    if key in ("rounds", "threads", "batches"):
        if any(not part.isdigit() or not 1 <= int(part) <= 10**6 for part in parts):
            raise InputError(f"{key}={text}: expected whole numbers of at least 1.")
        numbers = tuple(int(part) for part in parts)
        return numbers if key == "batches" else _single(key, text, numbers)
    if key == "missing":
        if text not in ("true", "false"):
            raise InputError(f"missing={text}: expected true or false.")
        return text == "true"
    return _single(key, text, tuple(parts))


def _single(key: str, text: str, parts: tuple[Any, ...]) -> Any:
    if len(parts) > 1:
        raise InputError(f"{key}={text}: expected one value.")
    return parts[0]
