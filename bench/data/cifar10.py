"""CIFAR-10: 50,000 training and 10,000 test photographs of 32x32 (Krizhevsky, 2009); the test split validates.

Downloaded on first use from a pinned source. `dataset.path` may instead name the published archive, a folder that holds
it, or its unpacked folder cifar-10-batches-py.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from bench.assets import cache as assets
from bench.assets.cache.convert_conditions import LABELS_FILE, cifar10_batch_labels
from bench.assets.convert import CIFAR10_TEST_SHA256, CIFAR10_TRAIN_SHA256, cifar10_batches
from bench.assets.weights import cifar10_arrays
from bench.config import DatasetConfig
from bench.data.base import Splits
from bench.data.labels import Labels
from bench.data.regular import read_regular
from bench.data.splits import ResizedImages, check_options, fingerprint
from bench.errors import InputError

UNPACKED = "cifar-10-batches-py"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Cifar10:
    """Both splits as memory maps; opening reads nothing but their checksums."""

    def check(self, config: DatasetConfig) -> None:
        check_options(config, own_split=True)
        if config.path is not None and _unpacked(config) is None:
            assets.user_file("cifar10", Path(config.path).expanduser())

    def open(self, config: DatasetConfig) -> Splits:
        self.check(config)
        train, test = _arrays(config)
        return Splits(
            ResizedImages(train[:config.max_train], resolution=config.resolution, resize=config.resize),
            ResizedImages(test[:config.max_validation], resolution=config.resolution, resize=config.resize),
            fingerprint(config, CIFAR10_TRAIN_SHA256 + CIFAR10_TEST_SHA256),
            {"split": "the published test split validates"}, labels=partial(_labels, config))


def _labels(config: DatasetConfig) -> Labels:
    if (folder := _unpacked(config)) is not None:
        try:
            labels = cifar10_batch_labels(lambda name: read_regular(folder / name))
        except (OSError, ValueError) as error:
            raise InputError(f"{folder} is not CIFAR-10 as published: {error}") from error
    else:
        place = assets.asset_folder("cifar10-labels", None if config.path is None else Path(config.path).expanduser())
        labels = {split: np.load(place / LABELS_FILE.format(split)) for split in ("train", "test")}
    return Labels(CLASSES, labels["train"][:config.max_train].astype(np.int64),
                  labels["test"][:config.max_validation].astype(np.int64))


def _arrays(config: DatasetConfig) -> tuple[np.ndarray, np.ndarray]:
    if (folder := _unpacked(config)) is not None:
        try:
            return cifar10_batches(lambda name: read_regular(folder / name))
        except (OSError, ValueError) as error:
            raise InputError(f"{folder} is not CIFAR-10 as published: {error}") from error
    path = None if config.path is None else Path(config.path).expanduser()
    paths = cifar10_arrays(path)
    return np.load(paths.train, mmap_mode="r"), np.load(paths.test, mmap_mode="r")


def _unpacked(config: DatasetConfig) -> Path | None:
    if config.path is None:
        return None
    path = Path(config.path).expanduser()
    return next((folder for folder in (path, path / UNPACKED) if (folder / "data_batch_1").is_file()), None)
