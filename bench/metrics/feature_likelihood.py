"""Feature Likelihood Divergence: one score that punishes blurred, missing and copied images (Jiralerspong et al. 2023).

    result = fld(fake, train, held_out)           # result.value, result.gap

A Gaussian sits on every sample, in features scaled to held-out mean 0 and variance 1; its width is fitted to the
training set (arXiv 2302.04440, Section 3).  A sample that copies a training image gets a width near zero, which gives
held-out images nothing.  FLD = 100 (nll of held-out images - nll of them under half of the training set as "samples"),
nll in nats a dimension: 0 is as good as training images themselves.  The gap is 100 (nll of training - of held-out
images): far below 0 where samples lie nearer to what was trained on.

As in the authors' code: 50 full steps of Adam at rate 0.5, from the width that is best for each sample's nearest
training image; a spare component at the mean of the training set takes part in the fit alone.  No more than 10,000
images a side.  Steps are taken in float64, because Adam turns rounding of small derivatives into steps of 0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.errors import InputError
from bench.metrics.checks import check_features
from bench.metrics.pairwise import float32_product

MOST = 10_000
NUM_STEPS, RATE, BETAS, EPSILON = 50, 0.5, (0.9, 0.999), 1e-8   # Adam
LOG_WIDTHS = (-40.0, 20.0)
SPARE = (1 - 0.1) ** 2            # by which squared distances to the spare component count less
ROWS_AT_ONCE = 512
LEAST = 4


@dataclass(frozen=True)
class FldResult:
    """value: FLD; gap: the train-test generalisation gap; error_over_images: of `value` over held-out images alone."""

    value: float
    gap: float
    error_over_images: float
    n: int
    num_train: int
    num_held_out: int


def fld(fake: np.ndarray, train: np.ndarray, held_out: np.ndarray, *, seed: int = 0) -> FldResult:
    """FLD of (n, D) fake features, a model of (m, D) training images, judged by (h, D) held-out ones.

    seed: of the halving of the training set behind the baseline.
    Raises InputError for NaN, unequal dimensions or types, more than 10,000 images or fewer than four a side, and
    held-out features that do not vary at all.
    """
    check_features(fake, train, least=LEAST)
    check_features(held_out, train, least=LEAST)
    for side, features in (("fake", fake), ("training", train), ("held-out", held_out)):
        if len(features) > MOST:
            raise InputError(f"{len(features)} {side} images; FLD compares at most {MOST} a side: pass fewer")
    samples, trained, judged = _scaled(fake, train, held_out)
    mixture = Mixture.fitted(samples, trained)
    nll_held_out, nll_train = mixture.nll(judged), mixture.nll(trained)
    shuffled = trained[torch.from_numpy(np.random.default_rng(seed).permutation(len(trained)))]
    half = min(len(samples), len(shuffled) // 2)
    baseline = Mixture.fitted(shuffled[:half], shuffled[half:]).nll(judged)
    difference = 100 * (nll_held_out - baseline)
    return FldResult(float(difference.mean()), float(100 * (nll_train.mean() - nll_held_out.mean())),
                     float(difference.std() / math.sqrt(len(difference))), len(fake), len(train), len(held_out))


@dataclass(frozen=True)
class Mixture:
    """A spherical Gaussian on each of (n, D) centres, all of equal weight; log_widths (n,): log variances."""

    centres: Tensor
    log_widths: Tensor

    @classmethod
    def fitted(cls, centres: Tensor, points: Tensor) -> Mixture:
        """With the widths that make (m, D) points most likely, as far as 50 steps go."""
        num_dimensions = centres.shape[1]
        squares = squared_distances(points, centres)                             # (m, n)
        to_mean = SPARE * (points - points.mean(dim=0)).square().sum(dim=1)      # (m,)
        widths = torch.cat([((squares.min(dim=0).values.double() + 1e-3) / num_dimensions).log(), torch.zeros(1)])
        first, second = torch.zeros_like(widths), torch.zeros_like(widths)
        for step in range(1, NUM_STEPS + 1):
            gradient = _gradient(squares, to_mean, widths, num_dimensions)
            first.lerp_(gradient, 1 - BETAS[0])
            second.lerp_(gradient.square(), 1 - BETAS[1])
            root = (second / (1 - BETAS[1] ** step)).sqrt() + EPSILON
            widths -= RATE / (1 - BETAS[0] ** step) * first / root
            widths[:-1].clamp_(*LOG_WIDTHS)
        return cls(centres, widths[:-1])

    def nll(self, points: Tensor) -> Tensor:
        """(m,) float64: negative log-likelihood of each point, in nats a dimension."""
        rows = [_log_densities(squared_distances(some, self.centres).double(), self.log_widths, points.shape[1])
                for some in points.split(ROWS_AT_ONCE)]
        each = torch.cat([torch.logsumexp(row - math.log(len(self.centres)), dim=1) for row in rows])
        return -each / points.shape[1]


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(m, n) float32; pairs so close that the product's rounding shows are computed again, coordinate by coordinate."""
    x_norms, y_norms = x.square().sum(dim=1), y.square().sum(dim=1)
    squares = float32_product(x, y).mul_(-2).add_(x_norms[:, None]).add_(y_norms)
    close = (squares < 1e-3 * (x_norms[:, None] + y_norms)).nonzero()
    for some in close.split(4096):
        squares[some[:, 0], some[:, 1]] = (x[some[:, 0]] - y[some[:, 1]]).square().sum(dim=1)
    return squares


def _gradient(squares: Tensor, to_mean: Tensor, widths: Tensor, num_dimensions: int) -> Tensor:
    """(n + 1,) of the mean nll a dimension by the log widths, the spare component's last.

    By a log width w, log N moves by (square / e^w - D) / 2, weighted with the component's share of each point.
    """
    total = torch.zeros_like(widths)
    num_points, num_centres = squares.shape
    for start in range(0, num_points, ROWS_AT_ONCE):
        rows = torch.cat([squares[start:start + ROWS_AT_ONCE], to_mean[start:start + ROWS_AT_ONCE, None]], 1).double()
        logs = _log_densities(rows, widths, num_dimensions)
        logs[:, :-1] -= math.log(num_centres)
        total += (torch.softmax(logs, dim=1) * (num_dimensions - rows * torch.exp(-widths)) / 2).sum(dim=0)
    return total / (num_points * num_dimensions)


def _log_densities(squares: Tensor, log_widths: Tensor, num_dimensions: int) -> Tensor:
    return -0.5 * (squares * torch.exp(-log_widths) + num_dimensions * (log_widths + math.log(2 * math.pi)))


def _scaled(*sides: np.ndarray) -> list[Tensor]:
    """float32 tensors with the last side's mean taken off and its standard deviation divided out.

    Dimensions in which the held-out images do not vary say nothing and are left out.
    """
    mean, deviation = sides[-1].mean(axis=0, dtype=np.float64), sides[-1].std(axis=0, ddof=1, dtype=np.float64)
    kept = deviation > 0
    if not kept.any():
        raise InputError(f"all {len(sides[-1])} held-out images have the same features: FLD has no scale; "
                         "look at the data set or the extractor's weights")
    return [torch.from_numpy(((side[:, kept] - mean[kept]) / deviation[kept]).astype(np.float32)) for side in sides]
