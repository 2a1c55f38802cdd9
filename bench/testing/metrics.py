"""The checks behind `bench.testing.check_metric`; each docstring's first line is the fact it establishes."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

from bench.metrics.base import Column, Evidence
from bench.records import Measurement
from bench.testing.contracts import CheckFailed, Note, require

NOTHING = "Nothing was measured: it does not apply to this evidence; pass evidence=... with what it needs."


@dataclass
class MetricCase:
    metric: Any
    evidence: Evidence
    measured: list[Measurement] = field(default_factory=list, init=False)


def describes_itself(case: MetricCase) -> Note:
    """The metric has a name, columns with unit, direction and version, and states what it depends on."""
    metric = case.metric
    require(isinstance(metric.name, str) and bool(metric.name), f"name is {metric.name!r}")
    require(bool(metric.columns) and all(isinstance(column, Column) for column in metric.columns.values()),
            f"columns is {metric.columns!r}, expected a dict of bench.metrics.base.Column")
    require(isinstance(metric.depends_on, tuple), f"depends_on is {metric.depends_on!r}, expected a tuple of spec keys")
    return None


def measures(case: MetricCase) -> Note:
    """Every measurement is of a stated column, under the protocol's id: a number, or a note that says why not."""
    if not case.metric.applies(case.evidence):
        return NOTHING
    case.measured = case.metric(case.evidence)
    require(bool(case.measured), "nothing was measured: return a Measurement of value None whose note says why")
    for m in case.measured:
        require(isinstance(m, Measurement), f"{m!r} is no bench.records.Measurement")
        require(m.metric in case.metric.columns, f"'{m.metric}' is none of the columns {sorted(case.metric.columns)}")
        require(m.protocol == case.evidence.protocol_id, f"{m.metric} carries protocol '{m.protocol}'")
        require(m.unit == case.metric.columns[m.metric].unit, f"{m.metric} is in '{m.unit}', its column is not")
        require(m.better == case.metric.columns[m.metric].better, f"{m.metric} says better={m.better}, its column not")
        require(m.value is not None or bool(m.note), f"{m.metric} has neither value nor note")
        require(m.value is None or math.isfinite(m.value), f"{m.metric} is {m.value}")
    return None


def intervals_are_in_order(case: MetricCase) -> Note:
    """Where an interval is given, its lower end is no higher than its upper end."""
    if not case.measured:
        return NOTHING
    for m in case.measured:
        if m.ci_low is not None and m.ci_high is not None:
            require(m.ci_low <= m.ci_high, f"{m.metric} has [{m.ci_low}, {m.ci_high}]")
    return None


def records_can_hold_them(case: MetricCase) -> Note:
    """Measurements can be written to a record."""
    if not case.measured:
        return NOTHING
    try:
        json.dumps([dataclasses.asdict(m) for m in case.measured], allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckFailed(f"they are not plain JSON: {error}") from error
    return None


def measuring_repeats(case: MetricCase) -> Note:
    """Measuring the same evidence again gives the same values."""
    if not case.measured:
        return NOTHING
    again = [m.value for m in case.metric(case.evidence)]
    require(again == [m.value for m in case.measured], f"{[m.value for m in case.measured]} became {again}")
    return None


METRIC_CHECKS = (describes_itself, measures, intervals_are_in_order, records_can_hold_them, measuring_repeats)
