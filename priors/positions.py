"""What the learned embeddings of grid positions start from.

    initial_positions(AbsorbingOptions(width=64, position_init="sincos2d"), (16, 16))   # (256, 64)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from priors.options import TransformerOptions

DEVIATION = 0.02   # of all embeddings at first, as in priors.transformer.init_gpt


def initial_positions(options: TransformerOptions, grid: tuple[int, int]) -> Tensor:
    """(N, C) float32 of an (h, w) grid, in raster order."""
    num_tokens, width = grid[0] * grid[1], options.width
    if options.position_init == "zeros":
        return torch.zeros(num_tokens, width)
    if options.position_init == "normal":
        return torch.randn(num_tokens, width) * DEVIATION
    return sincos2d(grid, width) * (DEVIATION * math.sqrt(2))   # a sine's root mean square is 1 / sqrt(2)


def sincos2d(grid: tuple[int, int], width: int) -> Tensor:
    """(N, C): C/4 sines and C/4 cosines of the row, then as many of the column (as in MAE: He et al. 2022).

    Frequency i is 10000^(-i / (C/4)), so that distances from one cell to far beyond a grid can be told.
    """
    height, columns = grid
    frequencies = 10000.0 ** (-torch.arange(width // 4) / (width // 4))
    rows = torch.arange(height).repeat_interleave(columns)
    angles = [place.unsqueeze(1) * frequencies for place in (rows, torch.arange(columns).repeat(height))]   # (N, C/4)
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], 1)
