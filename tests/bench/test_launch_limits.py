"""Time limits that are too short: a job that gets nowhere is given up and says which limit to raise."""

import io

import pytest
from rich.console import Console

from bench.compose import compose
from bench.errors import InputError
from bench.launch import queue as launch_queue
from bench.launch.jobs import MAX_STALLS, RunJob, StageJob, SweepFolder, lost_units
from bench.launch.launch import launch
from bench.records import load_records
from bench.stages.base import Run
from bench.stages.chain import planned
from bench.store.store import Store


@pytest.fixture
def spec(tmp_path, monkeypatch):
    """Inside a job that has come to its time limit."""
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setattr(launch_queue, "seconds_used", lambda: 3550.0)
    return compose(["dataset=digits", "preset=smoke", "baselines=false", "launcher=slurm",
                    "launcher.sampling.minutes=60", "launcher.metrics.minutes=60", f"results_dir={tmp_path / 'runs'}"])


@pytest.fixture
def samples(spec, tmp_path):
    stage = next(stage for stage in planned(Run(spec)) if stage.name == "samples")
    return StageJob(spec, stage, None, SweepFolder(tmp_path / "sweep"))


@pytest.fixture
def measuring(spec, tmp_path):
    return RunJob(spec, SweepFolder(tmp_path / "sweep"), resubmit=None)


def requeued(job) -> list[bool]:
    return [job.checkpoint() is not None for _ in range(MAX_STALLS)]


def test_a_stage_that_writes_nothing_between_limits_is_given_up_and_says_which_to_raise(samples):
    assert requeued(samples) == [True] * (MAX_STALLS - 1) + [False]
    message = samples.folder.marks(samples.unit)["message"]
    assert "Raise launcher.sampling.minutes" in message and "launcher.sampling.minutes=60" in message
    assert Store().status(samples.stage.recipe)["message"] == message


def test_a_stage_that_writes_something_each_time_goes_on_for_longer(samples):
    work = Store().work_folder(samples.stage.recipe)
    for index in range(3 * MAX_STALLS):
        (work / f"chunk-{index}.npz").touch()
        assert samples.checkpoint() is not None


def test_getting_on_once_begins_the_count_anew(samples):
    assert samples.checkpoint() and samples.checkpoint()
    (Store().work_folder(samples.stage.recipe) / "chunk.npz").touch()
    assert samples.checkpoint() is not None and requeued(samples)[0]


def test_a_warning_long_before_the_limit_is_not_counted(samples, monkeypatch):
    monkeypatch.setattr(launch_queue, "seconds_used", lambda: 30.0)
    assert all(requeued(samples) + requeued(samples))


def test_without_an_answer_of_the_controller_nothing_is_given_up(samples, monkeypatch):
    monkeypatch.setattr(launch_queue, "seconds_used", lambda: None)
    assert all(requeued(samples) + requeued(samples))


def test_a_run_that_measures_nothing_between_limits_ends_in_a_failed_record(measuring, spec):
    assert requeued(measuring) == [True] * (MAX_STALLS - 1) + [False]
    record, = load_records(spec.results_dir)[0]
    assert record.status == "failed" and "Raise launcher.metrics.minutes" in record.message


def test_heartbeats_and_states_are_no_progress_but_a_finished_metric_is(measuring):
    folder = Store().root / "metric"
    (folder / "a").mkdir(parents=True)
    for name in ("a.lease", "a.status.json"):
        (folder / name).write_text("now")
    assert requeued(measuring)[:-1] == [True] * (MAX_STALLS - 1)
    (folder / "a" / "measurements.json").touch()
    assert measuring.checkpoint() is not None


def test_a_job_that_its_limit_killed_is_lost_with_the_advice_to_raise_it(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(launch_queue, "ended_at_limit", lambda job: True)
    folder, stage = SweepFolder(tmp_path / "sweep"), planned(Run(spec))[0]
    lost_units([stage], folder, retries=3)
    assert "raise launcher.training.minutes" in folder.losses(stage.recipe.key)[0]


def test_a_limit_that_ends_before_the_warning_is_refused(spec):
    spec.launcher.sampling.minutes = 1
    with pytest.raises(InputError, match="launcher.sampling.minutes=1: the warning comes launcher.signal_delay_s=90"):
        launch([spec], console=Console(file=io.StringIO()))


@pytest.mark.parametrize("shown, seconds", [("0:07", 7), ("12:34", 754), ("1:00:00", 3600), ("2-03:00:01", 183_601),
                                            ("INVALID", None), ("", None)])
def test_the_time_a_job_has_run_is_read_as_squeue_shows_it(monkeypatch, shown, seconds):
    monkeypatch.setattr(launch_queue, "_of_this_job", lambda field: shown)
    assert launch_queue.seconds_used() == seconds
