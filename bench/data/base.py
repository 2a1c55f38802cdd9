"""What a data set is to the benchmark: two splits of uint8 images behind an index, and a fingerprint.

Nothing here imports torch, so that a missing folder is an error within a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from bench.config import DatasetConfig
from bench.data.labels import ReadCaptions, ReadLabels


class ImageData(Protocol):
    """One split, in a fixed order."""

    def __len__(self) -> int: ...

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n, 3, H, W) uint8, resized and cropped, in the order of the indices."""


@dataclass(frozen=True)
class Splits:
    """fingerprint: hash of the file manifest and of everything that changes pixels (resolution, resize, caps).

    notes: what a reader of the record must know, such as {"skipped_corrupt": 3, "ignored_non_images": 12}.
    labels, captions: read the classes or captions of the images, in their order; None where the data set has none. Not
        part of the fingerprint: they change no pixel, and are read only where a condition asks.
    """

    train: ImageData
    validation: ImageData
    fingerprint: str
    notes: dict[str, object] = field(default_factory=dict)
    labels: ReadLabels | None = field(default=None, compare=False)
    captions: ReadCaptions | None = field(default=None, compare=False)


class Dataset(Protocol):
    """What the registry names; constructed without arguments."""

    def check(self, config: DatasetConfig) -> None:
        """Raise InputError, quickly and without torch, if the files are not where they should be."""

    def open(self, config: DatasetConfig) -> Splits:
        """Open, downloading first where a pinned public source exists. Raises InputError on bad files."""
