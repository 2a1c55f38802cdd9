"""Means over seeds, and differences, with intervals no narrower than what each run knows of itself.

    combine([Point(220.1, 216.0, 224.0, 2.0), Point(221.9, 218.0, 226.0, 2.0)]).value   # 221.0
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import t as student

NORMAL_95 = 1.959964
Seeds = tuple[int, int]
"""(training seed, sampling seed)."""


@dataclass(frozen=True)
class Point:
    """One run's value, its own 95% interval and standard error where it has them."""

    value: float
    low: float | None = None
    high: float | None = None
    standard_error: float | None = None


@dataclass(frozen=True)
class Estimate:
    """value with a 95% interval (None: no sound one at hand).  basis: in words, where the interval comes from."""

    value: float
    low: float | None
    high: float | None
    basis: str

    @property
    def has_interval(self) -> bool:
        return self.low is not None and self.high is not None


def combine_runs(points: Mapping[Seeds, Point]) -> Estimate:
    """`combine` over sampling seeds, or over trainings where there are several."""
    if len({training for training, _ in points}) > 1:
        return combine(list(average_by_training(points).values()), "trainings")
    return combine(list(points.values()))


def average_by_training(points: Mapping[Seeds, Point]) -> dict[Seeds, Point]:
    """The mean over the sampling seeds of each training, with the interval and error of a single run.

    Runs of one training share its luck: three samplings of it are one measurement of what training varies.
    """
    found = {}
    for seed in sorted({training for training, _ in points}):
        own = [point for (training, _), point in sorted(points.items()) if training == seed]
        low, high = _own_interval(own) or (None, None)
        found[seed, 0] = Point(math.fsum(p.value for p in own) / len(own), low, high, mean_standard_error(own))
    return found


def combine(points: Sequence[Point], what: str = "runs") -> Estimate:
    """Mean over runs that differ in their seeds alone.

    One or two runs: their own intervals, averaged.  Three or more: the wider of that and Student's t over runs, for a
    run's own interval may cover what seeds do not vary (the images of a likelihood) and the reverse.
    """
    mean = math.fsum(p.value for p in points) / len(points)
    own = _own_interval(points)
    spread = t_interval([p.value for p in points]) if len(points) >= 3 else None
    runs = f"mean of {len(points)} {what}, " if len(points) > 1 else ""
    if spread and (not own or spread[1] - spread[0] >= own[1] - own[0]):
        return Estimate(mean, *spread, f"{runs}95% interval over seeds (Student's t)")
    if own:
        return Estimate(mean, *own, f"{runs}95% interval of a single run")
    return Estimate(mean, None, None, f"{runs}no sound interval at hand")


def difference(ours: Sequence[Point], theirs: Sequence[Point], *, paired: bool) -> Estimate:
    """ours - theirs.

    paired: the i-th runs share their seeds, so with three or more pairs that differ the interval is Student's t over
    the pairwise differences; but no narrower than the interval of a single run, for what seeds do not vary (the real
    images, the images of a likelihood) they do not average out, and three pairs may agree by chance.  Otherwise the
    standard errors add in squares, which is conservative where both were judged against the same real images.
    """
    effect = math.fsum(p.value for p in ours) / len(ours) - math.fsum(p.value for p in theirs) / len(theirs)
    gaps = [a.value - b.value for a, b in zip(ours, theirs, strict=False)]
    errors = [mean_standard_error(ours), mean_standard_error(theirs)]
    if paired and len(gaps) >= 3 and max(gaps) > min(gaps):
        return _paired(effect, gaps, NORMAL_95 * max(error or 0.0 for error in errors))
    if any(error is None for error in errors):
        return Estimate(effect, None, None, "no standard error at hand and fewer than three pairs of seeds")
    half = NORMAL_95 * math.hypot(*(error for error in errors if error is not None))
    return Estimate(effect, effect - half, effect + half, "standard errors added in squares")


def _paired(effect: float, gaps: Sequence[float], least: float) -> Estimate:
    """least: half the width that the interval has at least."""
    low, high = t_interval(gaps)
    basis = f"{len(gaps)} pairs of equal seeds, Student's t"
    if (high - low) / 2 >= least:
        return Estimate(effect, low, high, basis)
    return Estimate(effect, effect - least, effect + least, f"{basis} widened to the 95% interval of a single run")


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """95% interval of the mean of n >= 2 values."""
    n = len(values)
    mean = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = float(student.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    return mean - half, mean + half


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """At least 95% interval of the median of n independent values, whatever their distribution; None for n < 6.

    Between the k-th lowest and the k-th highest, k the largest with P(Binomial(n, 1/2) < k) <= 0.025: the sign test
    inverted, which one round beside a busy neighbour cannot move as it moves a mean.
    """
    n, ordered = len(values), sorted(values)
    outside = [math.fsum(math.comb(n, i) for i in range(k)) / 2**n for k in range(1, n // 2 + 1)]
    k = sum(share <= 0.025 for share in outside)
    return (ordered[k - 1], ordered[n - k]) if k else None


def mean_standard_error(points: Sequence[Point]) -> float | None:
    """Root mean square of the runs' standard errors: not divided by the number of runs, for they share images."""
    errors = [_standard_error(p) for p in points]
    if any(error is None for error in errors):
        return None
    return math.sqrt(math.fsum(error**2 for error in errors if error is not None) / len(errors))


def _standard_error(point: Point) -> float | None:
    if point.standard_error:
        return point.standard_error
    if point.low is not None and point.high is not None:   # also of a share of 0 or 1, whose plain error is 0
        return (point.high - point.low) / (2 * NORMAL_95)
    return point.standard_error


def _own_interval(points: Sequence[Point]) -> tuple[float, float] | None:
    pairs = [(p.low, p.high) for p in points if p.low is not None and p.high is not None]
    if len(pairs) < len(points):
        return None
    return math.fsum(low for low, _ in pairs) / len(pairs), math.fsum(high for _, high in pairs) / len(pairs)
