"""check_dataset passes data sets that keep the contract, and catches each way of breaking it by name."""

import itertools
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import testing
from bench.config import DatasetConfig
from bench.data.arrays import ArrayImages
from bench.errors import InputError
from bench.testing import __main__ as command
from bench.testing import another_process
from tests.bench.noise_data import SMALL, Noise, faults_of, only_fault_of, opening, reading, report_of

ROOT = Path(__file__).parents[2]


def test_an_instance_of_noise_keeps_the_contract():
    report = report_of(Noise())
    assert not report.faults and any("An instance was given" in note for note in report.notes)


def test_digits_keep_the_contract_in_another_process_too():
    report = testing.check_dataset("digits", config=DatasetConfig(name="digits", resolution=16, max_train=300))
    starts = ("check does without torch", "Another process sees", "Labels are")
    assert [any(fact.startswith(start) for fact in report.passed) for start in starts] == [True] * 3


def test_without_a_configuration_few_images_are_opened():
    assert str(testing.check_dataset(Noise())).startswith("Noise: ")


# How it is opened

def test_a_class_that_needs_arguments_is_found():
    class Needy(Noise):
        def __init__(self, root):
            self.root = root
    assert "missing 1 required positional argument: 'root'" in only_fault_of(Needy("photos"))
    with pytest.raises(testing.CheckFailed, match="Needy.* raised TypeError"):
        report_of(Needy)


def test_a_check_that_crashes_is_a_fault():
    class Crashes(Noise):
        def check(self, config):
            raise KeyError("root")
    with pytest.raises(testing.CheckFailed, match="check.config. raised KeyError: 'root'"):
        report_of(Crashes())


def test_a_configuration_that_is_refused_is_wrong_input():
    with pytest.raises(InputError, match="reads no files"):
        report_of(Noise(), replace(SMALL, path="photos"))


def test_what_is_no_splits_is_found():
    with pytest.raises(testing.CheckFailed, match="returned tuple, expected bench.data.base.Splits"):
        report_of(opening(lambda splits, config: (splits.train, splits.validation)))


def test_a_changed_configuration_is_found():
    class Rounds(Noise):
        def open(self, config):
            config.resolution = 16
            return super().open(config)
    assert any("resolution=8 became 16" in fault for fault in faults_of(Rounds()))


def test_a_slow_check_is_noted(monkeypatch):
    monkeypatch.setattr("bench.testing.datasets.MOST_SECONDS", 0.0)
    assert any("every command waits for" in note for note in report_of(Noise()).notes)


def test_a_path_where_nothing_is_must_not_be_accepted():
    class Careless(Noise):
        def check(self, config):
            pass
    assert "look whether the files are there" in only_fault_of(Careless())


def test_a_path_where_nothing_is_must_not_crash():
    class Crashes(Noise):
        def check(self, config):
            if config.path is not None:
                open(config.path)
    assert "it raised FileNotFoundError" in only_fault_of(Crashes())


def test_an_empty_split_is_found():
    def emptied(splits, config):
        return replace(splits, validation=ArrayImages(splits.train.array[:0]))
    assert "validation has no image" in only_fault_of(opening(emptied))


def test_a_split_without_a_length_is_found():
    class Endless:
        def images(self, indices):
            return np.zeros((len(indices), 3, 8, 8), np.uint8)
    faults = faults_of(opening(lambda splits, config: replace(splits, train=Endless())))
    assert "train is a Endless without __len__" in faults[0]


def test_a_data_set_that_opens_otherwise_each_time_is_found():
    number = itertools.count()
    faults = faults_of(opening(lambda splits, config: replace(splits, fingerprint=str(next(number)))))
    assert any("fingerprint was 0 and became 1" in fault for fault in faults)


@pytest.mark.parametrize("wrong", ["", None, "two\nlines", b"bytes"])
def test_a_fingerprint_that_is_no_line_of_text_is_found(wrong):
    assert f"it is {wrong!r}" in faults_of(opening(lambda splits, config: replace(splits, fingerprint=wrong)))[0]


@pytest.mark.parametrize("notes, problem", [
    ({"skipped": np.int64(3)}, "not plain JSON"), ({"mean": float("nan")}, "not plain JSON"),
    (["a"], "expected a dict")])
def test_notes_that_no_record_can_hold_are_found(notes, problem):
    assert problem in only_fault_of(opening(lambda splits, config: replace(splits, notes=notes)))


# Its images

@pytest.mark.parametrize("read, problem", [
    (lambda array, i: array[np.asarray(i)].transpose(0, 2, 3, 1), "expected uint8 of (12, 3, 8, 8)"),
    (lambda array, i: array[np.asarray(i)] / np.float32(255), "train gave float32"),
    (lambda array, i: array[np.asarray(i)][:, :1], "of shape (12, 1, 8, 8)"),
    (lambda array, i: list(array[np.asarray(i)]), "train gave a list"),
    (lambda array, i: array[np.asarray(i)][:, ::-1], "return np.ascontiguousarray(images)")])
def test_images_of_another_form_are_found(read, problem):
    assert problem in faults_of(reading(read))[0]


@pytest.mark.parametrize("read, problem", [
    (lambda array, i: array[np.sort(np.asarray(i))], "gave others than images([i]) one by one"),
    (lambda array, i: array[np.unique(np.asarray(i))], "gave others than images([i]) one by one"),
    (lambda array, i: np.stack([array[j] for j in i + []]), "images of an array raised ValueError"),
    (lambda array, i: array[i if isinstance(i, np.ndarray) else i.copy()], "images of a range raised AttributeError")])
def test_indices_taken_in_another_order_or_form_are_found(read, problem):
    assert problem in only_fault_of(reading(read))


