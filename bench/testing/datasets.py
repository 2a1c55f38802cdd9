"""The checks behind `bench.testing.check_dataset`; each docstring's first line is the fact it establishes.

Here: how a data set is opened, and its images. What options do to them: dataset_options; classes and captions:
dataset_labels.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench.config import DatasetConfig
from bench.data.base import ImageData, Splits
from bench.errors import InputError
from bench.testing.another_process import Answer, chosen, difference, elsewhere, seen
from bench.testing.contracts import CheckFailed, Note, require

COMPARED = 200   # images of each split that are searched for those of the other
MOST_SECONDS = 5.0   # of `check`, which every command waits for
SPLITS = ("train", "validation")


@dataclass
class DatasetCase:
    """A data set under test, and its splits as opened with `config`.

    given: the configuration that it was handed, a copy. seconds: what `check` took.
    target: package.module:Name of its class; "" where an instance was handed in.
    """

    dataset: Any
    config: DatasetConfig
    target: str
    splits: Splits
    given: DatasetConfig
    seconds: float

    @cached_property
    def sides(self) -> dict[str, ImageData]:
        """The splits that can be read, by their names."""
        found = {name: getattr(self.splits, name) for name in SPLITS}
        return {name: side for name, side in found.items() if not _lacking(side) and len(side)}

    @cached_property
    def unsteady(self) -> list[str]:
        """Names of the splits that give other pixels when the same images are read again."""
        return [name for name, side in self.sides.items()
                if not np.array_equal(side.images(chosen(side)), side.images(chosen(side)))]

    @cached_property
    def answer(self) -> Answer | None:
        """What another process sees; None of an instance."""
        return elsewhere(self.target, self.config) if self.target else None

    def opened(self, **changes: Any) -> Splits | str:
        """The data set opened anew, with some keys changed; where it refuses that, a note that says so."""
        config = dataclasses.replace(self.config, **changes)
        try:
            self.dataset.check(config)
            return self.dataset.open(config)
        except InputError as reason:
            asked = ", ".join(f"dataset.{key}={value}" for key, value in changes.items()) or "to be opened again"
            return f"It refuses {asked}: {reason}"


def opened_case(dataset: Any, config: DatasetConfig, target: str) -> DatasetCase:
    """The data set checked and opened, as the benchmark does.

    Raises InputError where the data set refuses the configuration, and CheckFailed where it fails in another way.
    """
    given, began = dataclasses.replace(config), time.perf_counter()
    _called("check(config)", lambda: dataset.check(given))
    seconds = time.perf_counter() - began
    splits = _called("open(config)", lambda: dataset.open(given))
    if not isinstance(splits, Splits):
        raise CheckFailed(f"open(config) returned {type(splits).__name__}, expected bench.data.base.Splits")
    return DatasetCase(dataset, config, target, splits, given, seconds)


def compares_pixels(check: Callable[[DatasetCase], Note]) -> Callable[[DatasetCase], Note]:
    """Not asked where reading again gives other pixels: that is a fault of its own, and the cause of this one."""
    @functools.wraps(check)
    def asked(case: DatasetCase) -> Note:
        return "Pixels were not compared further: they change from one reading to the next." if case.unsteady \
            else check(case)
    return asked


def made_without_arguments(case: DatasetCase) -> Note:
    """The class is made without arguments."""
    try:
        type(case.dataset)()
    except TypeError as error:
        raise CheckFailed(f"{error}: what it needs to know stands in the DatasetConfig") from error
    return None


def configuration_is_left_alone(case: DatasetCase) -> Note:
    """check and open leave the configuration as it is."""
    before, after = dataclasses.asdict(case.config), dataclasses.asdict(case.given)
    changed = [f"{key}={value!r} became {after[key]!r}" for key, value in before.items() if after[key] != value]
    require(not changed, f"{', '.join(changed)}, and records would say so: work on a copy")
    return None


def check_is_quick(case: DatasetCase) -> Note:
    """check answers in a moment."""
    return None if case.seconds < MOST_SECONDS else \
        f"check took {case.seconds:.1f} s, which every command waits for: leave to open what takes long"


def check_needs_no_torch(case: DatasetCase) -> Note:
    """check does without torch, so that what is missing is said at once."""
    if (gap := _gap(case)) is not None:
        return gap
    assert case.answer
    require(not case.answer.imports_torch, "torch is loaded when it returns: import it inside open, or do without")
    return None


def missing_files_are_refused(case: DatasetCase) -> Note:
    """check refuses a dataset.path where nothing is, by InputError."""
    with TemporaryDirectory() as folder:
        try:
            case.dataset.check(dataclasses.replace(case.config, path=str(Path(folder) / "nothing")))
        except InputError:
            return None
    raise CheckFailed("it was accepted: look whether the files are there, or, where none are read, let "
                      "bench.data.splits.check_options(config, takes_path=False) refuse every path")


def splits_hold_images(case: DatasetCase) -> Note:
    """Both splits have a length and images, at least one each."""
    for name in SPLITS:
        side = getattr(case.splits, name)
        require(not _lacking(side), f"{name} is a {type(side).__name__} without {_lacking(side)}")
        require(len(side) > 0, f"{name} has no image")
    return None


def images_are_pixels(case: DatasetCase) -> Note:
    """Images are (n, 3, H, W) uint8 arrays at the resolution asked for."""
    for name, side in case.sides.items():
        check_pixels(name, side, case.config.resolution)
    return None


def reading_repeats(case: DatasetCase) -> Note:
    """Reading images again gives the same pixels."""
    require(not case.unsteady, f"{' and '.join(case.unsteady)} gave others: what is drawn at random while training is "
                               "no part of a data set")
    return None


@compares_pixels
def images_come_in_order(case: DatasetCase) -> Note:
    """Images come in the order of their indices, repeated ones too: of a list, an array or a range."""
    for name, side in case.sides.items():
        mixed = [*reversed(chosen(side)), *chosen(side)[:2]]
        forms: dict[str, Any] = {"a list": mixed, "an array": np.array(mixed), "a range": range(min(3, len(side)))}
        for form, indices in forms.items():
            alone = np.concatenate([np.array(side.images([int(i)])) for i in indices])
            try:
                together = side.images(indices)
            except Exception as error:   # the plug-in's own, whatever it is
                raise CheckFailed(f"{name}.images of {form} raised {type(error).__name__}: {error}") from error
            require(np.array_equal(together, alone), f"{name}.images of {form} gave others than images([i]) one by one "
                                                     f"(asked for {', '.join(map(str, indices[:4]))}, ...)")
    return None


@compares_pixels
def images_belong_to_the_caller(case: DatasetCase) -> Note:
    """Images once read are the caller's: neither reading others nor writing into them changes what is read."""
    for name, side in case.sides.items():
        first, last = chosen(side)[:1], chosen(side)[-1:]
        images = side.images(first)
        kept = images.copy()
        side.images(last)
        require(np.array_equal(images, kept), f"{name}: reading others changed them; return a new array each time")
        if not images.flags.writeable:
            return f"{name} gives arrays that cannot be written to, of which torch warns: return a copy"
        images[:] = 255 - kept
        damaged = not np.array_equal(side.images(first), kept)
        images[:] = kept
        require(not damaged, f"{name}: writing into them changed the data set; return a copy")
    return None


