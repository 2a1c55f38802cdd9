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
from bench.data.splits import ArrayImages, check_options, fingerprint, located
from bench.errors import InputError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
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

        def images(split: str, cap: int | None) -> ArrayImages:
            rgb = np.broadcast_to(grey[split][:cap, ..., None], (*grey[split][:cap].shape, 3))   # no copy
            return ArrayImages(rgb, resolution=config.resolution, resize=config.resize)

        return Splits(images("train", config.max_train), images("validation", config.max_validation),
                      fingerprint(config, content), {"split": "the published test split validates"})


def read_idx(path: Path) -> np.ndarray:
    """(n, H, W) uint8 of an idx3 file (format: yann.lecun.com/exdb/mnist), gzipped or not.

    Raises InputError if the file is damaged or of another type.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if data[:4] != b"\x00\x00\x08\x03":   # unsigned bytes, three dimensions
        raise InputError(f"{path} is not an idx file of images: it begins with {data[:4].hex()}, expected 00000803")
    shape = tuple(int.from_bytes(data[i:i + 4], "big") for i in (4, 8, 12))
    if len(data) != 16 + math.prod(shape) or math.prod(shape) == 0:
        raise InputError(f"{path} is damaged: {len(data):,} bytes for {shape[0]} images of {shape[1]}x{shape[2]}")
    return np.frombuffer(data, np.uint8, offset=16).reshape(shape)


def _file(config: DatasetConfig, name: str) -> Path:
    folder = located(config, DEBIAN_FOLDER)
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise InputError(
        f"Fashion-MNIST is expected at {folder}, which has no {name}.gz.\nInstall Debian's package with "
        f"`apt-get install dataset-fashion-mnist`, or fetch {' and '.join(f'{file}.gz' for file in FILES.values())} "
        "(zalandoresearch/fashion-mnist) and point at their folder with dataset.path=<folder>.")
