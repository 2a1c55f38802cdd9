"""Samples of another model, judged before anything else is done with them. Torch-free.

    samples = look_at("theirs.npz", spec.dataset, num=500)      # raises InputError
    samples.sha256, samples.took                                # what they are, and how they were read
    samples.images                                              # the 500, spread over all there are

An .npz holds an array of images, uint8 or floats, channels last or first (`theirs.npz:key` where it holds several); a
folder or zip holds pictures, read as those of a data set. What they are is their content, wherever they lie.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.config import SOURCES, DatasetConfig, RunSpec
from bench.data.arrays import SubsetImages, spread_indices
from bench.data.base import ImageData
from bench.data.files import TreeFiles, open_files
from bench.data.images import FileImages, corrupt_error, take_inventory
from bench.data.npz import NpzImages, find_images, scan
from bench.data.regular import check_regular
from bench.errors import InputError
from bench.provenance import sha256_of


@dataclass(frozen=True)
class ForeignSamples:
    """images: those to be judged. total: how many there are. took: how they were read, in words."""

    path: Path
    sha256: str
    total: int
    took: str
    images: ImageData

    @property
    def described(self) -> str:
        return f"{len(self.images):,} of {self.total:,} images, {self.took}"


def look_at(source: str, dataset: DatasetConfig, *, num: int) -> ForeignSamples:
    """Raises InputError for what cannot be read, holds no images of this size, or fewer than `num`."""
    path, key = split_key(source)
    if not path.exists():
        raise InputError(f"source={source}: expected {', '.join(SOURCES)} or an existing folder, zip or .npz of "
                         "images.")
    check_regular(path, f"source={source}")
    if path.suffix == ".npz" and path.is_file():
        array = find_images(path, key=key, resolution=dataset.resolution)
        _check_count(source, array.shape[0], num)
        sha256, values = _content(path, array.key, dataset.resolution, _stamp(path))
        images: ImageData = NpzImages(array, values)
        grey = ", grey" if 1 in (array.shape[1], array.shape[3]) else ""
        took = f"{array.key}: {array.dtype} {array.layout}{f' in {values}' if values else ''}{grey}"
    else:
        images, sha256, took = _pictures(path, dataset)
    _check_count(source, len(images), num)
    chosen = SubsetImages(images, spread_indices(len(images), num))
    return ForeignSamples(path, sha256, len(images), took, chosen)


def as_written(spec: RunSpec) -> dict[str, Any]:
    """A spec as records keep it: of samples from elsewhere with the hash that tells what they are, if there are any.

    Without a prior.seed or a condition that is not set, as in records made before there were any; of an edit the
    protocol's name tells the mask.
    """
    values = dataclasses.asdict(spec)
    del values["edit"], values["tracking"]   # which changes nothing in what is measured
    if spec.edit.mask:
        values["protocol"]["name"] = spec.edit.protocol_name
    if spec.condition.name == "none":
        del values["condition"]
    if spec.prior.seed is None:
        del values["prior"]["seed"]
    if spec.source in SOURCES:
        return values
    try:
        found = look_at(spec.source, spec.dataset, num=spec.protocol.num_fake)
    except (InputError, OSError):   # what is wrong with them is told elsewhere
        return values
    return {**values, "source_sha256": found.sha256}


def split_key(source: str) -> tuple[Path, str | None]:
    """(path, key) of `theirs.npz:key`."""
    before, colon, key = source.rpartition(":")
    if colon and before.endswith(".npz") and not Path(source).expanduser().exists():
        return Path(before).expanduser(), key
    return Path(source).expanduser(), None


def name_of(source: str) -> str:
    """How a row is called if no label says: the last folder and the name, run1/samples.npz."""
    return "/".join(Path(source).expanduser().absolute().parts[-2:]).lstrip("/")


def _pictures(path: Path, dataset: DatasetConfig) -> tuple[ImageData, str, str]:
    files = open_files(path)
    inventory = take_inventory(files)
    if inventory.corrupt and dataset.on_corrupt == "error":
        raise corrupt_error(files.path, inventory.corrupt)
    names = [name for name in files.names if name not in inventory.corrupt]
    skipped = f", {len(inventory.corrupt)} corrupt ones skipped" if inventory.corrupt else ""
    sha256 = _hash_of_tree(path, files.stamp()) if isinstance(files, TreeFiles) else _hash_of_file(path, _stamp(path))
    return (FileImages(files, names, resolution=dataset.resolution, resize=dataset.resize), sha256,
            f"pictures resized to {dataset.resolution} pixels{skipped}")


def _check_count(source: str, found: int, num: int) -> None:
    if found < num:
        raise InputError(f"source={source} holds {found} images, the protocol asks for {num}: "
                         f"add images or set protocol.num_fake={found}.")


def _stamp(path: Path) -> tuple[int, ...]:
    """Changes when the file does."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


@functools.lru_cache(maxsize=256)
def _content(path: Path, key: str, resolution: int, stamp: tuple[int, ...]) -> tuple[str, str]:
    """(sha256, range of values) of an array: it is read whole, so that damage is found now."""
    array = find_images(path, key=key, resolution=resolution)
    values = scan(array)
    return hashlib.sha256(f"{_hash_of_file(path, stamp)} {key}".encode()).hexdigest(), values


@functools.lru_cache(maxsize=256)
def _hash_of_file(path: Path, stamp: tuple[int, ...]) -> str:
    return sha256_of(path)


@functools.lru_cache(maxsize=256)
def _hash_of_tree(path: Path, stamp: str) -> str:
    """Of the names and contents of all images, linked folders included."""
    files = TreeFiles(path)
    whole = hashlib.sha256()
    for name in files.names:
        whole.update(f"{name}:{hashlib.sha256(files.read(name)).hexdigest()}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()
