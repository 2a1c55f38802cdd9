"""Monte-Carlo estimates of the absorbing bounds on negative log-likelihood, each with its own variance.

    estimate = continuous_bound(score, tokens, budget=64, draws=Draws.seeded(0))

`score(masked, wanted)` gives the nats of the true tokens `wanted` (B, N) bool when `masked` (B, N) bool are hidden, as
(B, N) float64 with 0 elsewhere. m_k is the mean nats of a masked token when exactly k are masked. The T-step bound is
sum_t E[CE_t]/t (Eq. 6); as T grows it becomes sum_{k=1}^{N} m_k, the expectation over a random generation order. Both
are sum_k w_k m_k with sum_k w_k = N, see `level_weights`, so that one low-variance estimator serves both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from priors.base import Draws, NatsByUnknown

Score = Callable[[Tensor, Tensor], Tensor]


class Estimate(NamedTuple):
    """nats, variance: (B,) float64; evaluations: network evaluations an image; by_unknown: what they saw, by level."""

    nats: Tensor
    variance: Tensor
    evaluations: int
    by_unknown: NatsByUnknown


def bound(
    score: Score, tokens: Tensor, *, timesteps: int, budget: int | None, draws: Draws
) -> tuple[Estimate, Literal["bound_T", "bound_continuous"]]:
    """What a budget buys, and its kind: without one the sum over t as published, with T or more a low-variance estimate
    of that bound, with less a low-variance estimate of its limit of infinite T, which is lower."""
    if budget is None or timesteps <= budget < FEWEST:
        return t_step_sum(score, tokens, timesteps=timesteps, draws=draws), "bound_T"
    if budget >= timesteps:
        return t_step_bound(score, tokens, timesteps=timesteps, budget=budget, draws=draws), "bound_T"
    return continuous_bound(score, tokens, timesteps=timesteps, budget=budget, draws=draws), "bound_continuous"


def t_step_sum(score: Score, tokens: Tensor, *, timesteps: int, draws: Draws) -> Estimate:
    """sum_{t=1}^{T} CE_t / t with one fresh mask a step, as the official evaluation has it (unbiased for Eq. 6).

    The variance comes from differences of successive terms, whose means are close; see `_successive_variance`.
    """
    terms = torch.empty(timesteps, len(tokens), dtype=torch.float64, device=tokens.device)
    seen = _nothing_seen(tokens, timesteps)
    for t in range(timesteps, 0, -1):   # the official order, so that its recorded draws fit
        masked = draws.uniform(*tokens.shape).to(tokens.device) < t / timesteps
        nats = score(masked, masked).sum(1)
        terms[t - 1] = nats / t
        see(seen, nats, masked.sum(1))
    return Estimate(terms.sum(0), _successive_variance(terms), timesteps, seen)


def _nothing_seen(tokens: Tensor, timesteps: int | None) -> NatsByUnknown:
    nats = torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)
    return NatsByUnknown(nats, nats.clone(), None if timesteps is None else level_weights(tokens.shape[1], timesteps))


def see(seen: NatsByUnknown, nats: Tensor, k: Tensor) -> None:
    """Count one evaluation of each image: nats (B,), the sum over its k (B,) int64 masked tokens; none where k = 0."""
    level = (k - 1).clamp(min=0).unsqueeze(1)
    seen.nats.scatter_add_(1, level, (nats / k.clamp(min=1)).unsqueeze(1))
    seen.times.scatter_add_(1, level, (k > 0).to(nats).unsqueeze(1))


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


def t_step_bound(score: Score, tokens: Tensor, *, timesteps: int, budget: int, draws: Draws) -> Estimate:
    """The T-step bound, which `t_step_sum` estimates too, with far less variance; see `_level_bound`."""
    weights = level_weights(tokens.shape[1], timesteps)
    return _level_bound(score, tokens, weights, _nothing_seen(tokens, timesteps), budget=budget, draws=draws)


def continuous_bound(score: Score, tokens: Tensor, *, budget: int, draws: Draws,
                     timesteps: int | None = None) -> Estimate:
    """sum_k m_k, the limit of infinite T; see `_level_bound`. timesteps: whose bound `by_unknown` shall tell too."""
    weights = torch.ones(tokens.shape[1], dtype=torch.float64)
    return _level_bound(score, tokens, weights, _nothing_seen(tokens, timesteps), budget=budget, draws=draws)


def level_weights(num_tokens: int, timesteps: int) -> Tensor:
    """(N,) float64 w_1 .. w_N of the T-step bound: CE_t is k m_k with k ~ Binomial(N, t/T), hence

    w_k = k sum_t C(N, k) (t/T)^k (1 - t/T)^(N-k) / t.
    """
    k = torch.arange(1, num_tokens + 1, dtype=torch.float64)
    t = torch.arange(1, timesteps + 1, dtype=torch.float64).unsqueeze(1)
    share = t / timesteps
    choices = math.lgamma(num_tokens + 1) - torch.lgamma(k + 1) - torch.lgamma(num_tokens - k + 1)
    chance = (choices + torch.xlogy(k, share) + torch.xlogy(num_tokens - k, 1 - share)).exp()   # (T, N)
    return (k * chance / t).sum(0)


def _level_bound(score: Score, tokens: Tensor, weights: Tensor, seen: NatsByUnknown, *, budget: int,
                 draws: Draws) -> Estimate:
    """sum_k w_k m_k within `budget` evaluations an image: stratified levels, control variates lent between chains.

    weights: (N,), w_k of the levels k = 1..N.  The all-masked evaluation gives m_N exactly and, for each token i, c_i,
    its nats when all is masked. Two or more chains (see `Chain`) estimate the other levels; each takes as control
    variate h_i = c_i + what the other chains saw of token i beyond it. That is independent of the chain's own masks, so
    every total is unbiased; the variance reported is that of their mean, as if they were independent, which they are to
    first order. Raises ValueError if the budget is below `FEWEST`.
    """
    everything = torch.ones_like(tokens, dtype=torch.bool)
    control = score(everything, everything)   # (B, N)
    see(seen, control.sum(1), everything.sum(1))
    known, weights = weights[-1].item() * control.mean(1), weights[:-1]
    if not weights.any():   # one token, or one step
        return Estimate(known, torch.zeros_like(known), 1, seen)
    if budget < FEWEST:
        raise ValueError(f"budget={budget}: expected at least {FEWEST} network evaluations an image; raise the budget")
    num_chains = max(2, (budget - 1) // len(weights))
    length = min((budget - 1) // num_chains, len(weights))
    chains = [run_chain(score, control, weights, length, draws, seen) for _ in range(num_chains)]
    excess, times = sum(chain.excess for chain in chains), sum(chain.times for chain in chains)
    totals = []
    for chain in chains:
        helped = control + (excess - chain.excess) / (times - chain.times + SHRINKAGE)   # (B, N)
        totals.append(known + chain.total - (chain.weight * helped).sum(1) + weights.sum().item() * helped.mean(1))
    spread = torch.stack(totals)   # (chains, B)
    return Estimate(spread.mean(0), spread.var(0) / num_chains, 1 + num_chains * length, seen)


FEWEST = 3   # network evaluations: all masked, and one in each of two chains
SHRINKAGE = 0.3   # observations that the all-masked prediction counts for (measured: 0.3 better than 1 and 3)
GROWTH = 1.3   # strata grow with the level, as the variance of a mean over k tokens falls (measured: 1.2 to 1.5 alike)


class Chain(NamedTuple):
    """One pass over the levels 1..N-1, one evaluation a stratum, with k and the k masked tokens drawn at random.

    total: (B,) sum over strata of (mass of the stratum) * mean nats of the masked tokens, in expectation sum w_k m_k.
    weight: (B, N) what each token's nats counted for in the total; sum w_k over N tokens in expectation.
    excess, times: (B, N) sum and number of the token's nats beyond c_i, with the mean of its evaluation taken off.
    """

    total: Tensor
    weight: Tensor
    excess: Tensor
    times: Tensor


def run_chain(score: Score, control: Tensor, weights: Tensor, length: int, draws: Draws, seen: NatsByUnknown) -> Chain:
    """control: (B, N), the nats c_i of each token when all is masked; weights: (N - 1,) of the levels 1..N-1.

    length: strata, from 1 to N - 1; within one a level is drawn in proportion to its weight.
    seen: counts every evaluation.
    """
    num_images, num_tokens = control.shape
    edges, below = strata(weights, length), F.pad(weights.cumsum(0), (1, 0))
    masses = below[edges].diff().to(control.device)
    position = below[edges[:-1]] + draws.uniform(num_images, length).cpu() * below[edges].diff()
    levels = torch.searchsorted(below, position, right=True).clamp(edges[:-1] + 1, edges[1:]).to(control.device)
    total, weight, excess, times = torch.zeros_like(control[:, 0]), *(torch.zeros_like(control) for _ in range(3))
    for mass, k in zip(masses, levels.T, strict=True):
        k = k.unsqueeze(1)   # (B, 1)
        masked = draws.uniform(num_images, num_tokens).to(control.device).argsort(1).argsort(1) < k
        nats = score(masked, masked)
        see(seen, nats.sum(1), k[:, 0])
        beyond = nats - control.masked_fill(~masked, 0.0)
        total += mass * nats.sum(1) / k[:, 0]
        weight += mass * masked.double() / k
        excess += (beyond - beyond.sum(1, keepdim=True) / k).masked_fill(~masked, 0.0)
        times += masked
    return Chain(total, weight, excess, times)


def strata(weights: Tensor, length: int) -> Tensor:
    """(length + 1,) int64 edges 0 = e_0 < ... = len(weights) of strata (e_j, e_{j+1}] of levels.

    The mass below an edge grows as j^GROWTH, as far as whole levels and at least one a stratum allow.
    """
    below = F.pad(weights.cumsum(0), (1, 0))
    edges = [0]
    for j in range(1, length + 1):
        wanted = int((below - below[-1] * (j / length) ** GROWTH).abs().argmin())
        edges.append(min(max(wanted, edges[-1] + 1), len(weights) - (length - j)))
    return torch.tensor(edges)
