"""Sweeps on a real SLURM: shared stages once, arrays, and nothing lost whatever happens to a job or the controller."""

import json
import os
import re
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from driving import HERE, SLURM, SMOKE, new_cache, records_of, sh, start, until

from bench.compose import compose
from bench.launch.graph import registered, sweep_folder
from bench.launch.jobs import MAX_STALLS
from bench.launch.slurm import submit
from bench.pipeline import run
from bench.records import load_record
from bench.stages.base import Run
from bench.stages.features import REAL_FEATURES
from bench.stages.prior import PRIOR
from bench.stages.samples import SAMPLES
from bench.stages.tokenizer import TOKENIZER
from bench.stages.tokens import TOKENS
from bench.store.store import Store

pytestmark = [pytest.mark.slurm, pytest.mark.network]
SWEEP = [*SMOKE, "prior=absorbing,autoregressive", "sampler.steps=4,8"]


# -- a sweep ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sweep(slurm_cluster, cache, tmp_path_factory):
    """The sweep on SLURM, asked for twice, its controller away for five seconds, and the same sweep on this machine."""
    folder = tmp_path_factory.mktemp("sweep")
    new_cache(folder / "slurm", cache), new_cache(folder / "local", cache)
    local = start(folder / "local", folder / "local-results", *SWEEP, "launcher=local", "launcher.max_parallel=3")
    on_slurm = start(folder / "slurm", folder / "slurm-results", *SWEEP, *SLURM, "sampling.shards=2")
    seen, nodes = set(), set()

    def look():
        for line in sh("squeue --noheader --format='%i %N'").splitlines():
            job, _, node = line.partition(" ")
            seen.add(job), nodes.add(node.strip())
        return list((folder / "slurm" / "artefacts" / "tokenizer").glob("*.lease"))

    until(look, 1800, "the tokenizer's training")
    again = start(folder / "slurm", folder / "slurm-results", *SWEEP, *SLURM, "sampling.shards=2",
                  "launcher.wait=false")
    assert again.wait(timeout=900) == 0
    os.kill(int((slurm_cluster / "run" / "slurmctld.pid").read_text()), 15)
    time.sleep(5)
    subprocess.run(["slurmctld", "-f", os.environ["SLURM_CONF"]], check=True)
    until(lambda: (look(), on_slurm.poll() is not None)[1], 3600, "the sweep on SLURM")
    status = start(folder / "slurm", folder / "slurm-results", *SWEEP, *SLURM, "sampling.shards=2", "status=true")
    return {"folder": folder, "jobs": seen, "nodes": nodes - {""}, "said": on_slurm.communicate()[0],
            "status": status.communicate()[0], "local_said": local.communicate(timeout=3600)[0]}


def test_a_sweep_gives_a_record_a_run_though_the_controller_went_away(sweep):
    assert len(records_of(sweep["folder"] / "slurm-results")) == 3, sweep["said"]
    assert len(list((sweep["folder"] / "slurm-results" / "records").glob("*.json"))) == 3   # asking twice adds none


def test_a_sweep_spreads_over_nodes_and_shards_are_array_tasks(sweep):
    assert len(sweep["nodes"]) >= 2
    assert any(re.match(r"\d+_(\[0-1|0|1)", job) for job in sweep["jobs"]), sweep["jobs"]


def test_shared_stages_are_submitted_and_built_once(sweep):
    built = [path.parents[1].name for path in (sweep["folder"] / "slurm" / "artefacts").glob("*/*/manifest.json")]
    scripts = (sweep["folder"] / "slurm" / "launch").glob("2*/logs/[0-9]*.sh")
    names = [sh(f"grep -h job-name {script}") for script in scripts]
    assert built.count("tokenizer") == built.count("tokens") == 1 and built.count("prior") == 2
    assert len(names) == len(set(names)) and sum("tokenizer" in name for name in names) == 1


def test_the_same_sweep_on_this_machine_gives_the_same_records(sweep):
    on_slurm = records_of(sweep["folder"] / "slurm-results")
    assert records_of(sweep["folder"] / "local-results") == on_slurm, sweep["local_said"]


def test_status_tells_from_files_that_all_is_done(sweep):
    assert re.search(r"^\d+ done$", sweep["status"], re.MULTILINE), sweep["status"]


# -- jobs that are hit ------------------------------------------------------------------------------------------------

UNHURRIED = [*SMOKE, "prior=unhurried:Unhurried", "sampler.steps=4", "prior.training.steps=80",
             "prior.training.validate_every=40"]


