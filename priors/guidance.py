"""Classifier-free guidance of any prior: a predictor that asks its network with and without the condition.

    l = l_u + s (l_c - l_u), renormalised: s = 1 is the conditional model, s = 0 the unconditional one (Ho & Salimans
    2022; on discrete x_0 Tang et al. 2022; on the posterior of a uniform diffusion Schiff et al. 2024).

    predict = guided(prior.logits_at, condition, Guidance(3.0))      # called as the network is, no sampler knows of it
    sample = predict.counted(sampler(predict, ...))                  # both evaluations counted

A condition belongs to an image; a sampler that calls its predictor for some of the images says for which, by
`of_images(predict, images)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from priors.base import Sample, Unsupported
from priors.conditions import Condition
from priors.transitions import Corruption

Progress = Callable[..., Tensor]
"""The predictor's arguments -> (A,) float in [0, 1], how much of each image is settled."""


@dataclass(frozen=True)
class Guidance:
    """scale: s. schedule: how s grows from 1 with the settled share p of an image.

    "constant": s throughout; "linear": 1 + (s - 1) p (Chang et al. 2023); "cosine": 1 + (s - 1) (1 - cos(pi p)) / 2
    (one of those compared by Wang et al. 2024): the first tokens are drawn from the conditional model, for diversity.
    """

    scale: float = 1.0
    schedule: str = "constant"

    @classmethod
    def of(cls, sampler: Any) -> Guidance:
        return cls(sampler.guidance, sampler.guidance_schedule)

    @property
    def asks_twice(self) -> bool:
        """Whether both models are evaluated; at s = 1 the conditional one says it all, at a constant 0 the other."""
        return self.scale != 1 and not (self.scale == 0 and self.schedule == "constant")

    def at(self, progress: Tensor) -> Tensor:
        """(A,) settled shares -> (A,) scales."""
        return 1 + (self.scale - 1) * WEIGHTS[self.schedule](progress)


WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "constant": torch.ones_like,
    "linear": lambda progress: progress,
    "cosine": lambda progress: (1 - torch.cos(math.pi * progress)) / 2,
}


@dataclass(frozen=True)
class Predictor:
    """A network bound to the condition of its images: called as `network(tokens, *more)`, tensors of one row an image.

    condition: None asks an unconditional network, or for the null. num_prefix: condition positions a forward pass adds.
    """

    network: Callable[..., Tensor]
    condition: Condition | None = None
    guidance: Guidance = Guidance()
    progress: Progress | None = None
    num_prefix: int = 0

    @property
    def asks_twice(self) -> bool:
        """Whether both models are evaluated."""
        return self.condition is not None and self.guidance.asks_twice

    @property
    def asked(self) -> Condition | None:
        """What the network is told: the condition, or the null at s = 0, or both one after the other, (2 A,)."""
        if self.condition is None or self.guidance.scale == 1:
            return self.condition
        null = self.condition.null()
        return Condition.cat([self.condition, null]) if self.asks_twice else null

    def __call__(self, *arguments: Tensor) -> Tensor:
        """Logits of the network's shape (A, ..., K)."""
        if self.asks_twice:
            conditional, unconditional = self.both(*arguments).chunk(2)
            return combine(conditional, unconditional, self.scale(*arguments))
        return self.network(*arguments) if self.condition is None else self.network(*arguments, condition=self.asked)

    def both(self, *arguments: Tensor) -> Tensor:
        """Logits (2 A, ..., K): of the conditional model for every image, then of the unconditional one."""
        return self.network(*(torch.cat([argument, argument]) for argument in arguments), condition=self.asked)

    def scale(self, *arguments: Tensor) -> Tensor | float:
        """s, or (A,) where it grows on the way."""
        if self.guidance.schedule == "constant":
            return self.guidance.scale
        assert self.progress is not None
        return self.guidance.at(self.progress(*arguments))

    def of(self, images: Tensor) -> Predictor:
        """The predictor of some images (A,) alone."""
        return self if self.condition is None else replace(self, condition=self.condition[images])

    def counted(self, sample: Sample) -> Sample:
        """What a sampler counted as calls of a predictor of N tokens, as evaluations and positions of the network."""
        times = 2 if self.asks_twice else 1
        positions = sample.token_forwards + self.num_prefix * sample.network_evaluations
        return Sample(sample.tokens, times * sample.network_evaluations, times * positions)


def guided(network: Callable[..., Tensor], condition: Condition | None, guidance: Guidance, *,
           progress: Progress | None = None, num_prefix: int = 0) -> Predictor:
    """A predictor of the images of a condition.

    Raises Unsupported for guidance without a condition, and for a schedule where the network's arguments do not tell
    how far an image is (progress None).
    """
    if condition is None and guidance.scale != 1:
        raise Unsupported(f"guidance={guidance.scale:g} without a condition: there is nothing to guide towards; give a "
                          "condition, or leave guidance out")
    if progress is None and guidance.schedule != "constant":
        raise Unsupported(f"guidance_schedule={guidance.schedule!r}: this sampler has no notion of progress; use "
                          "'constant'")
    return Predictor(network, condition, guidance, progress, num_prefix)


def of_images(predict: Callable[..., Tensor], images: Tensor | None) -> Callable[..., Tensor]:
    """The predictor of some images (None: of all), where it tells images apart; otherwise itself."""
    return predict.of(images) if isinstance(predict, Predictor) and images is not None else predict


def combine(conditional: Tensor, unconditional: Tensor, scale: Tensor | float) -> Tensor:
    """l_u + s (l_c - l_u) as log-probabilities in float32: (A, ..., K) twice, s a number or (A,) -> (A, ..., K).

    A class of probability 0 in either keeps 0.
    """
    conditional, unconditional = (_log_softmax(logits) for logits in (conditional, unconditional))
    if isinstance(scale, Tensor):
        scale = scale.to(conditional).view(-1, *[1] * (conditional.ndim - 1))
    impossible = torch.isneginf(conditional) | torch.isneginf(unconditional)
    moved = unconditional + scale * (conditional - unconditional)
    return moved.masked_fill(impossible, -torch.inf).log_softmax(-1)


def _log_softmax(logits: Tensor) -> Tensor:
    return (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)


class Both(Predictor):
    """A predictor that leaves the two models apart, (2 A, N, K), for a GuidedPosterior to combine."""

    def __call__(self, *arguments: Tensor) -> Tensor:
        return self.both(*arguments)


@dataclass(frozen=True)
class GuidedPosterior:
    """Guidance of the reverse step itself: q(x_s | x_t) of the two models combined, in place of a Corruption.

    l = log of the sum over x_0 of q(x_s | x_t, x_0) p(x_0 | x_t) of each model (Schiff et al. 2024, D-CFG; guidance of
    p(x_0) instead is Tang et al. 2022). For uniform diffusion: with a mask the renormalisation would change how often
    one is revealed.

    ancestral(both, GuidedPosterior(corruption, both), ...)   # both: a Both, whose logits adjust and log_softmax pass
    """

    corruption: Corruption
    both: Both

    def log_posterior(self, log_x_0: Tensor, x_t: Tensor, *, s: Tensor, t: Tensor) -> Tensor:
        """As `Corruption.log_posterior`, from log_x_0 (2 B, N, K) of both models."""
        conditional, unconditional = (self.corruption.log_posterior(part, x_t, s=s, t=t) for part in log_x_0.chunk(2))
        return combine(conditional, unconditional, self.both.scale(x_t, t))
