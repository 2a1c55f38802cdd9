"""What every data set shares: checks of the common options, which image goes to which split, and the fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.config import DatasetConfig
from bench.data import pixels
from bench.data.base import ImageData
from bench.errors import InputError, did_you_mean

_DEFAULT_FRACTION = DatasetConfig().validation_fraction


class ResizedImages:
    """Images that already are pixels: (n, H, W, 3) uint8, possibly a memory map."""

    def __init__(self, array: np.ndarray, *, resolution: int, resize: str):
        self.array, self.resolution, self.resize = array, resolution, resize

    def __len__(self) -> int:
        return len(self.array)

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n, 3, H, W) uint8 in the order of the indices."""
        chosen = self.array[np.asarray(indices, dtype=np.int64)]
        return pixels.fit_array(chosen, resolution=self.resolution, resize=self.resize)


def check_options(config: DatasetConfig, *, own_split: bool = False, takes_path: bool = True) -> None:
    """Raise InputError on a value no data set can honour.

    own_split: the data set comes with a validation split, so that validation_fraction would be ignored.
    """
    if config.resolution < 1:
        raise InputError(f"dataset.resolution={config.resolution}: expected at least 1 pixel")
    if config.resize not in pixels.RESIZERS:
        raise InputError(f"dataset.resize={config.resize}: {did_you_mean(config.resize, pixels.RESIZERS)}")
    if config.on_corrupt not in ("error", "skip"):
        raise InputError(f"dataset.on_corrupt={config.on_corrupt}: expected error or skip")
    for key, cap in (("max_train", config.max_train), ("max_validation", config.max_validation)):
        if cap is not None and cap < 1:
            raise InputError(f"dataset.{key}={cap}: expected at least 1, or null for all")
    if not 0 < config.validation_fraction < 1:
        raise InputError(f"dataset.validation_fraction={config.validation_fraction}: expected between 0 and 1")
    if own_split and config.validation_fraction != _DEFAULT_FRACTION:
        raise InputError(f"dataset.validation_fraction has no effect on {config.name}, which has a validation split of "
                         "its own: leave it out, or shorten the split with dataset.max_validation")
    if not takes_path and config.path is not None:
        raise InputError(f"dataset.path={config.path} has no effect on {config.name}, which reads no files")


def located(config: DatasetConfig, default: Path) -> Path:
    """`dataset.path`, or where the data set lives by default."""
    return Path(config.path).expanduser() if config.path is not None else default


def num_validation(total: int, fraction: float) -> int:
    """How many of `total` images are set aside: at least one on each side.  Raises InputError below two images."""
    if total < 2:
        raise InputError(f"{total} image(s) cannot be split into training and validation: at least 2 are needed")
    return min(max(1, round(total * fraction)), total - 1)


def hash_order(names: Sequence[str]) -> list[int]:
    """Indices in the order of the sha256 of the names: random to the eye, the same on every machine."""
    return sorted(range(len(names)), key=lambda i: hashlib.sha256(names[i].encode("utf-8", "surrogateescape")).digest())


def split_by_hash(names: Sequence[str], fraction: float) -> tuple[list[int], list[int]]:
    """(train, validation) indices: the names of lowest hash are set aside, and both stay in hash order.

    So the first `max_train` of a tree sorted by class are a random sample, and a new file moves few others.
    """
    order = hash_order(names)
    held_out = num_validation(len(names), fraction)
    return order[held_out:], order[:held_out]


def capped(indices: Sequence[int], cap: int | None) -> np.ndarray:
    """The first `cap` indices, as int64."""
    return np.asarray(indices, dtype=np.int64)[:cap]


def fingerprint(config: DatasetConfig, content: str) -> str:
    """Hash of the content and of every option that changes pixels or their selection.

    The path is not part of it: the same files elsewhere are the same data.
    """
    relevant = {"content": content, "name": config.name, "pixels": pixels.VERSION, "resolution": config.resolution,
                "resize": config.resize, "max_train": config.max_train, "max_validation": config.max_validation,
                "validation_fraction": config.validation_fraction}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:32]


def check_large_enough(train: ImageData, validation: ImageData, where: str) -> None:
    """Raise InputError unless both splits hold an image."""
    for split, data in (("training", train), ("validation", validation)):
        if len(data) == 0:
            raise InputError(f"{where} has no {split} images")
