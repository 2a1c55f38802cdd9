"""A sweep as processes of this machine, through submitit: at most `launcher.max_parallel` at a time.

A process that is killed is started again at most `launcher.retries` times; one that fails leaves the others running.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import submitit

from bench.config import RunSpec
from bench.launch.graph import Node, graph, register
from bench.launch.jobs import (
    LostError,
    RunJob,
    StageJob,
    SweepFolder,
    run_or_record_failure,
    see_cuda_devices,
    units_of,
)
from bench.launch.pace import Tally
from bench.records import Record, load_record
from bench.stages.base import Run
from bench.stages.chain import planned
from bench.stages.identity import run_key
from bench.store.store import Store

POLL_SECONDS = 0.1
MAX_MINUTES = 60 * 24 * 30


def launch(specs: Sequence[RunSpec], folder: SweepFolder, console: Any) -> list[Record]:
    """Work on all runs and return their records; with launcher.wait=false a process of its own does, and [] returns."""
    if not specs[0].launcher.wait:
        with _outliving_the_terminal(), _speaking_to(folder.path / "logs" / "controllers.log"):
            job = _executor(folder).submit(_work_alone, list(specs), folder, os.environ.get("CUDA_VISIBLE_DEVICES"))
        console.print(f"{len(specs)} runs, process {job.job_id}; logs in {folder.path / 'logs'}.\n"
                      "The same command with status=true shows where they stand.", highlight=False, soft_wrap=True)
        return []
    console.print(f"{len(specs)} runs; logs in {folder.path / 'logs'}.", highlight=False, soft_wrap=True)
    return work_through(specs, folder)


def _work_alone(specs: Sequence[RunSpec], folder: SweepFolder, cuda_devices: str | None) -> list[Record]:
    """`work_through` in a process of its own, from which submitit's local executor has hidden every GPU."""
    see_cuda_devices(cuda_devices)
    return work_through(specs, folder)


def work_through(specs: Sequence[RunSpec], folder: SweepFolder) -> list[Record]:
    """Start what can be started until every run has its record."""
    plan = _Plan(specs, folder)
    try:
        while not plan.finished:
            plan.collect()
            plan.start()
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        plan.stop()   # nothing goes on in the background unless it was asked to
        raise
    return [load_record(folder.outcome(run_key(Run(spec)))["record"]) for spec in specs]


@dataclass
class _Task:
    """A process to run: a unit of a stage, or the end of a run. after: the names that must be settled before."""

    name: str
    function: Any
    spec: RunSpec
    after: set[str]
    ok_only: bool
    job: Any = None


@dataclass
class _Plan:
    """What waits, what runs, and what has ended how."""

    specs: Sequence[RunSpec]
    folder: SweepFolder
    waiting: list[_Task] = field(default_factory=list)
    running: list[_Task] = field(default_factory=list)
    ended: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tally = Tally(len(self.specs))
        store, devices = Store(), os.environ.get("CUDA_VISIBLE_DEVICES")
        nodes = [node for node in graph(self.specs) if store.state(node.stage.recipe) != "cached"]
        names = {node.key: {name for name, _ in units_of(node.stage)} for node in nodes}
        for node in nodes:
            self.waiting += self._stage_tasks(node, names, devices)
        for spec in self.specs:
            run = Run(spec)
            after = {name for stage in planned(run) for name in names.get(stage.key, ())}
            job = RunJob(spec, self.folder, _leave_to_the_plan, devices)
            self.waiting.append(_Task(f"run-{run_key(run)}", job, spec, after, ok_only=False))

    @property
    def finished(self) -> bool:
        return not self.waiting and not self.running

    def start(self) -> None:
        for task in list(self.waiting):
            if task.ok_only and any(self.ended.get(name) is False for name in task.after):
                self.waiting.remove(task)
                self.ended[task.name] = False   # what it needs failed
            elif len(self.running) < task.spec.launcher.max_parallel and task.after <= set(self.ended):
                self.waiting.remove(task)
                self._begin(task)

    def collect(self) -> None:
        for task in [task for task in self.running if task.job.done()]:
            self.running.remove(task)
            if task.job.paths.result_pickle.exists():
                self._end(task, task.job.exception())
            elif self.folder.add_loss(task.name, f"process {task.job.job_id} was killed") <= task.spec.launcher.retries:
                self._begin(task)
            else:
                self._give_up(task)

    def stop(self) -> None:
        """Kill what still runs; what it has saved stays."""
        for task in self.running:
            task.job.cancel(check=False)
        for task in self.running:
            task.job.wait()
        self.running.clear()

    def _stage_tasks(self, node: Node, names: dict[str, set[str]], devices: str | None) -> list[_Task]:
        after = {name for key in node.needs for name in names.get(key, ())}
        Store().set_status(node.stage.recipe, "queued")
        register(node.spec.launcher, node.key, "", self.folder)
        jobs = {name: StageJob(node.spec, node.stage, shard, self.folder, devices)
                for name, shard in units_of(node.stage)}
        return [_Task(name, job, node.spec, after, ok_only=True) for name, job in jobs.items()]

    def _begin(self, task: _Task) -> None:
        with _speaking_to(self.folder.path / "logs" / "controllers.log"):
            task.job = _executor(self.folder).submit(task.function)
        self.running.append(task)

    def _end(self, task: _Task, error: Exception | None) -> None:
        self.ended[task.name] = error is None
        key = run_key(Run(task.spec))
        if isinstance(task.function, RunJob) and not self.folder.outcome(key):
            problem = LostError(f"the run's last process left no record: {error}")
            self.folder.finish_run(key, run_or_record_failure(task.spec, problem), task.spec.results_dir)
        if isinstance(task.function, RunJob):
            self.tally.end(load_record(self.folder.outcome(key)["record"]))

    def _give_up(self, task: _Task) -> None:
        losses = self.folder.losses(task.name)
        message = "\n".join([f"lost {len(losses)} times, launcher.retries={task.spec.launcher.retries}:", *losses])
        if isinstance(task.function, StageJob):
            self.folder.mark(task.name, state="failed", message=message)
            Store().set_status(task.function.stage.recipe, "failed", message)
        self._end(task, LostError(message))


def _executor(folder: SweepFolder) -> submitit.LocalExecutor:
    executor = submitit.LocalExecutor(folder.path / "logs")
    executor.update_parameters(timeout_min=MAX_MINUTES)
    return executor


@contextmanager
def _speaking_to(log: Path) -> Iterator[None]:
    """Where processes started inside write: submitit's controllers end in a traceback at Ctrl-C, and one that goes on
    alone must not hold the pipe of whoever reads what this command says."""
    log.parent.mkdir(parents=True, exist_ok=True)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    before = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    try:
        with open(log, "a") as file:
            for descriptor in before:
                os.dup2(file.fileno(), descriptor)
            yield
    finally:
        for descriptor, original in before.items():
            os.dup2(original, descriptor)
            os.close(original)


@contextmanager
def _outliving_the_terminal() -> Iterator[None]:
    """Processes started inside the block ignore SIGHUP, so they survive the terminal."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _leave_to_the_plan(specs: Sequence[RunSpec], folder: SweepFolder) -> None:
    raise LostError("a stage of this run ended without a result")
