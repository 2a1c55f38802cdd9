"""Clipped Density and Clipped Coverage (Salvy et al. 2025, arXiv 2507.01761): shares of good samples.

    result = clipped(fake, real, k=5, memory_gb=2.0)      # result.density, result.coverage, result.interval("density")

Density: the radii of the real balls are clipped at their median, so that outliers lend no room; a sample counts with
the number of balls that hold it over k, at most 1; the mean is divided by that of the real images themselves, at most
1.  Coverage: a real image counts with the number of samples in its unclipped ball over k, at most 1; the mean is turned
into the share of good samples that would give as much, because a ball that k of N - 1 others define has a mass of
Beta(k, N - k), whatever the distribution.  Both fall linearly with the share of bad samples, which density and coverage
do not.  As in the authors' code: `<=` on a clipped radius, `<` on an unclipped one, and shares in steps of 1/(n + 1).

Intervals are of a grouped jackknife.  That of coverage is of the mean before calibration, carried over end by end:
calibration flattens nothing there, while its own value sticks at 1 where samples are as good as real images.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.stats import betabinom

from bench.metrics.intervals import clip_interval, jackknife_error, jackknife_groups, student_interval
from bench.metrics.pairwise import ROUNDING, Space, nearest_points, neighbour_radii, neighbours_kept
from bench.metrics.prdc import (
    LEAST_FOR_ERRORS,
    NO_REPLICATES,
    NOT_ASKED,
    NUM_GROUPS,
    PAIRS_AT_ONCE,
    Pairs,
    add_rows,
    block_size,
    check_sides,
    pairs_within,
)

COLUMNS = ("clipped_density", "clipped_coverage")


@dataclass(frozen=True)
class ClippedResult:
    """Both scores, and what their intervals are made of.

    relative: mean over samples against that of real images, which is clipped_density before its cap at 1.
    filled: mean share of k samples in a real image's ball, which calibration turns into clipped_coverage.
    jackknife: (20, 2) of these two without a group; empty where `note` says why there is no interval.
    """

    relative: float
    filled: float
    k: int
    n: int
    n_real: int
    jackknife: np.ndarray = field(default_factory=lambda: np.empty((0, 2)), repr=False)
    note: str = ""

    @property
    def density(self) -> float:
        return min(self.relative, 1.0)

    @property
    def coverage(self) -> float:
        return calibrated(self.filled, k=self.k, n=self.n, n_real=self.n_real)

    def values(self) -> dict[str, float]:
        return dict(zip(COLUMNS, (self.density, self.coverage), strict=True))

    def interval(self, column: str) -> tuple[float, float] | None:
        """95% interval of a column; None where `note` says why."""
        if not len(self.jackknife):
            return None
        index = COLUMNS.index(column)
        error = float(jackknife_error(self.jackknife)[index])
        low, high = clip_interval(student_interval((self.relative, self.filled)[index], error, degrees=NUM_GROUPS - 1),
                                  0.0, 1.0)
        if index == 0:
            return min(low, 1.0), high
        low, high = (calibrated(end, k=self.k, n=self.n, n_real=self.n_real) for end in (low, high))
        return low, high


def clipped(fake: np.ndarray, real: np.ndarray, *, k: int, memory_gb: float = 2.0,
            uncertainty: bool = True) -> ClippedResult:
    """Scores of (n, D) fake against (m, D) real features, float32, using at most `memory_gb` beyond them.

    Raises InputError for NaN, other types, unequal dimensions, k < 1, fewer than k + 1 images, too small a budget.
    """
    check_sides(fake, real, k)
    note = "" if uncertainty else NOT_ASKED
    if uncertainty and min(len(fake), len(real)) < max(LEAST_FOR_ERRORS, 4 * (k + 1)):
        uncertainty, note = False, NO_REPLICATES
    present = tuple(_present(len(x), uncertainty) for x in (fake, real))
    space = Space.of(fake, real, block=block_size(fake, real, memory_gb, present[0].shape[1]))
    nearest = nearest_points(space, 1, keep=neighbours_kept(k))
    radii = neighbour_radii(space, 1, k=k, present=present[1], nearest=nearest)
    limits = np.minimum(radii, _medians(radii, present[1]))
    own = _balls_of_neighbours(space, nearest, limits, present[1])       # (m, C)
    balls, samples = _across(space, radii, limits, present)              # (n, C), (m, C)
    relative = _mean_filled(balls, k, present[0]) / _mean_filled(own, k, present[1])
    filled = _mean_filled(samples, k, present[1])
    return ClippedResult(float(relative[0]), float(filled[0]), k, len(fake), len(real),
                         np.stack([relative, filled], axis=1)[1:], note)


def calibrated(filled: float, *, k: int, n: int, n_real: int) -> float:
    """The share of n samples that would fill the balls as much if they were real images, in steps of 1/(n + 1)."""
    return float(np.searchsorted(expected_filled(k=k, n=n, n_real=n_real), filled) / (n + 1))


def expected_filled(*, k: int, n: int, n_real: int) -> np.ndarray:
    """(n + 1,): E[min(J, k)] / k of a ball where 0..n samples are drawn as the real images are.

    J is beta-binomial(k, n_real - k).
    """
    drawn, inside = np.arange(n + 1)[:, None], np.arange(k)
    return 1 - ((k - inside) * betabinom.pmf(inside, drawn, k, n_real - k)).sum(axis=1) / k


def _present(num: int, uncertainty: bool) -> np.ndarray:
    """(num, C) bool, who is there: everyone; then all but one jackknife group."""
    everyone = np.ones((num, 1), bool)
    if not uncertainty:
        return everyone
    return np.concatenate([everyone, jackknife_groups(num, NUM_GROUPS)[:, None] != np.arange(NUM_GROUPS)], axis=1)


def _medians(radii: np.ndarray, present: np.ndarray) -> np.ndarray:
    """(C,) float32: the median radius of the images present."""
    return np.array([np.median(radii[present[:, c], c].astype(np.float64)) for c in range(radii.shape[1])], np.float32)


def _balls_of_neighbours(space: Space, nearest: tuple[np.ndarray, np.ndarray, float], limits: np.ndarray,
                         present: np.ndarray) -> np.ndarray:
    """(m, C): how many other real images have this one in their clipped ball.

    Column 0 is exact; in the others both sides of a comparison are rounded alike.
    """
    squares, indices, bound = nearest
    counts = np.zeros(present.shape, np.int32)
    widest = np.square(limits.max(axis=1), dtype=np.float64)
    centre, place = np.nonzero(squares <= (widest * (1 + ROUNDING) + bound)[:, None])
    for s in range(0, len(centre), PAIRS_AT_ONCE):
        i, j = centre[s:s + PAIRS_AT_ONCE], indices[centre[s:s + PAIRS_AT_ONCE], place[s:s + PAIRS_AT_ONCE]]
        rough = np.sqrt(np.maximum(squares[i, place[s:s + PAIRS_AT_ONCE]], 0))
        inside = rough[:, None] <= limits[i] * np.float32(1 + ROUNDING)
        inside[:, 0] = space.distances(1, 1, i, j) <= limits[i, 0]
        add_rows(counts, j, inside & present[i] & present[j])
    return counts


def _across(space: Space, radii: np.ndarray, limits: np.ndarray,
            present: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(n, C) clipped balls that hold each sample, and (m, C) samples in each unclipped ball."""
    balls, samples = (np.zeros(side.shape, np.int32) for side in present)
    for rows, columns, squares, bound in space.blocks(1, 0):
        pairs = pairs_within(space, 1, rows, columns, squares, bound, limits)
        for some in _pieces(pairs):
            inside = some.distance[:, None] <= limits[some.centre]
            add_rows(balls, some.point, inside & present[1][some.centre] & present[0][some.point])
        pairs = pairs_within(space, 1, rows, columns, squares, bound, radii)
        for some in _pieces(pairs):
            inside = some.distance[:, None] < radii[some.centre]
            add_rows(samples, some.centre, inside & present[1][some.centre] & present[0][some.point])
    return balls, samples


def _pieces(pairs: Pairs) -> list[Pairs]:
    return [Pairs(*(part[s:s + PAIRS_AT_ONCE] for part in (pairs.centre, pairs.point, pairs.distance)))
            for s in range(0, len(pairs.centre), PAIRS_AT_ONCE)]


def _mean_filled(counts: np.ndarray, k: int, present: np.ndarray) -> np.ndarray:
    """(C,): the mean of min(count, k) / k over those present."""
    return (np.minimum(counts, k) * present).sum(axis=0) / (k * present.sum(axis=0))
