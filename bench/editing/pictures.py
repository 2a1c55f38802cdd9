"""Pictures of edits: contact sheets for people and for records, unknown parts in grey.

    save_tiles(tiles, rows, columns, "sheet.png")               # enlarged, with gaps: to be looked at
    sheet = record_sheet(tiles, rows, columns, path)            # pixel for pixel: for a record
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.records import Sheet
from priors.base import UNKNOWN
from priors.editing import to_pixels

GREY = 128
SMALLEST_TILE, GAP = 96, 4   # pixels, of a sheet that is looked at


def greyed(images: Tensor, hidden: Tensor, grid: tuple[int, int]) -> Tensor:
    """Images (n, 3, H, W) uint8 with the patches of hidden tokens (N,) or (n, N) bool in grey."""
    rows = hidden.reshape(-1, hidden.shape[-1])   # (1 or n, N)
    covered = to_pixels(rows, size=(images.shape[-2], images.shape[-1]), grid=grid)
    return images.masked_fill(covered.unsqueeze(1).to(images.device), GREY)


def decode_known(tokenizer, known: Tensor, grid: tuple[int, int]) -> Tensor:
    """The known tokens decoded, the rest in grey: (n, N) with UNKNOWN -> (n, 3, H, W) uint8.

    The decoder needs a code everywhere: an unknown cell takes the commonest known one of its image.
    """
    filled = known.clone()
    for row in filled:
        told = row[row != UNKNOWN]
        row[row == UNKNOWN] = told.mode().values if len(told) else 0
    return greyed(tokenizer.decode(filled.unflatten(1, grid)), known == UNKNOWN, grid)


def save_tiles(tiles: Tensor, rows: int, columns: int, path: Path) -> None:
    """(rows * columns, 3, H, W) uint8 as one PNG, enlarged by a whole factor so that tiles are seen."""
    array = tiles.cpu().numpy().transpose(0, 2, 3, 1)   # (n, H, W, 3)
    factor = max(1, -(-SMALLEST_TILE // min(array.shape[1:3])))
    large = array.repeat(factor, 1).repeat(factor, 2)
    padded = np.pad(large, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255)
    height, width = padded.shape[1:3]
    page = padded.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
    Image.fromarray(np.ascontiguousarray(page[:-GAP, :-GAP])).save(path)


def save_image(image: Tensor, path: Path) -> None:
    """(3, H, W) uint8 as PNG."""
    Image.fromarray(image.cpu().permute(1, 2, 0).contiguous().numpy()).save(path)


def record_sheet(tiles: Tensor, rows: int, columns: int, path: Path, *, results_dir: Path,
                 labels: tuple[str, ...] = ()) -> Sheet:
    """(rows * columns, 3, H, W) uint8 as one PNG without margins, as records keep them."""
    array = tiles.cpu().numpy()
    height, width = array.shape[2:]
    page = array.reshape(rows, columns, 3, height, width).transpose(0, 3, 1, 4, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(page.reshape(rows * height, columns * width, 3))).save(path)
    return Sheet(path=path.relative_to(results_dir).as_posix(), rows=rows, columns=columns, tile=(height, width),
                 labels=labels)


def line_up(*parts: Tensor) -> Tensor:
    """Tiles row by row from parts (rows, k, 3, H, W): -> (rows * sum of k, 3, H, W)."""
    return torch.cat([part.cpu() for part in parts], 1).flatten(0, 1)
