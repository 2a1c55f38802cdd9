"""Token-wise corruption: keep a token, replace it by a uniform one, or mask it (Gu et al. 2022, section 4.1).

One family covers VQ-Diffusion (mask-and-replace) and uniform diffusion (D3PM-uniform, multinomial: never mask).
The mask is token K and absorbing.  Everything is closed form: no K x K matrix is ever built, memory is O(B N K).

    corruption = Corruption.mask_and_replace(num_timesteps=100, codebook_size=1024)
    x_t = corruption.corrupt(x_0, t, draws=draws)                               # (B, N) in [0, K], K is the mask
    log_p = corruption.log_posterior(logits.log_softmax(-1), x_t, s=t - 1, t=t)   # (B, N, K + 1)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from priors.base import Draws


@dataclass(frozen=True)
class Transition:
    """q(x_t | x_s) of one token: Q = keep I + replace 1 1^T on the K tokens, `mask` to the mask, which stays masked.

    keep: probability to stay besides being replaced by oneself; replace: probability of each of the K tokens;
    mask: probability of the mask. keep + K replace + mask = 1. Tensors of one shape, such as (B,).
    """

    keep: Tensor
    replace: Tensor
    mask: Tensor


class Posterior(Protocol):
    """What undoes a step: see `Corruption.log_posterior`."""

    def log_posterior(self, log_x_0: Tensor, x_t: Tensor, *, s: Tensor, t: Tensor) -> Tensor: ...


class Corruption(nn.Module):
    """A forward process of T steps, given by its cumulative probabilities; a module so that it moves with its prior.

    keep_bar, mask_bar: (T + 1,) float64, the transition from the data to time t; entry 0 is the data (1 and 0).
    Raises ValueError where they are not the cumulative probabilities of a Markov chain that replaces tokens.
    """

    keep_bar: Tensor
    mask_bar: Tensor
    replace_bar: Tensor

    def __init__(self, keep_bar: Tensor, mask_bar: Tensor, *, codebook_size: int):
        super().__init__()
        keep_bar, mask_bar = keep_bar.to(torch.float64), mask_bar.to(torch.float64)
        replace_bar = 1 - keep_bar - mask_bar   # of all K tokens together
        replace_bar[0] = 0
        _check_chain(keep_bar, mask_bar, replace_bar)
        self.num_timesteps = len(keep_bar) - 1
        self.codebook_size = codebook_size
        self.register_buffer("keep_bar", keep_bar, persistent=False)
        self.register_buffer("mask_bar", mask_bar, persistent=False)
        self.register_buffer("replace_bar", replace_bar, persistent=False)

    @classmethod
    def mask_and_replace(cls, *, num_timesteps: int, codebook_size: int, final_mask: float = 0.99999) -> Corruption:
        """VQ-Diffusion's linear schedules: keep .99999 -> 9e-6, mask 9e-6 -> final_mask, the rest is replaced.

        The published code masks .99999 at time T, so that it replaces one token in a million; the paper's text says .9.
        """
        keep = torch.linspace(0.99999, 9e-6, num_timesteps, dtype=torch.float64)
        mask = torch.linspace(9e-6, final_mask, num_timesteps, dtype=torch.float64)
        return cls(_prepend(keep, 1.0), _prepend(mask, 0.0), codebook_size=codebook_size)

    @classmethod
    def uniform(cls, *, num_timesteps: int, codebook_size: int) -> Corruption:
        """Replacement only, with the cosine schedule of multinomial diffusion (Hoogeboom et al. 2021, section 6)."""
        time = torch.arange(num_timesteps + 1, dtype=torch.float64) / num_timesteps
        keep = torch.cos((time + 0.008) / 1.008 * math.pi / 2).square()
        keep = (keep / keep[0]).clamp(min=1e-6)   # at t = T the cosine is 0, and log 0 no use to anyone
        return cls(keep, torch.zeros_like(keep), codebook_size=codebook_size)

    def cumulative(self, t: Tensor) -> Transition:
        """q(x_t | x_0) for (B,) int64 times in 0..T."""
        return Transition(self.keep_bar[t], self.replace_bar[t] / self.codebook_size, self.mask_bar[t])

    def between(self, s: Tensor, t: Tensor) -> Transition:
        """The composite transition q(x_t | x_s), s <= t, (B,) int64: what one strided step undoes."""
        keep_s, keep_t, all_s, all_t = self.keep_bar[s], self.keep_bar[t], self.replace_bar[s], self.replace_bar[t]
        survive_s = keep_s + all_s   # not masked
        replace = (all_t * keep_s - keep_t * all_s) / (keep_s * survive_s)   # free of the cancellation in 1 - a - c
        replace = replace.clamp(min=0) / self.codebook_size
        return Transition(keep_t / keep_s, replace, (self.mask_bar[t] - self.mask_bar[s]) / survive_s)

    def corrupt(self, tokens: Tensor, t: Tensor, *, draws: Draws) -> Tensor:
        """x_t ~ q(x_t | x_0): (B, N) int64 in [0, K), (B,) -> (B, N) in [0, K]; two random numbers a token."""
        q = self.cumulative(t)
        fate = draws.uniform(*tokens.shape).to(tokens.device, torch.float64)
        replacement = draws.integers(0, self.codebook_size, *tokens.shape).to(tokens.device)
        x_t = torch.where(fate < (q.mask + q.keep).unsqueeze(-1), tokens, replacement)
        return torch.where(fate < q.mask.unsqueeze(-1), self.codebook_size, x_t)

    def log_posterior(self, log_x_0: Tensor, x_t: Tensor, *, s: Tensor, t: Tensor) -> Tensor:
        """log sum over x_0 of q(x_s | x_t, x_0) p(x_0): (B, N, K), (B, N) -> (B, N, K + 1), dtype of log_x_0.

        s < t: (B,) int64; any stride, by the composite transition. Bayes: q(x_s | x_t, x_0) = q(x_t | x_s) q(x_s | x_0)
        / q(x_t | x_0), so with w(x_0) = p(x_0) / q(x_t | x_0) the sum over x_0 costs O(K), not O(K^2).
        """
        before, step, total = (_Logs.of(q, log_x_0.dtype) for q in
                               (self.cumulative(s), self.between(s, t), self.cumulative(t)))
        same = self._is_code(x_t)   # (B, N, K)
        masked = (x_t == self.codebook_size).unsqueeze(-1)   # (B, N, 1)
        log_w = log_x_0 - total.reaching(same, masked)
        log_sum_w = log_w.logsumexp(-1, keepdim=True)   # (B, N, 1)
        log_tokens = torch.logaddexp(before.replace + log_sum_w, before.keep + log_w) + step.reaching(same, masked)
        log_mask = torch.where(masked, before.mask + log_sum_w, -math.inf)   # only a mask was a mask before
        return torch.cat([log_tokens, log_mask], -1)

    def log_true_posterior(self, x_0: Tensor, x_t: Tensor, *, s: Tensor, t: Tensor, dtype: torch.dtype) -> Tensor:
        """log q(x_s | x_t, x_0): (B, N), (B, N) -> (B, N, K + 1); `log_posterior` of a certain x_0, no sums."""
        before, step, total = (_Logs.of(q, dtype) for q in
                               (self.cumulative(s), self.between(s, t), self.cumulative(t)))
        masked = (x_t == self.codebook_size).unsqueeze(-1)   # (B, N, 1)
        log_evidence = total.reaching((x_t == x_0).unsqueeze(-1), masked)   # log q(x_t | x_0), (B, N, 1)
        log_before = torch.where(self._is_code(x_0), before.stay, before.replace)   # log q(x_s | x_0)
        log_tokens = log_before + step.reaching(self._is_code(x_t), masked) - log_evidence
        log_mask = torch.where(masked, before.mask - log_evidence, -math.inf)
        return torch.cat([log_tokens, log_mask], -1)

    def _is_code(self, tokens: Tensor) -> Tensor:
        """(B, N) -> (B, N, K) bool, True at each token's own code."""
        return tokens.unsqueeze(-1) == torch.arange(self.codebook_size, device=tokens.device)

    def start_logits(self) -> Tensor:
        """(K + 1,) float64 log p(x_T): masked as often as q(x_T), any token equally likely otherwise."""
        mask = self.mask_bar[-1]
        return torch.cat([((1 - mask) / self.codebook_size).expand(self.codebook_size), mask[None]]).log()

    def start_kl(self) -> Tensor:
        """() float64: KL(q(x_T | x_0) || p(x_T)) of one token, in nats, the same for every x_0."""
        q = self.cumulative(torch.tensor([self.num_timesteps], device=self.keep_bar.device))
        uniform = q.replace + q.keep / self.codebook_size
        stay, others = q.keep + q.replace, (self.codebook_size - 1) * q.replace
        return (stay * (stay / uniform).log() + others * (q.replace / uniform).log()).squeeze(0)


