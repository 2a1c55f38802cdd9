"""Sweeps on a real SLURM: shared stages once, arrays, and nothing lost whatever happens to a job or the controller."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bench.compose import compose
from bench.launch_graph import registered, sweep_folder
from bench.launch_slurm import submit
from bench.pipeline import run
from bench.recipes import Recipes
from bench.records import load_record
from bench.store import Store

pytestmark = [pytest.mark.slurm, pytest.mark.network]
HERE = Path(__file__).parent
SMOKE = ["dataset=digits", "preset=smoke", "metrics.names=[fid,nll]", "protocol.num_fake=14", "protocol.num_real=16",
         "protocol.prdc_num=12", "protocol.nll_images=16", "sampling.chunk=2", "baselines=false"]
SLURM = ["launcher=slurm", *(f"launcher.{stage}.cpus=1" for stage in ("training", "sampling", "features", "metrics"))]
SWEEP = [*SMOKE, "prior=absorbing,autoregressive", "sampler.steps=4,8"]


def sh(command: str) -> str:
    return subprocess.run(command, shell=True, capture_output=True, text=True).stdout.strip()


def until(condition, seconds: float, what: str):
    """What the condition answers once it is true; requeued jobs do not sit out their two minutes meanwhile."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := condition():
            print(f"{what}: {seconds - end + time.monotonic():.1f} s")
            return answer
        for job in sh("squeue --noheader --states=PENDING --format='%i %r'").splitlines():
            if job.endswith("BeginTime"):
                sh(f"scontrol update JobId={job.split()[0]} StartTime=now")
        time.sleep(0.3)
    raise AssertionError(f"{what}: not within {seconds:.0f} s\n{sh('squeue')}\n{sh('sinfo -N')}")


def values(record) -> dict[str, float]:
    return {m["metric"]: m["value"] for m in record["measurements"]}


def records_of(results: Path) -> dict[str, dict[str, float]]:
    records = [json.loads(path.read_text()) for path in (results / "records").glob("*.json")]
    assert all(record["status"] == "ok" for record in records), [record["message"] for record in records]
    return {record["label"]: values(record) for record in records}


def new_cache(folder: Path, machine_cache: Path) -> Path:
    folder.mkdir()
    for name in ("assets", "datasets"):
        (folder / name).symlink_to((machine_cache / name).resolve())
    return folder


def start_sweep(cache: Path, results: Path, *more: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "bench.run", *SWEEP, *more, f"results_dir={results}"],
                            env={**os.environ, "VQ_PRIOR_BENCH_CACHE": str(cache)}, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


# -- a sweep ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sweep(slurm_cluster, cache, tmp_path_factory):
    """The sweep on SLURM, its controller stopped for five seconds in the middle, and the same sweep on this machine."""
    folder = tmp_path_factory.mktemp("sweep")
    new_cache(folder / "slurm", cache), new_cache(folder / "local", cache)
    local = start_sweep(folder / "local", folder / "local-results", "launcher=local", "launcher.max_parallel=3")
    on_slurm = start_sweep(folder / "slurm", folder / "slurm-results", *SLURM, "sampling.shards=2")
    seen, nodes = set(), set()

    def look():
        for line in sh("squeue --noheader --format='%i %N'").splitlines():
            job, _, node = line.partition(" ")
            seen.add(job), nodes.add(node.strip())
        return list((folder / "slurm" / "artefacts" / "tokenizer").glob("*.lease"))

    until(look, 240, "the tokenizer's training")
    os.kill(int((slurm_cluster / "run" / "slurmctld.pid").read_text()), 15)
    time.sleep(5)
    subprocess.run(["slurmctld", "-f", os.environ["SLURM_CONF"]], check=True)
    until(lambda: (look(), on_slurm.poll() is not None)[1], 240, "the sweep on SLURM")
    status = start_sweep(folder / "slurm", folder / "slurm-results", *SLURM, "sampling.shards=2", "status=true")
    return {"folder": folder, "jobs": seen, "nodes": nodes - {""}, "said": on_slurm.communicate()[0],
            "status": status.communicate()[0], "local_said": local.communicate(timeout=240)[0]}


def test_a_sweep_gives_a_record_a_run_though_the_controller_went_away(sweep):
    assert len(records_of(sweep["folder"] / "slurm-results")) == 3, sweep["said"]