@compares_pixels
def opening_repeats(case: DatasetCase) -> Note:
    """Opening again gives the same images and the same fingerprint."""
    again = case.opened()
    if isinstance(again, str):
        raise CheckFailed(again)
    found = difference(seen(case.splits), seen(again))
    require(not found, found)
    return None


@compares_pixels
def threads_may_read(case: DatasetCase) -> Note:
    """One thread may read ahead while another reads."""
    expected = {name: side.images(chosen(side)) for name, side in case.sides.items()}
    with ThreadPoolExecutor(1) as ahead:
        coming = [(name, ahead.submit(side.images, chosen(side))) for name, side in case.sides.items() for _ in "1234"]
        here = [(name, side.images(chosen(side))) for name, side in case.sides.items() for _ in "1234"]
        found = here + [(name, reading.result()) for name, reading in coming]
    wrong = {name for name, images in found if not np.array_equal(images, expected[name])}
    require(not wrong, f"{' and '.join(sorted(wrong))} gave other pixels: let readers share no position in a file")
    return None


@compares_pixels
def processes_agree(case: DatasetCase) -> Note:
    """Another process sees the same images and the same fingerprint."""
    if (gap := _gap(case)) is not None:
        return gap
    assert case.answer and case.answer.seen
    found = difference(seen(case.splits), case.answer.seen)
    require(not found, f"{found}: hash() and the order of sets differ between processes")
    return None


