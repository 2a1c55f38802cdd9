"""Uniform diffusion in continuous time (UDLM: Schiff et al. 2024): its noise, its bound, its training loss.

A token of time t in [0, 1] is still itself with probability alpha_t and otherwise any of the K, so that
q(x_t | x_0) = alpha_t [x_t = x_0] + beta_t / K with beta_t = 1 - alpha_t, the noise level. A predictor is a function
(x_t, t) -> logits of x_theta: (B, N), (B,) -> (B, N, K), what a token would be by the others; p_theta = alpha_t x_theta
+ beta_t / K is then what it would be at time t, and the reverse process jumps from x_t to y at a rate proportional to
p_theta(y) / p_theta(x_t).

    found = bound_continuous(predict, Noise("linear", codebook_size=256), tokens, budget=64, draws=Draws.seeded(0))
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from priors.base import Draws, Likelihood
from priors.transitions import Corruption

Predictor = Callable[[Tensor, Tensor], Tensor]

LAST = 1e-6   # alpha at t = 1: above 0, so that x_1 has a logarithm for every x_0; the bound counts what it keeps
EARLIEST = 1e-3   # in training: below it a token that the network holds for impossible costs up to 1 / t (as published)
POWER = 2   # the bound is evaluated at levels v^2, v even


class Schedule(NamedTuple):
    """How a level rises from 0 at t = 0 to 1 at t = 1, its derivative, and the time of a level."""

    share: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    time: Callable[[Tensor], Tensor]


SCHEDULES = {
    "linear": Schedule(lambda t: t, torch.ones_like, lambda share: share),
    "cosine": Schedule(   # 1 - cos x = 2 sin^2 (x / 2), exact where x is small
        lambda t: 2 * (t * (math.pi / 4)).sin().square(), lambda t: (t * (math.pi / 2)).sin() * (math.pi / 2),
        lambda share: (share / 2).sqrt().asin() * (4 / math.pi)),
}


@dataclass(frozen=True)
class Noise:
    """schedule: "linear", alpha_t = 1 - t (log-linear noise), or "cosine", alpha_t = cos(pi t / 2); both end at LAST.

    The bound does not depend on it: it is an integral over levels. It says how often training sees a level, and what
    time the network is told.
    """

    schedule: str
    codebook_size: int

    def level(self, t: Tensor) -> Tensor:
        """beta_t, of the dtype of t."""
        return (1 - LAST) * SCHEDULES[self.schedule].share(t)

    def slope(self, t: Tensor) -> Tensor:
        """d beta_t / dt."""
        return (1 - LAST) * SCHEDULES[self.schedule].slope(t)

    def time(self, level: Tensor) -> Tensor:
        """The time of a level."""
        return SCHEDULES[self.schedule].time(level / (1 - LAST))

    def corrupt(self, tokens: Tensor, t: Tensor, *, draws: Draws) -> Tensor:
        """x_t ~ q(x_t | x_0): (B, N), (B,) -> (B, N); two random numbers a token."""
        fate = draws.uniform(*tokens.shape).to(tokens.device, torch.float64)
        replacement = draws.integers(0, self.codebook_size, *tokens.shape).to(tokens.device)
        return torch.where(fate < self.level(t.double()).unsqueeze(1), replacement, tokens)

    def log_likelihood(self, x_t: Tensor, t: Tensor, *, dtype: torch.dtype) -> Tensor:
        """log K q(x_t | x_0) for every x_0: (B, N), (B,) -> (B, N, K); -inf where it cannot be (t = 0)."""
        level = self.level(t.double())[:, None, None]
        stay = level + (1 - level) * self.codebook_size
        return torch.where(self.is_code(x_t), stay.log().to(dtype), level.log().to(dtype))

    def is_code(self, tokens: Tensor) -> Tensor:
        """(B, N) -> (B, N, K) bool, True at each token's own code."""
        return tokens.unsqueeze(-1) == torch.arange(self.codebook_size, device=tokens.device)

    def chain(self, steps: int) -> Corruption:
        """The same process seen at the times i / steps."""
        t = torch.arange(steps + 1, dtype=torch.float64) / steps
        keep = 1 - self.level(t)
        return Corruption(keep, torch.zeros_like(keep), codebook_size=self.codebook_size)


