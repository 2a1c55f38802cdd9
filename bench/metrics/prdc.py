"""Precision, recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020) in bounded memory.

    result = prdc(fake, real, k=5, memory_gb=2.0)     # result.precision, ..., result.interval("recall")

The output is that of the prdc package: Euclidean distances in float32, k neighbours without the point itself, strict
`<`.  It can differ only where a distance equals a radius (`ties` counts these pairs), for there the package compares
rounding noise.

Errors come from the same pass, each replicate a column of "who is present".  Density is smooth enough for a block
jackknife.  The other three are not: leaving 5% out overstates their error by 30-90%, and the binomial formula, which
ignores that neighbours share balls, understates it by as much.  They take the spread between random halves instead:
the two halves are independent, and the design effect that they show (variance over binomial variance) hardly depends
on n, so it widens a Wilson interval.  tests/bench/metrics measures the coverage of all four.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, field

import numpy as np

from bench.errors import InputError
from bench.metrics.checks import check_features
from bench.metrics.intervals import (
    clip_interval,
    jackknife_error,
    jackknife_groups,
    random_halves,
    student_interval,
    wilson_interval,
)
from bench.metrics.pairwise import ROUNDING, Space, neighbour_radii, sparse_nonzero

COLUMNS = ("precision", "recall", "density", "coverage")
SHARES = ("precision", "recall", "coverage")
NUM_GROUPS = 20        # of the jackknife
NUM_HALVINGS = 20
LEAST_FOR_ERRORS = 100
MAX_BLOCK = 2048
PAIRS_AT_ONCE = 1 << 16
NO_REPLICATES = f"fewer than {LEAST_FOR_ERRORS} images a side: no sound interval at hand"
NO_REFERENCE_INTERVAL = "the prdc package gives no interval: use metrics.prdc.backend=blocked"
NOT_ASKED = "uncertainty was not asked for"


@dataclass(frozen=True)
class PrdcResult:
    """The four values and what their intervals are made of.

    ties: pairs exactly on a radius (None from the package, which does not count them).
    jackknife: (20, 4) leave-one-group-out values.  halves: (20, 2, 4) values of disjoint halves.  Both empty where
    `note` says why there are no intervals.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    k: int
    n: int
    n_real: int
    ties: int | None
    jackknife: np.ndarray = field(default_factory=lambda: np.empty((0, 4)), repr=False)
    halves: np.ndarray = field(default_factory=lambda: np.empty((0, 2, 4)), repr=False)
    note: str = ""

    @property
    def has_replicates(self) -> bool:
        return len(self.halves) > 0

    def values(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in COLUMNS}

    def standard_error(self, column: str) -> float | None:
        """Of the value, over new draws of both sides."""
        if not self.has_replicates:
            return None
        if column == "density":
            return float(jackknife_error(self.jackknife)[COLUMNS.index(column)])
        value = getattr(self, column)
        return float(np.sqrt(value * (1 - value) / self._effective_num(column)))

    def interval(self, column: str) -> tuple[float, float] | None:
        """95% interval; None where `note` says why."""
        value, error = getattr(self, column), self.standard_error(column)
        if error is None:
            return None
        if column == "density":
            return clip_interval(student_interval(value, error, degrees=NUM_GROUPS - 1), 0.0, np.inf)
        return wilson_interval(value, self._effective_num(column), degrees=NUM_HALVINGS)

    def _effective_num(self, column: str) -> float:
        num = self.n if column == "precision" else self.n_real
        return effective_num(self.halves[:, :, COLUMNS.index(column)], num)


def effective_num(halves: np.ndarray, num: int) -> float:
    """How many independent trials would give a share the spread that disjoint halves (h, 2) of `num` items show.

    The design effect of a half, its variance over the binomial one, is taken for that of the whole.
    """
    share = halves.mean()
    variance = np.square(halves[:, 0] - halves[:, 1]).mean() / 2         # of one half
    if variance == 0:
        return float(num)
    return float(min(num, 2 * share * (1 - share) / variance))


