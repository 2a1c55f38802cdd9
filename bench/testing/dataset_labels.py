"""More checks of data sets: classes and captions, where there are any, belong to the images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.data.labels import Captions, Labels, captions_of, labels_of
from bench.errors import InputError
from bench.testing.contracts import Note, require
from bench.testing.datasets import DatasetCase


def labels_belong_to_images(case: DatasetCase) -> Note:
    """Labels are for each image of a split, in its order, the index of its class's name, int64."""
    if case.splits.labels is None:
        return "It has no labels, so condition=class is refused."
    try:
        labels = case.splits.labels()
    except InputError as reason:
        return f"condition=class is refused: {reason}"
    require(isinstance(labels, Labels), f"they are a {type(labels).__name__}, expected bench.data.labels.Labels")
    names = list(labels.names)
    require(all(isinstance(name, str) for name in names) and len(set(names)) == len(names),
            f"names are {names}, expected texts that differ")
    for name, side in case.sides.items():
        found = np.asarray(getattr(labels, name))
        require(found.dtype == np.int64 and found.shape == (len(side),),
                f"{name} is {found.dtype} of shape {found.shape}, expected int64 of {(len(side),)}")
        require(found.min() >= 0 and found.max() < len(names),
                f"{name} lies in [{found.min()}, {found.max()}] and there are {len(names)} names")
    return _check_again(labels, lambda: labels_of(case.splits, case.config.name), "class")


def captions_belong_to_images(case: DatasetCase) -> Note:
    """Captions are one line of text for each image of a split, in its order."""
    if case.splits.captions is None:
        return "It has no captions, so condition=text is refused."
    try:
        captions = case.splits.captions()
    except InputError as reason:
        return f"condition=text is refused: {reason}"
    require(isinstance(captions, Captions),
            f"they are a {type(captions).__name__}, expected bench.data.labels.Captions")
    for name, side in case.sides.items():
        found = getattr(captions, name)
        require(len(found) == len(side), f"{name} has {len(found)} captions for {len(side)} images")
        wrong = [text for text in found if not isinstance(text, str) or len(text.splitlines()) > 1]
        require(not wrong, f"{name} has {wrong[:1]}, expected texts of one line, empty for an image without")
    return _check_again(captions, lambda: captions_of(case.splits, case.config.name), "text")


LABEL_CHECKS = (labels_belong_to_images, captions_belong_to_images)


def _check_again(known: Labels | Captions, read: Callable[[], Labels | Captions], condition: str) -> Note:
    """Read as a condition reads them, they are the same once more; a note where the condition refuses them."""
    try:
        again = read()
    except InputError as reason:
        return f"condition={condition} is refused: {reason}"
    require(again.digest == known.digest, "reading them again gave others")
    return None
