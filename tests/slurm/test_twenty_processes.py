"""Twenty processes started at once on one run, the one that trains killed in the middle."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from driving import HERE, eventually

from bench.launch.jobs import read_json
from bench.store.leases import LEASE_SECONDS

pytestmark = pytest.mark.network
RUN = ["dataset=digits", "preset=smoke", "metrics.names=[fid,nll]", "protocol.num_fake=12", "protocol.num_real=16",
       "protocol.prdc_num=12", "protocol.nll_images=16", "sampling.chunk=4", "prior=unhurried:Unhurried",
       "sampler.steps=4", "prior.training.steps=30"]


def _log(folder: Path) -> list[tuple[int, float]]:
    """(pid, when) of every training step so far."""
    lines = [line.split() for line in (folder / "log").read_text().splitlines()] if (folder / "log").exists() else []
    return [(int(pid), float(when)) for what, pid, _, when in lines if what == "training"]


def _holders(folder: Path) -> set[int | None]:
    """pid of whoever holds the lease of the training."""
    return {read_json(path).get("pid") for path in folder.glob("artefacts/prior/*.lease")}


@pytest.fixture(scope="module")
def twenty(cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("twenty")
    for name in ("assets", "datasets"):
        (folder / name).symlink_to((cache / name).resolve())
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen([sys.executable, HERE / "twenty.py", folder / "results", *RUN], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env={**os.environ, "VQ_PRIOR_BENCH_CACHE": str(folder), "UNHURRIED": str(folder),
                                    "PYTHONPATH": path})
    eventually(lambda: len(_log(folder)) >= 8, 1800, "eight steps of training")
    victim = _log(folder)[-1][0]
    os.kill(victim, 9)
    killed_at = time.monotonic()
    eventually(lambda: _holders(folder) - {victim, None}, 1800, "another holder of the lease")
    taken_after = time.monotonic() - killed_at
    for what in ("training", "sampling"):
        (folder / f"hurry-{what}").touch()
    said, errors = process.communicate(timeout=3600)
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return {"victim": victim, "taken_after": taken_after, "steps": _log(folder), "errors": errors,
            "ended": [line for line in lines if "values" in line]}


def test_all_but_the_killed_one_end_with_the_same_numbers(twenty):
    assert len(twenty["ended"]) == 19, twenty["errors"][-2000:]
    assert all(process["values"] == twenty["ended"][0]["values"] for process in twenty["ended"])


def test_all_used_the_same_artefacts_each_built_once(twenty):
    built = {(name, *used) for process in twenty["ended"] for name, used in process["artefacts"].items()}
    assert len(built) == len({name for name, *_ in built}), sorted(built)
    redone = len(twenty["steps"]) - 30
    assert len({pid for pid, _ in twenty["steps"]}) == 2 and 0 <= redone <= 5   # training.checkpoint_every is 5


def test_a_killed_lease_holder_delays_the_others_no_longer_than_the_lease(twenty):
    assert twenty["taken_after"] < LEASE_SECONDS
