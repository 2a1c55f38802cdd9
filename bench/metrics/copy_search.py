"""How near is an image to its nearest training image, for how near training images are to it at all?

The nearest distance alone is small for every image without features. Divided by the distance to the eighth nearest it
is about 0.7 for fresh photographs, near 1 for featureless ones and 0 for a copy. Distances are LPIPS at no more than
the images' own resolution, at random projected to a few hundred numbers: these keep every distance within some 6%
(Johnson and Lindenstrauss 1984) and a distance of 0 exactly, so that all training images can be searched.

Samples of a prior have passed a tokenizer. All images they are compared with pass it too, or its blur would hide the
copies: on CIFAR-10 the reconstruction of a training image lies as far from its original as the near-duplicate of a
held-out image does.

    candidates = copy_candidates(evidence, images)
    nearness(samples, candidates)                   # n images -> (n,) float64
    nearest_candidates(samples, candidates)         # n images -> (n,) int64
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.assets.weights import lpips_model
from bench.data.base import ImageData
from bench.metrics.base import Evidence
from bench.metrics.embedding_cache import BLOCK_IMAGES, Block, Candidates, open_candidates, squared_norms_of
from bench.metrics.lpips_embedding import LpipsEmbedding, full_precision
from bench.provenance import content_id

NEIGHBOUR = 8
"""Memorised images are often repeated in the training set: up to seven repeats leave the denominator alone."""
PROJECTED = 512
"""Measured on CIFAR-10: as many copies are found as without projection, and with 256."""
FOLDED = 8192
"""A longer embedding is folded to this length by random signs first, so that the projection stays small."""
LEAST_RESOLUTION = 32
"""The trunks of LPIPS pool images away that are smaller."""
SNAP = 1e-6
"""Squared distances below this share of the squared norms are rounding: 0."""
TOKENIZED_AT_ONCE = 50


class ProjectedEmbedding(LpipsEmbedding):
    """An LPIPS embedding at random projected to PROJECTED numbers, or left as it is if it has no more."""

    def __init__(self, model: Any, *, resolution: int, device: str = "cpu"):
        super().__init__(model, resolution=resolution, device=device)
        blank = torch.zeros(1, 3, resolution, resolution, dtype=torch.uint8)
        self.length = sum(layer.numel() for layer in self._features(blank))   # before projection
        generator, folded = torch.Generator().manual_seed(0), min(self.length, FOLDED)
        self.signs = (torch.randint(2, (self.length,), generator=generator) * 2.0 - 1).to(self.device)
        self.matrix = (torch.randn(folded, self.dimension, generator=generator) / PROJECTED ** 0.5).to(self.device)

    @cached_property
    def dimension(self) -> int:
        return min(self.length, PROJECTED)

    @cached_property
    def fingerprint(self) -> str:
        return f"{super().fingerprint}-projected-{self.dimension}"

    @torch.no_grad()
    def flatten(self, layers: list[Tensor], *, out: Tensor | None = None) -> Tensor:
        """Features of n images -> (n, dimension)."""
        phi = super().flatten(layers, out=torch.empty(len(layers[0]), self.length, device=self.device))
        if self.length > FOLDED:
            phi = F.pad(phi * self.signs, (0, -self.length % FOLDED)).unflatten(1, (-1, FOLDED)).sum(1)
        if self.length > PROJECTED:
            with full_precision():
                phi = phi @ self.matrix
        return phi if out is None else out.copy_(phi)


class ReconstructedImages:
    """Images as a tokenizer gives them back, encoded and decoded whenever they are read."""

    def __init__(self, data: ImageData, tokenizer: Any, device: str):
        self.data, self.tokenizer, self.device = data, tokenizer, device

    def __len__(self) -> int:
        return len(self.data)

    @torch.inference_mode()
    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n, 3, H, W) uint8."""
        pixels = torch.as_tensor(self.data.images(indices))
        decoded = [self.tokenizer.decode(self.tokenizer.encode(piece.to(self.device))).cpu()
                   for piece in pixels.split(TOKENIZED_AT_ONCE)]
        return torch.cat(decoded).numpy()