def held_out_images_are_not_trained_on(case: DatasetCase) -> Note:
    """No image is in both splits, among those looked at."""
    train, held_out = (_distinct(case.sides[name]) if name in case.sides else set() for name in SPLITS)
    both = len(train & held_out)
    require(not both or both < len(held_out), f"all {both} validation images are training images too: likelihood and "
                                              "memorisation are measured on images that no training has seen")
    return f"{both} of {len(held_out)} validation images looked at are training images too, pixel by pixel" if both \
        else None


def fingerprint_is_a_text(case: DatasetCase) -> Note:
    """The fingerprint is a text of one line."""
    found = case.splits.fingerprint
    require(isinstance(found, str) and bool(found.strip()) and found.isprintable(), f"it is {found!r}")
    return None


def notes_can_be_recorded(case: DatasetCase) -> Note:
    """Notes can be written to a record."""
    notes = case.splits.notes
    require(isinstance(notes, dict), f"they are a {type(notes).__name__}, expected a dict")
    try:
        json.dumps(notes, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckFailed(f"they are not plain JSON: {error}") from error
    return None


DATASET_CHECKS = (
    made_without_arguments, configuration_is_left_alone, check_is_quick, check_needs_no_torch,
    missing_files_are_refused, splits_hold_images, images_are_pixels, reading_repeats, images_come_in_order,
    images_belong_to_the_caller, opening_repeats, threads_may_read, processes_agree,
    held_out_images_are_not_trained_on, fingerprint_is_a_text, notes_can_be_recorded,
)


def check_pixels(name: str, side: ImageData, resolution: int) -> None:
    """Raise CheckFailed unless a split gives arrays that torch takes, of the type and shape expected."""
    indices = chosen(side)
    images = side.images(indices)
    require(isinstance(images, np.ndarray), f"{name} gave a {type(images).__name__}, expected a numpy array")
    expected = (len(indices), 3, resolution, resolution)
    require(images.dtype == np.uint8 and images.shape == expected,
            f"{name} gave {images.dtype} of shape {images.shape}, expected uint8 of {expected}")
    require(min(images.strides) >= 0, f"{name} gave an array of negative strides, as [::-1] makes them, which torch "
                                      "does not take: return np.ascontiguousarray(images)")


def _called(call: str, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except InputError:   # the data set says that the configuration is wrong
        raise
    except Exception as error:   # the plug-in's own, whatever it is
        raise CheckFailed(f"{call} raised {type(error).__name__}: {error}") from error


def _lacking(side: Any) -> str:
    """Which methods of an ImageData it has not."""
    return " and ".join(name for name in ("__len__", "images") if not callable(getattr(side, name, None)))


def _gap(case: DatasetCase) -> Note:
    """Why another process could not be asked. Raises CheckFailed where the data set raised an error there alone."""
    if case.answer is None:
        return "An instance was given: no other process was asked to open the data set."
    require(not case.answer.error, f"in another process it raised {case.answer.error}")
    reason = case.answer.not_found
    return f"No other process was asked to open the data set: {reason}" if reason else None


def _distinct(side: ImageData) -> set[bytes]:
    """The first images of a split, each once."""
    return {image.tobytes() for image in side.images(list(range(min(COMPARED, len(side)))))}
