"""Artefacts: built once, whole or absent, rebuilt when damaged, whoever dies."""

import contextlib
import json
import math
import multiprocessing
import os
import shutil
import signal
import time

import pytest

from bench.store.__main__ import gc
from bench.store.store import Interrupted, Recipe, Store

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
    monkeypatch.setattr("bench.store.leases.LEASE_SECONDS", math.inf)   # no lease runs out: only the dead pid can tell
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


def test_what_was_set_aside_or_half_made_is_no_artefact(tmp_path):
    store = Store(tmp_path)
    path = store.obtain(RECIPE, _write("a")).path
    for name in (f"{RECIPE.key}.damaged.1", f"{RECIPE.key}.tmp.host.1"):
        shutil.copytree(path, path.with_name(name))
    assert [artefact.path for artefact in store.artefacts()] == [path]


@pytest.mark.parametrize("manifest", [None, "", "[]", "{}", "7", '{"stage": "other"}', "\x00"])
def test_a_lost_or_odd_manifest_is_set_aside_and_the_artefact_rebuilt(tmp_path, manifest, capsys):
    store = Store(tmp_path)
    file = store.obtain(RECIPE, _write("a")).path / "manifest.json"
    file.unlink()
    if manifest is not None:
        file.write_text(manifest)
    assert store.state(RECIPE) == "missing" and list(store.artefacts()) == []
    assert (store.obtain(RECIPE, _write("b")).path / "file.txt").read_text() == "b"
    assert "set aside" in capsys.readouterr().err


def test_a_builder_taken_for_dead_returns_what_another_published(tmp_path):
    store = Store(tmp_path)

    def sleep_while_another_builds(out, work):
        lease = store._base(RECIPE).with_name(f"{RECIPE.key}.lease")
        lease.unlink()   # thought dead
        Store(tmp_path).obtain(RECIPE, _write("theirs"))
        (out / "file.txt").write_text((work / "gone").read_text())   # the work folder went with the other's build

    artefact = store.obtain(RECIPE, sleep_while_another_builds)
    assert (artefact.path / "file.txt").read_text() == "theirs"


@pytest.mark.parametrize("holder", ['{"pid": 1}', '{"host": "elsewhere", "pid": 0}', '{"host": "elsewhere", "pid": -1}',
                                    "[]", '{"host": 3, "pid": 5}', '{"host": "elsewhere", "pid": "x"}'])
def test_a_lease_that_names_no_process_holds_nothing(tmp_path, holder):
    store = Store(tmp_path)
    lease = store._base(RECIPE).with_name(f"{RECIPE.key}.lease")
    lease.parent.mkdir(parents=True)
    lease.write_text(holder)
    assert store.obtain(RECIPE, _write("a"))


@pytest.mark.parametrize("shift", [-1e6, 1e6])
def test_leases_and_breakers_of_another_time_hold_nothing_and_say_little(tmp_path, shift):
    store, said = Store(tmp_path), []
    lease = store._base(RECIPE).with_name(f"{RECIPE.key}.lease")
    lease.parent.mkdir(parents=True)
    lease.write_text('{"host": "elsewhere", "pid": 7, "token": "t"}')
    breaker = lease.with_name(f"{lease.name}.break")
    breaker.touch()
    for path in (lease, breaker):
        os.utime(path, (time.time() + shift, time.time() + shift))
    assert store.obtain(RECIPE, _write("a"), announce=said.append)
    assert len(said) <= 1


def test_gc_keeps_what_interrupted_work_resumes_from_unless_asked(tmp_path, capsys):
    store = Store(tmp_path)
    checkpoint = store.work_folder(RECIPE) / "latest.pt"
    checkpoint.write_text("step 377")
    dead = [checkpoint.parent.with_name(name) for name in (f"{RECIPE.key}.tmp.host.1", f"{RECIPE.key}.damaged.2")]
    for folder in dead:
        folder.mkdir()
    half = checkpoint.parent.with_name(f".{RECIPE.key}.status.json.12345678")
    half.write_text("{")
    gc(store)
    said = capsys.readouterr().out
    assert checkpoint.exists() and not any(path.exists() for path in [*dead, half])
    assert f"removing thing/{RECIPE.key}.tmp.host.1" in said and "gc work=true" in said
    gc(store, work=True)
    assert not checkpoint.parent.exists()


@pytest.mark.parametrize("name", ["work", "status.json", "lease", "lease.break", "anew"])
@pytest.mark.parametrize("odd", ["a folder", "a file", "a list", "a dangling link", "a pipe"])
def test_whatever_lies_in_the_place_of_what_is_ours_beside_an_artefact_it_is_built(tmp_path, name, odd):
    store = Store(tmp_path)
    place = store._base(RECIPE).with_name(f"{RECIPE.key}.{name}")
    place.parent.mkdir(parents=True)
    if odd == "a folder":
        (place / "inside").mkdir(parents=True)
    elif odd == "a pipe":
        os.mkfifo(place)
    elif odd == "a dangling link":
        place.symlink_to(tmp_path / "nowhere")
    else:
        place.write_text('["a list"]' if odd == "a list" else "text")
    if name == "lease.break":
        place.with_name(f"{RECIPE.key}.lease").write_text("{}")
        with contextlib.suppress(OSError):
            os.utime(place, (0, 0))
    assert store.state(RECIPE) == "missing"

    def build(out, work):
        (work / "half").write_text("kept")
        (out / "file.txt").write_text("a")

    assert (store.obtain(RECIPE, build).path / "file.txt").read_text() == "a"
    assert store.find(RECIPE) and store.state(RECIPE) == "cached"
    assert [path.name for path in place.parent.iterdir()] == [RECIPE.key]


@pytest.mark.parametrize("status", ['["a list"]', '{"attempts": "many"}', '{"attempts": null, "state": []}',
                                    "[" * 10**5])
def test_an_odd_status_is_no_status_and_stops_no_build(tmp_path, status):
    store = Store(tmp_path)
    place = store._base(RECIPE).with_name(f"{RECIPE.key}.status.json")
    place.parent.mkdir(parents=True)
    place.write_text(status)
    assert store.state(RECIPE) == "missing" and isinstance(store.status(RECIPE), dict)
    store.set_status(RECIPE, "running")
    assert store.status(RECIPE)["attempts"] == 1


def test_every_flipped_bit_of_a_manifest_costs_the_artefact_and_no_more(tmp_path, capsys):
    store = Store(tmp_path)
    path = store.obtain(RECIPE, _write("a")).path / "manifest.json"
    whole = path.read_bytes()
    for position in range(0, 8 * len(whole), 7):
        content = bytearray(whole)
        content[position // 8] ^= 1 << position % 8
        path.write_bytes(content)
        assert store.state(RECIPE) == "missing", (position, content[position // 8 - 10:position // 8 + 10])
    assert (store.obtain(RECIPE, _write("b")).path / "file.txt").read_text() == "b"


def test_an_artefact_of_earlier_versions_whose_manifest_has_no_sha256_is_used(tmp_path):
    store = Store(tmp_path)
    folder = store.obtain(RECIPE, _write("a")).path
    (folder / "manifest.json.sha256").unlink()
    assert Store(tmp_path).obtain(RECIPE, _write("b")).path == folder and (folder / "file.txt").read_text() == "a"
