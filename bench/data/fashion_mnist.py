"""Fashion-MNIST: 60,000 + 10,000 grey 28x28 pictures of clothes (Xiao et al., 2017), from its idx files.

Debian's package dataset-fashion-mnist installs them; `dataset.path` names a folder that holds them, gzipped or not.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from functools import partial
from pathlib import Path

import numpy as np

from bench.config import DatasetConfig
from bench.data.base import Splits
from bench.data.labels import Labels
from bench.data.splits import ResizedImages, check_options, fingerprint, located
from bench.errors import InputError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
MAX_BYTES = 1 << 30   # of one file's pixels
FILES = {"train": "train-images-idx3-ubyte", "validation": "t10k-images-idx3-ubyte"}
LABEL_FILES = {"train": "train-labels-idx1-ubyte", "validation": "t10k-labels-idx1-ubyte"}
CLASSES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


class FashionMNIST:
    """Grey repeated to RGB; the published test split validates."""

    def check(self, config: DatasetConfig) -> None:
        check_options(config, own_split=True)
        for name in FILES.values():
            _file(config, name)

    def open(self, config: DatasetConfig) -> Splits:
        self.check(config)
        grey = {split: read_idx(_file(config, name)) for split, name in FILES.items()}
        content = " ".join(hashlib.sha256(grey[split].data).hexdigest() for split in FILES)

        def images(split: str, cap: int | None) -> ResizedImages:
            rgb = np.broadcast_to(grey[split][:cap, ..., None], (*grey[split][:cap].shape, 3))   # no copy
            return ResizedImages(rgb, resolution=config.resolution, resize=config.resize)

        return Splits(images("train", config.max_train), images("validation", config.max_validation),
                      fingerprint(config, content), {"split": "the published test split validates"},
                      labels=partial(_labels, config))


def _labels(config: DatasetConfig) -> Labels:
    """Raises InputError if a file is missing, damaged, or holds a class there is not."""
    caps = {"train": config.max_train, "validation": config.max_validation}
    found = {}
    for split, name in LABEL_FILES.items():
        path = _file(config, name)
        labels = read_idx(path, dimensions=1)
        if labels.max() >= len(CLASSES):
            raise InputError(f"{path} holds label {labels.max()}: Fashion-MNIST has {len(CLASSES)} classes, 0 to 9")
        found[split] = labels[:caps[split]].astype(np.int64)
    return Labels(CLASSES, found["train"], found["validation"])


def read_idx(path: Path, dimensions: int = 3) -> np.ndarray:
    """(n, H, W) uint8 of an idx3 file (format: yann.lecun.com/exdb/mnist), (n,) of an idx1 file, gzipped or not.

    Raises InputError if the file is damaged or of another type.
    """
    magic, what = bytes([0, 0, 8, dimensions]), "images" if dimensions == 3 else "labels"   # 8: unsigned bytes
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            header = file.read(4 + 4 * dimensions)
            if header[:4] != magic:
                raise InputError(f"{path} is not an idx file of {what}: it begins with {header[:4].hex()}, expected "
                                 f"{magic.hex()}")
            shape = tuple(int.from_bytes(header[i:i + 4], "big") for i in range(4, 4 + 4 * dimensions, 4))
            size, sizes = math.prod(shape), "x".join(map(str, shape[1:])) or "one byte"
            if size > MAX_BYTES:
                raise InputError(f"{path} announces {shape[0]:,} {what} of {sizes}: at most "
                                 f"{MAX_BYTES:,} bytes are read, and Fashion-MNIST has 47,040,000")
            data = file.read(size + 1)   # no more than announced, however much a gzip would give
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if len(data) != size or size == 0:
        found = f"more than {size:,}" if len(data) > size else f"{len(data):,}"
        raise InputError(f"{path} is damaged: {found} bytes for {shape[0]} {what} of {sizes}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _file(config: DatasetConfig, name: str) -> Path:
    folder = located(config, DEBIAN_FOLDER)
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise InputError(
        f"Fashion-MNIST is expected at {folder}, which has no {name}.gz.\nInstall Debian's package with "
        f"`apt-get install dataset-fashion-mnist`, or fetch "
        f"{' and '.join(f'{file}.gz' for file in (LABEL_FILES if name in LABEL_FILES.values() else FILES).values())} "
        "(zalandoresearch/fashion-mnist) and point at their folder with dataset.path=<folder>.")
