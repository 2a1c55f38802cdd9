"""Records: one immutable JSON a run, one manifest a sweep, and the long pandas table made of them.

A results folder (`results_dir`) holds

    records/<id>.json        one Record each
    sweeps/<id>.json         the cells a sweep expects, so that a report can print holes
    media/<id>/*.png|*.csv   pictures and curves a record refers to

    records, damaged = load_records("results/runs")
    table = to_frame(records)                       # one row a measurement
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from bench.files import write_text

Status = Literal["ok", "failed", "unsupported", "partial"]
Role = Literal["prior", "reconstruction", "real", "source", "edit"]
FORMAT = 1


@dataclass(frozen=True)
class Measurement:
    """One number and what it means.

    metric: column name, such as "fid", "kid", "precision", "bits_per_token", "seconds_per_image".
    value: None where it could not be had; `note` then says why.
    ci_low, ci_high: 95% interval, None where no sound one is at hand (`note` says why).
    standard_error: of `value`; n: how many images (or pairs, tokens) stand behind it.
    protocol: the id of the protocol it was measured under; only equal ids may be compared.
    bound: "upper" where the value is an upper bound on what the column names.
    extra: further numbers of the same measurement, such as {"monte_carlo_se": ..., "fid_infinity": ...}.
    """

    metric: str
    value: float | None
    protocol: str
    n: int | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    standard_error: float | None = None
    unit: str = ""
    better: Literal["lower", "higher", "none"] = "none"
    bound: Literal["", "upper"] = ""
    note: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sheet:
    """A contact sheet: equal tiles without margins in one lossless PNG, row by row.

    path: relative to the results folder.  tile: (height, width) in pixels.
    labels: one text a tile or a row, where there is something to say (an LPIPS distance, a step).
    """

    path: str
    rows: int
    columns: int
    tile: tuple[int, int]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """What one run measured, immutable.

    role: "prior" for a prior's samples; "reconstruction", "real" (real against real) and "source" (images from
        elsewhere) for the rows that keep everyone honest; "edit" for held-out images that a prior completed.
    spec: the complete configuration of the run, nested (spec["prior"]["name"], spec["sampler"]["steps"]).
    run_key: hash of what the run measures; two records of one run_key are repeats.
    provenance: {"artefacts": {stage: {"key", "wall_seconds", "built_at"}}, "git_commit", "git_dirty",
        "versions": {...}, "hardware": {...}, "protocol": {...}}.
    media: name -> Sheet, such as "samples", "neighbours", "reconstruction".
    curves: name -> path of a CSV (columns step, metric, value) relative to the results folder.
    message: the reason of an "unsupported" run, the traceback of a "failed" one.
    """

    id: str
    created: str
    role: Role
    label: str
    spec: dict[str, Any]
    run_key: str
    status: Status
    measurements: tuple[Measurement, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    media: dict[str, Sheet] = field(default_factory=dict)
    curves: dict[str, str] = field(default_factory=dict)
    message: str = ""
    format: int = FORMAT


@dataclass(frozen=True)
class Sweep:
    """The cells one command asked for, in the order asked, so that a report can print what is missing.

    cells: [{"run_key", "label", "overrides": [...], "spec": {...}, "unsupported": "" or why it cannot be run}]; of
        edits also "role", which their spec does not tell.
    """

    id: str
    created: str
    command: str
    cells: tuple[dict[str, Any], ...]


def save_record(record: Record, results_dir: str | Path) -> Path:
    """Write `records/<id>.json`, atomically."""
    return _write_json(Path(results_dir) / "records" / f"{record.id}.json", asdict(record))


def save_sweep(sweep: Sweep, results_dir: str | Path) -> Path:
    """Write `sweeps/<id>.json`, atomically."""
    return _write_json(Path(results_dir) / "sweeps" / f"{sweep.id}.json", asdict(sweep))


def load_records(results_dir: str | Path) -> tuple[list[Record], list[tuple[Path, str]]]:
    """All records in order of creation, and the damaged files with what is wrong with each."""
    return _load_all(Path(results_dir) / "records", _record_from)


def load_record(path: str | Path) -> Record:
    """One record by its path. Raises ValueError, TypeError or KeyError if the file is damaged."""
    return _record_from(json.loads(Path(path).read_text()))


def load_sweeps(results_dir: str | Path) -> tuple[list[Sweep], list[tuple[Path, str]]]:
    """All sweep manifests in order of creation, and the damaged files with what is wrong with each."""
    return _load_all(Path(results_dir) / "sweeps", lambda raw: Sweep(**{**raw, "cells": tuple(raw["cells"])}))


def to_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row a measurement: the record's identity, every spec key as `spec.a.b`, and the measurement's fields."""
    rows = []
    for record in records:
        identity = {"record": record.id, "created": record.created, "role": record.role, "label": record.label,
                    "run_key": record.run_key, "status": record.status, **_flatten(record.spec, "spec")}
        rows += [{**identity, **asdict(measurement)} for measurement in record.measurements]
    return pd.DataFrame(rows)


def content_id(value: Any, length: int = 16) -> str:
    """A short hash of any JSON-like value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:length]


def _record_from(raw: dict[str, Any]) -> Record:
    if raw.get("format") != FORMAT:
        raise ValueError(f"format {raw.get('format')!r}, expected {FORMAT}")
    unknown = set(raw) - {f.name for f in fields(Record)}
    if unknown:
        raise ValueError(f"unknown fields {sorted(unknown)}")
    sheets = {name: Sheet(**{**s, "tile": tuple(s["tile"]), "labels": tuple(s["labels"])})
              for name, s in raw["media"].items()}
    return Record(**{**raw, "measurements": tuple(Measurement(**m) for m in raw["measurements"]), "media": sheets})


def _load_all(folder: Path, parse: Any) -> tuple[list[Any], list[tuple[Path, str]]]:
    good, damaged = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            good.append(parse(json.loads(path.read_text())))
        except (ValueError, TypeError, KeyError) as error:
            damaged.append((path, str(error)))
    return sorted(good, key=lambda item: (item.created, item.id)), damaged


def _flatten(tree: dict[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}.{key}") if isinstance(value, dict) else {f"{prefix}.{key}": value}
    return flat


def _write_json(path: Path, value: dict[str, Any]) -> Path:
    write_text(path, json.dumps(value, indent=1, allow_nan=False))
    return path
