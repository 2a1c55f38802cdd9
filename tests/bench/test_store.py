"""Artefacts: built once, whole or absent, rebuilt when damaged, whoever dies."""

import json
import math
import multiprocessing
import os
import signal
import time

import pytest

from bench.store import Interrupted, Recipe, Store

RECIPE = Recipe("thing", {"size": 3})


def _write(text):
    return lambda out, work: (out / "file.txt").write_text(text)


def test_the_second_time_nothing_is_built(tmp_path):
    store, calls = Store(tmp_path), []
    for _ in range(2):
        store.obtain(RECIPE, lambda out, work: calls.append(_write("a")(out, work)))
    assert len(calls) == 1


def test_key_changes_with_configuration_inputs_and_version():
    keys = {RECIPE.key, Recipe("thing", {"size": 4}).key, Recipe("thing", {"size": 3}, ("x",)).key,
            Recipe("thing", {"size": 3}, (), 2).key, Recipe("other", {"size": 3}).key}
    assert len(keys) == 5


def test_a_damaged_artefact_is_set_aside_and_rebuilt(tmp_path, capsys):
    store = Store(tmp_path)
    path = store.obtain(RECIPE, _write("right")).path / "file.txt"
    path.write_text("wrong")
    assert (store.obtain(RECIPE, _write("right")).path / "file.txt").read_text() == "right"
    assert "damaged" in capsys.readouterr().err


def test_a_truncated_manifest_counts_as_damage(tmp_path):
    store = Store(tmp_path)
    folder = store.obtain(RECIPE, _write("a")).path
    (folder / "manifest.json").write_text("{")
    assert store.find(RECIPE) is None


def test_a_failed_build_leaves_no_artefact_but_its_traceback_and_its_work(tmp_path):
    store = Store(tmp_path)

    def fail(out, work):
        (work / "half").write_text("kept")
        raise RuntimeError("no luck")

    with pytest.raises(RuntimeError):
        store.obtain(RECIPE, fail)
    assert store.state(RECIPE) == "failed" and "no luck" in store.status(RECIPE)["message"]
    assert (store.work_folder(RECIPE) / "half").read_text() == "kept"


@pytest.mark.parametrize("stopped_by", [Interrupted, KeyboardInterrupt, SystemExit])
def test_an_interrupted_build_is_queued_not_failed_and_goes_on(tmp_path, stopped_by):
    store = Store(tmp_path)

    def stop(out, work):
        (work / "half").write_text("kept")
        raise stopped_by("later")

    with pytest.raises(stopped_by):
        store.obtain(RECIPE, stop)
    assert store.state(RECIPE) == "queued" and (store.work_folder(RECIPE) / "half").read_text() == "kept"
    assert store.obtain(RECIPE, _write("a")).path.is_dir()   # the lease is free


def test_manifest_lists_files_with_their_hashes(tmp_path):
    artefact = Store(tmp_path).obtain(RECIPE, _write("abc"))
    entry, = artefact.manifest["files"]
    assert entry == {"name": "file.txt", "size": 3,
                     "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}


def _obtain_slowly(root, log):
    def build(out, work):
        with open(log, "a") as stream:
            stream.write(f"{os.getpid()}\n")
        time.sleep(0.3)
        (out / "file.txt").write_text("a")
    Store(root).obtain(RECIPE, build)


def test_processes_that_need_the_same_artefact_build_it_once(tmp_path):
    log = tmp_path / "log"
    jobs = [multiprocessing.Process(target=_obtain_slowly, args=(tmp_path / "store", log)) for _ in range(6)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0] * 6
    assert len(log.read_text().split()) == 1


def _obtain_forever(root, started):
    def build(out, work):
        started.set()
        time.sleep(3600)
    Store(root).obtain(RECIPE, build)


def test_a_killed_builder_is_replaced_at_once_on_its_own_host(tmp_path, monkeypatch):
    started = multiprocessing.Event()
    job = multiprocessing.Process(target=_obtain_forever, args=(tmp_path, started))
    job.start()
    assert started.wait(300)
    os.kill(job.pid, signal.SIGKILL)
    job.join()
    monkeypatch.setattr("bench.store.LEASE_SECONDS", math.inf)   # no lease runs out: only the dead pid can tell
    assert Store(tmp_path).obtain(RECIPE, _write("a")).path.is_dir()


def test_a_lease_of_another_host_is_broken_only_when_its_heartbeat_stops(tmp_path):
    store = Store(tmp_path)
    lease = tmp_path / "thing" / f"{RECIPE.key}.lease"
    lease.parent.mkdir(parents=True)
    lease.write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "x"}))
    assert store.state(RECIPE) == "running"
    os.utime(lease, (time.time() - 100,) * 2)
    assert store.state(RECIPE) == "missing"
    assert store.obtain(RECIPE, _write("a")).path.is_dir()
