"""Cells that a sweep asked for and that have no record, with the reason and the row they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.records import Record, Sweep
from bench.reporting.identity import dataset_of, protocol_name_of, role_of, row_key, seeds_of


@dataclass(frozen=True)
class Hole:
    """One missing run. unsupported: why it can never be had, "" where it is just not there yet."""

    key: str
    label: str
    role: str
    spec: dict[str, Any]
    unsupported: str = ""

    @property
    def seeds(self) -> tuple[int, int]:
        return seeds_of(self.spec)


def holes_of(sweeps: Iterable[Sweep], records: Sequence[Record]) -> list[Hole]:
    """All cells without a record, each once: none of their run key, and none of their row and seeds (a failed one)."""
    run_keys = {record.run_key for record in records if record.run_key}
    found = {(row_key(role_of(r), r.label, r.spec), seeds_of(r.spec)) for r in records}
    holes: dict[tuple[str, tuple[int, int]], Hole] = {}
    for sweep in sweeps:
        for cell in sweep.cells:
            hole = _hole(cell)
            if cell.get("run_key") not in run_keys and (hole.key, hole.seeds) not in found:
                holes[hole.key, hole.seeds] = hole
    return list(holes.values())


def protocols_of(spec: dict[str, Any], records: Sequence[Record]) -> tuple[str, ...]:
    """The protocol id that the latest record of this data set and protocol name was measured under, or the name."""
    wanted = dataset_of(spec), protocol_name_of(spec)
    for record in reversed(records):
        if record.measurements and (dataset_of(record.spec), protocol_name_of(record.spec)) == wanted:
            return (record.measurements[0].protocol,)
    return (protocol_name_of(spec),)


def _hole(cell: dict[str, Any]) -> Hole:
    spec = cell.get("spec") or {}
    source = spec.get("source", "prior")
    role = cell.get("role") or (source if source in ("prior", "real", "reconstruction") else "source")
    label = str(cell.get("label", ""))
    key = row_key(role, label, spec) if spec else f"manifest:{label}"
    return Hole(key, label, role, spec, str(cell.get("unsupported") or ""))
