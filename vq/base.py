"""What a tokenizer is: images to grids of codebook ids and back, uint8 at every border."""

from __future__ import annotations

from collections.abc import Callable
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
        """What the training loop trains (bench.trainer.Trainable); perceptual is an LPIPS network."""

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, N) int64 in [0, K), row by row."""

    def decode(self, tokens: Tensor) -> Tensor:
        """(B, N) int64 -> (B, 3, H, W) uint8; a (B, h, w) canvas of another size decodes to its own size."""


class UniformDraws(Protocol):
    """The part of a source of random numbers that tokenizers use."""

    def uniform(self, *shape: int) -> Tensor:
        """Float32 in [0, 1)."""

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Int64 in [low, high)."""
