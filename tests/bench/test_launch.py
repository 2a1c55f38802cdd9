"""Launching without a scheduler: the graph, what counts as lost, local processes, status from files."""

import dataclasses
import functools
import io
import os
import subprocess
import sys
import time

import pytest
from rich.console import Console

from bench.compose import compose, expand
from bench.editing.benchmark import rows_of
from bench.editing.options import EditOptions
from bench.errors import BenchError, InputError
from bench.launch.graph import graph, register
from bench.launch.jobs import (
    LostError,
    StageJob,
    SweepFolder,
    lost_units,
    resources_of,
    run_or_record_failure,
    units_of,
)
from bench.launch.launch import launch
from bench.launch.local import _Plan, _Task
from bench.launch.slurm import _started_again_if_killed
from bench.launch.status import status
from bench.records import save_record
from bench.run import main
from bench.stages.base import Run
from bench.stages.chain import CHAIN, planned
from bench.stages.identity import run_key
from bench.store.store import Store
from priors.base import Unsupported

SMOKE = ["dataset=digits", "preset=smoke", "baselines=false"]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty cache of this test's own."""
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def folder(root):
    return SweepFolder(root / "sweep")


def _spec(*more):
    return compose([*SMOKE, *more])


def _stage(spec, name):
    return next(stage for stage in planned(Run(spec)) if stage.name == name)


def _publish(recipe):
    Store().obtain(recipe, lambda out, work: (out / "content").write_text("x"))


# -- the graph --------------------------------------------------------------------------------------------------------


def test_runs_that_differ_in_sampling_share_everything_up_to_the_prior(root):
    specs = [_spec("prior=absorbing", f"sampler.steps={steps}") for steps in (4, 8)]
    names = [node.stage.name for node in graph(specs)]
    assert {name: names.count(name) for name in set(names)} == {
        "tokenizer": 1, "tokens": 1, "prior": 1, "samples": 2, "features": 3}   # real once, fake twice


def test_every_stage_stands_after_those_it_needs(root):
    nodes = graph([_spec("prior=absorbing"), _spec("prior=autoregressive")])
    position = {node.key: index for index, node in enumerate(nodes)}
    assert all(position[key] < position[node.key] for node in nodes for key in node.needs)


def test_edits_share_models_and_real_features_and_have_completions_and_their_features_of_their_own(root):
    runs = expand([*SMOKE, "prior=absorbing,unigram"])
    rows = [row.spec for row in rows_of(EditOptions("benchmark", masks=("centre", "lower")), runs)]
    names = [node.stage.name for node in graph([run.spec for run in runs] + rows)]
    assert {name: names.count(name) for name in set(names)} == {
        "tokenizer": 1, "tokens": 1, "prior": 2, "samples": 2, "edits": 4, "features": 1 + 2 + 4}


def test_completions_are_drawn_by_as_many_jobs_as_samples(root):
    spec = _spec("prior=absorbing", "sampling.shards=7", "sampling.chunk=8", "protocol.num_fake=24")
    row, = rows_of(EditOptions("benchmark", masks=("lower",), images=16), expand([*SMOKE, "sampling.shards=7",
                                                                                  "sampling.chunk=8"]))
    assert (_stage(spec, "samples").work.shards, _stage(row.spec, "edits").work.shards) == (3, 2)


def test_a_stage_has_no_more_shards_than_chunks(root):
    spec = _spec("prior=absorbing", "sampling.shards=7", "sampling.chunk=8", "protocol.num_fake=24")
    assert _stage(spec, "samples").work.shards == 3
    assert _stage(spec, "features").work.shards == 1


def test_training_and_sampling_ask_for_their_own_resources(root):
    launcher = _spec("launcher.training.gpus=2", "launcher.sampling.gpus=1").launcher
    asked = {stage.name: resources_of(launcher, stage.resources).gpus for stage in CHAIN}
    assert asked == {"tokenizer": 2, "tokens": 0, "condition": 0, "prior": 2, "likelihood": 2, "samples": 1, "edits": 1,
                     "features": 0}


# -- what a run's last job makes of its stages ------------------------------------------------------------------------


def test_a_stage_whose_job_left_no_word_is_lost_and_may_be_tried_again(folder):
    stage = _stage(_spec(), "tokenizer")
    assert lost_units([stage], folder, retries=3) == [stage.recipe.key]
    assert len(folder.losses(stage.recipe.key)) == 1


def test_a_stage_lost_more_often_than_retries_is_given_up_with_its_history(folder):
    stage = _stage(_spec(), "tokenizer")
    folder.add_loss(stage.recipe.key, "the first time")
    with pytest.raises(LostError, match="lost 2 times, launcher.retries=1") as caught:
        lost_units([stage], folder, retries=1)
    assert "the first time" in str(caught.value)


