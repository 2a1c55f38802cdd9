"""Distances between two feature sets, block by block, with a proven bound on what rounding can have done.

    space = Space.of(fake, real, block=2048)                # sides 0 and 1
    for rows, columns, squares, bound in space.blocks(1, 0): ...
    radii = neighbour_radii(space, 1, k=5, present=present)

Blocks come from float32 products, which are cheap; whatever lies closer to a decision than the bound is computed again
by `Space.distances` in float64, coordinate by coordinate, and rounded to float32 as the prdc package rounds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

NUM_KEPT = 32          # nearest neighbours remembered a row: enough for the k-th of any half of the points
ROWS_AT_ONCE = 256     # of rows whose neighbours float32 cannot settle
VALUES_AT_ONCE = 1 << 22
LABELS_PAY = 1 << 18   # pairs at once, from which it is worth knowing which rows are equal
ROUNDING = 1e-6        # of a float32 square, its root and back, generously


@dataclass
class Space:
    """Two sides, a common centre, and what the rounding bound needs.

    norms: |x - centre| of each row, float64.
    """

    sides: tuple[np.ndarray, np.ndarray]
    centre: np.ndarray
    norms: tuple[np.ndarray, np.ndarray]
    block: int

    @classmethod
    def of(cls, first: np.ndarray, second: np.ndarray, *, block: int) -> Space:
        centre = second[:block].mean(axis=0, dtype=np.float64).astype(np.float32)

        def norms(x: np.ndarray) -> np.ndarray:
            return np.concatenate([np.linalg.norm((x[i:i + block] - centre).astype(np.float64), axis=1)
                                   for i in range(0, len(x), block)])

        return cls((first, second), centre, (norms(first), norms(second)), block)

    @cached_property
    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """An integer a row, equal for rows that are equal bit by bit."""
        seen: dict[bytes, int] = {}
        first, second = (np.array([seen.setdefault(_digest(row), len(seen)) for row in x]) for x in self.sides)
        return first, second

    def slices(self, side: int) -> list[slice]:
        n = len(self.sides[side])
        return [slice(i, min(i + self.block, n)) for i in range(0, n, self.block)]

    def blocks(self, left: int, right: int) -> Iterator[tuple[slice, slice, np.ndarray, float]]:
        """(rows, columns, float32 squared distances, bound on their error); the upper half where left is right."""
        for number, rows in enumerate(self.slices(left)):
            x = self._centred(left, rows, torch.float32)
            for columns in self.slices(right)[number if left == right else 0:]:
                y = x if (left, rows) == (right, columns) else self._centred(right, columns, torch.float32)
                yield rows, columns, *self._squares(left, right, rows, columns, x, y)

    def squares(self, left: int, right: int, rows: slice | np.ndarray, columns: slice) -> tuple[np.ndarray, float]:
        """The same for one block in float64, with its far smaller bound."""
        x, y = self._centred(left, rows, torch.float64), self._centred(right, columns, torch.float64)
        return self._squares(left, right, rows, columns, x, y)

    def distances(self, left: int, right: int, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Exact distances of pairs: float64 sums of squares, rounded to float32, then rooted."""
        squares = np.zeros(len(i), np.float32)
        unequal = np.arange(len(i))
        if len(i) > LABELS_PAY:                                          # so many are close only among duplicates
            unequal = np.flatnonzero(self.labels[left][i] != self.labels[right][j])
        step = max(1, VALUES_AT_ONCE // self.centre.size)
        for s in range(0, len(unequal), step):
            some = unequal[s:s + step]
            difference = self.sides[left][i[some]].astype(np.float64) - self.sides[right][j[some]]
            squares[some] = np.einsum("nd,nd->n", difference, difference)
        return np.sqrt(squares)

    def _centred(self, side: int, rows: slice | np.ndarray, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(self.sides[side][rows] - self.centre).to(dtype)

    def _squares(self, left, right, rows, columns, x: Tensor, y: Tensor) -> tuple[np.ndarray, float]:
        """|x|^2 + |y|^2 - 2 x.y.

        The bound: a product of length D errs by at most gamma_D |x||y| in any order of summation (Higham 2002, 3.1);
        float32 centring and the three terms err by a few roundings more.
        """
        squares = (float32_product(x, y) if x.dtype == torch.float32 else x @ y.T).mul_(-2)
        x_norms, y_norms = self.norms[left][rows], self.norms[right][columns]
        squares += torch.from_numpy(np.square(x_norms)).to(x.dtype)[:, None]
        squares += torch.from_numpy(np.square(y_norms)).to(x.dtype)
        unit = torch.finfo(x.dtype).eps / 2
        bound = 1.1 * (x_norms.max() + y_norms.max()) ** 2 * ((x.shape[1] + 8) * unit + 4 * 2.0**-24)
        return squares.numpy(), bound


def neighbours_kept(k: int) -> int:
    """How many nearest neighbours `neighbour_radii` needs of each point."""
    return max(NUM_KEPT, 2 * k + 22)


def neighbour_radii(space: Space, side: int, *, k: int, present: np.ndarray,
                    nearest: tuple[np.ndarray, np.ndarray, float] | None = None) -> np.ndarray:
    """(n, C) float32: the distance from each point to its k-th neighbour among the points present in column c.

    present: (n, C) bool, column 0 all true.  Column 0 is exact (prdc's own value); the others, which only serve to
    estimate errors, are rounded as float32 products are.
    nearest: `nearest_points(space, side, keep=neighbours_kept(k))`, where it is at hand.
    """
    squares, indices, bound = nearest or nearest_points(space, side, keep=neighbours_kept(k))
    n, kept = squares.shape
    radii = np.empty(present.shape, np.float32)
    radii[:, 0], unsettled = _exact_radius(space, side, squares, indices, bound, k)
    short = np.zeros(n, bool)
    for c in range(1, present.shape[1]):
        counted = np.cumsum(present[indices, c], axis=1)                 # (n, kept)
        place = np.argmax(counted == k, axis=1)
        radii[:, c] = np.sqrt(np.maximum(squares[np.arange(n), place], 0))
        short |= counted[:, -1] < k
    rows = np.flatnonzero(short | unsettled)
    for s in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[s:s + ROWS_AT_ONCE]
        radii[some] = _radii_of_rows(space, side, some, k, present)
    return radii


def nearest_points(space: Space, side: int, *, keep: int) -> tuple[np.ndarray, np.ndarray, float]:
    """(n, keep) float32 squared distances to the nearest other points, ascending, their indices, and the bound."""
    n = len(space.sides[side])
    keep = min(keep, n - 1)
    nearest, indices = np.full((n, keep), np.inf, np.float32), np.zeros((n, keep), np.int64)
    worst = 0.0
    for rows, columns, squares, bound in space.blocks(side, side):
        worst = max(worst, bound)
        if rows == columns:
            np.fill_diagonal(squares, np.inf)
        else:
            limit = _limits(nearest[columns], squares.T)
            i, j = sparse_nonzero(squares <= limit[None, :])
            _merge(nearest[columns], indices[columns], j, i + rows.start, squares[i, j])
        limit = _limits(nearest[rows], squares)
        i, j = sparse_nonzero(squares <= limit[:, None])
        _merge(nearest[rows], indices[rows], i, j + columns.start, squares[i, j])
    return nearest, indices, worst


def _limits(nearest: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """(rows,) what a new distance must not exceed to be among the nearest."""
    limit, keep = nearest[:, -1].copy(), nearest.shape[1]
    fresh = np.isinf(limit)
    if fresh.any() and squares.shape[1] > keep:
        limit[fresh] = np.partition(squares[fresh], keep - 1, axis=1)[:, keep - 1]
    return limit


def _merge(nearest: np.ndarray, indices: np.ndarray, row: np.ndarray, column: np.ndarray, square: np.ndarray) -> None:
    """Put new (row, column, square) among the nearest of each row; both tables are changed in place."""
    n, keep = nearest.shape
    touched = np.unique(row)
    known = np.repeat(touched, keep)
    row = np.concatenate([known, row])
    square = np.concatenate([nearest[touched].ravel(), square])
    column = np.concatenate([indices[touched].ravel(), column])
    order = np.lexsort((square, row))
    row, square, column = row[order], square[order], column[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    best = rank < keep
    nearest[row[best], rank[best]] = square[best]
    indices[row[best], rank[best]] = column[best]


def _exact_radius(space, side, squares, indices, bound, k) -> tuple[np.ndarray, np.ndarray]:
    """(n,) exact distance to the k-th neighbour, and (n,) bool where too many candidates tie for float32 to tell."""
    candidate = squares <= squares[:, k - 1:k] + 2 * bound + ROUNDING * np.abs(squares[:, k - 1:k])
    kept = squares.shape[1]
    unsettled = candidate[:, -1] if kept > k and kept < len(squares) - 1 else np.zeros(len(squares), bool)
    i, place = np.nonzero(candidate & ~unsettled[:, None])
    exact = np.full(squares.shape, np.inf, np.float32)
    exact[i, place] = space.distances(side, side, i, indices[i, place])
    return np.partition(exact, k - 1, axis=1)[:, k - 1], unsettled


def _radii_of_rows(space: Space, side: int, rows: np.ndarray, k: int, present: np.ndarray) -> np.ndarray:
    """(rows, C) radii from all distances of these rows, in float64 and exact where that matters."""
    parts = [space.squares(side, side, rows, columns) for columns in space.slices(side)]
    squares, bound = np.concatenate([part[0] for part in parts], axis=1), max(part[1] for part in parts)
    own = np.arange(len(rows))
    squares[own, rows] = np.inf
    kth = np.partition(squares, k - 1, axis=1)[:, k - 1:k]
    i, j = sparse_nonzero(squares <= kth + 2 * bound + ROUNDING * np.abs(kth))
    squares[i, j] = np.square(space.distances(side, side, rows[i], j), dtype=np.float64)
    radii = np.empty((len(rows), present.shape[1]), np.float32)
    for c in range(present.shape[1]):
        radii[:, c] = np.sqrt(np.partition(squares[:, present[:, c]], k - 1, axis=1)[:, k - 1])
    return radii


def float32_product(x: Tensor, y: Tensor) -> Tensor:
    """x y' of float32 matrices: oneDNN uses the processor's widest instructions where the BLAS at hand may not."""
    if torch.backends.mkldnn.is_available() and x.numel() and y.numel():
        return F.linear(x.to_mkldnn(), y.to_mkldnn()).to_dense()
    return x @ y.T


def sparse_nonzero(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """np.nonzero of a (rows, columns) mask, several times faster where few are true."""
    flat = np.flatnonzero(mask)
    return flat // mask.shape[1], flat % mask.shape[1]


def _digest(row: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=16).digest()
