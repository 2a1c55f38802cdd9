"""What a token prior is: the protocol, its symbols, and the random numbers it may use.

Symbols, used everywhere: B images in a batch, N tokens an image, K codebook size, T diffusion steps, M condition
positions.

    prior.sample(16, sampler=prior.Sampler(), draws=Draws.seeded(0)).tokens   # (16, N) int64 in [0, K)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

if TYPE_CHECKING:
    from priors.conditions import Condition

UNKNOWN = -1
"""Marks a token to be filled, in the `known` argument of `sample`. Never stored, never returned."""


class Unsupported(ValueError):
    """A prior cannot honour this option; the message is the reason the table prints."""


@dataclass(frozen=True)
class Sample:
    """Tokens and what they cost.

    tokens: (num, N) int64 in [0, K).
    network_evaluations: (num,) int64, forward passes each image took part in, those of guidance included.
    token_forwards: (num,) int64, token positions pushed through the backbone for each image, those of a condition
        included; a position that only reads from a key-value cache costs nothing.
    """

    tokens: Tensor
    network_evaluations: Tensor
    token_forwards: Tensor


@dataclass(frozen=True)
class NatsByUnknown:
    """What a token costs by how many tokens are unknown when it is predicted, from the evaluations of a likelihood.

    nats, times: (B, N) float64. Column k - 1 is of the evaluations with exactly k tokens unknown: the sum over them of
        the mean nats of the tokens predicted, and how many there were. Their ratio over images estimates m_k.
    step_weights: (N,) float64 w_1 .. w_N, so that sum_k w_k m_k is the bound of T steps; None where T has no meaning.
    """

    nats: Tensor
    times: Tensor
    step_weights: Tensor | None = None


@dataclass(frozen=True)
class Likelihood:
    """Negative log-likelihood of each image, or an upper bound on it.

    nats: (B,) float64, summed over the N tokens of an image.
    monte_carlo_variance: (B,) float64, variance of `nats` as an estimate of its own expectation; 0 when exact.
    kind: "exact"; "bound_T", the bound of the T-step diffusion; "bound_continuous", its limit of infinite T.
    network_evaluations: forward passes spent on each image.
    by_unknown: what the same evaluations tell of a token by how much of its image is known; None where they do not.
    """

    nats: Tensor
    monte_carlo_variance: Tensor
    kind: Literal["exact", "bound_T", "bound_continuous"]
    network_evaluations: int
    by_unknown: NatsByUnknown | None = None


class Draws:
    """Every random number a model uses, from one generator, so that draws can be recorded, replayed and coupled."""

    def __init__(self, generator: torch.Generator):
        self.generator = generator

    @classmethod
    def seeded(cls, *key: int | str, device: torch.device | str = "cpu") -> Draws:
        """Draws of their own for every distinct key, such as ("sampling", seed, chunk)."""
        digest = hashlib.sha256(repr(key).encode()).digest()
        generator = torch.Generator(device=device)
        generator.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        return cls(generator)

    @property
    def device(self) -> torch.device:
        return self.generator.device

    def uniform(self, *shape: int) -> Tensor:
        """Float32 in [0, 1)."""
        return torch.rand(shape, generator=self.generator, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        """Float32 standard normal."""
        return torch.randn(shape, generator=self.generator, device=self.device)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Int64 in [low, high)."""
        return torch.randint(low, high, shape, generator=self.generator, device=self.device)

    def stratified(self, num: int) -> Tensor:
        """(num,) float64 in [0, 1), one in each of so many equal parts, in random order."""
        return (self.permutation(num) + self.uniform(num).double()) / num

    def permutation(self, n: int) -> Tensor:
        """(n,) int64, a uniformly random order of 0..n-1."""
        return torch.randperm(n, generator=self.generator, device=self.device)

    def categorical(self, logits: Tensor) -> Tensor:
        """One index for each row of logits (..., K), by inverse transform of one uniform a row."""
        return inverse_cdf(logits, self.uniform(*logits.shape[:-1]))


def inverse_cdf(logits: Tensor, uniforms: Tensor) -> Tensor:
    """The category whose cumulative probability interval holds the uniform: (..., K), (...) -> (...) int64."""
    cdf = logits.softmax(-1).cumsum(-1)   # (..., K)
    if cdf.is_cuda:
        cdf = cdf.cummax(-1).values   # a parallel scan rounds each sum in its own way, and may step down
    thresholds = uniforms.unsqueeze(-1).to(cdf) * cdf[..., -1:]
    return torch.searchsorted(cdf, thresholds, right=True).squeeze(-1).clamp_(max=logits.shape[-1] - 1)


class Prior(Protocol):
    """A model of token grids; by convention an nn.Module constructed as `cls(grid=, codebook_size=, options=)`.

    Options: frozen dataclass, the valid `prior.*` keys; `__post_init__` raises ValueError on a wrong value.
    Sampler: frozen dataclass, the valid `sampler.*` keys (steps, temperature, order, schedule, top_k ...), likewise.
    condition: a priors.conditions.Condition, one of each image. A prior that knows none leaves the argument out.
    """

    Options: type
    Sampler: type
    num_tokens: int
    codebook_size: int
    grid: tuple[int, int]

    def logits(self, tokens: Tensor, *, condition: Condition | None = None) -> Tensor:
        """(B, N) int64 -> (B, N, K): what samplers and parity checks call."""

    def training_loss(self, tokens: Tensor, *, condition: Condition | None = None, draws: Draws) -> Tensor:
        """(B, N) int64 -> (), the training objective."""

    def nll(
        self, tokens: Tensor, *, condition: Condition | None = None, draws: Draws, budget: int | None = None
    ) -> Likelihood:
        """Negative log-likelihood of (B, N) int64 tokens; `budget` caps network evaluations an image."""

    def sample(
        self, num: int, *, sampler: object, known: Tensor | None = None, condition: Condition | None = None,
        draws: Draws,
    ) -> Sample:
        """Draw `num` images; `known` (num, N) holds tokens to keep and UNKNOWN where to fill."""


# What a prior may offer beside the contract. None of it is needed; the benchmark asks with isinstance.


@runtime_checkable
class Fitted(Protocol):
    """A prior that is estimated in closed form, in one pass over the tokens, and not trained in steps."""

    def fit(self, batches: Iterable[Tensor], conditions: Iterable[Condition] | None = None) -> None:
        """Estimate everything from batches (B, N) int64, which together are the training images, each once.

        conditions: of each batch. A prior that knows none leaves the argument out.
        """


@runtime_checkable
class Calibrated(Protocol):
    """A prior that, once trained, measures on held-out images what its samplers use (its best step schedule)."""

    def calibrate(self, tokens: Tensor, *, condition: Condition | None = None, draws: Draws) -> None:
        """Measure on (B, N) int64 held-out tokens, and keep the outcome in buffers, saved with the weights."""


@runtime_checkable
class MaskedPredictor(Protocol):
    """A prior that predicts any token from any others, which a mixture over the windows of a larger canvas needs."""

    def logits_at(self, tokens: Tensor, positions: Tensor, *, condition: Condition | None = None) -> Tensor:
        """(B, N) int64 with UNKNOWN where hidden, (B, R) int64 positions -> (B, R, K)."""


@runtime_checkable
class ReadsOfficialWeights(Protocol):
    """A prior that can take the weights of another code base: what `prior.layout` names."""

    def load_official(self, path: str | PathLike[str], *, layout: str) -> Prior:
        """Itself, with the weights of that file; ValueError for a layout it does not know or sizes that differ."""
