"""Monge Inception Distance: sliced Wasserstein distance of features (Berthet et al. 2026, arXiv 2605.06797).

    result = mind(fake, real)             # result.value, result.standard_error

MIND = 3 D mean_u W2^2(u'X, u'Y) over random unit vectors u; in one dimension W2 couples sorted values.  With as many
fakes as reals it is torch-fidelity's number, from the same directions (its seed and order of draws).  Where the sides
differ in size torch-fidelity drops images at random; here the quantile functions are compared exactly.

The error is that of the linear part: along each direction an image adds its Kantorovich potential, x^2 - 2 the integral
of the transport map up to x.  The value is of this n (it is biased upwards as 1/n), and so is its interval.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from bench.metrics.checks import check_features
from bench.metrics.pairwise import float32_product

NUM_PROJECTIONS = 1000
SEED = 2020                  # torch-fidelity's, so that both look along the same directions
VALUES_AT_ONCE = 1 << 23


@dataclass(frozen=True)
class MindResult:
    """value, and its standard error; influence_fake (n,), influence_real (m,): what each image adds, mean zero."""

    value: float
    standard_error: float
    n: int
    n_real: int
    influence_fake: np.ndarray = field(repr=False)
    influence_real: np.ndarray = field(repr=False)


def mind(fake: np.ndarray, real: np.ndarray, *, num_projections: int = NUM_PROJECTIONS, seed: int = SEED) -> MindResult:
    """MIND of (n, D) fake against (m, D) real features.

    Raises InputError for NaN, unequal dimensions or types, and fewer than two images a side.
    """
    check_features(fake, real, least=2)
    n, m = len(fake), len(real)
    coupling = _Coupling.of(n, m)
    centre = real[:4096].mean(axis=0, dtype=np.float64).astype(np.float32)   # a shift of both sides changes nothing
    sides = tuple(torch.from_numpy(np.ascontiguousarray(x - centre, dtype=np.float32)) for x in (fake, real))
    total, influences = 0.0, (np.zeros(n), np.zeros(m))
    for directions in unit_vectors(num_projections, fake.shape[1], seed=seed).split(max(1, VALUES_AT_ONCE // (n + m))):
        orders, values = [], []
        for side in sides:
            projected = float32_product(directions, side).numpy().astype(np.float64)   # (directions, images)
            orders.append(np.argsort(projected, axis=1, kind="stable"))
            values.append(np.take_along_axis(projected, orders[-1], axis=1))
        total += coupling.squared_distances(*values).sum()
        for influence, order, potential in zip(influences, orders, coupling.potentials(*values), strict=True):
            np.add.at(influence, order.ravel(), potential.ravel())
    scale = 3 * fake.shape[1] / num_projections
    influence_fake, influence_real = (scale * (x - x.mean()) for x in influences)
    error = np.sqrt(influence_fake.var(ddof=1) / n + influence_real.var(ddof=1) / m)
    return MindResult(float(scale * total), float(error), n, m, influence_fake, influence_real)


def unit_vectors(num: int, num_dimensions: int, *, seed: int) -> torch.Tensor:
    """(num, D) float32 random directions."""
    drawn = torch.randn(num, num_dimensions, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm(dim=1, keepdim=True).clamp_min(1e-12)


@dataclass(frozen=True)
class _Coupling:
    """Which of n and m sorted values share how much mass: segments between the quantiles i/n and j/m."""

    left: np.ndarray      # (s,) index into the n values
    right: np.ndarray     # (s,) index into the m values
    mass: np.ndarray      # (s,) sums to 1

    @classmethod
    def of(cls, n: int, m: int) -> _Coupling:
        ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)            # in units of 1/(n m)
        starts = np.concatenate([[0], ends[:-1]])
        return cls(starts // m, starts // n, (ends - starts) / (n * m))

    def squared_distances(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """W2^2 of (r, n) and (r, m) sorted rows, (r,)."""
        return np.square(x[:, self.left] - y[:, self.right]) @ self.mass

    def potentials(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Kantorovich potentials (r, n) and (r, m) at the sorted values, up to a constant a row."""
        to_y = _mean_partner(y[:, self.right] * self.mass, self.left, x.shape[1])
        to_x = _mean_partner(x[:, self.left] * self.mass, self.right, y.shape[1])
        return _potential(x, to_y), _potential(y, to_x)


def _mean_partner(weighted: np.ndarray, owner: np.ndarray, num: int) -> np.ndarray:
    """(r, num): what each value is coupled to, on average."""
    starts = np.searchsorted(owner, np.arange(num))
    return np.add.reduceat(weighted, starts, axis=1) * num


def _potential(values: np.ndarray, partner: np.ndarray) -> np.ndarray:
    steps = np.diff(values, axis=1) * (partner[:, 1:] + partner[:, :-1])               # twice the integral, trapezoids
    return np.square(values) - np.concatenate([np.zeros((len(values), 1)), np.cumsum(steps, axis=1)], axis=1)
