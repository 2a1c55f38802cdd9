"""A record in a results folder may be anything: it is read, or named and skipped; it never ends a command."""

import copy
import dataclasses
import json
import os
import random
from functools import cache
from pathlib import Path

import pytest

from bench import report, run
from bench.records import load_record, load_records, load_sweeps, save_record
from bench.typed_json import Malformed

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
ODD = [None, True, -1, 0, 1.5, 1e308, -1e308, 10**30, 10**400, "", "x", "../" * 8 + "etc/passwd", "\x1b[2J\x07",
       "\ud800", "x" * 100_000, "[/x]", r"$\bad{$", [], [[]], ["x"], [1e308], {}, {"x": 1}, {"x": {"y": []}}]
"""What is put in the place of a field."""


@cache
def committed():
    """A record of a real run, with an interval, pictures and curves."""
    found = [load_record(path) for path in sorted((REFERENCE / "records").glob("*.json"))]
    best = max(found, key=lambda r: (bool(r.media), r.role == "prior", len(r.measurements)))
    return json.loads((REFERENCE / "records" / f"{best.id}.json").read_text())


def places(value, path=()):
    """Every place of a JSON value; of a list its first two."""
    if path:
        yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value[:2] if isinstance(value, list) else ())
    for key, held in inside:
        yield from places(held, (*path, key))


def changed(record, path, value):
    """A copy with another value in one place, or without it."""
    copied = copy.deepcopy(record)
    place = copied
    for key in path[:-1]:
        place = place[key]
    if value is KeyError:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return copied


def mutants():
    """Every top field and what reports read of the deeper ones, each with values it must not or need not have."""
    record, draw = committed(), random.Random(0)
    for path in places(record):
        shallow = len(path) == 1 or path[0] in ("measurements", "media", "curves") and len(path) < 4
        for value in draw.sample([*ODD, KeyError], 6 if shallow else 1):
            yield changed(record, path, value)
    for path in [("spec", "sampler", "steps"), ("spec", "sampler", "temperature"), ("spec", "seed"),
                 ("spec", "dataset"), ("spec", "prior", "options", "objective"),
                 ("spec", "vq", "options", "channel_multipliers"),
                 ("spec", "prior", "training", "steps"), ("provenance", "parameters"), ("provenance", "device"),
                 ("measurements", 0, "value"), ("measurements", 0, "extra", "rounds"), ("spec", "prior", "schema")]:
        yield from (changed(record, path, value) for value in ODD)


def texts():
    """Files that hold no record at all."""
    good = json.dumps(committed())
    yield from ("", "[]", "null", "3", '"text"', "{}", "[" * 100_000, '{"a":' * 100_000, good[:-20], good + good,
                good.replace('"format": 1', '"format": 2'), good.replace('"format": 1', '"format": NaN'),
                "\ufeff" + good,
                good.replace('"role": "prior"', '"role": "king"'), good.replace('"seed": 0', '"seed": Infinity'))


def write_mutant(folder, number, mutant):
    """Under the name it gives itself, where that is one."""
    path = folder / "records" / f"mutant-{number:04}.json"
    if isinstance(mutant, dict) and mutant.get("id") == committed()["id"]:
        text = json.dumps(mutant).replace(mutant["id"], path.stem)
    else:
        text = mutant if isinstance(mutant, str) else json.dumps(mutant)
    path.write_text(text)
    return path


@pytest.fixture
def folder(tmp_path):
    """A results folder that holds one good record."""
    (tmp_path / "results" / "records").mkdir(parents=True)
    good = committed()
    (tmp_path / "results" / "records" / f"{good['id']}.json").write_text(json.dumps(good))
    return tmp_path / "results"


def report_of(folder, *arguments):
    return report.main([f"results_dir={folder}", f"out={folder.parent / 'report'}", *arguments])


@pytest.mark.parametrize("num", [60, pytest.param(600, marks=pytest.mark.slow)])
def test_no_mutant_of_a_record_ends_the_report_in_a_traceback(folder, num):
    every = [*mutants(), *texts()]
    random.Random(0).shuffle(every)
    for number, mutant in enumerate(every[:num]):
        write_mutant(folder, number, mutant)
    assert len(every) > num / 2 and report_of(folder, "figures=false") == 1


