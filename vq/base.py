"""What a tokenizer is: images to grids of codebook ids and back, uint8 at every border."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn


class Tokenizer(Protocol):
    """A frozen image tokenizer; by convention an nn.Module constructed as `cls(options=, resolution=)`.

    Options: frozen dataclass, the valid `vq.*` keys; `__post_init__` raises ValueError on a wrong value.
    """

    Options: type
    codebook_size: int
    grid: tuple[int, int]
    resolution: int

    def trainable(self, *, perceptual: Callable[[Tensor, Tensor], Tensor], learning_rate: float,
                  betas: tuple[float, float]) -> nn.Module:
        """What the training loop trains (bench.training.loop.Trainable); perceptual is an LPIPS network.

        Its kind is Options.perceptual_net, a field or a constant ("alex" where there is none); None asks for none.
        A class without `trainable` is not trained: it is kept as its constructor makes it, or as `vq.path` says.
        """

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, N) int64 in [0, K), row by row."""

    def decode(self, tokens: Tensor) -> Tensor:
        """(B, N) int64 -> (B, 3, H, W) uint8; a (B, h, w) canvas of another size decodes to its own size."""


@dataclass(frozen=True)
class PixelLikelihood:
    """log p(image | tokens) of a batch in nats, summed over channels and pixels.

    tokens: (B, N) int64 of the very images that were scored.
    mass: (B,) float64, of the discrete image: a probability, at most 0.
    density: (B,) float64, log density + log bin width, which may exceed 0 where the density is narrower than a bin.
    """

    tokens: Tensor
    mass: Tensor
    density: Tensor


class LikelihoodTokenizer(Tokenizer, Protocol):
    """A Tokenizer whose decoder is also a distribution over pixels. Its Options has the field `likelihood_head`, true
    for such a model; where it is false, or the tokenizer has no such field, there is no pixel likelihood.

    likelihood_head: the part fine-tuned for it, which neither `encode` nor `decode` reads.
    """

    likelihood_head: nn.Module

    def trainable_likelihood(self, *, bits: int, learning_rate: float, betas: tuple[float, float]) -> nn.Module:
        """What the training loop trains (bench.training.loop.Trainable); its `model` is `likelihood_head` alone."""

    def log_likelihood(self, images: Tensor, *, bits: int) -> PixelLikelihood:
        """Of (B, 3, H, W) uint8 images reduced to their `bits` highest bits."""


class UniformDraws(Protocol):
    """The part of a source of random numbers that tokenizers use."""

    def uniform(self, *shape: int) -> Tensor:
        """Float32 in [0, 1)."""

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Int64 in [low, high)."""
