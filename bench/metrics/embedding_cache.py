"""LPIPS embeddings of a candidate set: streamed block by block, kept on disk when they fit the budget.

A block is a file of its own, written to a temporary name and renamed, so filling the cache can be interrupted anywhere
and several processes may fill it together. Rows are centred float16; the norm of each row's rounding error is kept
beside it, which is what lets the search prove its answer exact.

    candidates = open_candidates(embedding, images, count=10000, fingerprint=..., caches=..., disk_gb=4.0)
    for block in candidates.blocks():
        block.start, block.vectors, block.errors      # int, (b, D) float16 or float32, (b,) float32
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from bench.data.base import ImageData
from bench.metrics.lpips_embedding import LpipsEmbedding
from bench.progress import LINE_EVERY_SECONDS
from bench.store.files import discard, replacing

BLOCK_IMAGES = 256
"""The most images in a block."""
CENTRE_IMAGES = 256
"""The centre is the mean embedding of so many first candidates; any fixed vector near them would do."""


@dataclass(frozen=True)
class Block:
    """Candidates start .. start + b - 1.

    vectors: (b, D) float32, or float16 from the cache, `scale` times the centred embeddings.
    squared_norms: (b,) float64, of vectors / scale.
    errors: (b,) float32, how far rounding moved each embedding.
    """

    start: int
    vectors: Tensor
    squared_norms: Tensor
    errors: Tensor
    scale: float


@dataclass(frozen=True)
class Candidates:
    """A candidate set behind an index, and where its embeddings are kept (None: computed at every pass)."""

    embedding: LpipsEmbedding
    images: ImageData
    count: int
    centre: Tensor
    folder: Path | None

    @property
    def rows(self) -> int:
        """Images a block: at most BLOCK_IMAGES, and at most 64 MiB in float16."""
        return min(BLOCK_IMAGES, max(1, 2**25 // self.embedding.dimension))

    def blocks(self, start: int = 0, *, progress: Callable[[str], None] = lambda text: None) -> Iterator[Block]:
        """All blocks from candidate `start` (a multiple of `rows`) on, from disk where they are sound."""
        last_line = time.monotonic()
        for at in range(start, self.count, self.rows):
            if time.monotonic() - last_line >= LINE_EVERY_SECONDS:
                last_line = time.monotonic()
                progress(f"LPIPS neighbours: candidate {at} of {self.count}")
            indices = range(at, min(at + self.rows, self.count))
            if self.folder is None:
                vectors = self.embedding.embed(self.images.images(indices)).sub_(self.centre)
                yield Block(at, vectors, squared_norms_of(vectors), torch.zeros(len(vectors)), 1.0)
            else:
                yield self._cached(at, indices)

    def _cached(self, at: int, indices: range) -> Block:
        assert self.folder is not None
        path = self.folder / f"{at // self.rows:06d}.safetensors"
        block = _read(path, at, len(indices))
        if block is None:
            centred = self.embedding.embed(self.images.images(indices)).sub_(self.centre)
            block = compress(at, centred, _scale(self.embedding))
            _write(path, block)
        return block


def open_candidates(embedding: LpipsEmbedding, images: ImageData, *, count: int, fingerprint: str | None,
                    caches: Path, disk_gb: float) -> Candidates:
    """The first `count` images as candidates, cached by content if `fingerprint` is known and they fit `disk_gb`."""
    if fingerprint is None or 2e-9 * count * embedding.dimension > disk_gb:
        return Candidates(embedding, images, count, _centre(embedding, images, count), None)
    folder = caches / "lpips" / f"{fingerprint}-{embedding.fingerprint}"
    folder.mkdir(parents=True, exist_ok=True)
    centre = _load(folder / "centre.safetensors", "centre")
    if centre is None:
        for block in folder.glob("0*.safetensors"):
            block.unlink(missing_ok=True)   # centred on something that is lost
        _save(folder / "centre.safetensors", {"centre": _centre(embedding, images, count)})
        centre = _load(folder / "centre.safetensors", "centre")   # another process may have been the last to write it
    assert centre is not None
    return Candidates(embedding, images, count, centre["centre"].to(embedding.device), folder)


def _centre(embedding: LpipsEmbedding, images: ImageData, count: int) -> Tensor:
    return embedding.embed(images.images(range(min(CENTRE_IMAGES, count)))).mean(0)


def compress(start: int, centred: Tensor, scale: float) -> Block:
    """Round to float16 and measure what that moved: (b, D) float32 -> Block. `scale` is a power of two."""
    vectors = (centred * scale).half()
    rounded = vectors.float().div_(scale)
    squared_norms = squared_norms_of(rounded)
    errors = squared_norms_of(rounded.sub_(centred)).sqrt() * (1 + 1e-6)
    return Block(start, vectors, squared_norms, errors.float(), scale)


def squared_norms_of(rows: Tensor) -> Tensor:
    """(b, D) -> (b,) float64, a row at a time: no copy of them all in float64."""
    return torch.stack([row.double().square().sum() for row in rows])


def _scale(embedding: LpipsEmbedding) -> float:
    """The power of two that keeps centred embeddings, |phi| <= sqrt(max w) of each side, within half of float16."""
    return 2.0 ** math.floor(math.log2(16384 / math.sqrt(max(float(w.max()) for w in embedding.weights) + 1e-30)))


def _write(path: Path, block: Block) -> None:
    _save(path, {"vectors": block.vectors, "squared_norms": block.squared_norms, "errors": block.errors,
                 "scale": torch.tensor(block.scale)})


def _read(path: Path, start: int, rows: int) -> Block | None:
    stored = _load(path, "vectors", "squared_norms", "errors", "scale")
    if stored is None or len(stored["vectors"]) != rows:
        return None
    return Block(start, stored["vectors"], stored["squared_norms"], stored["errors"], float(stored["scale"]))


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as stream:
        stream.write(save(tensors, metadata={"checksum": _checksum(tensors)}))


def _load(path: Path, *names: str) -> dict[str, Tensor] | None:
    """The tensors of a sound file; None if it is missing or damaged: then it is removed, and said so."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            if set(tensors) == set(names) and (file.metadata() or {}).get("checksum") == _checksum(tensors):
                return tensors
        reason = "it is not as it was written"
    except (SafetensorError, OSError) as error:
        reason = str(error)
    discard(path, reason)
    return None


def _checksum(tensors: dict[str, Tensor]) -> str:
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(tensors[name].numpy().reshape(-1).view("u1").data, value)
    return f"{value:08x}"