def test_images_that_change_from_reading_to_reading_are_one_fault():
    draws = np.random.default_rng(0)
    data = reading(lambda array, i: array[np.asarray(i)] ^ draws.integers(0, 2, (len(i), 3, 8, 8), np.uint8)
                   if array.shape[-1] == 8 else array[np.asarray(i)])
    assert "train and validation gave others" in only_fault_of(data)


def test_a_buffer_that_is_used_again_is_found():
    buffer = np.zeros((64, 3, 8, 8), np.uint8)

    def read(array, indices):
        part = buffer[:len(indices), :, :array.shape[-1], :array.shape[-1]]
        part[:] = array[np.asarray(indices)]
        return part
    assert any("return a new array each time" in fault for fault in faults_of(reading(read)))


def test_a_view_of_the_data_set_is_found_and_left_as_it_was():
    arrays = []

    def read(array, indices):
        arrays.append(array)
        return array[indices[0]:indices[0] + 1] if len(indices) == 1 else array[np.asarray(indices)]
    assert "writing into them changed the data set" in only_fault_of(reading(read))
    assert np.array_equal(arrays[0], Noise().open(SMALL).train.array)


def test_an_array_that_cannot_be_written_to_is_noted():
    def read(array, indices):
        images = array[np.asarray(indices)]
        images.flags.writeable = False
        return images
    assert any("of which torch warns" in note for note in report_of(reading(read)).notes)


def test_what_only_one_thread_can_read_is_found():
    rows = sqlite3.connect(":memory:")

    def read(array, indices):
        rows.execute("select 1")
        return array[np.asarray(indices)]
    assert "SQLite objects created in a thread" in only_fault_of(reading(read))


def test_a_split_that_is_trained_on_too_is_found():
    def same(splits, config):
        return replace(splits, validation=ArrayImages(splits.train.array[:config.max_validation]))
    found = only_fault_of(opening(same), replace(SMALL, max_train=None))
    assert "all 6 validation images are training images too" in found


def test_one_image_of_both_splits_is_noted():
    def shared(splits, config):
        splits.validation.array[0] = splits.train.array[0]
        return splits
    assert any("1 of 6 validation images" in note for note in report_of(opening(shared)).notes)


# Other processes, several faults at once, the command line

PLUGIN = """
from dataclasses import replace
from gradients_dataset import Gradients

class Salted(Gradients):
    def open(self, config):
        print("opening")
        return replace(super().open(config), fingerprint=f"{hash(str(config))}")

class Faulty(Salted):
    def check(self, config): ...

    def open(self, config):
        splits = super().open(config)
        return replace(splits, validation=splits.train, notes={"of": object()})

class Heavy(Gradients):
    def check(self, config):
        import torch
        super().check(config)

class Fails(Gradients):
    def open(self, config):
        import __main__
        if __main__.__spec__ and "another_process" in __main__.__spec__.name:
            raise RuntimeError("alone")
        return super().open(config)
"""


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    (tmp_path / "dataset_plugins.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "examples"))
    yield "dataset_plugins"
    sys.modules.pop("dataset_plugins", None)


def test_a_fingerprint_of_salted_hashes_is_found(plugins):
    assert "hash() and the order of sets differ between processes" in only_fault_of(f"{plugins}:Salted")


def test_a_check_that_loads_torch_is_found(plugins):
    assert "torch is loaded when it returns" in only_fault_of(f"{plugins}:Heavy")


def test_what_fails_in_another_process_alone_is_one_fault(plugins):
    assert "in another process it raised RuntimeError: alone" in only_fault_of(f"{plugins}:Fails")


def test_a_class_that_no_other_process_finds_is_noted():
    class Local(Noise):
        pass
    assert any("No other process was asked" in note for note in report_of(Local).notes)


def test_a_process_that_dies_is_an_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert another_process.elsewhere("gradients_dataset:Gradients", SMALL).error == "exit code 1"


def test_several_faults_are_told_at_once_and_exit_with_1(plugins, capsys):
    assert command.main([f"dataset={plugins}:Faulty", "dataset.resolution=8", "dataset.max_train=6"]) == 1
    shown = capsys.readouterr().out
    assert shown.count("  FAULT ") >= 4 and "  ok    " in shown
    problems = ("it was accepted", "hash() and the order", "are training images too", "not plain JSON")
    assert [problem for problem in problems if problem not in shown] == []


def test_the_example_exits_with_0_at_the_size_asked_for(plugins, capsys):
    words = ["dataset=gradients_dataset:Gradients", "dataset.resolution=16", "dataset.max_train=null"]
    assert command.main(words) == 0
    assert "Gradients: 20 checks passed\n" in capsys.readouterr().out


@pytest.mark.parametrize("words, problem", [
    (["dataset=digitz"], "Did you mean 'digits'"), (["dataset=digits", "dataset.resolutoin=8"], "'dataset.resolution'"),
    (["dataset=digits", "dataset.resolution=0"], "dataset.resolution=0: expected"),
    (["dataset=digits", "dataset.resolution=big"], "dataset.resolution=big"),
    (["dataset=digits", "dataset.path=nowhere"], "no effect on digits"), (["dataset=folder"], "dataset.path=<folder"),
    (["dataset=digits", "dataset.resolution=8,16"], "one value"), (["dataset.resolution=8"], "nothing to check"),
    (["prior=unigram", "dataset.resolution=8"], "no dataset= is being checked"), (["dataset=os:path"], "no dataset"),
    (["dataset=digits", "dataset.flip=true", "dataset.flip=true"], "given twice")])
def test_wrong_input_exits_with_2_and_says_what_was_expected(words, problem, capsys):
    assert command.main(words) == 2
    assert problem in " ".join(capsys.readouterr().err.split())
