"""Where images to be judged come from: a prior through its tokenizer, reconstructions, real images, or files.

    source = PriorSource(prior, tokenizer, sampler, seed=0, chunk=100, device="cpu")
    source.chunk(0, 100)["images"]          # (100, 3, H, W) uint8

A source works in fixed chunks, and a chunk is the unit of seed and of the forward batch: what it holds depends neither
on who computes it nor on what was computed before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch

from bench.data.base import ImageData
from bench.data.tokens import id_type
from bench.errors import BenchError
from priors.base import Draws
from priors.conditions import Condition


class Source(Protocol):
    """What the samples stage asks."""

    def chunk(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Images start..stop of this source: "images" (n, 3, H, W) uint8, and what else is worth keeping of each."""


class PriorSource:
    """Samples of a prior, decoded."""

    def __init__(self, prior: Any, tokenizer: Any, sampler: Any, *, seed: int, chunk: int, device: str,
                 condition: Callable[[int, int], Condition] | None = None):
        """condition: of the samples from one number up to another."""
        self.prior, self.tokenizer, self.sampler, self.condition = prior, tokenizer, sampler, condition
        self.seed, self.size, self.device = seed, chunk, device

    def chunk(self, start: int, stop: int) -> dict[str, np.ndarray]:
        assert start % self.size == 0, "chunks start at multiples of their size"
        draws = Draws.seeded("sampling", self.seed, start // self.size, device=self.device)
        told = {"condition": self.condition(start, start + self.size)} if self.condition else {}
        with torch.inference_mode():   # always a whole chunk: its batch size is part of what it holds
            drawn = self.prior.sample(self.size, sampler=self.sampler, **told, draws=draws)
            if drawn.tokens.min() < 0 or drawn.tokens.max() >= self.prior.codebook_size:
                raise BenchError(f"{type(self.prior).__name__} sampled tokens outside [0, {self.prior.codebook_size}): "
                                 f"{int(drawn.tokens.min())}..{int(drawn.tokens.max())}.")
            images = self.tokenizer.decode(drawn.tokens)
        kept = slice(0, stop - start)
        return {"images": images[kept].cpu().numpy(),
                "tokens": drawn.tokens[kept].cpu().numpy().astype(id_type(self.prior.codebook_size)),
                "network_evaluations": drawn.network_evaluations[kept].cpu().numpy(),
                "token_forwards": drawn.token_forwards[kept].cpu().numpy()}


class ReconstructionSource:
    """Held-out images through the tokenizer and back: what an exact prior on its tokens would draw like."""

    def __init__(self, images: ImageData, tokenizer: Any, *, device: str):
        self.images, self.tokenizer, self.device = images, tokenizer, device

    def chunk(self, start: int, stop: int) -> dict[str, np.ndarray]:
        originals = torch.from_numpy(self.images.images(np.arange(start, stop))).to(self.device)
        with torch.inference_mode():
            tokens = self.tokenizer.encode(originals)
            images = self.tokenizer.decode(tokens)
        return {"images": images.cpu().numpy(),
                "tokens": tokens.cpu().numpy().astype(id_type(self.tokenizer.codebook_size))}


class ImageDataSource:
    """Images as they are: a held-out split, or files of another model's samples."""

    def __init__(self, images: ImageData):
        self.images = images

    def chunk(self, start: int, stop: int) -> dict[str, np.ndarray]:
        return {"images": self.images.images(np.arange(start, stop))}
