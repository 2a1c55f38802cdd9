"""check_dataset: what the keys of a configuration do to the images, and whether classes and captions belong to them."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from bench.data.arrays import ArrayImages
from bench.data.labels import Captions, Labels
from bench.data.splits import fingerprint
from bench.errors import InputError
from tests.bench.noise_data import Noise, faults_of, only_fault_of, opening, report_of


def test_a_resolution_that_is_ignored_is_found():
    class Fixed(Noise):
        def open(self, config):
            return super().open(replace(config, resolution=8))
    fault = only_fault_of(Fixed())
    assert fault.startswith("dataset.resolution is") and "expected uint8 of (12, 3, 4, 4)" in fault


def test_a_resolution_that_is_refused_is_noted():
    class Refuses(Noise):
        def check(self, config):
            super().check(config)
            if config.resolution != 8:
                raise InputError("there are 8 pixels")
    assert "It refuses dataset.resolution=4: there are 8 pixels" in report_of(Refuses()).notes


def test_a_fingerprint_that_options_do_not_change_is_found_for_each_of_them():
    faults = faults_of(opening(lambda splits, config: replace(splits, fingerprint="noise")))
    assert [fault.split("But dataset.")[1].split(" ")[0] for fault in faults] == [
        "resolution=4", "max_train=6", "max_validation=3"]


def test_a_cap_that_is_ignored_is_found():
    class All(Noise):
        def open(self, config):
            return super().open(replace(config, max_train=None))
    assert "dataset.max_train=10 gave 20 of 20 images" in only_fault_of(All())


def test_a_cap_that_takes_others_than_the_first_is_found():
    class Last(Noise):
        def open(self, config):
            splits = super().open(replace(config, max_train=None))
            return replace(splits, train=ArrayImages(splits.train.array[-config.max_train:]),
                           fingerprint=fingerprint(config, "noise"))
    assert "gave others than the first" in only_fault_of(Last())


def test_a_cap_of_one_split_that_changes_the_other_is_found():
    def moved(splits, config):
        return replace(splits, validation=ArrayImages(splits.validation.array ^ np.uint8(config.max_train)))
    assert "dataset.max_train=6 changed validation too" in only_fault_of(opening(moved))


def test_a_split_of_one_image_cannot_be_capped_and_that_is_noted():
    def single(splits, config):
        return replace(splits, validation=ArrayImages(splits.validation.array[:1]))
    assert any("dataset.max_validation was not lowered" in note for note in report_of(opening(single)).notes)


def test_a_resize_that_the_fingerprint_does_not_tell_is_found():
    def blurred(splits, config):
        train = ArrayImages(splits.train.array + np.uint8(config.resize == "plain"))
        return replace(splits, train=train, fingerprint=fingerprint(replace(config, resize="antialias"), "noise"))
    assert "dataset.resize=plain changed images, and the fingerprint is the same" in only_fault_of(opening(blurred))


# Classes and captions

def labelled(names=("a", "b"), dtype=np.int64, shift=0, extra=0, capped=True):
    """Noise of alternating classes, wrong in the way that is asked for."""
    def change(splits, config):
        sizes = (len(splits.train), len(splits.validation)) if capped else (12, 6)
        found = [(np.arange(size + extra) % 2 + shift).astype(dtype) for size in sizes]
        return replace(splits, labels=partial(Labels, names, *found))
    return opening(change)


def captioned(text="a", extra=0):
    def change(splits, config):
        sizes = len(splits.train) + extra, len(splits.validation)
        return replace(splits, captions=partial(Captions, *((text,) * size for size in sizes)))
    return opening(change)


def test_classes_and_captions_that_belong_to_their_images_pass():
    assert any(fact.startswith("Labels are") for fact in report_of(labelled()).passed)
    assert any(fact.startswith("Captions are") for fact in report_of(captioned()).passed)


@pytest.mark.parametrize("wrong, problem", [
    (dict(dtype=np.int32), "int32 of shape (12,), expected int64"), (dict(shift=1), "lies in [1, 2]"),
    (dict(names=("a", "a")), "expected texts that differ"), (dict(names=(0, 1)), "expected texts that differ")])
def test_labels_that_are_no_indices_of_classes_are_found(wrong, problem):
    assert problem in only_fault_of(labelled(**wrong))


def test_labels_of_more_images_than_there_are_are_found():
    assert any("of shape (13,), expected int64 of (12,)" in fault for fault in faults_of(labelled(extra=1)))


def test_labels_that_no_cap_shortens_are_found():
    train, validation = faults_of(labelled(capped=False))
    assert "left 12 labels of train" in train and "left 6 labels of validation" in validation


def test_labels_that_are_others_each_time_are_found():
    draws = np.random.default_rng(0)

    def shuffled(splits, config):
        sides = (splits.train, splits.validation)
        return replace(splits, labels=lambda: Labels(("a", "b"), *(draws.permutation(len(side)) % 2 for side in sides)))
    assert "reading them again gave others" in only_fault_of(opening(shuffled))


def test_a_condition_that_is_refused_is_noted_with_its_reason():
    def alike(splits, config):
        sides = (splits.train, splits.validation)
        return replace(splits, labels=partial(Labels, ("a",), *(np.zeros(len(side), np.int64) for side in sides)))

    def unreadable():
        raise InputError("captions.csv is damaged")
    assert any("condition=class is refused: dataset=noise has 1 class" in note
               for note in report_of(opening(alike)).notes)
    assert "condition=text is refused: captions.csv is damaged" in report_of(
        opening(lambda splits, config: replace(splits, captions=unreadable))).notes


def test_what_is_neither_labels_nor_captions_is_found():
    pair = ((0,) * 12, (0,) * 6)
    assert any("they are a tuple, expected bench.data.labels.Labels" in fault for fault in faults_of(
        opening(lambda splits, config: replace(splits, labels=lambda: pair))))
    assert any("they are a tuple, expected bench.data.labels.Captions" in fault for fault in faults_of(
        opening(lambda splits, config: replace(splits, captions=lambda: pair))))


@pytest.mark.parametrize("text", ["two\nlines", b"a"])
def test_captions_that_are_no_lines_are_found(text):
    assert "expected texts of one line" in only_fault_of(captioned(text))


def test_captions_of_more_images_than_there_are_are_found():
    assert any("train has 13 captions for 12 images" in fault for fault in faults_of(captioned(extra=1)))
