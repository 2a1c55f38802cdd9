"""launcher=local launcher.wait=false: the command returns at once, the work goes on without it, files tell how far."""

import re

import pytest
from driving import SMOKE, eventually, new_cache, start

from bench.records import load_records

pytestmark = [pytest.mark.network, pytest.mark.slow]
SWEEP = [*SMOKE, "prior=unigram,unhurried:Unhurried", "prior.training.steps=300", "sampler.seed=0", "launcher=local",
         "launcher.wait=false"]


@pytest.fixture(scope="module")
def left_alone(cache, tmp_path_factory):
    """(exit code, what it said) of the command, of a status while its work goes on and after, and of asking again."""
    folder = tmp_path_factory.mktemp("left")
    own, results = new_cache(folder / "cache", cache), folder / "results"

    def command(*more):
        process = start(own, results, *SWEEP, *more)
        said, _ = process.communicate(timeout=3600)
        return process.returncode, said

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNHURRIED", str(folder))   # takes minutes until it is told to hurry
        told = {"started": command()}
        eventually(lambda: (folder / "log").exists(), 3600, "the first step of training")
        told["early"] = command("status=true")
        for what in ("training", "sampling"):
            (folder / f"hurry-{what}").touch()
        eventually(lambda: len(load_records(results)[0]) == 2, 3600, "two records")
        return told | {"late": command("status=true"), "again": command(), "records": load_records(results)[0]}


def test_the_command_returns_with_the_process_that_goes_on(left_alone):
    code, said = left_alone["started"]
    assert code == 0 and re.search(r"2 runs, process \d+; logs in", said), said


def test_status_tells_what_works_and_what_waits(left_alone):
    *_, counts = left_alone["early"][1].splitlines()
    assert "1 running" in counts and "queued" in counts, left_alone["early"][1]


def test_the_records_appear_by_themselves(left_alone):
    assert [record.status for record in left_alone["records"]] == ["ok", "ok"]


def test_in_the_end_status_says_that_all_is_done(left_alone):
    assert re.fullmatch(r"\d+ done", left_alone["late"][1].splitlines()[-1]), left_alone["late"][1]


def test_asked_again_there_is_nothing_to_do(left_alone):
    assert "nothing to do: all 2 runs have their records" in left_alone["again"][1]