def seen_by_samples(data: ImageData, evidence: Evidence) -> ImageData:
    """Images through the tokenizer, if the row's samples came from one."""
    return data if evidence.tokenizer is None else ReconstructedImages(data, evidence.tokenizer, evidence.device)


def copy_candidates(evidence: Evidence, images: ImageData) -> Candidates:
    """Training images as the samples would show them, their embeddings kept on disk by content."""
    protocol, first = evidence.protocol, images.images(range(min(len(images), 64)))
    resolution = min(protocol.neighbours_resolution, max(LEAST_RESOLUTION, first.shape[-1]))
    embedding = ProjectedEmbedding(lpips_model(protocol.neighbours_net), resolution=resolution, device=evidence.device)
    train = evidence.fingerprints.get("train")
    key = train and content_id([train, len(images), hashlib.sha256(first.tobytes()).hexdigest()])   # of the tokenizer
    return open_candidates(embedding, images, count=len(images), fingerprint=key,
                           caches=evidence.caches, disk_gb=evidence.settings.cache_gb)


def nearness(images: ImageData, candidates: Candidates,
             progress: Callable[[str], None] = lambda text: None) -> np.ndarray:
    """Squared distance to the nearest candidate over that to the NEIGHBOUR-th (the last, of fewer): (n,) in [0, 1].

    images: n > 0 of them.  0 where the nearest is a copy, however often it is repeated.
    """
    found = nearest_distances(_centred(images, candidates), candidates, progress)
    return (found[:, 0] / found[:, -1].clamp_min(1e-30)).double().cpu().numpy()


def nearest_candidates(images: ImageData, candidates: Candidates,
                       progress: Callable[[str], None] = lambda text: None) -> np.ndarray:
    """The nearest candidate of n > 0 images, the first of equals: (n,) int64."""
    queries = _centred(images, candidates)
    norms = squared_norms_of(queries).float()[:, None]
    least = torch.full((len(queries),), torch.inf, device=queries.device)
    found = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    for block in candidates.blocks(progress=progress):
        squares, places = _squares(queries, norms, block).min(1)
        found = torch.where(squares < least, places + block.start, found)
        least = torch.minimum(squares, least)
    return found.cpu().numpy()


def nearest_distances(queries: Tensor, candidates: Candidates,
                      progress: Callable[[str], None] = lambda text: None) -> Tensor:
    """Squared distances of (n, D) centred queries to their NEIGHBOUR nearest candidates, ascending: (n, k) float32."""
    norms = squared_norms_of(queries).float()[:, None]
    best = torch.full((len(queries), min(NEIGHBOUR, candidates.count)), torch.inf, device=queries.device)
    for block in candidates.blocks(progress=progress):
        squares = _squares(queries, norms, block)
        best = torch.cat([best, squares], 1).topk(best.shape[1], dim=1, largest=False).values
    return best


def _centred(images: ImageData, candidates: Candidates) -> Tensor:
    """n images -> (n, D), as the candidates' vectors are."""
    pieces = [range(at, min(at + BLOCK_IMAGES, len(images))) for at in range(0, len(images), BLOCK_IMAGES)]
    embedded = torch.cat([candidates.embedding.embed(images.images(piece)) for piece in pieces])
    return embedded.sub_(candidates.centre)


def _squares(queries: Tensor, norms: Tensor, block: Block) -> Tensor:
    """Squared distances of (n, D) queries, their squared norms (n, 1), to a block: (n, b) float32."""
    rows = block.vectors.to(queries.device).float() / block.scale   # (b, D)
    row_norms = block.squared_norms.to(queries.device).float()
    with full_precision():
        squared = norms + row_norms - 2 * queries @ rows.T   # (n, b)
    return squared.masked_fill(squared < SNAP * (norms + row_norms), 0.0)