class _Logs(NamedTuple):
    """Logarithms of a Transition's probabilities, (B, 1, 1) each; stay: to be kept or replaced by oneself."""

    keep: Tensor
    replace: Tensor
    mask: Tensor
    stay: Tensor

    @classmethod
    def of(cls, q: Transition, dtype: torch.dtype) -> _Logs:
        return cls(*(p.log().to(dtype)[:, None, None] for p in (q.keep, q.replace, q.mask, q.keep + q.replace)))

    def reaching(self, same: Tensor, masked: Tensor) -> Tensor:
        """log q(x_t | token), x_t being that token where `same` (..., K) and a mask where `masked` (..., 1)."""
        return torch.where(masked, self.mask, torch.where(same, self.stay, self.replace))


def kl_divergence(log_q: Tensor, log_p: Tensor) -> Tensor:
    """KL(q || p) over the last dimension, in nats; states of zero q count nothing."""
    return torch.where(log_q > -math.inf, log_q.exp() * (log_q - log_p), 0.0).sum(-1)


def _prepend(values: Tensor, first: float) -> Tensor:
    return torch.cat([values.new_tensor([first]), values])


def _check_chain(keep: Tensor, mask: Tensor, replace: Tensor) -> None:
    """A chain keeps less, masks no less and replaces more, relative to what it keeps, at every later time."""
    if len(keep) < 2 or len(mask) != len(keep):
        raise ValueError(f"a forward process needs at least 1 step of equal schedules, got {len(keep) - 1} and "
                         f"{len(mask) - 1}; raise num_timesteps")
    if keep[0] != 1 or mask[0] != 0 or (keep <= 0).any() or (keep.diff() >= 0).any() or (mask.diff() < 0).any():
        raise ValueError("keep_bar must fall from 1 and stay above 0, mask_bar must rise from 0")
    if (replace[1:] <= 1e-12).any() or ((replace / keep).diff() < 0).any():
        raise ValueError("1 - keep_bar - mask_bar, the share of replaced tokens, must be positive and grow relative to "
                         "keep_bar; for pure masking use the absorbing prior")
