"""What is known of a data set's images besides their pixels: their classes, and their captions.

    labels = labels_of(splits, "cifar10")     # Labels; raises InputError where the data set has none
    labels.names[labels.train[0]]               # "frog"

A data set says how to read them (`Splits.labels`, `Splits.captions`); they are read only when a condition asks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import InputError

if TYPE_CHECKING:
    from bench.data.base import Splits


@dataclass(frozen=True)
class Labels:
    """Class names, and of each image of a split, in its order, the index of its class: (n,) int64."""

    names: tuple[str, ...]
    train: np.ndarray
    validation: np.ndarray

    @property
    def digest(self) -> str:
        """sha256 of names and labels."""
        found = hashlib.sha256(json.dumps(self.names).encode())
        for labels in (self.train, self.validation):
            found.update(np.ascontiguousarray(labels, dtype="<i8").tobytes())
        return found.hexdigest()


@dataclass(frozen=True)
class Captions:
    """One line of text for each image of a split, in its order; "" for an image without."""

    train: tuple[str, ...]
    validation: tuple[str, ...]

    @property
    def digest(self) -> str:
        """sha256 of all captions."""
        return hashlib.sha256(json.dumps([self.train, self.validation]).encode()).hexdigest()


ReadLabels = Callable[[], Labels]
ReadCaptions = Callable[[], Captions]


def labels_of(splits: Splits, dataset: str) -> Labels:
    """The classes of a data set's images.

    Raises InputError where it has none, has fewer than two, or trains on no image of a class it validates on.
    """
    if splits.labels is None:
        raise InputError(f"dataset={dataset} has no classes: leave the condition out, or use a data set that has them, "
                         "such as cifar10, or a folder of class folders.")
    labels = splits.labels()
    _check_aligned(labels.train, labels.validation, splits, "labels")
    if len(labels.names) < 2:
        raise InputError(f"dataset={dataset} has {len(labels.names)} class ({', '.join(labels.names)}): a condition on "
                         "classes needs at least 2. Leave the condition out.")
    untrained = sorted(set(labels.validation.tolist()) - set(labels.train.tolist()))
    if untrained:
        shown = ", ".join(repr(labels.names[i]) for i in untrained[:5])
        raise InputError(f"dataset={dataset} validates on classes without a training image: {shown}"
                         f"{' and others' if len(untrained) > 5 else ''}. Move an image of each to the training split, "
                         "or raise dataset.max_train.")
    return labels


def captions_of(splits: Splits, dataset: str) -> Captions:
    """The captions of a data set's images.  Raises InputError where it has none."""
    if splits.captions is None:
        raise InputError(f"dataset={dataset} has no captions: leave the condition out, or use emoji, or a folder with "
                         "captions.csv or a .txt beside each image.")
    captions = splits.captions()
    _check_aligned(captions.train, captions.validation, splits, "captions")
    if not any(captions.train):
        raise InputError(f"dataset={dataset} has no caption for any training image: leave the condition out.")
    return captions


def labels_from(train: Sequence[str], validation: Sequence[str]) -> Labels:
    """Classes by their names, numbered in alphabetical order."""
    names = tuple(sorted({*train, *validation}))
    index = {name: i for i, name in enumerate(names)}
    return Labels(names, *(np.array([index[name] for name in split], dtype=np.int64) for split in (train, validation)))


def labels_from_folders(train: Sequence[str], validation: Sequence[str], *, below: tuple[str, ...] = ()) -> Labels:
    """The class of an image is its first folder: relative paths -> Labels.

    below: folders that are splits, not classes, and come before it.  Raises InputError for an image in no folder.
    """
    return labels_from(*([_class_folder(name, below) for name in split] for split in (train, validation)))


def _class_folder(name: str, below: tuple[str, ...]) -> str:
    folders = PurePosixPath(name).parts[:-1]
    if folders and folders[0] in below:
        folders = folders[1:]
    if not folders:
        raise InputError(f"{name} lies in no class folder: a condition on classes takes the first folder of each path "
                         "as its class, such as cats/001.png. Sort the images into folders, or leave it out.")
    return folders[0]


def _check_aligned(train: Sequence | np.ndarray, validation: Sequence | np.ndarray, splits: Splits, what: str) -> None:
    for split, given, images in (("training", train, splits.train), ("validation", validation, splits.validation)):
        if len(given) != len(images):
            raise InputError(f"{len(given)} {what} for {len(images)} {split} images: expected one for each, in their "
                             "order. The data set's files do not belong together.")
