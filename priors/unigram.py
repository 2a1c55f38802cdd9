"""Tokens drawn independently from their frequencies in the training set: what every learned prior must beat.

    prior = Unigram(grid=(8, 8), codebook_size=256, options=UnigramOptions())
    prior.fit([tokens])                                      # counts, no gradient
    prior.nll(tokens, draws=Draws.seeded(0)).nats            # (B,)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn

from priors.base import UNKNOWN, Draws, Likelihood, Sample
from priors.checks import check_known, check_tokens
from priors.conditions import Condition, check_condition
from priors.guidance import Guidance, guided
from priors.option_checks import check_sampler
from priors.options import UnigramOptions, UnigramSampler


class Unigram(nn.Module):
    """p(x) = prod_i p(x_i), p(v) = (count of v + smoothing) / (all tokens + K smoothing), in all or in a class."""

    Options = UnigramOptions
    Sampler = UnigramSampler
    counts: Tensor
    label_counts: Tensor

    def __init__(self, *, grid: tuple[int, int], codebook_size: int, options: UnigramOptions):
        super().__init__()
        self.grid, self.codebook_size, self.options = (grid[0], grid[1]), codebook_size, options
        self.num_tokens = grid[0] * grid[1]
        self.register_buffer("counts", torch.zeros(codebook_size, dtype=torch.int64))
        num_labels: int | None = getattr(options, "num_labels", None)   # a subclass may have options of its own
        if num_labels is not None:
            self.register_buffer("label_counts", torch.zeros(num_labels, codebook_size, dtype=torch.int64))

    def fit(self, batches: Iterable[Tensor], conditions: Iterable[Condition] | None = None) -> None:
        """Count the tokens of batches (B, N), from nothing: a second call forgets the first.

        conditions: the labels of each batch, of a prior conditioned on classes.
        Raises ValueError if such a prior is given none, or not as many as batches; Unsupported if another is.
        """
        if getattr(self.options, "num_labels", None) is not None and conditions is None:
            raise ValueError(f"num_labels={self.options.num_labels}: expected the labels of each batch, as conditions")
        for buffer in self.buffers():
            buffer.zero_()
        each: Iterable[Condition | None] = repeat(None) if conditions is None else conditions
        for tokens, condition in zip(batches, each, strict=conditions is not None):
            self._count(tokens, self._checked(condition, len(tokens)))

    def _count(self, tokens: Tensor, condition: Condition | None) -> None:
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        self.counts += torch.bincount(tokens.flatten(), minlength=self.codebook_size).to(self.counts.device)
        if condition is not None and condition.labels is not None:
            size = self.label_counts.numel()
            given = condition.labels >= 0
            cells = condition.labels[given].unsqueeze(1) * self.codebook_size + tokens.to(given.device)[given]
            self.label_counts += torch.bincount(cells.flatten(), minlength=size).view_as(self.label_counts)

    def _checked(self, condition: Condition | None, num: int) -> Condition | None:
        size = getattr(self.options, "condition", None)   # a subclass may have options of its own
        return check_condition(condition, size, num, device=self.counts.device)

    @property
    def log_probabilities(self) -> Tensor:
        """(K,) float64; uniform before `fit`."""
        return self._log_shares(self.counts)

    def _log_shares(self, counts: Tensor) -> Tensor:
        smoothed = counts.double() + self.options.smoothing
        return (smoothed / smoothed.sum(-1, keepdim=True)).log()

    def image_log_probabilities(self, num: int, condition: Condition | None = None) -> Tensor:
        """(num, K) float64: those of each image's class, of all images where it has none."""
        if condition is None or condition.labels is None:
            return self.log_probabilities.expand(num, -1)
        of_labels = self._log_shares(self.label_counts)[condition.labels.clamp(min=0)]
        return torch.where((condition.labels >= 0).unsqueeze(1), of_labels, self.log_probabilities)

    def logits(self, tokens: Tensor, *, condition: Condition | None = None) -> Tensor:
        """(B, N) int64 -> (B, N, K): the same everywhere; tokens may hold UNKNOWN, they are not looked at."""
        check_tokens(tokens.masked_fill(tokens == UNKNOWN, 0), self.num_tokens, self.codebook_size)
        return self.logits_at(tokens, tokens, condition=self._checked(condition, len(tokens)))

    def logits_at(self, tokens: Tensor, positions: Tensor, *, condition: Condition | None = None) -> Tensor:
        """`logits` at some positions alone: (B, N), (B, R) int64 -> (B, R, K)."""
        each = self.image_log_probabilities(len(tokens), condition).float()
        return each.unsqueeze(1).expand(-1, positions.shape[1], -1)

    def training_loss(self, tokens: Tensor, *, condition: Condition | None = None, draws: Draws) -> Tensor:
        """Mean cross-entropy in bits a token; it has no gradient: `fit` is the training."""
        told: dict[str, Any] = {} if condition is None else {"condition": condition}   # a subclass may know of none
        return self.nll(tokens, **told, draws=draws).nats.mean() / (self.num_tokens * math.log(2))

    def nll(
        self, tokens: Tensor, *, condition: Condition | None = None, draws: Draws, budget: int | None = None
    ) -> Likelihood:
        """Exact negative log-likelihood of each image in nats, without any network evaluation."""
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        log_probabilities = self.image_log_probabilities(len(tokens), self._checked(condition, len(tokens)))
        nats = -log_probabilities.gather(1, tokens).sum(1)
        return Likelihood(nats, torch.zeros_like(nats), "exact", 0)

    @torch.inference_mode()
    def sample(
        self, num: int, *, sampler: UnigramSampler, known: Tensor | None = None, condition: Condition | None = None,
        draws: Draws,
    ) -> Sample:
        """Draw `num` images; tokens of `known` (num, N) that are not UNKNOWN are kept."""
        check_sampler(sampler, UnigramSampler)
        known = check_known(known, num, self.num_tokens, self.codebook_size, device=self.counts.device)
        predict = guided(self._predict, self._checked(condition, num), Guidance(sampler.guidance))
        logits = (predict(known) / sampler.temperature).float()   # (num, K)
        drawn = draws.categorical(logits.unsqueeze(1).expand(-1, self.num_tokens, -1))
        none = torch.zeros(num, dtype=torch.int64)
        return Sample(torch.where(known == UNKNOWN, drawn, known), none, none)

    def _predict(self, tokens: Tensor, *, condition: Condition | None = None) -> Tensor:
        return self.image_log_probabilities(len(tokens), condition)
