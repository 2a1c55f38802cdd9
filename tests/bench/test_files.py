"""Files that survive a kill: whole or absent, and never used when they are not as they were written."""

import json
import multiprocessing
import os
import socket

import numpy as np
import pytest

from bench.store import files
from tests.faults.doors import at_most

VALUE = {"numbers": list(range(50))}


def test_a_damaged_file_is_none_is_removed_and_can_be_made_again(tmp_path, damage, capsys):
    path = tmp_path / "kept.json"
    files.keep_json(path, VALUE)
    damage(path)
    was_there = path.exists()
    assert files.read_json(path) is None and not path.exists()
    assert (str(path) in capsys.readouterr().err) == was_there
    files.keep_json(path, VALUE)
    assert files.read_json(path) == VALUE


def test_damaged_digests_cost_the_file_but_are_no_error(tmp_path, damage):
    path = tmp_path / "kept.json"
    files.keep_json(path, VALUE)
    damage(files.digests_of(path))
    assert files.read_json(path) is None
    files.keep_json(path, VALUE)
    assert files.read_json(path) == VALUE


ODD = {"a folder": lambda place: (place / "inside").mkdir(parents=True), "a pipe": os.mkfifo,
       "a dangling link": lambda place: place.symlink_to("nowhere")}


@pytest.mark.parametrize("odd", ODD)
def test_whatever_lies_in_the_place_of_digests_the_file_is_written_again(tmp_path, odd):
    path = tmp_path / "kept.json"
    ODD[odd](files.digests_of(path))
    assert not files.is_as_written(path)
    with at_most(20):
        files.keep_json(path, VALUE)
        assert files.read_json(path) == VALUE


@pytest.mark.parametrize("odd", ODD)
def test_whatever_lies_in_the_place_of_its_digests_a_file_is_not_used_and_nothing_waits(tmp_path, odd):
    """A pipe there held the command up for good (damages, seed 0, case 56)."""
    path = tmp_path / "kept.json"
    files.keep_json(path, VALUE)
    files.digests_of(path).unlink()
    ODD[odd](files.digests_of(path))
    with at_most(20):
        assert not files.is_as_written(path) and files.read_json(path) is None
        files.keep_json(path, VALUE)
        assert files.read_json(path) == VALUE


def test_every_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "kept.json"
    files.keep_json(path, [1])
    whole = path.read_bytes()
    for position in range(8 * len(whole)):
        content = bytearray(whole)
        content[position // 8] ^= 1 << position % 8
        path.write_bytes(content)
        assert not files.is_as_written(path)


def test_a_file_without_its_sha256_is_not_used_and_the_reason_is_said(tmp_path, capsys):
    np.save(tmp_path / "old.npy", np.arange(3))
    assert files.read(tmp_path / "old.npy", np.load) is None
    assert "old.npy.sha256 is missing" in capsys.readouterr().err


def test_a_folder_in_the_place_of_a_file_is_removed(tmp_path):
    (tmp_path / "kept.json" / "inside").mkdir(parents=True)
    assert files.read_json(tmp_path / "kept.json") is None
    files.keep_json(tmp_path / "kept.json", VALUE)
    assert files.read_json(tmp_path / "kept.json") == VALUE


def test_a_file_as_written_that_can_no_longer_be_parsed_counts_as_damaged(tmp_path, capsys):
    files.keep_json(tmp_path / "kept.json", VALUE)
    assert files.read(tmp_path / "kept.json", lambda path: json.loads(path.read_text())["renamed"]) is None
    assert "renamed" in capsys.readouterr().err


def test_want_of_memory_is_not_taken_for_damage(tmp_path):
    files.keep_json(tmp_path / "kept.json", VALUE)

    def parse(path):
        raise MemoryError

    with pytest.raises(MemoryError):
        files.read(tmp_path / "kept.json", parse)
    assert files.read_json(tmp_path / "kept.json") == VALUE


def test_an_error_while_writing_leaves_the_file_before_and_nothing_else(tmp_path):
    path = tmp_path / "kept.json"
    files.keep_json(path, VALUE)
    with pytest.raises(RuntimeError), files.keeping(path) as stream:
        stream.write(b"half")
        raise RuntimeError
    assert files.read_json(path) == VALUE and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_death_at_any_step_leaves_the_file_before(tmp_path, monkeypatch, step):
    path = tmp_path / "kept.json"
    files.keep_json(path, VALUE)

    def dies(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, step, dies)
        files.keep_json(path, "new")
    assert files.read_json(path) == VALUE


def test_temporary_names_tell_machines_and_writers_apart_and_match_no_pattern(tmp_path, monkeypatch):
    names = set()
    for host in ("one.cluster", "one.cluster", "two.cluster"):   # each with the same process id
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        with files.replacing(tmp_path / "a.json") as stream:
            names.add(stream.name)
            assert [path.name for path in tmp_path.glob("*.json") if path.name != "a.json"] == []
    assert len(names) == 3 and any(".one." in name for name in names) and any(".two." in name for name in names)


def _write_often(path, start, rounds):
    for number in range(start, start + rounds):
        files.keep_json(path, number)
        assert files.read_json(path) is not None


def test_several_writers_of_one_file_never_make_it_look_damaged(tmp_path):
    path = tmp_path / "shared.json"
    workers = [multiprocessing.get_context("fork").Process(target=_write_often, args=(path, 1000 * i, 40))
               for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4 and files.read_json(path) is not None