def prdc(fake: np.ndarray, real: np.ndarray, *, k: int, memory_gb: float = 2.0, uncertainty: bool = True) -> PrdcResult:
    """PRDC of (n, D) fake against (m, D) real features, float32, using at most `memory_gb` beyond them.

    uncertainty: also the replicates behind the intervals (about a third of the time).
    Raises InputError for NaN, other types, unequal dimensions, k < 1, fewer than k + 1 images, too small a budget.
    """
    check_sides(fake, real, k)
    note = "" if uncertainty else NOT_ASKED
    if uncertainty and min(len(fake), len(real)) < max(LEAST_FOR_ERRORS, 4 * (k + 1)):
        uncertainty, note = False, NO_REPLICATES
    present = tuple(_present(len(x), uncertainty, seed) for seed, x in enumerate((fake, real)))
    space = Space.of(fake, real, block=block_size(fake, real, memory_gb, present[0].shape[1]))
    radii = tuple(neighbour_radii(space, side, k=k, present=present[side]) for side in (0, 1))
    counts = _Counts.zeros(len(fake), len(real), present[0].shape[1])
    for rows, columns, squares, bound in space.blocks(1, 0):
        counts.add(pairs_within(space, 1, rows, columns, squares, bound, radii[1]), 1, radii, present)
        counts.add(pairs_within(space, 0, rows, columns, squares, bound, radii[0]), 0, radii, present)
    table = counts.table(k, present)                                     # (columns, 4)
    jackknife, halves = table[1:1 + NUM_GROUPS], table[1 + NUM_GROUPS:].reshape(-1, 2, 4)
    precision, recall, density, coverage = table[0].tolist()
    return PrdcResult(precision, recall, density, coverage, k, len(fake), len(real), counts.ties, jackknife, halves,
                      note)


def prdc_reference(fake: np.ndarray, real: np.ndarray, *, k: int) -> PrdcResult:
    """The prdc package itself; its memory grows with the square of the number of images."""
    check_sides(fake, real, k)
    from prdc import compute_prdc

    with contextlib.redirect_stdout(io.StringIO()):
        values = compute_prdc(real_features=real, fake_features=fake, nearest_k=k)
    precision, recall, density, coverage = (float(values[name]) for name in COLUMNS)
    return PrdcResult(precision, recall, density, coverage, k, len(fake), len(real), ties=None,
                      note=NO_REFERENCE_INTERVAL)


def _present(num: int, uncertainty: bool, seed: int) -> np.ndarray:
    """(num, C) bool, who is there: everyone; then all but one jackknife group; then first and second halves."""
    everyone = np.ones((num, 1), bool)
    if not uncertainty:
        return everyone
    but_one = jackknife_groups(num, NUM_GROUPS)[:, None] != np.arange(NUM_GROUPS)
    first = random_halves(num, NUM_HALVINGS, seed=seed)                  # (num, 20)
    return np.concatenate([everyone, but_one, np.stack([first, ~first], axis=2).reshape(num, -1)], axis=1)


@dataclass(frozen=True)
class Pairs:
    """A ball's centre, a point of the other side inside one of its radii, and their distance."""

    centre: np.ndarray
    point: np.ndarray
    distance: np.ndarray