def test_mutants_that_are_read_can_be_drawn(folder):
    for number, mutant in enumerate(random.Random(1).sample([*mutants()], 12)):
        write_mutant(folder, number, mutant)
    assert report_of(folder, "page=false") == 1
    assert list((folder.parent / "report" / "figures").glob("*.png"))


def test_every_damaged_record_is_named_with_what_is_wrong_and_the_good_ones_are_reported(folder, capsys):
    for number, text in enumerate(texts()):
        write_mutant(folder, number, text)
    assert report_of(folder, "figures=false", "page=false") == 1
    said = capsys.readouterr().err
    assert [n for n in range(len([*texts()])) if f"mutant-{n:04}.json: " not in said] == []
    assert committed()["id"] in (folder.parent / "report" / "measurements.csv").read_text()


@pytest.mark.parametrize(("path", "value", "said"), [
    (("role",), "king", "record.role is 'king', expected 'prior' or"),
    (("measurements", 0, "value"), "much", "record.measurements[0].value is 'much', expected a number"),
    (("measurements", 0, "n"), -1, "record.measurements[0].n is -1, expected 0 to"),
    (("spec", "sampler", "steps"), "many", "record.spec.sampler.steps is 'many', expected a whole number"),
    (("label",), KeyError, "record lacks label"), (("colour",), 1, "record has unknown fields: ['colour']"),
    (("id",), "other", "record.id is 'other', but the file is named 'mutant-0001.json'")])
def test_what_is_wrong_is_said_with_its_place_its_value_and_what_was_expected(folder, path, value, said):
    write_mutant(folder, 1, changed(committed(), path, value))
    [(_, problem)] = load_records(folder)[1]
    assert said in problem


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "large", "dangling"])
def test_what_is_no_regular_file_of_a_record_s_size_is_named_and_never_waited_for(folder, kind):
    path = folder / "records" / "odd.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "large":
        path.touch()
        os.truncate(path, 10**12)   # holes: no byte is written
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "/nowhere")
    records, [(named, problem)] = load_records(folder)
    assert len(records) == 1 and named == path and problem


def test_odd_manifests_of_sweeps_are_named_and_skipped(folder):
    good = next((REFERENCE / "sweeps").glob("*.json"))
    raw = json.loads(good.read_text())
    (folder / "sweeps").mkdir()
    (folder / "sweeps" / good.name).write_text(json.dumps(raw))
    for number, cells in enumerate([None, 3, [3], [{"spec": []}], [{"run_key": []}], [{"role": "king"}],
                                    [{"spec": {"vq": 3}}], [{"label": {}}], {"a": 1}]):
        (folder / "sweeps" / f"odd{number}.json").write_text(json.dumps(raw | {"id": f"odd{number}", "cells": cells}))
    sweeps, damaged = load_sweeps(folder)
    assert len(sweeps) == 1 and len(damaged) == 9
    assert report_of(folder, "figures=false", "page=false") == 1


def test_a_run_is_not_ended_by_the_records_of_others(folder, capsys):
    for number, text in enumerate(texts()):
        write_mutant(folder, number, text)
    assert run.main(["prior=unigram", "dataset=digits", "preset=smoke", "status=true", f"results_dir={folder}"]) == 0


def test_every_committed_record_and_manifest_is_read():
    assert load_records(REFERENCE)[1] == load_sweeps(REFERENCE)[1] == []


def test_every_flipped_bit_of_a_saved_record_is_noticed_or_changes_nothing(folder):
    record = load_records(folder)[0][0]
    path = save_record(dataclasses.replace(record, label="odd \x1b[2J text"), folder)
    whole, good = path.read_bytes(), load_record(path)
    for position in random.Random(0).sample(range(8 * len(whole)), 300):
        content = bytearray(whole)
        content[position // 8] ^= 1 << position % 8
        path.write_bytes(content)
        try:
            assert load_record(path) == good, content[position // 8 - 20:position // 8 + 20]
        except Malformed:
            pass


def test_a_record_changed_by_hand_is_refused_with_the_way_out(folder):
    path = save_record(load_records(folder)[0][0], folder)
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({**raw, "label": "mine"}))
    [(_, problem)] = load_records(folder)[1]
    assert "not as it was written" in problem and "take the line away" in problem
    del raw["sha256"]
    path.write_text(json.dumps({**raw, "label": "mine"}))
    assert [record.label for record in load_records(folder)[0]] == ["mine"]
