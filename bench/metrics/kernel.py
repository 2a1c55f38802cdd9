"""Kernel distance (KID): the full unbiased U-statistic of MMD^2 with a jackknife error (Binkowski et al. 2018).

    result = kid(fake, real)              # result.value, result.standard_error

k(x, y) = (x.y / D + 1)^3.  KID = mean k(x, x') + mean k(y, y') - 2 mean k(x, y), the first two over distinct pairs.
The error leaves out one image at a time; it needs only the row sums of the three kernel matrices, which are streamed
in blocks.  (The usual 'std' over random subsets is not a standard error: the subsets overlap.)
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bench.metrics.checks import check_features

BLOCK = 2048
STRIP = 64  # rows cubed at a time in float64, small enough for the cache


@dataclass(frozen=True)
class KernelResult:
    """value and standard_error of MMD^2; influence_fake (n,), influence_real (m,): what each image adds, mean zero."""

    value: float
    standard_error: float
    n: int
    n_real: int
    influence_fake: np.ndarray = field(repr=False)
    influence_real: np.ndarray = field(repr=False)


def kid(fake: np.ndarray, real: np.ndarray, *, degree: int = 3, block: int = BLOCK) -> KernelResult:
    """KID of (n, D) fake against (m, D) real features; memory beyond them is about 3 * block * (block + D) floats.

    Raises InputError for NaN, unequal dimensions or types, and fewer than three images a side.
    """
    check_features(fake, real, least=3)
    centre = real[:block].mean(axis=0, dtype=np.float64).astype(real.dtype)
    fake_fake, _ = kernel_row_sums(fake, fake, centre, degree=degree, block=block)
    real_real, _ = kernel_row_sums(real, real, centre, degree=degree, block=block)
    fake_real, real_fake = kernel_row_sums(fake, real, centre, degree=degree, block=block)
    n, m = len(fake), len(real)
    within_fake, within_real = fake_fake.sum() / (n * (n - 1)), real_real.sum() / (m * (m - 1))
    across = fake_real.sum() / (n * m)
    value = within_fake + within_real - 2 * across
    without_fake = _without_one(fake_fake, within_fake) + within_real - 2 * _without_one_row(fake_real, across, m)
    without_real = within_fake + _without_one(real_real, within_real) - 2 * _without_one_row(real_fake, across, n)
    influence_fake = (n - 1) * (without_fake.mean() - without_fake)
    influence_real = (m - 1) * (without_real.mean() - without_real)
    error = np.sqrt(influence_fake.var(ddof=1) / n + influence_real.var(ddof=1) / m)
    return KernelResult(float(value), float(error), n, m, influence_fake, influence_real)


def kernel_row_sums(x: np.ndarray, y: np.ndarray, centre: np.ndarray, *, degree: int,
                    block: int) -> tuple[np.ndarray, np.ndarray]:
    """Row sums (n,) and column sums (m,) of the kernel matrix in float64; its diagonal is left out where y is x.

    The product is taken of features minus `centre` and completed in float64: x.y = (x-c).(y-c) + x.c + y.c - c.c, which
    keeps float32 products far from cancellation.
    """
    symmetric = y is x
    num_dimensions = x.shape[1]
    wide = centre.astype(np.float64)
    x_shift = _project(x, wide, block) - wide @ wide
    y_shift = _project(y, wide, block)
    rows, columns = np.zeros(len(x)), np.zeros(len(y))
    for i in range(0, len(x), block):
        left = x[i:i + block] - centre
        for j in range(i if symmetric else 0, len(y), block):
            product = left @ (left if symmetric and i == j else y[j:j + block] - centre).T
            for s in range(0, len(left), STRIP):
                strip = product[s:s + STRIP].astype(np.float64)
                strip += x_shift[i + s:i + s + len(strip), None]
                strip += y_shift[None, j:j + block]
                strip /= num_dimensions
                strip += 1
                strip = _power(strip, degree)
                if symmetric and i == j:
                    strip[np.arange(len(strip)), s + np.arange(len(strip))] = 0
                rows[i + s:i + s + len(strip)] += strip.sum(axis=1)
                if not (symmetric and i == j):
                    columns[j:j + block] += strip.sum(axis=0)
    return (rows + columns, rows + columns) if symmetric else (rows, columns)


def kid_naive(fake: np.ndarray, real: np.ndarray, *, degree: int = 3) -> float:
    """The same U-statistic from whole kernel matrices in float64: the oracle of the tests and of the benchmark."""
    x, y = fake.astype(np.float64), real.astype(np.float64)
    n, m, num_dimensions = len(x), len(y), x.shape[1]
    within = []
    for z, num in ((x, n), (y, m)):
        k = (z @ z.T / num_dimensions + 1) ** degree
        within.append((k.sum() - np.trace(k)) / (num * (num - 1)))
    return float(sum(within) - 2 * ((x @ y.T / num_dimensions + 1) ** degree).mean())


def _power(values: np.ndarray, degree: int) -> np.ndarray:
    power = values.copy()
    for _ in range(degree - 1):
        power *= values
    return power


def _project(features: np.ndarray, direction: np.ndarray, block: int) -> np.ndarray:
    """features @ direction in float64, block by block."""
    return np.concatenate([features[i:i + block].astype(np.float64) @ direction
                           for i in range(0, len(features), block)])


def _without_one(row_sums: np.ndarray, mean: float) -> np.ndarray:
    """Mean over distinct pairs without image i, for every i."""
    n = len(row_sums)
    return (mean * n * (n - 1) - 2 * row_sums) / ((n - 1) * (n - 2))


def _without_one_row(row_sums: np.ndarray, mean: float, num_columns: int) -> np.ndarray:
    """Mean over all pairs without row i, for every i."""
    n = len(row_sums)
    return (mean * n * num_columns - row_sums) / ((n - 1) * num_columns)
