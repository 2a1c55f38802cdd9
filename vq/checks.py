"""Checks of what a caller hands to a tokenizer; an error names the value, what was expected and the way out."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def check_images(images: Tensor) -> None:
    """Raise ValueError unless images are (B, 3, H, W) uint8."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images of shape {tuple(images.shape)} and type {images.dtype}: expected (B, 3, H, W) uint8")


def check_canvas(tokens: Tensor, *, grid: tuple[int, int], codebook_size: int) -> Tensor:
    """Tokens (B, N) of this grid, or (B, h, w) of any, as (B, h, w); ValueError unless they are int64 in [0, K)."""
    if tokens.ndim == 2:
        if tokens.shape[1] != math.prod(grid):
            raise ValueError(f"{tokens.shape[1]} tokens an image: expected {math.prod(grid)} for grid {grid}; pass a "
                             "(B, h, w) canvas for another size")
        tokens = tokens.view(-1, *grid)
    if tokens.ndim != 3 or tokens.dtype != torch.int64:
        raise ValueError(f"tokens of shape {tuple(tokens.shape)} and type {tokens.dtype}: expected (B, N) or "
                         "(B, h, w) int64")
    if tokens.numel() and (tokens.min() < 0 or tokens.max() >= codebook_size):
        raise ValueError(f"tokens from {int(tokens.min())} to {int(tokens.max())}: expected 0 to {codebook_size - 1}, "
                         "the codebook's ids")
    return tokens
