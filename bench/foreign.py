"""Samples of another model, judged before anything else is done with them. Torch-free.

    check_samples(Path("theirs.npz"), spec.dataset, num=500)      # raises InputError

An .npz holds `arr_0` of (n, H, W, 3) uint8; a folder or zip holds pictures, as a data set of that kind does.
"""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from bench.config import DatasetConfig
from bench.data.files import open_files
from bench.errors import InputError

ARRAY = "arr_0"


def check_samples(path: Path, dataset: DatasetConfig, *, num: int) -> None:
    """Raises InputError for a file that cannot be read, holds another kind of array, or fewer than `num` images."""
    if path.suffix == ".npz":
        check_count(path, npz_shape(path, dataset.resolution)[0], num)
    else:
        check_count(path, len(open_files(path).names), num)


def check_count(path: Path, found: int, num: int) -> None:
    if found < num:
        raise InputError(f"source={path} holds {found} images, the protocol asks for {num}: "
                         f"add images or set protocol.num_fake={found}.")


def as_folder(path: Path, dataset: DatasetConfig) -> DatasetConfig:
    """The data set whose images are those of `path`, resized as the run's are."""
    return dataclasses.replace(dataset, path=str(path), name="folder", max_train=None, max_validation=None)


def npz_shape(path: Path, resolution: int) -> tuple[int, ...]:
    """(n, H, W, 3) of `arr_0`, from its header alone."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name.removesuffix(".npy") for name in archive.namelist())
            if ARRAY not in names:
                raise InputError(f"{path} holds {names}; expected `{ARRAY}` of (n, H, W, 3) uint8.")
            with archive.open(f"{ARRAY}.npy") as file:
                shape, dtype = _header(file)
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        raise InputError(f"{path} is not an .npz file that can be read ({error}): write one with "
                         f"np.savez('samples.npz', images), images (n, H, W, 3) uint8.") from None
    if dtype != np.uint8 or len(shape) != 4 or shape[1:] != (resolution, resolution, 3):
        raise InputError(f"{path}: {ARRAY} is {dtype} {shape}; expected uint8 (n, {resolution}, {resolution}, 3).")
    return shape


def npz_images(path: Path, resolution: int) -> np.ndarray:
    """(n, 3, H, W) uint8."""
    npz_shape(path, resolution)
    with np.load(path, allow_pickle=False) as archive:
        return archive[ARRAY].transpose(0, 3, 1, 2)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype
