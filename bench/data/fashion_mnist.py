"""Fashion-MNIST: 60,000 + 10,000 grey 28x28 pictures of clothes (Xiao et al., 2017), from its idx files.

Debian's package dataset-fashion-mnist installs them; `dataset.path` names a folder that holds them, gzipped or not.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from pathlib import Path

import numpy as np

from bench.config import DatasetConfig
from bench.data.base import Splits
from bench.data.splits import ResizedImages, check_options, fingerprint, located
from bench.errors import InputError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
MAX_BYTES = 1 << 30   # of one file's pixels
FILES = {"train": "train-images-idx3-ubyte", "validation": "t10k-images-idx3-ubyte"}


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
                      fingerprint(config, content), {"split": "the published test split validates"})


def read_idx(path: Path) -> np.ndarray:
    """(n, H, W) uint8 of an idx3 file (format: yann.lecun.com/exdb/mnist), gzipped or not.

    Raises InputError if the file is damaged or of another type.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            header = file.read(16)
            if header[:4] != b"\x00\x00\x08\x03":   # unsigned bytes, three dimensions
                raise InputError(f"{path} is not an idx file of images: it begins with {header[:4].hex()}, expected "
                                 "00000803")
            shape = tuple(int.from_bytes(header[i:i + 4], "big") for i in (4, 8, 12))
            size = math.prod(shape)
            if size > MAX_BYTES:
                raise InputError(f"{path} announces {shape[0]:,} images of {shape[1]}x{shape[2]}: at most "
                                 f"{MAX_BYTES:,} bytes are read, and Fashion-MNIST has 47,040,000")
            data = file.read(size + 1)   # no more than announced, however much a gzip would give
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if len(data) != size or size == 0:
        found = f"more than {size:,}" if len(data) > size else f"{len(data):,}"
        raise InputError(f"{path} is damaged: {found} bytes of pixels for {shape[0]} images of {shape[1]}x{shape[2]}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _file(config: DatasetConfig, name: str) -> Path:
    folder = located(config, DEBIAN_FOLDER)
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise InputError(
        f"Fashion-MNIST is expected at {folder}, which has no {name}.gz.\nInstall Debian's package with "
        f"`apt-get install dataset-fashion-mnist`, or fetch {' and '.join(f'{file}.gz' for file in FILES.values())} "
        "(zalandoresearch/fashion-mnist) and point at their folder with dataset.path=<folder>.")
