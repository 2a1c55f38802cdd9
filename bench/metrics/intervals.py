"""Interval helpers: pure functions from numbers to standard errors and 95% intervals.

    low, high = student_interval(0.42, standard_error=0.01, degrees=19)

A formula is used for a metric only where its coverage was measured (tests/bench/metrics, marked slow).
"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

LEVEL = 0.95


def normal_interval(value: float, standard_error: float, *, level: float = LEVEL) -> tuple[float, float]:
    """value -+ z * standard_error."""
    half = stats.norm.ppf(0.5 + level / 2) * _checked(standard_error)
    return float(value - half), float(value + half)


def student_interval(value: float, standard_error: float, *, degrees: int,
                     level: float = LEVEL) -> tuple[float, float]:
    """value -+ t * standard_error, for a standard error that itself has so many degrees of freedom."""
    if degrees < 1:
        raise ValueError(f"degrees of freedom are {degrees}, expected at least 1")
    half = stats.t.ppf(0.5 + level / 2, degrees) * _checked(standard_error)
    return float(value - half), float(value + half)


def wilson_interval(share: float, num: float, *, degrees: int | None = None,
                    level: float = LEVEL) -> tuple[float, float]:
    """Score interval of a binomial share (Wilson 1927): sound at 0 and 1, where share -+ z*se has no width.

    num: trials, or the effective number of them; `degrees`: of freedom behind that number where it is an estimate.
    """
    if num <= 0 or not 0 <= share <= 1:
        raise ValueError(f"a share in [0, 1] of some trials is expected, got {share} of {num}")
    z = stats.norm.ppf(0.5 + level / 2) if degrees is None else stats.t.ppf(0.5 + level / 2, degrees)
    centre = (share + z**2 / (2 * num)) / (1 + z**2 / num)
    half = z / (1 + z**2 / num) * math.sqrt(share * (1 - share) / num + z**2 / (4 * num**2))
    low = 0.0 if share == 0 else max(0.0, centre - half)   # exactly: centre and half differ there by rounding alone
    high = 1.0 if share == 1 else min(1.0, centre + half)
    return float(low), float(high)


def clip_interval(interval: tuple[float, float], low: float, high: float) -> tuple[float, float]:
    """The part of an interval inside [low, high], for quantities that cannot leave it."""
    return max(low, interval[0]), min(high, interval[1])


def jackknife_groups(num: int, num_groups: int) -> np.ndarray:
    """(num,) int64: a group for every item, of sizes that differ by at most one, assigned by a fixed shuffle.

    The shuffle makes groups alike where items come sorted (by class, by file name).
    """
    if not 2 <= num_groups <= num:
        raise ValueError(f"{num_groups} groups of {num} items; expected 2 to {num} groups")
    return np.random.default_rng(0).permutation(np.arange(num) % num_groups)


def random_halves(num: int, num_halvings: int, *, seed: int) -> np.ndarray:
    """(num, num_halvings) bool: the first half of each random halving; an odd item goes to the second."""
    first = np.arange(num) < num // 2
    generator = np.random.default_rng(seed)
    return np.stack([generator.permutation(first) for _ in range(num_halvings)], axis=1)


def jackknife_error(replicates: np.ndarray) -> np.ndarray:
    """Standard error from leave-one-group-out values (Quenouille-Tukey).

    replicates: (g,) or (g, metrics) float64.  Returns () or (metrics,): sqrt((g-1)/g * sum of squared deviations).
    """
    g = len(replicates)
    if g < 2:
        raise ValueError(f"{g} replicates; a jackknife needs at least 2")
    return np.sqrt((g - 1) / g * np.square(replicates - replicates.mean(axis=0)).sum(axis=0))


def jackknife_corrected(value: float, replicates: np.ndarray) -> float:
    """The value with its bias of order 1/n removed: g * value - (g - 1) * mean of the replicates."""
    g = len(replicates)
    return float(g * value - (g - 1) * np.mean(replicates))


def mean_error(values: np.ndarray) -> float:
    """Standard error of the mean of independent values (n,)."""
    if len(values) < 2:
        raise ValueError(f"{len(values)} values; a standard error needs at least 2")
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def _checked(standard_error: float) -> float:
    if not (math.isfinite(standard_error) and standard_error >= 0):
        raise ValueError(f"standard error is {standard_error}, expected a finite number >= 0")
    return standard_error
