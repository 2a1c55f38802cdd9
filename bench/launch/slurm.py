"""A sweep as jobs of a SLURM cluster, through submitit.

Each stage is a job (sampling and features an array) that starts after those it needs ended well; each run ends in a job
that starts however its stages ended. A process that is killed is started again inside its job; a job that vanished is
submitted again by its run's last job; both at most `launcher.retries` times. The submitting terminal may go away.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from bench.assets.fetch import locked
from bench.config import RunSpec
from bench.config.launcher import LauncherConfig, ResourcesConfig
from bench.errors import InputError
from bench.launch.graph import Node, graph, launch_root, register, registered
from bench.launch.jobs import (
    LostError,
    RunJob,
    StageJob,
    SweepFolder,
    resources_of,
    run_or_record_failure,
    units_of,
)
from bench.launch.pace import Tally
from bench.launch.queue import active_jobs, most_tasks
from bench.records import Record, load_record
from bench.stages.base import Run
from bench.stages.chain import planned
from bench.stages.identity import run_key
from bench.store.store import Store

MAX_TIME_LIMITS = 100
"""How often a job may go back into the queue at its time limit: that is progress, not loss, but not for ever."""
CONTROLLER_PATIENCE_SECONDS = 600.0
POLL_SECONDS, LIVENESS_SECONDS = 1.0, 30.0
UNREACHABLE = ("Unable to contact", "Socket timed out", "Connection refused", "connect failure")


def launch(specs: Sequence[RunSpec], folder: SweepFolder, console: Any) -> list[Record]:
    """Submit everything; unless launcher.wait=false, wait for the records."""
    jobs = submit(specs, folder, join_runs=True)
    listed = ", ".join(dict.fromkeys(job.split("_")[0] for job in jobs))
    console.print(f"{len(specs)} runs as jobs {listed}; logs in {folder.path / 'logs'}.\n"
                  "The jobs no longer need this terminal; the same command with status=true shows where they stand.",
                  highlight=False, soft_wrap=True)
    return _wait(specs) if specs[0].launcher.wait else []


def check(specs: Sequence[RunSpec]) -> None:
    """Raise InputError for what the cluster would refuse, or where there is none, before anything is fetched."""
    if shutil.which("srun") is None:
        raise InputError("launcher=slurm: there is no srun on this machine. Start from a login node of the cluster, "
                         "use launcher=local, or try it with slurm/up.sh.")
    _check_limits(specs[0].launcher)
    shards, most = max(spec.sampling.shards for spec in specs), most_tasks()
    if most is not None and shards > most:
        raise InputError(f"sampling.shards={shards}: an array of this cluster has at most {most} tasks (MaxArraySize). "
                         f"Ask for sampling.shards={most} or fewer.")


def _check_limits(launcher: LauncherConfig) -> None:
    for section in ("training", "sampling", "features", "metrics"):
        minutes = getattr(launcher, section).minutes
        if 60 * minutes <= launcher.signal_delay_s:
            raise InputError(f"launcher.{section}.minutes={minutes}: the warning comes "
                             f"launcher.signal_delay_s={launcher.signal_delay_s} seconds before this limit, that is "
                             "before the job does anything. Raise the limit, or lower signal_delay_s.")


def submit(specs: Sequence[RunSpec], folder: SweepFolder, *, join_runs: bool = False) -> list[str]:
    """Queue everything that is missing and not queued yet; returns the ids of the jobs, those of the runs last.

    join_runs: a run whose last job is in the queue already is left to it (never when that job itself submits).
    """
    launcher, store = specs[0].launcher, Store()
    jobs: dict[str, str] = {}
    with locked(launch_root(launcher) / ".submit.lock"):
        waiting = active_jobs("PENDING,RUNNING,SUSPENDED,CONFIGURING") or set()
        for node in graph(specs):
            if store.state(node.stage.recipe) != "cached":
                earlier = registered(launcher, node.key).get("job", "")
                jobs[node.key] = earlier if earlier in waiting else _submit_stage(node, jobs, folder)
        runs = []
        for spec in specs:
            earlier = registered(launcher, run_key(Run(spec))).get("job", "")
            runs.append(earlier if join_runs and earlier in waiting else _submit_run(spec, jobs, folder))
    return [*jobs.values(), *runs]


def _submit_stage(node: Node, jobs: dict[str, str], folder: SweepFolder) -> str:
    after = [jobs[key] for key in node.needs if key in jobs]
    units = units_of(node.stage)
    Store().set_status(node.stage.recipe, "queued")
    executor = _executor(node.spec.launcher, resources_of(node.spec.launcher, node.stage.stage.resources), folder,
                         name=f"{node.stage.name}-{node.key[:8]}", unit=node.key,
                         dependency=f"afterok:{':'.join(after)}" if after else None)
    submitted = _sbatch(executor, [StageJob(node.spec, node.stage, shard, folder) for _, shard in units])
    for (unit, _), job in zip(units, submitted, strict=True):
        folder.mark(unit, job=job, state="submitted")
    base = submitted[0].split("_")[0]
    register(node.spec.launcher, node.key, base, folder)
    return base


def _submit_run(spec: RunSpec, jobs: dict[str, str], folder: SweepFolder) -> str:
    run = Run(spec)
    key, after = run_key(run), [jobs[stage.key] for stage in planned(run) if stage.key in jobs]
    executor = _executor(spec.launcher, spec.launcher.metrics, folder, name=f"run-{key[:8]}",
                         unit=f"run-{key}", dependency=f"afterany:{':'.join(after)}" if after else None)
    job = _sbatch(executor, [RunJob(spec, folder, resubmit=submit)])[0]
    folder.mark(f"run-{key}", job=job)
    register(spec.launcher, key, job, folder)
    return job


def _executor(launcher: LauncherConfig, resources: ResourcesConfig, folder: SweepFolder, *, name: str, unit: str,
              dependency: str | None) -> submitit.SlurmExecutor:
    executor = submitit.SlurmExecutor(folder.path / "logs", max_num_timeout=MAX_TIME_LIMITS,
                                      python=launcher.python)
    options = {"partition": launcher.partition, "account": launcher.account, "qos": launcher.qos,
               "constraint": launcher.constraint, "dependency": dependency,
               "gpus_per_node": resources.gpus or None}
    executor.update_parameters(
        job_name=name, time=resources.minutes, nodes=resources.nodes, ntasks_per_node=resources.tasks,
        array_parallelism=launcher.array_parallelism,
        cpus_per_task=resources.cpus, mem=f"{resources.memory_gb}GB", signal_delay_s=launcher.signal_delay_s,
        srun_args=[f"--cpus-per-task={resources.cpus}", "--kill-on-bad-exit=1"], setup=list(launcher.setup),
        teardown=_started_again_if_killed(folder.losses_file(unit), launcher.retries),
        additional_parameters={"requeue": True, "kill-on-invalid-dep": "yes", **launcher.additional},
        **{key: value for key, value in options.items() if value is not None})
    return executor


def _started_again_if_killed(losses: Path, retries: int) -> list[str]:
    """The end of the batch script: a process that died of a signal (SIGTERM apart: that was a cancellation, 255 is
    submitit going back into the queue) is started again at once in the same allocation, and counted; not counted if
    the scheduler's warning (140: SIGUSR2) reached a Python that was still starting."""
    return ["code=$?",
            '(( code == 140 )) && exec "$0"',
            "if (( code > 128 && code < 255 && code != 143 )); then",
            f"  losses='{losses}'${{SLURM_ARRAY_TASK_ID:+-$SLURM_ARRAY_TASK_ID}}",
            '  echo "$(date -u +%FT%TZ) job $SLURM_JOB_ID on $SLURMD_NODENAME: signal $((code - 128))" >> "$losses"',
            f'  (( $(wc -l < "$losses") <= {retries} )) && exec "$0"',
            "fi",
            "exit $code"]


