"""Contact sheets: many images as one PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from bench.records import Sheet


def save_sheet(path: Path, tiles: np.ndarray, rows: int, columns: int, labels: tuple[str, ...] = ()) -> Sheet:
    """(rows * columns, 3, H, W) uint8 as one PNG without margins."""
    count, _, height, width = tiles.shape
    assert count == rows * columns, f"{count} tiles for {rows} x {columns}"
    page = tiles.reshape(rows, columns, 3, height, width).transpose(0, 3, 1, 4, 2)
    Image.fromarray(np.ascontiguousarray(page.reshape(rows * height, columns * width, 3))).save(path)
    return Sheet(path=str(path), rows=rows, columns=columns, tile=(height, width), labels=labels)