class Hit:
    """One run in a cache of its own, with the trained tokenizer there, submitted by a terminal that went away.

    told: the name of a file for unhurried.py.  strikes: what hits the process at its training (or its sampling) once it
    is some steps in; it takes its time until that process is dead, and hurries from then on.
    """

    def __init__(self, name: str, folder: Path, machine_cache: Path, reference: Store, *more: str, told: str = "",
                 training=None, sampling=None):
        self.name, self.folder, self.results = name, folder / name, folder / name / "results"
        self.strikes, self.victims = {"training": training, "sampling": sampling}, {}
        new_cache(self.folder, machine_cache)
        self.spec = compose([*UNHURRIED, *SLURM, "launcher.wait=false", f"results_dir={self.results}", *more])
        self.run = Run(self.spec)
        self.store = Store(self.folder / "artefacts")
        for recipe in (self.run.recipe(TOKENIZER), self.run.recipe(TOKENS), self.run.recipe(REAL_FEATURES)):
            link = self.store.root / recipe.stage / recipe.key
            link.parent.mkdir(parents=True)
            link.symlink_to(reference.root / recipe.stage / recipe.key)
        if told:
            (self.folder / told).touch()
        os.environ |= {"VQ_PRIOR_BENCH_CACHE": str(self.folder), "UNHURRIED": str(self.folder)}
        submit([self.spec], sweep_folder(self.spec.launcher))

    def drive(self) -> bool:
        """Strike and hurry where it is time; whether the run has come to its end."""
        for what, strike in self.strikes.items():
            hurry = self.folder / f"hurry-{what}"
            if hurry.exists():
                continue
            if strike is None or (what in self.victims and not is_alive(self.victims[what])):
                hurry.touch()
            elif what not in self.victims and self.is_under_way(what):
                self.victims[what] = int(self.lines(what)[-1][1])
                strike(self)
        return self.outcome() is not None

    def is_under_way(self, what: str) -> bool:
        """Some steps in, with a checkpoint to come back to; or drawing a chunk."""
        checkpoint = self.store.work_folder(self.run.recipe(PRIOR)) / "latest.pt"
        return len(self.lines(what)) > 6 and checkpoint.is_file() if what == "training" else bool(self.lines(what))

    def job(self, recipe) -> str:
        os.environ["VQ_PRIOR_BENCH_CACHE"] = str(self.folder)
        return registered(self.spec.launcher, recipe.key)["job"]

    def lines(self, what: str) -> list[list[str]]:
        log = self.folder / "log"
        return [line.split() for line in log.read_text().splitlines() if line.startswith(what)] if log.exists() else []

    def outcome(self):
        found = list(self.folder.glob("launch/*/outcomes/*.json"))
        return json.loads(found[0].read_text()) if found else None

    def losses(self) -> str:
        return "".join(path.read_text() for path in self.folder.glob("launch/*/losses/*"))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def signal_training(hit: Hit) -> None:
    sh(f"scancel --signal=USR2 {hit.job(hit.run.recipe(PRIOR))}")


def signal_shard(hit: Hit) -> None:
    task = f"{hit.job(hit.run.recipe(SAMPLES))}_{hit.lines('sampling')[-1][2]}"
    sh(f"timeout 5 scancel --signal=USR2 $(squeue -h -j {task} -o %A)")   # by its own id: see slurm/README.md


def kill_training(hit: Hit) -> None:
    os.kill(hit.victims["training"], 9)


def kill_shard(hit: Hit) -> None:
    os.kill(hit.victims["sampling"], 9)


def kill_script(hit: Hit) -> None:
    sh(f"kill -9 $(pgrep -f 'job0*{hit.job(hit.run.recipe(PRIOR))}/slurm_script')")


def preempt(hit: Hit) -> None:
    sh("sbatch --partition=high --nodelist=n2 --exclusive --output=/dev/null --wrap='sleep 2'")


def lose_node(hit: Hit) -> None:
    """Everything on n3 dies at once; the controller notices, and the node comes back empty."""
    cluster, job = Path(os.environ["SLURM_CONF"]).parents[1], hit.job(hit.run.recipe(PRIOR))
    daemon = (cluster / "run" / "slurmd-n3.pid").read_text().strip()
    steps = sh(f"pgrep -f 'slurmstepd: .{job}[.]'").split()
    below = [child for pid in steps for child in sh(f"pgrep -P {pid}").split()]
    everything = " ".join([daemon, *steps, *below])
    sh(f"kill -STOP {everything}; kill -9 {everything}")   # none sees another die
    sh("scontrol update NodeName=n3 State=DOWN Reason=lost")
    until(lambda: not sh(f"squeue -h -t RUNNING,COMPLETING -j {job}"), 600, "the loss of a node")
    sh(f"slurmd -f {os.environ['SLURM_CONF']} -N n3")
    sh("scontrol update NodeName=n3 State=RESUME")


