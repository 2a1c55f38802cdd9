"""Images that are pixels already, some of many images, and which ones: spread evenly, so that all kinds are among them.

    SubsetImages(images, spread_indices(len(images), 500))
    spread(features, 500)                     # the same of rows
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.data.base import ImageData


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


def spread_indices(total: int, num: int | None) -> np.ndarray:
    """`num` indices evenly spread over 0..total-1 (all of them for None), so that sorted data stays represented."""
    if num is None or num >= total:
        return np.arange(total)
    return np.linspace(0, total - 1, num).round().astype(np.int64)


def spread(rows: np.ndarray, num: int | None) -> np.ndarray:
    """`num` of (n, ...) rows evenly spread over all; all as they are, a memory map too, where there are no more."""
    return rows if num is None or num >= len(rows) else rows[spread_indices(len(rows), num)]