def _sbatch(executor: submitit.SlurmExecutor, functions: list[Any]) -> list[str]:
    """Submit one job, or an array if there are several functions; waits for a controller that does not answer."""
    until = time.monotonic() + CONTROLLER_PATIENCE_SECONDS
    while True:
        try:
            with _fresh_environment():
                submitted = executor.submit_array(functions) if len(functions) > 1 else [executor.submit(functions[0])]
            return [job.job_id for job in submitted]
        except (FailedJobError, FailedSubmissionError) as error:
            message = " ".join(str(error).split())
            if not any(sign in message for sign in UNREACHABLE):
                raise InputError(f"SLURM refused the job: {message}. Check launcher.partition, launcher.account and "
                                 "the resources (launcher.training.gpus, ...) against `sinfo`.") from None
            if time.monotonic() > until:
                raise LostError(f"the SLURM controller has not answered for {CONTROLLER_PATIENCE_SECONDS:.0f} s: "
                                f"{message}") from None
            print("the SLURM controller does not answer; trying again", file=sys.stderr, flush=True)
            time.sleep(5.0)


@contextmanager
def _fresh_environment() -> Iterator[None]:
    """Without what a surrounding job sets, which would leak into the new one; with the cluster's configuration."""
    conf = os.environ.get("SLURM_CONF")
    with submitit.helpers.clean_env():
        if conf:
            os.environ["SLURM_CONF"] = conf
        yield


def _wait(specs: Sequence[RunSpec]) -> list[Record]:
    """Wait for the records that the jobs write; a run whose last job has vanished is submitted again."""
    open_runs = {run_key(Run(spec)): spec for spec in specs}
    folders = {key: SweepFolder(Path(registered(spec.launcher, key)["folder"])) for key, spec in open_runs.items()}
    last_look, records = time.monotonic(), dict[str, Record]()
    suspects: set[str] = set()
    tally = Tally(len(specs))
    while open_runs:
        for key in [key for key in open_runs if folders[key].outcome(key)]:
            records[key] = load_record(folders[key].outcome(key)["record"])
            tally.end(records[key])
            del open_runs[key]
        if open_runs and time.monotonic() - last_look > LIVENESS_SECONDS:
            last_look, vanished = time.monotonic(), _vanished(open_runs, folders)
            for key in vanished & suspects:   # twice in a row: not just slow files
                _revive(open_runs[key], key, folders[key])
            suspects = vanished - suspects
        time.sleep(POLL_SECONDS if open_runs else 0)
    return [records[key] for key in folders]


def _vanished(run_keys: Iterable[str], folders: dict[str, SweepFolder]) -> set[str]:
    active = active_jobs()
    if active is None:
        return set()
    return {key for key in run_keys
            if folders[key].marks(f"run-{key}").get("job") not in active and not folders[key].outcome(key)}


def _revive(spec: RunSpec, key: str, folder: SweepFolder) -> None:
    unit = f"run-{key}"
    if folder.add_loss(unit, f"job {folder.marks(unit).get('job')} vanished") <= spec.launcher.retries:
        submit([spec], folder)
        return
    losses = folder.losses(unit)
    error = LostError("\n".join([f"the run's last job was lost {len(losses)} times:", *losses]))
    folder.finish_run(key, run_or_record_failure(spec, error), spec.results_dir)
