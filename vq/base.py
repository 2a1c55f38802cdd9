"""What a tokenizer is: images to grids of codebook ids and back, uint8 at every border. Torch-free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn


class Tokenizer(Protocol):
    """A frozen image tokenizer; by convention an nn.Module constructed as `cls(options=, resolution=)`.

    Options: frozen dataclass, the valid `vq.*` keys; `__post_init__` raises ValueError on a wrong value.
    """

    Options: type
    codebook_size: int
    grid: tuple[int, int]
    resolution: int

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, N) int64 in [0, K), row by row."""

    def decode(self, tokens: Tensor) -> Tensor:
        """(B, N) int64 -> (B, 3, H, W) uint8; a (B, h, w) canvas of another size decodes to its own size."""


@runtime_checkable
class TrainableTokenizer(Protocol):
    """A tokenizer that is trained on the run's images. One of another class is kept as its constructor makes it, or as
    `vq.path` says."""

    def trainable(self, *, perceptual: Callable[[Tensor, Tensor], Tensor], learning_rate: float,
                  betas: tuple[float, float]) -> nn.Module:
        """What the training loop trains (bench.training.loop.Trainable); perceptual is an LPIPS network.

        Its kind is Options.perceptual_net, a field or a constant ("alex" where there is none); None asks for none.
        """


@runtime_checkable
class ReadsOfficialWeights(Protocol):
    """A tokenizer that can take the weights of another code base: what `vq.layout` names."""

    def load_official(self, path: str | PathLike[str], *, layout: str) -> Tokenizer:
        """Itself, with the weights of that file; ValueError for a layout it does not know or sizes that differ."""


@runtime_checkable
class ImpliesOptions(Protocol):
    """Options, some of which follow from others."""

    @staticmethod
    def implied(given: dict[str, Any], sizes: dict[str, Any]) -> dict[str, Any]:
        """The fields that follow from those given and from the sizes that a preset says."""


@runtime_checkable
class ImpliesOptionsOfLayout(Protocol):
    """Options, some of which follow from the layout of a checkpoint (ReadsOfficialWeights)."""

    @staticmethod
    def of_layout(layout: str, sizes: dict[str, Any]) -> dict[str, Any]:
        """The fields that follow from the layout; sizes: those a preset says, `resolution` and `path` of the run.

        Raises ValueError, its text beginning with the name of the field, where they contradict it.
        """


@runtime_checkable
class KnowsGrid(Protocol):
    """Options that tell the token grid before there is a model."""

    def grid(self, resolution: int) -> tuple[int, int]:
        """Height and width in tokens of images of this resolution; ValueError where it does not suit."""


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


@runtime_checkable
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
