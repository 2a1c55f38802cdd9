"""Where images to be judged come from: a prior through its tokenizer, reconstructions, real images, or files.

    source = PriorSource(prior, tokenizer, sampler, seed=0, chunk=100, device="cpu")
    source.chunk(0, 100)["images"]          # (100, 3, H, W) uint8

A source works in fixed chunks, and a chunk is the unit of seed and of the forward batch: what it holds depends neither
on who computes it nor on what was computed before.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from bench import registry
from bench.config import DatasetConfig
from bench.data.base import ImageData
from bench.errors import BenchError
from bench.foreign import as_folder, check_count, npz_images
from priors.base import Draws


class Source(Protocol):
    """What the samples stage asks."""

    def chunk(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Images start..stop of this source: "images" (n, 3, H, W) uint8, and what else is worth keeping of each."""


class PriorSource:
    """Samples of a prior, decoded."""

    def __init__(self, prior: Any, tokenizer: Any, sampler: Any, *, seed: int, chunk: int, device: str):
        self.prior, self.tokenizer, self.sampler = prior, tokenizer, sampler
        self.seed, self.size, self.device = seed, chunk, device

    def chunk(self, start: int, stop: int) -> dict[str, np.ndarray]:
        assert start % self.size == 0, "chunks start at multiples of their size"
        draws = Draws.seeded("sampling", self.seed, start // self.size, device=self.device)
        with torch.inference_mode():   # always a whole chunk: its batch size is part of what it holds
            drawn = self.prior.sample(self.size, sampler=self.sampler, draws=draws)
            if drawn.tokens.min() < 0 or drawn.tokens.max() >= self.prior.codebook_size:
                raise BenchError(f"{type(self.prior).__name__} sampled tokens outside [0, {self.prior.codebook_size}): "
                                 f"{int(drawn.tokens.min())}..{int(drawn.tokens.max())}.")
            images = self.tokenizer.decode(drawn.tokens)
        kept = slice(0, stop - start)
        return {"images": images[kept].cpu().numpy(), "tokens": drawn.tokens[kept].cpu().numpy().astype(np.uint16),
                "network_evaluations": drawn.network_evaluations[kept].cpu().numpy(),
                "token_forwards": drawn.token_forwards[kept].cpu().numpy()}


class ReconstructionSource:
    """Held-out images through the tokenizer and back: the floor every prior shares."""

    def __init__(self, images: ImageData, tokenizer: Any, *, device: str):
        self.images, self.tokenizer, self.device = images, tokenizer, device

    def chunk(self, start: int, stop: int) -> dict[str, np.ndarray]:
        originals = torch.from_numpy(self.images.images(np.arange(start, stop))).to(self.device)
        with torch.inference_mode():
            tokens = self.tokenizer.encode(originals)
            images = self.tokenizer.decode(tokens)
        return {"images": images.cpu().numpy(), "tokens": tokens.cpu().numpy().astype(np.uint16)}


class ImageDataSource:
    """Images as they are: a held-out split, or files of another model's samples."""

    def __init__(self, images: ImageData):
        self.images = images

    def chunk(self, start: int, stop: int) -> dict[str, np.ndarray]:
        return {"images": self.images.images(np.arange(start, stop))}


class ArrayImages:
    """An ImageData over an array or memory map of (n, 3, H, W) uint8."""

    def __init__(self, array: np.ndarray):
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(self.array[np.asarray(indices)])


class SubsetImages:
    """Some images of another ImageData, in the order given."""

    def __init__(self, images: ImageData, indices: np.ndarray):
        self.whole, self.indices = images, indices

    def __len__(self) -> int:
        return len(self.indices)

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return self.whole.images(self.indices[np.asarray(indices)])


def open_files(path: Path, dataset: DatasetConfig, num: int) -> ImageData:
    """Samples from elsewhere: a folder or zip of images, or an .npz with `arr_0` of (n, H, W, 3) uint8.

    Raises InputError if there are fewer than `num`, or if an array has another resolution than the data set.
    """
    if path.suffix == ".npz":
        images: ImageData = ArrayImages(npz_images(path, dataset.resolution))
    else:
        splits = registry.resolve("datasets", "folder")().open(as_folder(path, dataset))
        images = _Joined(splits.train, splits.validation)
    check_count(path, len(images), num)
    return images


class _Joined:
    def __init__(self, first: ImageData, second: ImageData):
        self.parts = (first, second)

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        cut = len(self.parts[0])
        rows = [self.parts[0].images([i])[0] if i < cut else self.parts[1].images([i - cut])[0] for i in indices]
        return np.stack(rows)
