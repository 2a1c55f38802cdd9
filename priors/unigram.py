"""Tokens drawn independently from their frequencies in the training set: what every learned prior must beat.

    prior = Unigram(grid=(8, 8), codebook_size=256, options=UnigramOptions())
    prior.fit([tokens])                                      # counts, no gradient
    prior.nll(tokens, draws=Draws.seeded(0)).nats            # (B,)
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from priors.base import UNKNOWN, Draws, Likelihood, Sample
from priors.checks import check_known, check_tokens
from priors.options import UnigramOptions, UnigramSampler, check_sampler


class Unigram(nn.Module):
    """p(x) = prod_i p(x_i), p(v) = (count of v + smoothing) / (all tokens + K smoothing)."""

    Options = UnigramOptions
    Sampler = UnigramSampler
    counts: Tensor

    def __init__(self, *, grid: tuple[int, int], codebook_size: int, options: UnigramOptions):
        super().__init__()
        self.grid, self.codebook_size, self.options = (grid[0], grid[1]), codebook_size, options
        self.num_tokens = grid[0] * grid[1]
        self.register_buffer("counts", torch.zeros(codebook_size, dtype=torch.int64))

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Count the tokens of batches (B, N), from nothing: a second call forgets the first."""
        self.counts.zero_()
        for tokens in batches:
            check_tokens(tokens, self.num_tokens, self.codebook_size)
            self.counts += torch.bincount(tokens.flatten(), minlength=self.codebook_size).to(self.counts.device)

    @property
    def log_probabilities(self) -> Tensor:
        """(K,) float64; uniform before `fit`."""
        counts = self.counts.double() + self.options.smoothing
        return (counts / counts.sum()).log()

    def logits(self, tokens: Tensor) -> Tensor:
        """(B, N) int64 -> (B, N, K): the same everywhere; tokens may hold UNKNOWN, they are not looked at."""
        check_tokens(tokens.masked_fill(tokens == UNKNOWN, 0), self.num_tokens, self.codebook_size)
        return self.log_probabilities.float().expand(*tokens.shape, -1)

    def logits_at(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """`logits` at some positions alone: (B, N), (B, R) int64 -> (B, R, K)."""
        return self.log_probabilities.float().expand(*positions.shape, -1)

    def training_loss(self, tokens: Tensor, *, draws: Draws) -> Tensor:
        """Mean cross-entropy in bits a token; it has no gradient: `fit` is the training."""
        return self.nll(tokens, draws=draws).nats.mean() / (self.num_tokens * math.log(2))

    def nll(self, tokens: Tensor, *, draws: Draws, budget: int | None = None) -> Likelihood:
        """Exact negative log-likelihood of each image in nats, without any network evaluation."""
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        nats = -self.log_probabilities[tokens].sum(1)
        return Likelihood(nats, torch.zeros_like(nats), "exact", 0)

    @torch.inference_mode()
    def sample(self, num: int, *, sampler: UnigramSampler, known: Tensor | None = None, draws: Draws) -> Sample:
        """Draw `num` images; tokens of `known` (num, N) that are not UNKNOWN are kept."""
        check_sampler(sampler, UnigramSampler)
        known = check_known(known, num, self.num_tokens, self.codebook_size, device=self.counts.device)
        logits = (self.log_probabilities / sampler.temperature).float()
        drawn = draws.categorical(logits.expand(num, self.num_tokens, -1))
        none = torch.zeros(num, dtype=torch.int64)
        return Sample(torch.where(known == UNKNOWN, drawn, known), none, none)
