"""Differentiable augmentation of what the discriminator sees: colour and translation (Zhao et al. 2020, DiffAugment).

    augmented = diffaug(images, draws)   # same shape; gradients flow to `images`
"""

from __future__ import annotations

import torch
from torch import Tensor

from vq.base import UniformDraws

SHIFT = 0.125   # largest translation, as a share of the side


def diffaug(images: Tensor, draws: UniformDraws) -> Tensor:
    """(B, 3, H, W) -> (B, 3, H, W). Draws, in order: brightness, saturation, contrast, shift down, shift right."""
    num, _, height, width = images.shape
    images = adjust_brightness(images, _factor(draws, num, images))
    images = adjust_saturation(images, _factor(draws, num, images))
    images = adjust_contrast(images, _factor(draws, num, images))
    down, right = largest_shift(height), largest_shift(width)
    rows = draws.integers(-down, down + 1, num, 1, 1).to(images.device)
    columns = draws.integers(-right, right + 1, num, 1, 1).to(images.device)
    return translate(images, rows, columns)


def adjust_brightness(images: Tensor, uniforms: Tensor) -> Tensor:
    """Add U(-.5, .5) to every value of an image; uniforms (B, 1, 1, 1) in [0, 1)."""
    return images + (uniforms - 0.5)


def adjust_saturation(images: Tensor, uniforms: Tensor) -> Tensor:
    """Scale each pixel's distance from its grey by U(0, 2)."""
    grey = images.mean(dim=1, keepdim=True)
    return (images - grey) * (2 * uniforms) + grey


def adjust_contrast(images: Tensor, uniforms: Tensor) -> Tensor:
    """Scale each value's distance from the image's mean by U(.5, 1.5)."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * (uniforms + 0.5) + mean


def translate(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """y[..., i, j] = x[..., i + rows, j + columns], zero outside; rows and columns (B, 1, 1) int64."""
    num, channels, height, width = images.shape
    i = torch.arange(height, device=images.device).view(1, height, 1) + rows      # (B, H, 1)
    j = torch.arange(width, device=images.device).view(1, 1, width) + columns     # (B, 1, W)
    inside = ((i >= 0) & (i < height)) & ((j >= 0) & (j < width))                 # (B, H, W)
    source = (i.clamp(0, height - 1) * width + j.clamp(0, width - 1)).view(num, 1, -1)
    moved = images.flatten(2).gather(2, source.expand(-1, channels, -1)).view_as(images)
    return moved * inside.unsqueeze(1)


def largest_shift(side: int) -> int:
    """Pixels a side may move: an eighth, rounded to the nearest."""
    return int(side * SHIFT + 0.5)


def _factor(draws: UniformDraws, num: int, like: Tensor) -> Tensor:
    return draws.uniform(num, 1, 1, 1).to(like)
