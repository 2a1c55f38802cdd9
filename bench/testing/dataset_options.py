"""More checks of data sets: what the keys of DatasetConfig do to the images, and that the fingerprint tells.

What is built of images is kept under their fingerprint: other images under the same one would be taken for these.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from bench.data.base import Splits
from bench.data.pixels import RESIZERS
from bench.errors import InputError
from bench.testing.another_process import chosen, seen
from bench.testing.contracts import Note, require
from bench.testing.datasets import SPLITS, DatasetCase, check_pixels, compares_pixels


def resolution_counts(case: DatasetCase) -> Note:
    """dataset.resolution is the height and width of the images, and part of the fingerprint."""
    other = case.config.resolution // 2 or 2
    splits = case.opened(resolution=other)
    if isinstance(splits, str):
        return splits
    for name in case.sides:
        check_pixels(name, getattr(splits, name), other)
    _check_told_apart(case, splits, f"resolution={other}")
    return None


@compares_pixels
def max_train_counts(case: DatasetCase) -> Note:
    """dataset.max_train keeps the first so many training images, and is part of the fingerprint."""
    return _check_cap(case, "max_train", "train")


@compares_pixels
def max_validation_counts(case: DatasetCase) -> Note:
    """dataset.max_validation keeps the first so many validation images, and is part of the fingerprint."""
    return _check_cap(case, "max_validation", "validation")


@compares_pixels
def other_options_are_told(case: DatasetCase) -> Note:
    """dataset.resize and dataset.validation_fraction are part of the fingerprint where they change images."""
    resize = next(name for name in sorted(RESIZERS) if name != case.config.resize)
    for key, value in {"resize": resize, "validation_fraction": (1 + case.config.validation_fraction) / 2}.items():
        splits = case.opened(**{key: value})
        if isinstance(splits, Splits):   # a refused option changes nothing
            _check_told_apart(case, splits, f"{key}={value}")
    return None


OPTION_CHECKS = (resolution_counts, max_train_counts, max_validation_counts, other_options_are_told)


def _check_cap(case: DatasetCase, key: str, name: str) -> Note:
    """At half the images of a split it keeps its first half, the other split all, and labels and captions follow."""
    if name not in case.sides or len(case.sides[name]) < 2:
        return f"dataset.{key} was not lowered: {name} has fewer than two images."
    side = case.sides[name]
    cap = len(side) // 2
    splits = case.opened(**{key: cap})
    if isinstance(splits, str):
        return splits
    capped = getattr(splits, name)
    require(len(capped) == cap, f"dataset.{key}={cap} gave {len(capped)} of {len(side)} images")
    require(np.array_equal(capped.images(chosen(capped)), side.images(chosen(capped))),
            f"dataset.{key}={cap} gave others than the first of all {len(side)}: cap them once they are in order")
    other = next(split for split in SPLITS if split != name)
    before, after = (getattr(seen(found), other) for found in (case.splits, splits))
    require(before == after, f"dataset.{key}={cap} changed {other} too: {before} became {after}")
    _check_told_apart(case, splits, f"{key}={cap}")
    for what, read in (("labels", splits.labels), ("captions", splits.captions)):
        if read is not None:
            with suppress(InputError):   # it has none after all
                known = len(getattr(read(), name))
                require(known == cap, f"dataset.{key}={cap} left {known} {what} of {name}: cap them as the images")
    return None


def _check_told_apart(case: DatasetCase, splits: Splits, option: str) -> None:
    """Raise CheckFailed if an option changed images and not the fingerprint."""
    before, after = seen(case.splits), seen(splits)
    same_images = (before.train, before.validation) == (after.train, after.validation)
    require(same_images or before.fingerprint != after.fingerprint,
            f"dataset.{option} changed images, and the fingerprint is the same: see bench.data.splits.fingerprint")
