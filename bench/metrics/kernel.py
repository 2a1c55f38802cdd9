"""Kernel distance (KID): the full unbiased U-statistic of MMD^2 with a jackknife error (Binkowski et al. 2018).

    result = kid(fake, real)              # result.value, result.standard_error

k(x, y) = (x.y / D + 1)^3.  KID = mean k(x, x') + mean k(y, y') - 2 mean k(x, y), the first two over distinct pairs.
The error leaves out one image at a time; it needs only row sums of the three kernel matrices, streamed in blocks.  A
jackknife counts the second-order part of the variance twice (Efron & Stein 1981), which is all there is when both sides
are alike, so that part is taken off once.  (The usual 'std' over random subsets is not a standard error: they overlap.)
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
    fake_fake, _, squares_fake = kernel_row_sums(fake, None, centre, degree=degree, block=block)
    real_real, _, squares_real = kernel_row_sums(real, None, centre, degree=degree, block=block)
    fake_real, real_fake, squares_across = kernel_row_sums(fake, real, centre, degree=degree, block=block)
    n, m = len(fake), len(real)
    within_fake, within_real = fake_fake.sum() / (n * (n - 1)), real_real.sum() / (m * (m - 1))
    across = fake_real.sum() / (n * m)
    value = within_fake + within_real - 2 * across
    without_fake = _without_one(fake_fake, within_fake) + within_real - 2 * _without_one_row(fake_real, across, m)
    without_real = within_fake + _without_one(real_real, within_real) - 2 * _without_one_row(real_fake, across, n)
    influence_fake = (n - 1) * (without_fake.mean() - without_fake)
    influence_real = (m - 1) * (without_real.mean() - without_real)
    jackknife = influence_fake.var(ddof=1) / n + influence_real.var(ddof=1) / m
    second_order = (2 * _interaction(fake_fake / (n - 1), fake_fake / (n - 1), squares_fake / (n * (n - 1))) / n**2
                    + 2 * _interaction(real_real / (m - 1), real_real / (m - 1), squares_real / (m * (m - 1))) / m**2
                    + 4 * _interaction(fake_real / m, real_fake / n, squares_across / (n * m)) / (n * m))
    error = np.sqrt(max(jackknife - second_order, second_order))
    return KernelResult(float(value), float(error), n, m, influence_fake, influence_real)


def kernel_row_sums(x: np.ndarray, other: np.ndarray | None, centre: np.ndarray, *, degree: int,
                    block: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Row sums (n,), column sums (m,) and sum of squares of the kernel matrix of x and `other`.

    other None: of x with itself, without the diagonal.

    The product is taken of features minus `centre` and completed in float64: x.y = (x-c).(y-c) + x.c + y.c - c.c, which
    keeps float32 products far from cancellation.
    """
    symmetric, y = other is None, x if other is None else other
    num_dimensions = x.shape[1]
    wide = centre.astype(np.float64)
    x_shift = _project(x, wide, block) - wide @ wide
    y_shift = _project(y, wide, block)
    rows, columns, squares = np.zeros(len(x)), np.zeros(len(y)), 0.0
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
                twice = symmetric and i != j
                squares += float(np.vdot(strip, strip)) * (1 + twice)
                if not (symmetric and i == j):
                    columns[j:j + block] += strip.sum(axis=0)
    return (rows + columns, rows + columns, squares) if symmetric else (rows, columns, squares)


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


def _interaction(row_means: np.ndarray, column_means: np.ndarray, mean_square: float) -> float:
    """Variance of the kernel beyond what its row and column means explain."""
    mean = row_means.mean()
    return max(0.0, mean_square - np.square(row_means).mean() - np.square(column_means).mean() + mean**2)


def _without_one(row_sums: np.ndarray, mean: float) -> np.ndarray:
    """Mean over distinct pairs without image i, for every i."""
    n = len(row_sums)
    return (mean * n * (n - 1) - 2 * row_sums) / ((n - 1) * (n - 2))


def _without_one_row(row_sums: np.ndarray, mean: float, num_columns: int) -> np.ndarray:
    """Mean over all pairs without row i, for every i."""
    n = len(row_sums)
    return (mean * n * num_columns - row_sums) / ((n - 1) * num_columns)