def test_a_failed_stage_is_not_tried_again_but_told_with_its_traceback(folder):
    stage = _stage(_spec(), "tokenizer")
    Store().set_status(stage.recipe, "failed", "Traceback: ValueError: too bad")
    with pytest.raises(BenchError, match="too bad"):
        lost_units([stage], folder, retries=3)


def test_what_a_prior_cannot_do_is_told_as_unsupported_and_not_as_a_failure(folder):
    stage = _stage(_spec(), "samples")
    for earlier in planned(Run(_spec()))[:3]:
        _publish(earlier.recipe)
    job = StageJob(_spec(), stage, None, folder)
    job._build = lambda: (_ for _ in ()).throw(Unsupported("it keeps no tokens"))
    with pytest.raises(Unsupported):
        job()
    with pytest.raises(Unsupported, match="^it keeps no tokens$"):
        lost_units([stage], folder, retries=3)


def test_what_waited_for_a_lost_stage_is_not_counted_as_lost(folder):
    stages = planned(Run(_spec()))[:2]
    lost_units(stages, folder, retries=3)
    assert folder.losses(stages[1].recipe.key) == []


def test_of_an_array_only_the_shards_without_a_word_are_lost(folder):
    spec = _spec("sampling.shards=3")
    stage = _stage(spec, "samples")
    first, second, third = (name for name, _ in units_of(stage))
    folder.mark(first, state="done")
    folder.mark(third, state="done")
    assert lost_units([stage], folder, retries=3) == [second]


def test_nothing_is_lost_once_all_artefacts_are_there(folder):
    stages = planned(Run(_spec()))
    for stage in stages:
        _publish(stage.recipe)
    assert lost_units(stages, folder, retries=3) == []


def test_a_failure_is_recorded_with_its_traceback_and_its_run(root):
    spec = _spec(f"results_dir={root / 'results'}")
    record = run_or_record_failure(spec, ValueError("too bad"))
    assert record.status == "failed" and "ValueError: too bad" in record.message
    assert record.run_key == run_key(Run(spec))
    assert (root / "results" / "records" / f"{record.id}.json").exists()


# -- the end of the batch script --------------------------------------------------------------------------------------


def _batch(tmp_path, code: int | str, retries: int) -> tuple[int, int]:
    """Exit code and number of starts of a batch script whose command always ends with `code`."""
    script, starts = tmp_path / "script", tmp_path / "starts"
    ending = _started_again_if_killed(tmp_path / "lost", retries)
    script.write_text("\n".join(["#!/bin/bash", f"echo >> {starts}", f"( exit {code} )", *ending]))
    script.chmod(0o755)
    process = subprocess.run([script], env={**os.environ, "SLURM_JOB_ID": "1", "SLURMD_NODENAME": "n"})
    return process.returncode, len(starts.read_text().splitlines())


@pytest.mark.parametrize("signal", [9, 11])
def test_a_process_that_is_killed_is_started_again_as_often_as_retries_says(tmp_path, signal):
    assert _batch(tmp_path, 128 + signal, retries=2) == (128 + signal, 3)
    assert len((tmp_path / "lost").read_text().splitlines()) == 3


def test_a_warning_to_a_process_that_is_still_starting_is_no_loss(tmp_path):
    once = f"$(test -e {tmp_path}/once && echo 0 || {{ touch {tmp_path}/once; echo 140; }})"
    assert _batch(tmp_path, once, retries=0) == (0, 2) and not (tmp_path / "lost").exists()


@pytest.mark.parametrize("code", [0, 1, 143, 255])   # done, raised, cancelled, gone back into the queue
def test_a_process_that_ended_otherwise_is_not_started_again(tmp_path, code):
    assert _batch(tmp_path, code, retries=2) == (code, 1)


# -- processes of this machine ----------------------------------------------------------------------------------------


def _work_through(plan: _Plan) -> dict[str, bool]:
    end = time.monotonic() + 600
    while not plan.finished and time.monotonic() < end:
        plan.collect()
        plan.start()
        time.sleep(0.05)
    return plan.ended


def _task(name: str, code: str, spec, after: set[str] = frozenset(), ok_only: bool = True) -> _Task:
    return _Task(name, functools.partial(exec, code), spec, set(after), ok_only)


def test_a_failing_process_leaves_the_others_running_and_skips_what_needs_it(root, folder):
    spec, plan = _spec(), _Plan([], folder)
    plan.waiting = [_task("bad", "1 / 0", spec), _task("good", "1", spec), _task("needs bad", "1", spec, {"bad"}),
                    _task("whatever", "1", spec, {"bad", "good"}, ok_only=False)]
    assert _work_through(plan) == {"bad": False, "good": True, "needs bad": False, "whatever": True}


def test_a_killed_process_is_started_again_and_goes_on(root, folder):
    once = f"import os, pathlib; p = pathlib.Path({str(root / 'once')!r})\n" \
           "if not p.exists(): p.touch(); os.kill(os.getpid(), 9)"
    plan = _Plan([], folder)
    plan.waiting = [_task("hit", once, _spec())]
    assert _work_through(plan) == {"hit": True} and len(folder.losses("hit")) == 1