def pairs_within(space: Space, side: int, rows: slice, columns: slice, squares: np.ndarray, bound: float,
                  radii: np.ndarray) -> Pairs:
    """Pairs of a block (real rows, fake columns) inside any radius of the balls of `side`; exact near column 0's."""
    own = rows if side == 1 else columns
    exact = np.square(radii[own, 0], dtype=np.float64)
    widest = np.square(radii[own].max(axis=1), dtype=np.float64)
    limit = (np.maximum(widest, exact + bound) * (1 + ROUNDING)).astype(np.float32)
    i, j = sparse_nonzero(squares <= (limit[:, None] if side == 1 else limit[None, :]))
    square = squares[i, j].astype(np.float64)
    ball = i if side == 1 else j
    close = np.abs(square - exact[ball]) <= bound + ROUNDING * exact[ball]
    if close.sum() > max(1000, squares.size // 50):                      # float32 settles too little of this block
        finer, fine_bound = space.squares(1, 0, rows, columns)
        square = finer[i, j]
        close = np.abs(square - exact[ball]) <= fine_bound + ROUNDING * exact[ball]
    real, fake = i + rows.start, j + columns.start
    distance = np.sqrt(np.maximum(square, 0)).astype(np.float32)
    distance[close] = space.distances(1, 0, real[close], fake[close])
    return Pairs(real, fake, distance) if side == 1 else Pairs(fake, real, distance)


@dataclass
class _Counts:
    """Tallies, a column for each set of images present."""

    per_fake: np.ndarray      # (n, C): real balls that hold a fake
    covered: np.ndarray       # (m, C): fakes in a real's ball
    recalled: np.ndarray      # (m, C): fake balls that hold a real
    ties: int = 0

    @classmethod
    def zeros(cls, n: int, m: int, num_columns: int) -> _Counts:
        per_fake, covered, recalled = (np.zeros((rows, num_columns), np.int32) for rows in (n, m, m))
        return cls(per_fake, covered, recalled)

    def add(self, pairs: Pairs, side: int, radii: tuple[np.ndarray, ...], present: tuple[np.ndarray, ...]) -> None:
        """Count pairs in balls of `side` (1 real, 0 fake): strictly inside, with both ends present."""
        for s in range(0, len(pairs.centre), PAIRS_AT_ONCE):
            centre, point, distance = (part[s:s + PAIRS_AT_ONCE]
                                       for part in (pairs.centre, pairs.point, pairs.distance))
            limits = radii[side][centre]
            self.ties += int((distance == limits[:, 0]).sum())
            inside = (distance[:, None] < limits) & present[side][centre] & present[1 - side][point]
            if side == 1:
                add_rows(self.per_fake, point, inside)
                add_rows(self.covered, centre, inside)
            else:
                add_rows(self.recalled, point, inside)

    def table(self, k: int, present: tuple[np.ndarray, ...]) -> np.ndarray:
        """(C, 4): precision, recall, density, coverage of the images present."""
        fakes, reals = present
        shares = [((self.per_fake > 0) & fakes).sum(0) / fakes.sum(0),
                  ((self.recalled > 0) & reals).sum(0) / reals.sum(0),
                  (1 / k) * ((self.per_fake * fakes).sum(0) / fakes.sum(0)),
                  ((self.covered > 0) & reals).sum(0) / reals.sum(0)]
        return np.stack(shares, axis=1)


def add_rows(table: np.ndarray, rows: np.ndarray, inside: np.ndarray) -> None:
    """table[rows] += inside, with repeated rows counted each time."""
    order = np.argsort(rows, kind="stable")
    distinct, first = np.unique(rows[order], return_index=True)
    table[distinct] += np.add.reduceat(inside[order], first, axis=0, dtype=np.int32)


def block_size(fake: np.ndarray, real: np.ndarray, memory_gb: float, num_columns: int) -> int:
    """Rows of a block such that distances, masks, copies and tallies stay within the budget."""
    n, m, num_dimensions = len(fake), len(real), fake.shape[1]
    per_point = 4 * num_columns + 16 * 32 + num_columns                  # radii, nearest, presence
    tallies = 4 * (n + 2 * m) * num_columns
    fixed = (n + m) * per_point + tallies + PAIRS_AT_ONCE * num_columns * 12 + 8e7

    def need(block: int) -> float:
        return fixed + 24 * block**2 + 20 * block * num_dimensions + 8 * 256 * max(n, m)

    block = MAX_BLOCK
    while block > 64 and need(block) > memory_gb * 1e9:
        block //= 2
    if need(block) > memory_gb * 1e9:
        raise InputError(f"metrics.memory_gb={memory_gb} is too small for {n} x {m} images: "
                         f"it takes at least {need(block) / 1e9:.2f}")
    return block


def check_sides(fake: np.ndarray, real: np.ndarray, k: int) -> None:
    """Raise InputError unless these are float32 features of more than k images a side, and k is at least 1."""
    if k < 1:
        raise InputError(f"protocol.prdc_k={k}, expected at least 1")
    check_features(fake, real, least=k + 1)
    if fake.dtype != np.float32:
        raise InputError(f"features are {fake.dtype}, expected float32 as extractors give them (PRDC is exact there)")