def test_a_sweep_spreads_over_nodes_and_shards_are_array_tasks(sweep):
    assert len(sweep["nodes"]) >= 2
    assert any(re.match(r"\d+_(\[0-1|0|1)", job) for job in sweep["jobs"]), sweep["jobs"]


def test_shared_stages_are_submitted_and_built_once(sweep):
    built = [path.parents[1].name for path in (sweep["folder"] / "slurm" / "artefacts").glob("*/*/manifest.json")]
    path, = (sweep["folder"] / "slurm" / "launch").glob("2*")
    names = [sh(f"grep -h job-name {script}") for script in path.glob("logs/[0-9]*.sh")]
    assert built.count("tokenizer") == built.count("tokens") == 1 and built.count("prior") == 2
    assert sum("tokenizer" in name for name in names) == 1


def test_the_same_sweep_on_this_machine_gives_the_same_records(sweep):
    on_slurm = records_of(sweep["folder"] / "slurm-results")
    assert records_of(sweep["folder"] / "local-results") == on_slurm, sweep["local_said"]


def test_status_tells_from_files_that_all_is_done(sweep):
    assert re.search(r"^\d+ done$", sweep["status"], re.MULTILINE), sweep["status"]


# -- jobs that are hit ------------------------------------------------------------------------------------------------


class Hit:
    """One run in a cache of its own, with the trained tokenizer there, submitted by a terminal that went away."""

    def __init__(self, name: str, folder: Path, machine_cache: Path, reference: Store, *more: str, told: str = ""):
        self.name, self.folder, self.results = name, folder / name, folder / name / "results"
        new_cache(self.folder, machine_cache)
        self.spec = compose([*UNHURRIED, *SLURM, "launcher.wait=false", f"results_dir={self.results}", *more])
        self.recipes = Recipes(self.spec)
        self.store = Store(self.folder / "artefacts")
        for recipe in (self.recipes.tokenizer(), self.recipes.tokens(), self.recipes.features("real")):
            link = self.store.root / recipe.stage / recipe.key
            link.parent.mkdir(parents=True)
            link.symlink_to(reference.root / recipe.stage / recipe.key)
        if told:
            (self.folder / told).touch()
        os.environ |= {"VQ_PRIOR_BENCH_CACHE": str(self.folder), "UNHURRIED": str(self.folder)}
        submit([self.spec], sweep_folder(self.spec.launcher))

    def job(self, recipe) -> str:
        os.environ["VQ_PRIOR_BENCH_CACHE"] = str(self.folder)
        return registered(self.spec.launcher, recipe.key)["job"]

    def lines(self, what: str) -> list[list[str]]:
        log = self.folder / "log"
        return [line.split() for line in log.read_text().splitlines() if line.startswith(what)] if log.exists() else []

    def trains(self) -> bool:
        """Some steps in, with a checkpoint to come back to."""
        checkpoint = self.store.work_folder(self.recipes.prior()) / "latest.pt"
        return checkpoint.is_file() and len(self.lines("training")) > 6

    def hurry(self, what: str) -> None:
        (self.folder / f"hurry-{what}").touch()

    def hurries(self, what: str) -> bool:
        return (self.folder / f"hurry-{what}").exists()

    def outcome(self):
        found = list(self.folder.glob("launch/*/outcomes/*.json"))
        return json.loads(found[0].read_text()) if found else None

    def losses(self) -> str:
        return "".join(path.read_text() for path in self.folder.glob("launch/*/losses/*"))


UNHURRIED = [*SMOKE, "prior=unhurried:Unhurried", "sampler.steps=4", "prior.training.steps=80",
             "prior.training.validate_every=40"]


