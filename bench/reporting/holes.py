"""Cells that a sweep asked for and that have no record: where each belongs, and what it would have been called.

A manifest knows a cell's run key, label and overrides only, so its configuration is read off the nearest cell of the
same sweep that has a record, with the overrides that differ laid over it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.records import Record, Sweep

SEED_KEYS = ("seed", "sampler.seed")


@dataclass(frozen=True)
class Hole:
    """One missing run.

    repeats_of: run key of a recorded cell that differs from this one in seeds alone; "" where there is none.
    identity: equal for missing runs that differ in seeds alone.
    """

    run_key: str
    label: str
    role: str
    dataset: str
    protocol: str
    spec: dict[str, Any]
    repeats_of: str
    identity: str


def holes_of(sweeps: Iterable[Sweep], records: Sequence[Record], protocols: dict[str, tuple[str, ...]]) -> list[Hole]:
    """All cells without a record, each once. protocols: record id -> protocol ids."""
    by_key = {record.run_key: record for record in records}
    found: dict[str, Hole] = {}
    for sweep in sweeps:
        recorded = [(cell, by_key[cell["run_key"]]) for cell in sweep.cells if cell["run_key"] in by_key]
        for cell in sweep.cells:
            if cell["run_key"] not in by_key and cell["run_key"] not in found:
                found[cell["run_key"]] = _hole(cell, recorded, records, protocols)
    return list(found.values())


def _hole(cell: dict[str, Any], recorded: list[tuple[dict[str, Any], Record]], records: Sequence[Record],
          protocols: dict[str, tuple[str, ...]]) -> Hole:
    mine = parse_overrides(cell.get("overrides", ()))
    siblings = sorted(recorded, key=lambda pair: (_distance(mine, parse_overrides(pair[0].get("overrides", ()))),
                                                  pair[1].role != "prior"))
    spec: dict[str, Any] = {}
    repeats_of = ""
    if siblings:
        nearest, record = siblings[0]
        theirs = parse_overrides(nearest.get("overrides", ()))
        if _without_seeds(theirs) == _without_seeds(mine):
            repeats_of = record.run_key
        spec = copy.deepcopy(record.spec)
        if theirs.get("prior") != mine.get("prior"):
            spec["sampler"] = {}
            spec["prior"] = {"name": mine.get("prior", "")}
    for key, value in mine.items():
        _set(spec, key, value)
    dataset = str(spec.get("dataset", {}).get("name", "unknown data set"))
    role = str(cell.get("role", "prior"))
    identity = json.dumps([role, dataset, sorted(_without_seeds(mine).items())], default=str)
    protocol = _protocol(spec, dataset, records, protocols)
    return Hole(cell["run_key"], str(cell.get("label", "")), role, dataset, protocol, spec, repeats_of, identity)


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """["prior=absorbing", "sampler.steps=8"] -> {"prior": "absorbing", "sampler.steps": 8}."""
    parsed: dict[str, Any] = {}
    for override in overrides:
        key, _, text = override.lstrip("+").partition("=")
        try:
            parsed[key] = json.loads(text)
        except json.JSONDecodeError:
            parsed[key] = text.strip("'\"")
    return parsed


def _protocol(spec: dict[str, Any], dataset: str, records: Sequence[Record],
              protocols: dict[str, tuple[str, ...]]) -> str:
    """The protocol id that records of this data set and protocol name have, or the name where none has."""
    name = spec.get("protocol", {}).get("name", "unknown protocol")
    for record in reversed(records):
        if (record.spec.get("dataset", {}).get("name"), record.spec.get("protocol", {}).get("name")) == (dataset, name):
            return protocols[record.id][0]
    return str(name)


def _set(spec: dict[str, Any], key: str, value: Any) -> None:
    """Lay one override over a configuration, as Hydra would: `prior=x` chooses, `prior.width=8` is an option."""
    parts = key.split(".")
    if key == "preset":
        return
    if len(parts) == 1 and parts[0] in ("prior", "vq", "dataset", "protocol", "launcher"):
        spec.setdefault(parts[0], {})["name"] = value
    elif len(parts) == 2 and parts[0] in ("prior", "vq") and parts[1] not in ("name", "target", "path", "layout"):
        spec.setdefault(parts[0], {}).setdefault("options", {})[parts[1]] = value
    else:
        for part in parts[:-1]:
            spec = spec.setdefault(part, {})
        spec[parts[-1]] = value


def _distance(a: dict[str, Any], b: dict[str, Any]) -> int:
    """How many overrides differ; another prior or data set weighs most, a seed least."""
    weight = {"prior": 1000, "dataset": 1000, "protocol": 1000, "seed": 1, "sampler.seed": 1}
    return sum(weight.get(key, 10) for key in a.keys() | b.keys() if a.get(key) != b.get(key))


def _without_seeds(overrides: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in overrides.items() if key not in SEED_KEYS}
