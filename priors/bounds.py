"""Monte-Carlo estimates of the absorbing bound on negative log-likelihood, each with its own variance.

    estimate = continuous_bound(score, tokens, budget=64, draws=Draws.seeded(0))

`score(masked, wanted)` gives the nats of the true tokens `wanted` (B, N) bool when `masked` (B, N) bool are hidden, as
(B, N) float64 with 0 elsewhere. m_k is the mean nats of a masked token when exactly k are masked. The T-step bound is
sum_t E[CE_t]/t (Eq. 6); as T grows it becomes sum_{k=1}^{N} m_k, the expectation over a random generation order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from priors.base import Draws

Score = Callable[[Tensor, Tensor], Tensor]


class Estimate(NamedTuple):
    """nats, variance: (B,) float64; evaluations: network evaluations an image."""

    nats: Tensor
    variance: Tensor
    evaluations: int


def t_step_bound(score: Score, tokens: Tensor, *, timesteps: int, draws: Draws) -> Estimate:
    """sum_{t=1}^{T} CE_t / t with one fresh mask a step, as the official evaluation has it (unbiased for Eq. 6).

    The variance comes from differences of successive terms, whose means are close; see `_successive_variance`.
    """
    terms = torch.empty(timesteps, len(tokens), dtype=torch.float64, device=tokens.device)
    for t in range(timesteps, 0, -1):   # the official order, so that its recorded draws fit
        masked = draws.uniform(*tokens.shape).to(tokens.device) < t / timesteps
        terms[t - 1] = score(masked, masked).sum(1) / t
    return Estimate(terms.sum(0), _successive_variance(terms), timesteps)


def _successive_variance(terms: Tensor) -> Tensor:
    """(n, B) independent terms -> (B,) variance of their sum; one term alone says nothing, so nan.

    Half of (x_t - x_{t+1})^2 holds half of both variances; the first and last difference count twice, because the end
    terms, of which the first has the largest variance, occur in one alone. Never too small: drift between neighbours
    and the second count of their partners add to it.
    """
    if len(terms) == 1:
        return torch.full_like(terms[0], torch.nan)
    squares = terms.diff(dim=0).square()
    return (squares.sum(0) + squares[0] + squares[-1]) / 2


def continuous_bound(score: Score, tokens: Tensor, *, budget: int, draws: Draws) -> Estimate:
    """sum_k m_k within `budget` evaluations an image, by two or more independent chains and a control variate.

    The all-masked evaluation gives m_N exactly and, for each token i, the control variate c_i, its nats when all is
    masked. A chain has one stratum of levels k for each evaluation: it draws k in the stratum and a random set of k
    masked tokens, and adds (size of stratum) * mean over the set of (nats_i - c_i), whose expectation is that of
    sum_k (m_k - m_N) over the stratum. The variance is that of the mean over chains.
    """
    everything = torch.ones_like(tokens, dtype=torch.bool)
    control = score(everything, everything)   # (B, N)
    levels = tokens.shape[1] - 1   # m_N is known
    chains = max(2, (budget - 1) // max(levels, 1))
    length = min((budget - 1) // chains, levels)
    if length < 1:
        if levels > 0:
            raise ValueError(f"budget={budget}: expected at least 3 network evaluations an image; raise the budget")
        return Estimate(control.sum(1), torch.zeros_like(control[:, 0]), 1)
    totals = torch.stack([_chain(score, control, length, draws) for _ in range(chains)])   # (chains, B)
    return Estimate(control.sum(1) + totals.mean(0), totals.var(0) / chains, 1 + chains * length)


def _chain(score: Score, control: Tensor, length: int, draws: Draws) -> Tensor:
    """One unbiased estimate (B,) of sum_{k=1}^{N-1} (m_k - m_N) by `length` evaluations, one a stratum of levels."""
    num_images, num_tokens = control.shape
    edges = (torch.arange(length + 1, device=control.device) * (num_tokens - 1)) // length   # strata (a, b] of levels
    sizes = edges.diff()
    position = draws.uniform(num_images, length).to(control.device)
    levels = edges[:-1] + 1 + (position * sizes).long()   # (B, length)
    total = torch.zeros_like(control[:, 0])
    for j in range(length):
        rank = draws.uniform(num_images, num_tokens).to(control.device).argsort(1).argsort(1)
        masked = rank < levels[:, j : j + 1]
        difference = score(masked, masked) - control.masked_fill(~masked, 0.0)
        total += sizes[j] * difference.sum(1) / levels[:, j]
    return total