def wait_for_time_limit(hit: Hit) -> None:
    """It comes by itself."""


@pytest.fixture(scope="module")
def hits(slurm_cluster, cache, tmp_path_factory):
    """Six runs hit in six ways, each at its training, two of them also at their sampling; beside them one whose
    training fails, one whose training is killed every time, and one whose sampling never comes to anything."""
    folder = tmp_path_factory.mktemp("hits")
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), before.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    os.environ["VQ_PRIOR_BENCH_CACHE"] = str(cache)
    try:
        reference = Store(folder / "reference")
        run(compose([*UNHURRIED, f"results_dir={folder / 'reference-results'}"]), store=reference)

        def hit(name: str, *more: str, **strikes) -> Hit:
            return Hit(name, folder, cache, reference, *more, **strikes)

        node = "launcher.additional.nodelist"
        runs = [hit("signal", f"{node}=n1", "sampling.shards=7", training=signal_training, sampling=signal_shard),
                hit("kill", f"{node}=n1", "sampling.shards=2", training=kill_training, sampling=kill_shard),
                hit("script", f"{node}=n1", training=kill_script),
                hit("limit", f"{node}=n1", "launcher.training.minutes=2", "launcher.signal_delay_s=60",
                    "launcher.retries=9", training=wait_for_time_limit),
                hit("preempted", f"{node}=n2", training=preempt), hit("node", f"{node}=n3", training=lose_node),
                hit("failing", f"{node}=n1", told="fail"),
                hit("dying", f"{node}=n1", "launcher.retries=1", told="die"),
                hit("stuck", f"{node}=n2", "launcher.sampling.minutes=2", "launcher.signal_delay_s=60", told="stuck")]
        until(lambda: all([run.drive() for run in runs]), 3600, "all records")
        yield {"reference": folder / "reference-results", "store": reference, **{run.name: run for run in runs}}
    finally:
        os.environ.clear()
        os.environ.update(before)


WAYS = ["signal", "kill", "script", "limit", "preempted", "node"]


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_was_hit_measures_what_an_undisturbed_run_measures(hits, way):
    assert records_of(hits[way].results) == records_of(hits["reference"])


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_was_hit_draws_the_samples_of_an_undisturbed_run(hits, way):
    key = hits[way].run.recipe(SAMPLES).key
    mine, theirs = (store.root / "samples" / key / "images.npy" for store in (hits[way].store, hits["store"]))
    assert np.array_equal(np.load(mine), np.load(theirs))


@pytest.mark.parametrize("way", WAYS)
def test_training_goes_on_from_its_checkpoint(hits, way):
    redone = len(hits[way].lines("training")) - hits[way].spec.prior.training.steps
    assert len({line[1] for line in hits[way].lines("training")}) > 1, "nothing hit it"
    assert redone <= hits[way].spec.prior.training.checkpoint_every


@pytest.mark.parametrize("way", ["kill", "script"])
def test_a_loss_is_counted_and_nobody_had_to_wait_for_it(hits, way):
    assert len(hits[way].losses().splitlines()) == (2 if way == "kill" else 1), hits[way].losses()


def test_what_fails_is_recorded_with_its_traceback_and_not_tried_again(hits):
    record = load_record(hits["failing"].outcome()["record"])
    assert record.status == "failed" and 'RuntimeError("told to fail")' in record.message
    assert len(hits["failing"].lines("training")) == 1


def test_what_is_lost_too_often_is_recorded_as_lost(hits):
    record = load_record(hits["dying"].outcome()["record"])
    assert record.status == "failed" and "lost 2 times, launcher.retries=1" in record.message
    assert len(hits["dying"].lines("training")) == 2


def test_what_never_gets_on_between_its_time_limits_is_given_up_with_advice(hits):
    record = load_record(hits["stuck"].outcome()["record"])
    assert record.status == "failed" and "Raise launcher.sampling.minutes" in record.message
    assert f"{MAX_STALLS} times in a row" in record.message
    assert 1 <= len(hits["stuck"].lines("sampling")) <= MAX_STALLS   # a warning may come before the stage says a word


def test_a_job_put_back_by_the_scheduler_is_not_a_loss(hits):
    assert not [way for way in ("signal", "preempted") if hits[way].losses()]
