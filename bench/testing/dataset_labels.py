"""More checks of data sets: classes and captions, where there are any, belong to the images."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from bench.data.labels import Captions, Labels, captions_of, labels_of
from bench.errors import InputError
from bench.testing.contracts import Note, require
from bench.testing.datasets import DatasetCase

Known = TypeVar("Known", Labels, Captions)


def labels_belong_to_images(case: DatasetCase) -> Note:
    """Labels are for each image of a split, in its order, the index of its class's name, int64."""
    labels = _read(case.splits.labels, Labels, "class")
    if isinstance(labels, str):
        return labels
    names = list(labels.names)
    require(all(isinstance(name, str) for name in names) and len(set(names)) == len(names),
            f"names are {names}, expected texts that differ")
    for name, side in case.sides.items():
        found = np.asarray(getattr(labels, name))
        require(found.dtype == np.int64 and found.shape == (len(side),),
                f"{name} is {found.dtype} of shape {found.shape}, expected int64 of {(len(side),)}")
        require(found.min() >= 0 and found.max() < len(names),
                f"{name} lies in [{found.min()}, {found.max()}] and there are {len(names)} names")
    return _check_again(labels, _read(lambda: labels_of(case.splits, case.config.name), Labels, "class"))


def captions_belong_to_images(case: DatasetCase) -> Note:
    """Captions are one line of text for each image of a split, in its order."""
    captions = _read(case.splits.captions, Captions, "text")
    if isinstance(captions, str):
        return captions
    for name, side in case.sides.items():
        found = getattr(captions, name)
        require(len(found) == len(side), f"{name} has {len(found)} captions for {len(side)} images")
        wrong = [text for text in found if not isinstance(text, str) or len(text.splitlines()) > 1]
        require(not wrong, f"{name} has {wrong[:1]}, expected texts of one line, empty for an image without")
    return _check_again(captions, _read(lambda: captions_of(case.splits, case.config.name), Captions, "text"))


LABEL_CHECKS = (labels_belong_to_images, captions_belong_to_images)


def _read(read: Callable[[], Known] | None, kind: type[Known], condition: str) -> Known | str:
    """What the data set says of its images, or why the condition is refused."""
    if read is None:
        return f"It has no {kind.__name__.lower()}, so condition={condition} is refused."
    try:
        found = read()
    except InputError as reason:
        return f"condition={condition} is refused: {reason}"
    require(isinstance(found, kind), f"they are a {type(found).__name__}, expected bench.data.labels.{kind.__name__}")
    return found


def _check_again(known: Labels | Captions, again: Labels | Captions | str) -> Note:
    """As a condition reads them, they are the same once more; a note where the condition refuses them."""
    if isinstance(again, str):
        return again
    require(again.digest == known.digest, "reading them again gave others")
    return None