@pytest.fixture(scope="module")
def hits(slurm_cluster, cache, tmp_path_factory):
    """Six runs hit in six ways at the same time, each at its training, two of them also at their sampling; beside
    them one whose training fails and one whose training is killed every time."""
    folder = tmp_path_factory.mktemp("hits")
    before = dict(os.environ)
    sys.path.insert(0, str(HERE))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), before.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    os.environ["VQ_PRIOR_BENCH_CACHE"] = str(cache)
    try:
        reference = Store(folder / "reference")
        spec = compose([*UNHURRIED, f"results_dir={folder / 'reference-results'}"])
        run(spec, store=reference, announce=lambda text: None)
        node = {"signal": "n1", "kill": "n1", "script": "n1", "limit": "n1", "preempted": "n2", "node": "n3"}
        more = {"limit": ["launcher.training.minutes=1", "launcher.signal_delay_s=15"], "signal": ["sampling.shards=7"],
                "kill": ["sampling.shards=2"]}
        runs = {name: Hit(name, folder, cache, reference, f"launcher.additional.nodelist={where}",
                          *more.get(name, [])) for name, where in node.items()}
        bad = {"failing": Hit("failing", folder, cache, reference, told="fail"),
               "dying": Hit("dying", folder, cache, reference, "launcher.retries=1", told="die")}
        until(lambda: all(hit.trains() for hit in runs.values()), 240, "all runs in training")
        _hit_training(slurm_cluster, runs)
        _hit_sampling(runs)
        _await_time_limit(runs["limit"])
        until(lambda: all(hit.outcome() for hit in [*runs.values(), *bad.values()]), 300, "all records")
        yield {"reference": folder / "reference-results", "store": reference, **runs, **bad}
    finally:
        sys.path.remove(str(HERE))
        os.environ.clear()
        os.environ.update(before)


def _lose_node(cluster: Path, node: str, job: str) -> None:
    """Everything on the node dies at once; the controller notices, and the node comes back empty."""
    daemon = (cluster / "run" / f"slurmd-{node}.pid").read_text().strip()
    steps = sh(f"pgrep -f 'slurmstepd: .{job}[.]'").split()
    below = [child for pid in steps for child in sh(f"pgrep -P {pid}").split()]
    everything = " ".join([daemon, *steps, *below])
    sh(f"kill -STOP {everything}; kill -9 {everything}")   # none sees another die
    sh(f"scontrol update NodeName={node} State=DOWN Reason=lost")
    until(lambda: not sh(f"squeue -h -t RUNNING,COMPLETING -j {job}"), 20, "the loss of a node")
    sh(f"slurmd -f {os.environ['SLURM_CONF']} -N {node}")
    sh(f"scontrol update NodeName={node} State=RESUME")
    until(lambda: "idle" in sh(f"sinfo -h -n {node} -p main -o %T"), 30, "its return")


def _hit_training(cluster: Path, runs: dict[str, Hit]) -> None:
    job = {name: hit.job(hit.recipes.prior()) for name, hit in runs.items()}
    sh(f"scancel --signal=USR2 {job['signal']}")
    os.kill(int(runs["kill"].lines("training")[-1][1]), 9)
    sh(f"kill -9 $(pgrep -f 'job0*{job['script']}/slurm_script')")
    filler = sh("sbatch --parsable --partition=high --nodelist=n2 --exclusive --output=/dev/null --wrap='sleep 2'")
    _lose_node(cluster, "n3", job["node"])
    until(lambda: not sh(f"squeue -h -j {filler}"), 40, "the preempting job")
    for name, hit in runs.items():
        if name != "limit":
            hit.hurry("training")
        if name not in ("signal", "kill"):
            hit.hurry("sampling")


def _await_time_limit(hit: Hit) -> None:
    log = next(hit.folder.glob("launch/*/logs")) / f"{hit.job(hit.recipes.prior())}_0_log.err"
    until(lambda: "SIGUSR2" in log.read_text() or hit.losses(), 240, "the time limit's signal")
    hit.hurry("training")


def _hit_sampling(runs: dict[str, Hit]) -> None:
    signal, kill = runs["signal"], runs["kill"]

    def both_were_hit():
        if signal.lines("sampling") and not signal.hurries("sampling"):
            task = f"{signal.job(signal.recipes.samples())}_{signal.lines('sampling')[-1][2]}"
            sh(f"timeout 5 scancel --signal=USR2 $(squeue -h -j {task} -o %A)")   # by its own id: see slurm/README.md
            signal.hurry("sampling")
        if kill.lines("sampling") and not kill.hurries("sampling"):
            os.kill(int(kill.lines("sampling")[-1][1]), 9)
            kill.hurry("sampling")
        return signal.hurries("sampling") and kill.hurries("sampling")

    until(both_were_hit, 240, "sampling of two runs")


WAYS = ["signal", "kill", "script", "limit", "preempted", "node"]


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_was_hit_measures_what_an_undisturbed_run_measures(hits, way):
    assert records_of(hits[way].results) == records_of(hits["reference"])


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_was_hit_draws_the_samples_of_an_undisturbed_run(hits, way):
    key = hits[way].recipes.samples().key
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


def test_a_job_put_back_by_the_scheduler_is_not_a_loss(hits):
    assert not [way for way in ("signal", "preempted") if hits[way].losses()]
