"""The second-order expansion of FID in its two samples: standard error, bias of order 1/n, influence of each image.

    expansion = expand(fake, real, mean, covariance, reference)

Let R'R = S2, M = R S1 R' = V L V' and s = L^1/2.  In the coordinates z = L^-1/4 V'R (x - mu) of fakes and
w = L^-3/4 V'R S1 (y - nu) of reals both covariances become diag(s), and with e, f the perturbations of the two

    FID = const + linear + |dmu - dnu|^2 + 1/2 sum_ij (e - f)_ij^2 / (s_i + s_j) + ...

The linear part along x is 2 (mu - nu).(x - mu) + |x - mu|^2 - sum_i z_i^2 (Efron's infinitesimal jackknife is its
variance over n); the diagonal of the quadratic part is the bias; the variance of the quadratic part is what a jackknife
counts twice (Efron & Stein 1981), so it is taken off once.  Where M is singular the expansion is along its range.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from bench.metrics.pairwise import float32_product

BLOCK = 4096
PAIRS_OF = 256        # images a side whose pairs estimate the variance of the quadratic part
STEP = 0.8            # of the quadrature of 1/(a + b), in log t: relative error below 1e-3


class Reference(Protocol):
    """The half of bench.metrics.frechet.ReferenceStatistics that is read here."""

    @property
    def mean(self) -> np.ndarray: ...

    @property
    def factor(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Expansion:
    """influence_fake (n,), influence_real (m,): mean zero.  bias: of order 1/n and 1/m, both sides."""

    standard_error: float
    bias: float
    influence_fake: np.ndarray = field(repr=False)
    influence_real: np.ndarray = field(repr=False)


def expand(fake: np.ndarray, real: np.ndarray, mean: np.ndarray, covariance: np.ndarray, reference: Reference,
           values: np.ndarray, vectors: np.ndarray) -> Expansion:
    """Expand FID at (n, D) fake and (m, D) real features.

    mean, covariance: of the fake side.  values, vectors: eigenvalues, ascending, and eigenvectors of M.
    """
    keep = values > values[-1] * len(values) * 1e-15
    scales = np.sqrt(values[keep])                                       # s
    root = vectors[:, keep].T @ reference.factor                         # (r, D)
    to_fake = root / np.sqrt(scales)[:, None]
    to_real = (root @ covariance) / scales[:, None] ** 1.5
    difference = mean - reference.mean
    influence_fake, bias_fake = _linear(fake, mean, difference, to_fake, scales)
    influence_real, bias_real = _linear(real, reference.mean, -difference, to_real, scales)
    n, m = len(fake), len(real)
    jackknife = influence_fake.var(ddof=1) / n + influence_real.var(ddof=1) / m
    chosen = [x[np.linspace(0, len(x) - 1, min(PAIRS_OF, len(x))).astype(int)].astype(np.float64) - centre
              for x, centre in ((fake, mean), (real, reference.mean))]
    quadratic = _quadratic_variance(chosen[0], chosen[1], to_fake, to_real, scales, n, m)
    error = np.sqrt(max(jackknife - quadratic, quadratic))
    return Expansion(float(error), float(bias_fake + bias_real), influence_fake, influence_real)


def _linear(features: np.ndarray, mean: np.ndarray, difference: np.ndarray, projection: np.ndarray,
            scales: np.ndarray) -> tuple[np.ndarray, float]:
    """Influence of each image (n,), mean zero, and the bias of one side."""
    n = len(features)
    influence, norms = np.empty(n), 0.0
    fourth = np.zeros((len(scales), len(scales)))                        # sum of z_i^2 z_j^2
    for i in range(0, n, BLOCK):
        x = features[i:i + BLOCK].astype(np.float64) - mean
        squares = np.square(_product(x, projection))                     # (b, r)
        lengths = np.square(x).sum(axis=1)
        influence[i:i + BLOCK] = 2 * x @ difference + lengths - squares.sum(axis=1, dtype=np.float64)
        norms += lengths.sum()
        fourth += _product(squares.T, squares.T)
    variance = fourth / n - np.diag(scales**2)                           # of z_i z_j
    bias = (norms / n + 0.5 * (variance / np.add.outer(scales, scales)).sum()) / n
    return influence - influence.mean(), bias


def _product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x y' in float32: errors of errors are far below their sampling noise."""
    return float32_product(*(torch.from_numpy(np.ascontiguousarray(z, dtype=np.float32)) for z in (x, y))).numpy()


def _quadratic_variance(fake, real, to_fake, to_real, scales, n: int, m: int) -> float:
    """Variance of the quadratic part, from some centred images of each side."""
    z, w = fake @ to_fake.T, real @ to_real.T
    fakes = _interaction(_second_derivative(fake, fake, z, z, scales), alike=True)
    reals = _interaction(_second_derivative(real, real, w, w, scales), alike=True)
    across = _interaction(_second_derivative(fake, real, z, w, scales), alike=False)
    return fakes / (2 * n**2) + reals / (2 * m**2) + across / (n * m)


def _second_derivative(x, y, z, w, scales) -> np.ndarray:
    """2 x.y + sum_ij z_i z_j w_i w_j / (s_i + s_j) for every pair of rows, (p, q).

    The double sum is the integral over t of (sum_i z_i w_i e^-ts_i)^2; the trapezoid rule in log t converges fast.
    """
    largest, smallest = scales.max(initial=1e-300), max(scales.min(initial=1e300), scales.max(initial=1e-300) * 1e-5)
    total = 2 * x @ y.T
    for log_t in np.arange(np.log(1e-4 / largest), np.log(20 / smallest), STEP):
        t = np.exp(log_t)
        total += STEP * t * np.square(_product(z * np.exp(-t * scales), w), dtype=np.float64)
    return total


def _interaction(values: np.ndarray, *, alike: bool) -> float:
    """Variance over pairs of what row and column means do not explain; distinct pairs only where both are alike."""
    if min(values.shape) < 3:
        return 0.0
    weights = 1 - np.eye(len(values)) if alike else np.ones(values.shape)
    rows = (values * weights).sum(1) / weights.sum(1)
    columns = (values * weights).sum(0) / weights.sum(0)
    mean = (values * weights).sum() / weights.sum()
    rest = np.square(values - rows[:, None] - columns + mean)
    return float((rest * weights).sum() / weights.sum())
