"""Precision, recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020) in bounded memory.

    result = prdc(fake, real, k=5, memory_gb=2.0)     # result.precision, ..., result.interval("recall")

The output is that of the prdc package: Euclidean distances in float32, k neighbours without the point itself, strict
`<`.  Distances are computed block by block from float32 products; whatever lies too close to a decision for float32
to settle (a proven rounding bound) is computed again in float64, coordinate by coordinate.  So the result differs from
prdc's at most where a distance equals a radius (`ties` counts these), since there the package compares rounding noise.
The same pass carries every leave-one-group-out replicate of the block jackknife.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, field

import numpy as np

from bench.errors import InputError
from bench.metrics.checks import check_features
from bench.metrics.intervals import clip_interval, jackknife_error, jackknife_groups, student_interval

COLUMNS = ("precision", "recall", "density", "coverage")
NUM_GROUPS = 20
SPARE_NEIGHBOURS = 6   # beyond k: what a radius without one jackknife group may need
MAX_BLOCK = 2048
PAIRS_AT_ONCE = 1 << 16
NO_REPLICATES = f"too few images for a block jackknife of {NUM_GROUPS} groups"
NO_REFERENCE_INTERVAL = "the prdc package gives no interval: use metrics.prdc.backend=blocked"


@dataclass(frozen=True)
class PrdcResult:
    """The four values, (20, 4) jackknife replicates, their errors, and how many pairs lay exactly on a radius."""

    precision: float
    recall: float
    density: float
    coverage: float
    k: int
    n: int
    n_real: int
    ties: int | None
    replicates: np.ndarray | None = field(default=None, repr=False)
    errors: dict[str, float] = field(default_factory=dict)

    def interval(self, column: str) -> tuple[float | None, float | None, str]:
        """95% interval and, where there is none, the reason."""
        if self.replicates is None:
            return None, None, NO_REPLICATES if self.ties is not None else NO_REFERENCE_INTERVAL
        value = getattr(self, column)
        low, high = student_interval(value, self.errors[column], degrees=len(self.replicates) - 1)
        return (*clip_interval((low, high), 0.0, np.inf if column == "density" else 1.0), "")

    def values(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in COLUMNS}


def prdc(fake: np.ndarray, real: np.ndarray, *, k: int, memory_gb: float = 2.0,
         num_groups: int | None = NUM_GROUPS) -> PrdcResult:
    """PRDC of (n, D) fake against (m, D) real features, float32, using at most `memory_gb` beyond them.

    num_groups: of the block jackknife; None leaves the replicates out.
    Raises InputError for NaN, other types, unequal dimensions, k < 1, fewer than k + 1 images, too small a budget.
    """
    _check(fake, real, k)
    if num_groups is not None and min(len(fake), len(real)) < max(2 * num_groups, (k + 2) * 2):
        num_groups = None
    fake_groups, real_groups = _groups(len(fake), num_groups), _groups(len(real), num_groups)
    space = _Space.of(fake, real, block=_block_size(fake, real, memory_gb, num_groups or 0, k))
    real_radii = _radii(space, 1, k, real_groups, num_groups or 0)
    fake_radii = _radii(space, 0, k, fake_groups, num_groups or 0)
    counts = _Counts.zeros(len(fake), len(real), num_groups or 0)
    for rows, columns, squares, bound in space.blocks(1, 0):
        in_real = _pairs_within(space, 1, 0, rows, columns, squares, bound, real_radii[rows])
        counts.add_real_balls(in_real, real_radii, fake_groups, real_groups)
        transposed = _pairs_within(space, 0, 1, columns, rows, squares.T, bound, fake_radii[columns])
        counts.add_fake_balls(transposed, fake_radii, fake_groups, real_groups)
    table = counts.table(k, fake_groups, real_groups)                    # (1 + groups, 4)
    errors = jackknife_error(table[1:]) if num_groups else np.empty(0)
    return PrdcResult(*(float(v) for v in table[0]), k, len(fake), len(real), counts.ties,
                      table[1:] if num_groups else None, dict(zip(COLUMNS, errors.tolist(), strict=False)))


def prdc_reference(fake: np.ndarray, real: np.ndarray, *, k: int) -> PrdcResult:
    """The prdc package itself; its memory grows with the square of the number of images."""
    _check(fake, real, k)
    from prdc import compute_prdc

    with contextlib.redirect_stdout(io.StringIO()):
        values = compute_prdc(real_features=real, fake_features=fake, nearest_k=k)
    return PrdcResult(*(float(values[name]) for name in COLUMNS), k, len(fake), len(real), ties=None)


@dataclass
class _Space:
    """Both sides (0 fake, 1 real), a common centre, and everything the rounding bound needs."""

    sides: tuple[np.ndarray, np.ndarray]
    centre: np.ndarray
    norms: tuple[np.ndarray, np.ndarray]       # |x - centre|, float64
    labels: tuple[np.ndarray, np.ndarray]      # equal for rows that are equal bit by bit
    block: int

    @classmethod
    def of(cls, fake: np.ndarray, real: np.ndarray, *, block: int) -> _Space:
        centre = real[:block].mean(axis=0, dtype=np.float64).astype(np.float32)
        norms = tuple(np.concatenate([np.sqrt(np.square(x[i:i + block] - centre).sum(axis=1, dtype=np.float64))
                                      for i in range(0, len(x), block)]) for x in (fake, real))
        return cls((fake, real), centre, norms, _labels(fake, real), block)

    def blocks(self, left: int, right: int):
        """Yield (row slice, column slice, float squared distances, bound on their error); the upper half if alike."""
        for i in range(0, len(self.sides[left]), self.block):
            rows = slice(i, min(i + self.block, len(self.sides[left])))
            for j in range(i if left == right else 0, len(self.sides[right]), self.block):
                columns = slice(j, min(j + self.block, len(self.sides[right])))
                yield rows, columns, *self.squares(left, right, rows, columns, np.float32)

    def squares(self, left, right, rows, columns, dtype) -> tuple[np.ndarray, float]:
        """Squared distances (b, b') as ONE product: [x, x.x, 1] . [-2y, 1, y.y], and a bound on their error.

        The bound: a product of length D errs by at most gamma_D |x||y| in any order of summation (Higham 2002, 3.1);
        centring and the two extra columns err by a few roundings more.
        """
        x = (self.sides[left][rows] - self.centre).astype(dtype)
        y = (self.sides[right][columns] - self.centre).astype(dtype)
        ones = np.ones((max(len(x), len(y)), 1), dtype)
        x_norms, y_norms = (np.square(z, dtype=np.float64).sum(axis=1)[:, None].astype(dtype) for z in (x, y))
        squares = np.hstack([x, x_norms, ones[:len(x)]]) @ np.hstack([-2 * y, ones[:len(y)], y_norms]).T
        largest = (self.norms[left][rows].max() + self.norms[right][columns].max()) ** 2
        unit = np.finfo(dtype).eps / 2
        return squares, 1.1 * largest * ((x.shape[1] + 16) * unit + 8 * 2.0**-24 * (dtype == np.float64))

    def distances(self, left, right, i, j) -> np.ndarray:
        """Exact distances of pairs (i, j), rounded as prdc rounds them: float64 squares, float32, root."""
        squares = np.zeros(len(i), np.float32)
        unequal = np.flatnonzero(self.labels[left][i] != self.labels[right][j])
        step = max(1, (1 << 22) // self.centre.size)
        for s in range(0, len(unequal), step):
            some = unequal[s:s + step]
            difference = self.sides[left][i[some]].astype(np.float64) - self.sides[right][j[some]]
            squares[some] = np.einsum("nd,nd->n", difference, difference)
        return np.sqrt(squares)


def _radii(space: _Space, side: int, k: int, groups: np.ndarray, num_groups: int) -> np.ndarray:
    """(n, 1 + groups) float32: distance to the k-th neighbour; in column 1 + b without the points of group b."""
    n = len(space.sides[side])
    keep = min(n - 1, k + (SPARE_NEIGHBOURS if num_groups else 0))
    nearest = np.full((n, keep), np.inf, np.float32)
    indices = np.full((n, keep), -1)
    for rows, columns, squares, bound in space.blocks(side, side):
        if rows == columns:
            np.fill_diagonal(squares, np.inf)
        _merge_near(space, side, rows, columns, squares, bound, nearest, indices)
        if rows != columns:
            _merge_near(space, side, columns, rows, squares.T, bound, nearest, indices)
    radii = np.empty((n, 1 + num_groups), np.float32)
    radii[:, 0] = nearest[:, k - 1]
    for b in range(num_groups):
        others = groups[indices] != b                                    # (n, keep)
        place = np.argmax(np.cumsum(others, axis=1) == k, axis=1)
        radii[:, 1 + b] = nearest[np.arange(n), place]
        for i in np.flatnonzero(others.sum(axis=1) < k):
            radii[i, 1 + b] = _radius_without(space, side, int(i), np.flatnonzero(groups != b), k)
    return radii


def _merge_near(space, side, rows, columns, squares, bound, nearest, indices) -> None:
    """Keep, for each row, the nearest of what it had and what this block brings; candidates are computed exactly."""
    keep = nearest.shape[1]
    limit = np.square(nearest[rows, -1], dtype=np.float64) * (1 + 1e-6)
    fresh = np.isinf(limit)
    if fresh.any() and squares.shape[1] > keep:
        limit[fresh] = np.partition(squares[fresh], keep - 1, axis=1)[:, keep - 1] + bound
    i, j = np.nonzero(squares <= (limit + bound).astype(np.float32)[:, None])
    if not len(i):
        return
    i, j = i + rows.start, j + columns.start
    i, j = i[i != j], j[i != j]
    distance = np.concatenate([nearest[rows].ravel(), space.distances(side, side, i, j)])
    row = np.concatenate([np.repeat(np.arange(rows.start, rows.stop), keep), i])
    column = np.concatenate([indices[rows].ravel(), j])
    order = np.lexsort((distance, row))
    row, distance, column = row[order], distance[order], column[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    best = rank < keep
    nearest[row[best], rank[best]] = distance[best]
    indices[row[best], rank[best]] = column[best]


def _radius_without(space: _Space, side: int, i: int, others: np.ndarray, k: int) -> np.float32:
    others = others[others != i]
    return np.partition(space.distances(side, side, np.full(len(others), i), others), k - 1)[k - 1]


@dataclass(frozen=True)
class _Pairs:
    """Pairs (ball centre, point) that lie in some ball of the centre; `distance` is exact near any radius."""

    centre: np.ndarray
    point: np.ndarray
    distance: np.ndarray


def _pairs_within(space, left, right, rows, columns, squares, bound, radii) -> _Pairs:
    """Pairs with a distance up to the largest radius of the row (radii: (rows, 1 + groups)), sure ones as they are."""
    lowest, highest = (np.square(r, dtype=np.float64) for r in (radii.min(axis=1), radii.max(axis=1)))
    margin = bound + 1e-6 * highest
    i, j = np.nonzero(squares <= (highest + margin).astype(np.float32)[:, None])
    square = squares[i, j].astype(np.float64)
    close = square >= (lowest - margin)[i]
    if close.sum() > max(1000, squares.size // 50):                      # float32 settles too little of this block
        finer, fine_bound = space.squares(left, right, rows, columns, np.float64)
        square, margin = finer[i, j], fine_bound + 1e-6 * highest
        close = np.abs(square - lowest[i]) <= margin[i] if radii.shape[1] == 1 else square >= (lowest - margin)[i]
    i, j = i + rows.start, j + columns.start
    distance = np.sqrt(np.maximum(square, 0)).astype(np.float32)
    distance[close] = space.distances(left, right, i[close], j[close])
    return _Pairs(i, j, distance)


@dataclass
class _Counts:
    """Tallies in column 0 for all images and in column 1 + b for all but those of jackknife group b."""

    per_fake: np.ndarray      # (n, 1 + groups): real balls that hold a fake
    covered: np.ndarray       # (m, 1 + groups): fakes in a real's ball
    recalled: np.ndarray      # (m, 1 + groups): fake balls that hold a real
    ties: int = 0

    @classmethod
    def zeros(cls, n: int, m: int, num_groups: int) -> _Counts:
        return cls(*(np.zeros((rows, 1 + num_groups), np.int32) for rows in (n, m, m)))

    def add_real_balls(self, pairs: _Pairs, radii, fake_groups, real_groups) -> None:
        for part in _parts(pairs):
            inside = self._inside(part, radii, real_groups, fake_groups)
            _add_rows(self.per_fake, part.point, inside)
            _add_rows(self.covered, part.centre, inside)

    def add_fake_balls(self, pairs: _Pairs, radii, fake_groups, real_groups) -> None:
        for part in _parts(pairs):
            _add_rows(self.recalled, part.point, self._inside(part, radii, fake_groups, real_groups))

    def _inside(self, part: _Pairs, radii, centre_groups, point_groups) -> np.ndarray:
        """(pairs, 1 + groups) bool: strictly inside the ball, both ends present."""
        limits = radii[part.centre]
        self.ties += int((part.distance == limits[:, 0]).sum())
        inside = part.distance[:, None] < limits
        if inside.shape[1] > 1:
            every = np.arange(len(part.centre))
            inside[every, 1 + centre_groups[part.centre]] = False
            inside[every, 1 + point_groups[part.point]] = False
        return inside

    def table(self, k: int, fake_groups, real_groups) -> np.ndarray:
        """(1 + groups, 4): precision, recall, density, coverage."""
        fakes, reals = (_present(g, self.per_fake.shape[1] - 1) for g in (fake_groups, real_groups))
        shares = [((self.per_fake > 0) & fakes).sum(0) / fakes.sum(0),
                  ((self.recalled > 0) & reals).sum(0) / reals.sum(0),
                  (1 / k) * ((self.per_fake * fakes).sum(0) / fakes.sum(0)),
                  ((self.covered > 0) & reals).sum(0) / reals.sum(0)]
        return np.stack(shares, axis=1)


def _parts(pairs: _Pairs):
    for s in range(0, len(pairs.centre), PAIRS_AT_ONCE):
        part = slice(s, s + PAIRS_AT_ONCE)
        yield _Pairs(pairs.centre[part], pairs.point[part], pairs.distance[part])


def _add_rows(table: np.ndarray, rows: np.ndarray, inside: np.ndarray) -> None:
    """table[rows] += inside, with repeated rows counted each time."""
    low = rows.min()
    width, height = inside.shape[1], rows.max() - low + 1
    pair, column = np.nonzero(inside)
    tally = np.bincount((rows[pair] - low) * width + column, minlength=height * width)
    table[low:low + height] += tally.reshape(height, width).astype(table.dtype)


def _present(groups: np.ndarray, num_groups: int) -> np.ndarray:
    """(n, 1 + groups) bool: who is there when no one, or one group, is left out."""
    return np.concatenate([np.ones((len(groups), 1), bool), groups[:, None] != np.arange(num_groups)], axis=1)


def _groups(num: int, num_groups: int | None) -> np.ndarray:
    return jackknife_groups(num, num_groups) if num_groups else np.zeros(num, np.int64)


def _labels(fake: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An integer for each row, equal for rows of equal bytes."""
    seen: dict[bytes, int] = {}
    return tuple(np.array([seen.setdefault(hash_row(row), len(seen)) for row in side]) for side in (fake, real))


def hash_row(row: np.ndarray) -> bytes:
    """Sixteen bytes that stand for a row of features."""
    import hashlib

    return hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=16).digest()


def _block_size(fake, real, memory_gb: float, num_groups: int, k: int) -> int:
    """Rows of a block such that distances, masks, copies and tallies stay within the budget."""
    n, m, num_dimensions = len(fake), len(real), fake.shape[1]
    fixed = (n + 2 * m) * (1 + num_groups) * 4 * 2 + max(n, m) * (k + SPARE_NEIGHBOURS) * 12 + PAIRS_AT_ONCE * 400 + 5e7
    block = MAX_BLOCK
    while block >= 64 and fixed + 16 * block**2 + 24 * block * num_dimensions > memory_gb * 1e9:
        block //= 2
    if block < 64:
        need = (fixed + 16 * 64**2 + 24 * 64 * num_dimensions) / 1e9
        raise InputError(f"metrics.memory_gb={memory_gb} is too small for {n} x {m} images; it takes {need:.2f}")
    return block


def _check(fake: np.ndarray, real: np.ndarray, k: int) -> None:
    if k < 1:
        raise InputError(f"protocol.prdc_k={k}, expected at least 1")
    check_features(fake, real, least=k + 1)
    if fake.dtype != np.float32:
        raise InputError(f"features are {fake.dtype}, expected float32 as extractors give them (PRDC is exact there)")