# -- input ------------------------------------------------------------------------------------------------------------


def test_an_unknown_launcher_is_refused_with_a_suggestion():
    spec = _spec()
    spec.launcher.name = "slrum"
    with pytest.raises(InputError, match="Did you mean 'slurm'"):
        launch([spec], console=Console(file=io.StringIO()))


def test_not_waiting_for_this_process_is_refused():
    with pytest.raises(InputError, match="launcher.wait=false"):
        launch([_spec("launcher.wait=false")], console=Console(file=io.StringIO()))


def test_slurm_without_its_programs_is_refused_with_the_way_out(root, monkeypatch):
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable))
    with pytest.raises(InputError, match="there is no srun on this machine"):
        launch([_spec("launcher=slurm")], console=Console(file=io.StringIO()))


def test_slurm_without_its_programs_fails_before_anything_is_fetched(root, monkeypatch, capsys):
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable))
    monkeypatch.setattr("bench.needs.have_assets", lambda names: pytest.fail("fetched"))
    assert main(["prior=unigram", "dataset=digits", "preset=smoke", "launcher=slurm"]) == 2
    assert "there is no srun on this machine" in capsys.readouterr().err


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Programs that answer like those of a cluster whose arrays have at most eight tasks."""
    for name, text in {"srun": "", "scontrol": "echo MaxArraySize            = 8"}.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")


def test_more_tasks_than_an_array_of_the_cluster_may_have_are_refused(cluster, root):
    with pytest.raises(InputError, match=r"sampling.shards=9: .* at most 8 tasks"):
        launch([_spec("launcher=slurm", "sampling.shards=9")], console=Console(file=io.StringIO()))


def test_a_batch_script_throttles_its_array_and_starts_the_python_asked_for(cluster, root, tmp_path):
    from bench.launch.slurm import _executor

    launcher = _spec("launcher=slurm", "launcher.array_parallelism=3",
                     "launcher.python='enter image.sif python'").launcher
    executor = _executor(launcher, launcher.sampling, SweepFolder(tmp_path / "sweep"), name="a", unit="b",
                         dependency=None)
    script = executor._make_submission_file_text(executor._submitit_command_str, "uid")
    assert "enter image.sif python -u -m submitit.core._submit" in script
    executor.parameters["map_count"] = 8   # what submitit adds for an array
    assert "#SBATCH --array=0-7%3" in executor._make_submission_file_text("command", "uid")


def test_launching_imports_no_torch():
    code = "import sys, bench.launch.launch, bench.launch.status; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_work_that_trains_nothing_does_not_import_lightning():
    code = ("import sys, bench.pipeline, bench.training.processes as p; p.process_rank(); "
            "sys.exit('lightning_fabric' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# -- status -----------------------------------------------------------------------------------------------------------


def _states(spec) -> dict[str, str]:
    return {standing.key: standing.state for standing in status([spec])}


def test_status_reads_every_state_from_files_alone(folder, monkeypatch):
    monkeypatch.setenv("PATH", "")   # no scheduler to ask
    spec = _spec("launcher=slurm")
    tokenizer, tokens, prior, samples, real, fake = (stage.recipe for stage in planned(Run(spec)))
    _publish(tokenizer)
    register(spec.launcher, tokens.key, "1", folder)
    _publish(tokens)
    Store().set_status(prior, "failed", "ValueError: too bad")
    register(spec.launcher, samples.key, "2", folder)
    states = _states(spec)
    assert [states[recipe.key] for recipe in (tokenizer, tokens, prior, samples, fake)] == [
        "cached", "done", "failed", "queued", "missing"]


def test_status_says_what_runs_now_and_what_was_lost(folder, monkeypatch):
    spec = _spec("launcher=slurm")
    tokenizer, tokens, *_ = (stage.recipe for stage in planned(Run(spec)))
    register(spec.launcher, tokens.key, "7", folder)
    monkeypatch.setattr("bench.launch.status.active_jobs", lambda: {"8"})
    seen = []
    Store().obtain(tokenizer, lambda out, work: seen.append(_states(spec)[tokenizer.key]))
    assert seen == ["running"] and _states(spec)[tokens.key] == "lost"


def test_a_run_is_done_once_it_has_a_record(folder, root):
    spec = _spec(f"results_dir={root / 'results'}")
    key = run_key(Run(spec))
    record = run_or_record_failure(spec, ValueError("x"))
    save_record(dataclasses.replace(record, status="ok"), root / "results")
    assert _states(spec)[key] == "done"


def test_a_run_that_failed_in_this_process_is_told_as_failed(root):
    spec = _spec(f"results_dir={root / 'results'}")
    run_or_record_failure(spec, ValueError("too bad"))
    assert [(s.state, s.detail) for s in status([spec])][-1] == ("failed", "ValueError: too bad")
