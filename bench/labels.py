"""How tables and messages name a row: the one place where a run gets its label."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from bench.config import SOURCES, RunSpec
from bench.data.foreign import name_of
from bench.schema import schema_of


def label_of(spec: RunSpec) -> str:
    """The run's `label`, or the prior, its condition, and what of its sampler differs from the defaults."""
    if spec.label or spec.source != "prior":
        return spec.label or (spec.source if spec.source in SOURCES else name_of(spec.source))
    sampler = schema_of(spec.prior, "priors")[1]
    defaults = {field.name: field.default for field in dataclasses.fields(sampler)} if sampler else {}
    changed = [f"{key} {value}" for key, value in spec.sampler.items() if key != "seed" and value != defaults.get(key)]
    told = [spec.condition.name] if spec.condition.name != "none" else []
    return ", ".join([spec.prior.title, *told, *changed])


def label_as_asked(spec: RunSpec, overrides: Sequence[str]) -> str:
    """The same in the words of the command line, for a row that may never run."""
    if spec.label or spec.source != "prior":
        return label_of(spec)
    shown = [text for text in overrides if text.startswith(("sampler.", "prior.", "condition"))]
    return ", ".join([spec.prior.title, *shown])
