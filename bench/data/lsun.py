"""LSUN (Yu et al., 2015) Churches and Bedroom from the official LMDBs of encoded images; never downloaded.

    <path>/church_outdoor_train_lmdb/data.mdb    126,227 images
    <path>/church_outdoor_val_lmdb/data.mdb          300
    <path>/bedroom_train_lmdb/data.mdb         3,033,042
    <path>/bedroom_val_lmdb/data.mdb                 300

Corrupt images are an error when they are met; with on_corrupt=skip every image is decoded once beforehand.
"""

from __future__ import annotations

from pathlib import Path

from bench.config import DatasetConfig
from bench.data.base import Splits
from bench.data.images import FileImages, take_inventory
from bench.data.lmdb_files import LmdbFiles, check_complete
from bench.data.splits import check_options, fingerprint, located
from bench.errors import InputError
from bench.store.cache import cache_root


class Lsun:
    """One category; a subclass names it."""

    category: str

    def check(self, config: DatasetConfig) -> None:
        check_options(config, own_split=True)
        for split in ("train", "val"):
            check_complete(_folder(config, self.category, split))

    def open(self, config: DatasetConfig) -> Splits:
        self.check(config)
        train = LmdbFiles(_folder(config, self.category, "train"))
        validation = LmdbFiles(_folder(config, self.category, "val"))
        sides, digests, skipped = [], [], 0
        for files, cap in ((train, config.max_train), (validation, config.max_validation)):
            inventory = take_inventory(files, decode=config.on_corrupt == "skip")
            names = files.names.without(inventory.corrupt)
            sides.append(FileImages(files, names[:cap], resolution=config.resolution, resize=config.resize))
            digests.append(inventory.digest)
            skipped += len(inventory.corrupt)
        return Splits(sides[0], sides[1], fingerprint(config, " ".join(digests)),
                      {"skipped_corrupt": skipped, "split": "the official train and val LMDBs"})


class Churches(Lsun):
    category = "church_outdoor"


class Bedroom(Lsun):
    category = "bedroom"


def _folder(config: DatasetConfig, category: str, split: str) -> Path:
    """`<category>_<split>_lmdb` below dataset.path, or beside it where that names the train LMDB itself."""
    root = located(config, cache_root() / "datasets" / "lsun")
    if root.name.endswith("_lmdb"):
        root = root.parent
    folder = root / f"{category}_{split}_lmdb"
    if folder.exists():
        return folder
    packed = folder.with_suffix(".zip")
    state = f"{packed} is there but packed: unzip it" if packed.exists() else "it does not exist"
    raise InputError(
        f"LSUN {category} is expected at {folder}: {state}.\nLSUN is not downloaded for you: get "
        f"{category}_train_lmdb.zip and {category}_val_lmdb.zip from its authors (fyu/lsun), unzip both, and point at "
        f"the folder that holds them with\n  dataset.path=<folder>\nin this layout:\n"
        f"  <folder>/{category}_train_lmdb/data.mdb\n  <folder>/{category}_val_lmdb/data.mdb\n"
        f"Without dataset.path the place is {cache_root() / 'datasets' / 'lsun'}.")
