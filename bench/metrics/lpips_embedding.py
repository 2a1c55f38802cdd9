"""LPIPS (Zhang et al. 2018) as a squared Euclidean distance, so that a search needs each image through the trunk once.

LPIPS compares unit-normalised features x, y of several layers: d = sum_l mean_hw sum_c w_lc (x_lchw - y_lchw)^2, with
w >= 0 in all v0.1 heads. That is |phi(x) - phi(y)|^2 for phi(x) = concat_l sqrt(w_l / (H_l W_l)) x_l.

    embedding = LpipsEmbedding(lpips_model("alex"), resolution=64)
    phi = embedding.embed(images)                   # (n, 3, H, W) uint8 -> (n, D) float32
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.errors import InputError

EPS = 1e-10   # lpips.normalize_tensor's own


class LpipsEmbedding:
    """The embedding phi of one lpips.LPIPS model, and its distance computed by the package's own layers.

    resolution: images are resized to this height and width first (bilinear, antialiased).
    Raises InputError if a head has a negative weight: then LPIPS is no distance of any embedding.
    """

    def __init__(self, model: Any, *, resolution: int = 64, device: str = "cpu"):
        self.model = model.to(device, memory_format=torch.channels_last).eval()   # a quarter faster on CPU
        self.resolution, self.device = resolution, torch.device(device)
        self.weights = [head.model[-1].weight.detach().flatten() for head in model.lins]   # (C_l,) each
        lowest = min(float(weight.min()) for weight in self.weights)
        if lowest < 0:
            raise InputError(f"an LPIPS head has the negative weight {lowest:.3g}, so its distance is not Euclidean. "
                             "Use the v0.1 heads, which are all >= 0.")

    @cached_property
    def dimension(self) -> int:
        """D, the length of an embedding."""
        blank = torch.zeros(1, 3, self.resolution, self.resolution, dtype=torch.uint8)
        return sum(layer.numel() for layer in self._features(blank))

    @property
    def batch(self) -> int:
        """Images a trunk forward: at most 64, and at most 64 MiB of features."""
        return min(64, max(1, 2**24 // self.dimension))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights and of the resolution: equal fingerprints give equal embeddings."""
        digest = hashlib.sha256(f"{self.resolution}".encode())
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def prepare(self, images: np.ndarray | Tensor) -> Tensor:
        """(n, 3, H, W) uint8 -> (n, 3, R, R) float32 in [-1, 1], as the package expects."""
        images = torch.as_tensor(images)
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
            raise InputError(f"LPIPS takes (n, 3, H, W) uint8 images, not {tuple(images.shape)} {images.dtype}.")
        x = images.to(self.device, memory_format=torch.channels_last).float() / 127.5 - 1
        if x.shape[2:] == (self.resolution, self.resolution):
            return x
        shrinks = min(x.shape[2:]) > self.resolution   # antialiasing changes nothing, slowly, when it does not
        return F.interpolate(x, size=(self.resolution, self.resolution), mode="bilinear", antialias=shrinks,
                             align_corners=False).clamp_(-1, 1)

    @torch.no_grad()
    def features(self, images: np.ndarray | Tensor) -> list[Tensor]:
        """(n, 3, H, W) uint8 -> one (n, C_l, H_l, W_l) float32 a layer, of unit length over channels."""
        wholes: list[Tensor] = []
        for at in range(0, len(images), self.batch):
            layers = self._features(images[at:at + self.batch])
            wholes = wholes or [_room_for(layer, len(images)) for layer in layers]
            for whole, layer in zip(wholes, layers, strict=True):
                whole[at:at + self.batch] = layer
        return wholes

    @torch.no_grad()
    def embed(self, images: np.ndarray | Tensor) -> Tensor:
        """(n, 3, H, W) uint8 -> (n, D) float32 whose squared distances are LPIPS."""
        whole = torch.empty(len(images), self.dimension, device=self.device)
        for at in range(0, len(images), self.batch):
            self.flatten(self._features(images[at:at + self.batch]), out=whole[at:at + self.batch])
        return whole

    @torch.no_grad()
    def flatten(self, layers: list[Tensor], *, out: Tensor | None = None) -> Tensor:
        """Features of n images -> (n, D), their embedding."""
        out = torch.empty(len(layers[0]), self.dimension, device=self.device) if out is None else out
        start = 0
        for layer, weight in zip(layers, self.weights, strict=True):
            pixels = layer.permute(0, 2, 3, 1)   # (n, H_l, W_l, C_l)
            stop = start + pixels[0].numel()
            place = out[:, start:stop].unflatten(1, pixels.shape[1:])
            torch.mul(pixels, (weight / layer[0, 0].numel()).sqrt(), out=place)
            start = stop
        return out

    @torch.no_grad()
    def distances(self, left: list[Tensor], right: list[Tensor]) -> Tensor:
        """LPIPS of n pairs of `features`, by the package's own heads: -> (n,) float32."""
        heads = zip(self.model.lins, left, right, strict=True)
        return sum(head((x - y) ** 2).mean((1, 2, 3)) for head, x, y in heads)

    @torch.no_grad()
    def _features(self, images: np.ndarray | Tensor) -> list[Tensor]:
        with full_precision():
            layers = self.model.net(self.model.scaling_layer(self.prepare(images)))
        return [layer.div_(torch.linalg.vector_norm(layer, dim=1, keepdim=True) + EPS) for layer in layers]


def _room_for(layer: Tensor, num: int) -> Tensor:
    """For `num` images of a layer (b, C, H, W)."""
    return torch.empty(num, *layer.shape[1:], device=layer.device, memory_format=torch.channels_last)


@contextmanager
def full_precision() -> Iterator[None]:
    """No TF32 or bfloat16 inside float32 products, whatever the process allows elsewhere."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
