"""An example of a tokenizer from elsewhere whose tokens form no image: a sequence of N, the grid (1, N).

A small transformer in the spirit of TiTok (Yu et al. 2024, "An Image is Worth 32 Tokens for Reconstruction and
Generation"): N learnt tokens read the patches of an image, each is rounded to the nearest code on the unit sphere, and
a second transformer paints the patches from the codes alone. Every token may speak of every pixel, so a canvas of
another size has no meaning and is refused.

    PYTHONPATH=docs/examples python -m bench.run vq=sequence_tokenizer:SequenceTokenizer dataset=digits preset=smoke \
        prior=absorbing vq.num_tokens=12
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class SequenceTokenizerOptions:
    """codebook_size comes from the preset where the command line names none, as every size that presets share."""

    perceptual_net: ClassVar[None] = None   # no LPIPS network takes part in the training
    num_tokens: int = 16
    codebook_size: int = 64
    code_dim: int = 8
    patch: int = 4
    width: int = 64
    num_layers: int = 2
    commitment: float = 0.25

    def __post_init__(self) -> None:
        for name in ("num_tokens", "codebook_size", "code_dim", "patch", "num_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 1")
        if self.width < 16 or self.width % 16:
            raise ValueError(f"width={self.width}: expected a multiple of 16")
        if not self.commitment >= 0:
            raise ValueError(f"commitment={self.commitment}: expected zero or more")


class SequenceTokenizer(nn.Module):
    """Images to N tokens and back; grid (1, N), whatever the resolution."""

    Options = SequenceTokenizerOptions

    def __init__(self, *, options: SequenceTokenizerOptions, resolution: int):
        super().__init__()
        if resolution % options.patch:
            raise ValueError(f"resolution={resolution}: expected a multiple of patch={options.patch}")
        self.options, self.resolution = options, resolution
        self.codebook_size, self.grid = options.codebook_size, (1, options.num_tokens)
        width, num_patches = options.width, (resolution // options.patch) ** 2
        self.to_patches = nn.Linear(3 * options.patch**2, width)
        self.readers = nn.Parameter(0.02 * torch.randn(options.num_tokens, width))
        self.places_read = nn.Parameter(0.02 * torch.randn(num_patches, width))
        self.encoder = _transformer(options)
        self.to_code = nn.Linear(width, options.code_dim)
        self.codes = nn.Parameter(torch.randn(options.codebook_size, options.code_dim))
        self.from_code = nn.Linear(options.code_dim, width)
        self.places_of_tokens = nn.Parameter(0.02 * torch.randn(options.num_tokens, width))
        self.places_painted = nn.Parameter(0.02 * torch.randn(num_patches, width))
        self.decoder = _transformer(options)
        self.to_pixels = nn.Linear(width, 3 * options.patch**2)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, N) int64 in [0, K)."""
        if images.dtype != torch.uint8:
            raise ValueError(f"images of type {images.dtype}: expected uint8")
        return self.nearest(self.vectors(_to_float(images)))

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """(B, N) or (B, 1, N) int64 -> (B, 3, H, W) uint8; ValueError for a canvas of another size."""
        tokens = tokens.flatten(1) if tokens.ndim == 3 and tokens.shape[1] == 1 else tokens
        if tokens.ndim != 2 or tokens.shape[1] != self.options.num_tokens:
            raise ValueError(f"tokens of shape {tuple(tokens.shape)}: expected (B, {self.options.num_tokens}); a "
                             "sequence has no canvas of another size")
        values = self.paint(F.normalize(self.codes, dim=1)[tokens])
        return ((values + 1) * 127.5 + 0.5).clamp(0, 255).to(torch.uint8)

    def trainable(self, *, perceptual: None, learning_rate: float, betas: tuple[float, float]) -> nn.Module:
        """What the training loop trains."""
        return SequenceTraining(self, learning_rate=learning_rate, betas=betas)

    def vectors(self, x: Tensor) -> Tensor:
        """What the N readers say of an image, on the unit sphere: (B, 3, H, W) -> (B, N, D)."""
        patches = F.pixel_unshuffle(x, self.options.patch).flatten(2).transpose(1, 2)
        seen = torch.cat([self.readers.expand(len(x), -1, -1), self.to_patches(patches) + self.places_read], dim=1)
        return F.normalize(self.to_code(self.encoder(seen)[:, :self.options.num_tokens]), dim=2)

    def nearest(self, vectors: Tensor) -> Tensor:
        """(B, N, D) -> (B, N) int64: on the sphere the nearest code has the largest inner product."""
        return (vectors @ F.normalize(self.codes, dim=1).t()).argmax(2)

    def paint(self, codes: Tensor) -> Tensor:
        """(B, N, D) -> (B, 3, H, W)."""
        told = torch.cat([self.from_code(codes) + self.places_of_tokens,
                          self.places_painted.expand(len(codes), -1, -1)], dim=1)
        patches = self.to_pixels(self.decoder(told)[:, self.options.num_tokens:])
        side = self.resolution // self.options.patch
        return F.pixel_shuffle(patches.transpose(1, 2).unflatten(2, (side, side)), self.options.patch)


class SequenceTraining(nn.Module):
    """Squared error of pixels, and the two terms that bring codes and vectors together (van den Oord et al. 2017)."""

    def __init__(self, model: SequenceTokenizer, *, learning_rate: float, betas: tuple[float, float]):
        super().__init__()
        self.model = model
        self.optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, betas=(betas[0], betas[1]))

    def optimizers(self) -> list[torch.optim.Optimizer]:
        return [self.optimizer]

    def update(self, batch: Tensor, step: int, draws: object, optimize) -> dict[str, Tensor]:
        terms = self.losses(self.model, batch)
        optimize(terms["loss"] + terms["codebook_loss"], self.optimizer)
        return {name: value.detach() for name, value in terms.items()}

    @torch.no_grad()
    def validate(self, model: SequenceTokenizer, batch: Tensor, draws: object) -> dict[str, Tensor]:
        return self.losses(model, batch)

    def losses(self, model: SequenceTokenizer, images: Tensor) -> dict[str, Tensor]:
        x = _to_float(images)
        vectors = model.vectors(x)
        codes = F.normalize(model.codes, dim=1)[model.nearest(vectors)]
        painted = model.paint(vectors + (codes - vectors).detach())
        pulled = F.mse_loss(codes, vectors.detach()) + model.options.commitment * F.mse_loss(vectors, codes.detach())
        return {"loss": F.mse_loss(painted, x), "codebook_loss": pulled}


def _transformer(options: SequenceTokenizerOptions) -> nn.Module:
    layer = nn.TransformerEncoderLayer(options.width, options.width // 16, 4 * options.width, dropout=0.0,
                                       activation="gelu", batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, options.num_layers, enable_nested_tensor=False)


def _to_float(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1
