"""FID, KID, MIND, PRDC and its clipped kin as metrics of a run: from evidence to measurements with their intervals.

    metric = FrechetDistance()
    measurements = metric(evidence)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bench.data.arrays import spread
from bench.errors import InputError, did_you_mean
from bench.metrics.base import Evidence
from bench.metrics.checks import all_rows_equal, check_features
from bench.metrics.clipped import clipped
from bench.metrics.columns import Column, column_of, columns
from bench.metrics.exchange import reference_of
from bench.metrics.features import OfFeatures
from bench.metrics.frechet import FrechetResult, cached_reference, fid_to
from bench.metrics.intervals import normal_interval
from bench.metrics.kernel import KernelResult, kid
from bench.metrics.mind import MindResult, mind
from bench.metrics.prdc import PrdcResult, prdc, prdc_reference
from bench.records import Measurement

LEAST_FOR_INTERVAL = 30   # images a side; at 16 the intervals of FID covered 88%


@dataclass
class FrechetDistance(OfFeatures):
    """FID of all fakes against all reals, and its value without the bias of order 1/n."""

    name: str = "fid"
    columns: dict[str, Column] = field(default_factory=lambda: columns("fid", "fid_infinity"))
    depends_on: tuple[str, ...] = ("protocol",)

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        if evidence.protocol.reference:
            return self._to_statistics(evidence)
        fake, real = evidence.features("fake"), evidence.features("real")
        check_features(fake, real, least=2)
        result = fid_to(cached_reference(real, evidence.caches), fake, real=real)
        reason = why_no_interval(fake, real)
        value = fid_measurement(result, reason, evidence.protocol_id, label=f"FID@{result.n}", method=result.method,
                                fid_infinity=result.fid_infinity)
        infinity = Measurement("fid_infinity", None if reason else result.fid_infinity, evidence.protocol_id,
                               n=result.n, better=self.columns["fid_infinity"].better,
                               note=reason or result.infinity_note)
        return [value, infinity]

    def _to_statistics(self, evidence: Evidence) -> list[Measurement]:
        """Against mean and covariance that `protocol.reference` holds; there are no images behind an interval."""
        saved, fake = reference_of(evidence.protocol), evidence.features("fake")
        check_features(fake, fake, least=2)
        result = fid_to(saved.reference(), fake)
        reason = "against statistics of a file: without its images there is no interval"
        value = fid_measurement(result, reason, evidence.protocol_id, label=f"FID@{result.n}", method=result.method)
        return [replace(value, extra=value.extra | {"num_real": saved.n}),
                Measurement("fid_infinity", None, evidence.protocol_id, n=result.n,
                            better=self.columns["fid_infinity"].better, note=reason)]


def fid_measurement(result: FrechetResult, reason: str, protocol_id: str, *, label: str, **extra: Any) -> Measurement:
    """A distance as a measurement, without interval where there is a `reason` (`why_no_interval`) to have none."""
    error = result.standard_error
    low, high = (None, None) if reason or error is None else normal_interval(result.value, error)
    return Measurement("fid", result.value, protocol_id, n=result.n, ci_low=low, ci_high=high, standard_error=error,
                       better=column_of("fid").better, note=reason or result.note,
                       extra={"label": label, "num_real": result.n_real, **extra})


@dataclass
class KernelDistance(OfFeatures):
    """KID of all fakes against all reals."""

    name: str = "kid"
    columns: dict[str, Column] = field(default_factory=lambda: columns("kid"))
    depends_on: tuple[str, ...] = ("protocol",)

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        fake, real = evidence.features("fake"), evidence.features("real")
        return [_distance("kid", kid(fake, real), why_no_interval(fake, real), evidence)]


@dataclass
class MongeDistance(OfFeatures):
    """MIND of all fakes against all reals."""

    name: str = "mind"
    columns: dict[str, Column] = field(default_factory=lambda: columns("mind"))
    depends_on: tuple[str, ...] = ("protocol",)

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        fake, real = evidence.features("fake"), evidence.features("real")
        result = mind(fake, real)
        return [_distance("mind", result, why_no_interval(fake, real), evidence, least=0.0, label=f"MIND@{result.n}")]


def _distance(name: str, result: KernelResult | MindResult, reason: str, evidence: Evidence, *,
              least: float = -math.inf, **extra: Any) -> Measurement:
    """With a normal interval from `least` up; without one where there is a `reason` to have none."""
    low, high = (None, None) if reason else normal_interval(result.value, result.standard_error)
    return Measurement(name, result.value, evidence.protocol_id, n=result.n,
                       ci_low=None if low is None else max(least, low), ci_high=high,
                       standard_error=result.standard_error, better=column_of(name).better, note=reason,
                       extra={"num_real": result.n_real, **extra})


@dataclass
class PrecisionRecall(OfFeatures):
    """Precision, recall, density and coverage of `protocol.prdc_num` images a side."""

    name: str = "prdc"
    columns: dict[str, Column] = field(default_factory=lambda: columns(
        "precision", "recall", "density", "coverage"))
    depends_on: tuple[str, ...] = ("protocol", "metrics.prdc")

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        num, k = evidence.protocol.prdc_num, evidence.protocol.prdc_k
        fake, real = (spread(evidence.features(side), num) for side in ("fake", "real"))
        result = self._measure(fake, real, k=k, evidence=evidence)
        note = why_no_interval(fake, real)
        measurements = []
        for column, value in result.values().items():
            low, high = (None if note else result.interval(column)) or (None, None)
            measurements.append(Measurement(
                column, value, evidence.protocol_id, n=result.n, ci_low=low, ci_high=high,
                standard_error=result.standard_error(column), better=self.columns[column].better,
                note=note or result.note, extra={"k": k, "num_real": result.n_real, "ties": result.ties}))
        return measurements

    def _measure(self, fake: np.ndarray, real: np.ndarray, *, k: int, evidence: Evidence) -> PrdcResult:
        backend = evidence.settings.prdc.backend
        if backend == "blocked":
            return prdc(fake, real, k=k, memory_gb=evidence.settings.memory_gb)
        if backend == "reference":
            return prdc_reference(fake, real, k=k)
        raise InputError(f"metrics.prdc.backend={backend}. {did_you_mean(backend, ['blocked', 'reference'])}")


@dataclass
class ClippedQuality(OfFeatures):
    """Clipped density and coverage of `protocol.prdc_num` images a side."""

    name: str = "clipped"
    columns: dict[str, Column] = field(default_factory=lambda: columns("clipped_density", "clipped_coverage"))
    depends_on: tuple[str, ...] = ("protocol",)

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        num, k = evidence.protocol.prdc_num, evidence.protocol.prdc_k
        fake, real = (spread(evidence.features(side), num) for side in ("fake", "real"))
        result, note = clipped(fake, real, k=k, memory_gb=evidence.settings.memory_gb), why_no_interval(fake, real)
        measurements = []
        for column, value in result.values().items():
            low, high = (None if note else result.interval(column)) or (None, None)
            measurements.append(Measurement(
                column, value, evidence.protocol_id, n=result.n, ci_low=low, ci_high=high,
                better=self.columns[column].better, note=note or result.note,
                extra={"k": k, "num_real": result.n_real, "relative": result.relative, "filled": result.filled}))
        return measurements


def why_no_interval(fake: np.ndarray, real: np.ndarray) -> str:
    """The reason, or "" where an interval is sound (its coverage is measured by the tests)."""
    for side, features in (("fake", fake), ("real", real)):
        if len(features) < LEAST_FOR_INTERVAL:
            return f"{len(features)} {side} images: below {LEAST_FOR_INTERVAL} the interval covers too seldom"
        if all_rows_equal(features):
            return f"all {side} images have the same features: no interval"
    return ""