def level_nats(logits: Tensor, noise: Noise, x_0: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
    """The integrand of the bound, in nats a unit of level beta: (B, N, K) logits at x_t (B, N), t (B,) -> (B,).

    The reverse process jumps from x_t to y at the rate (d beta / alpha K) r(y), r(y) = q(y | x_0) / q(x_t | x_0), and
    the model at the same with r_theta(y) = p_theta(y) / p_theta(x_t). Two jump processes diverge by the sum over
    y != x_t of r_theta - r - r log(r_theta / r) (Schiff et al. 2024). As r (e^u - 1 - u), u = log(r_theta / r), it is
    never negative, 0 at y = x_t, and free of cancellation where both are near 1 and the rate is large, at t near 1.
    """
    level = noise.level(t.double())[:, None, None]
    alpha = 1 - level
    low, gain = level.to(logits.dtype), (alpha * noise.codebook_size).to(logits.dtype)
    log_p = (low + gain * logits.softmax(-1)).log()   # of K p_theta
    log_q = (low + gain * noise.is_code(x_0)).log()
    here = x_t.unsqueeze(-1)
    log_r = log_q - log_q.gather(-1, here)
    u = log_p - log_p.gather(-1, here) - log_r
    return (log_r.exp() * (u.expm1() - u)).sum((1, 2)) / gain[:, 0, 0]


def continuous_loss(predict: Predictor, noise: Noise, tokens: Tensor, *, draws: Draws) -> Tensor:
    """Training loss in bits per token, (): the bound between EARLIEST and 1, one time an image.

    Times are stratified over the batch, one in each of its B parts of the interval.
    """
    t = (1 - (1 - EARLIEST) * draws.stratified(len(tokens))).to(tokens.device)   # in (EARLIEST, 1]
    x_t = noise.corrupt(tokens, t, draws=draws)
    nats = level_nats(predict(x_t, t).float(), noise, tokens, x_t, t)
    return ((1 - EARLIEST) * noise.slope(t).to(nats.dtype) * nats).mean() / (tokens.shape[1] * math.log(2))


def bound_continuous(predict: Predictor, noise: Noise, tokens: Tensor, *, budget: int, draws: Draws) -> Likelihood:
    """-log p(x_0) <= KL(q(x_1 | x_0) || uniform) + the integral over levels, nats an image; unbiased.

    Levels are v^POWER with v in budget // 2 even strata, two draws in each, whose difference gives the variance; small
    levels, where few tokens cost much, are seen more often and weigh less. At level 0 nothing is left to reconstruct.
    A budget of 1 is one random level, its variance unknown (nan). Raises ValueError if the budget is below 1.
    """
    if budget < 1:
        raise ValueError(f"budget={budget}: expected at least 1 network evaluation an image, or none for the default")
    repeats = min(budget, 2)
    num_strata = budget // repeats
    terms = torch.empty(num_strata, repeats, len(tokens), dtype=torch.float64, device=tokens.device)
    for stratum in range(num_strata):
        for repeat in range(repeats):
            v = (stratum + 1 - draws.uniform(len(tokens)).double()).to(tokens.device) / num_strata   # in (0, 1]
            t = noise.time((1 - LAST) * v**POWER)
            x_t = noise.corrupt(tokens, t, draws=draws)
            nats = level_nats(predict(x_t, t).double(), noise, tokens, x_t, t)
            terms[stratum, repeat] = nats * (1 - LAST) * POWER * v ** (POWER - 1) / num_strata
    nats = terms.mean(1).sum(0) + tokens.shape[1] * noise.chain(1).start_kl().to(terms.device)
    variance = terms.var(1).sum(0) / 2 if repeats == 2 else torch.full_like(nats, math.nan)
    return Likelihood(nats, variance, "bound_continuous", num_strata * repeats)
