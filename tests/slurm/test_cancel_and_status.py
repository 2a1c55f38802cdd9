"""A SLURM whose accounting is hidden: a sweep with a run in every state, one of its jobs cancelled, asked for again."""

import re

import pytest
from driving import SLURM, SMOKE, new_cache, sh, start, until

from bench.records import load_records

pytestmark = [pytest.mark.slurm, pytest.mark.network, pytest.mark.slow]
BUDGET = ["sampler.seed=0", "prior.training.steps=300", "prior.training.checkpoint_every=1"]
SWEEP = [*SMOKE, *SLURM[:1], "prior=unigram,unhurried:Doomed,unhurried:Unhurried", *BUDGET]
KNOWN = [*SMOKE, "prior=unigram", *BUDGET]


def _rows(said: str, state: str) -> list[dict[str, str]]:
    """The rows of a status table in that state."""
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines() if line.startswith("│")]
    found = [dict(zip(("stage", "key", "state", "job", "detail"), row, strict=True)) for row in cells]
    return [row for row in found if row["state"] == state]


@pytest.fixture(scope="module")
def story(slurm_without_accounting, cache, tmp_path_factory):
    """What was said and written at each of its turns."""
    folder = tmp_path_factory.mktemp("story")
    own, results = new_cache(folder / "cache", cache), folder / "results"
    slowly = folder / "unhurried"
    slowly.mkdir()

    def command(*more):
        process = start(own, results, *more)
        said, _ = process.communicate(timeout=3600)
        return process.returncode, said

    def steps():
        return (slowly / "log").read_text().splitlines() if (slowly / "log").exists() else []

    def records():
        return load_records(results)[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNHURRIED", str(slowly))
        assert command(*KNOWN)[0] == 0
        submitted = command(*SWEEP, "launcher.wait=false")
        until(lambda: len(steps()) > 3 and any(record.status == "failed" for record in records()), 3600,
              "a failed run beside one that trains")
        status = command(*SWEEP, "status=true")
        job = _rows(status[1], "running")[0]["job"]
        sh(f"scancel {job}")
        until(lambda: any("cancelled" in record.message for record in records()), 3600, "a cancelled run")
        before = len(steps())
        for what in ("training", "sampling"):
            (slowly / f"hurry-{what}").touch()
        again = command(*SWEEP)
        return {"submitted": submitted, "status": status, "job": job, "again": again, "before": before,
                "steps": steps(), "records": records(), "sacct": sh("sacct --noheader 2>&1")}


def test_without_accounting_sacct_says_nothing(story):
    assert "disabled" in story["sacct"].lower()


def test_not_waiting_returns_with_the_ids_of_jobs_that_go_on(story):
    code, said = story["submitted"]
    assert code == 0 and re.search(r"2 runs as jobs \d+(, \d+)+", said.replace("\n", " ")), said


def test_status_tells_a_finished_a_failed_a_running_and_a_waiting_run_apart(story):
    code, said = story["status"]
    runs = {state: [row for row in _rows(said, state) if row["stage"].startswith("run:")]
            for state in ("done", "failed", "queued")}
    assert code == 0 and all(len(found) == 1 for found in runs.values()), said
    assert "unigram" in runs["done"][0]["stage"] and "Doomed" in runs["failed"][0]["stage"], said


def test_status_tells_the_stages_apart(story):
    said = story["status"][1]
    assert {row["stage"].partition(":")[0] for row in _rows(said, "cached")} >= {"tokenizer", "tokens"}, said
    running, = _rows(said, "running")
    assert running["stage"].startswith("prior") and running["job"].isdigit(), said
    assert any("doomed" in row["detail"] for row in _rows(said, "failed")), said
    assert {row["stage"].partition(":")[0] for row in _rows(said, "queued")} == {"samples", "features", "run"}, said


def test_a_cancelled_job_stays_cancelled_and_its_run_says_so(story):
    message, = [record.message for record in story["records"] if "cancelled" in record.message]
    assert f"job {story['job']} was cancelled" in message and "Run the same command again" in message


def test_the_same_command_goes_on_where_the_cancelled_one_was(story):
    redone = len([line for line in story["steps"] if line.startswith("training")]) - 300
    assert 0 <= redone <= 2, story["again"][1]   # a checkpoint every step; the step in hand is lost
    assert [record.status for record in story["records"]].count("ok") == 2, story["again"][1]


def test_what_failed_fails_again_and_makes_the_command_end_in_exit_code_1(story):
    code, said = story["again"]
    assert code == 1 and "RuntimeError" in said, said
