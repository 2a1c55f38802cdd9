"""What runs inside a job, local or on SLURM: one stage of a run (or one shard of it), or the end of a run.

A StageJob builds one artefact. It writes into the sweep's folder how it ended, so that nothing depends on the
scheduler's accounting. On SLURM's warning signal (before a time limit, a preemption, `scancel --signal=USR2`) it saves
its progress, and submitit puts the job back into the queue, where it resumes.

A RunJob measures and writes the record once its stages are there. It is also the run's guard: it starts however its
stages ended, submits again those that were lost, and writes a failed record with the traceback of what failed for good.
"""

from __future__ import annotations

import json
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from submitit.helpers import DelayedSubmission

from bench.config import RunSpec
from bench.config.launcher import LauncherConfig, ResourcesConfig
from bench.errors import BenchError
from bench.launch import queue as launch_queue
from bench.provenance import content_id, utc_now
from bench.records import Record
from bench.stages.base import Run, begun
from bench.stages.chain import Planned, planned
from bench.stages.identity import run_key
from bench.store.files import write_json
from bench.store.store import Interrupted, Store

WARNING = signal.SIGUSR2
MAX_STALLS = 3
"""How often in a row a job may come to its time limit without having written anything new."""
EARLY_SECONDS = 60.0
"""SLURM looks at limits every 30 s and its warnings come up to that much early; as much again for good measure."""

MEASURING = "metrics"   # the section of the launcher's resources that the job which measures asks by


class LostError(BenchError):
    """A job that ended without a result more often than `launcher.retries` allows, or was cancelled."""


@dataclass(frozen=True)
class SweepFolder:
    """The files by which the jobs of one sweep, and whoever submitted them, tell each other what happened."""

    path: Path

    def mark(self, unit: str, **facts: Any) -> None:
        """Add facts about a unit of work: its job, its state ("done", "failed") and message."""
        write_json(self._unit(unit), {**self.marks(unit), **facts, "when": utc_now()})

    def marks(self, unit: str) -> dict[str, Any]:
        return read_json(self._unit(unit))

    def losses_file(self, unit: str) -> Path:
        """One line for each time the unit was lost; the batch script appends to it too."""
        folder = self.path / "losses"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / unit

    def losses(self, unit: str) -> list[str]:
        file = self.losses_file(unit)
        return file.read_text().splitlines() if file.exists() else []

    def add_loss(self, unit: str, reason: str) -> int:
        """How often the unit has been lost, this time included."""
        with open(self.losses_file(unit), "a") as stream:
            stream.write(f"{utc_now()} {reason}\n")
        return len(self.losses(unit))

    def add_stall(self, unit: str, written: str) -> int:
        """How often in a row the unit has stopped with only `written` (see `_written`) on disk; 0 after progress."""
        earlier = self.marks(unit)
        stalls = earlier.get("stalls", 0) + 1 if written == earlier.get("written", "") else 0
        self.mark(unit, written=written, stalls=stalls)
        return stalls

    def finish_run(self, run_key: str, record: Record, results_dir: str) -> None:
        path = Path(results_dir).resolve() / "records" / f"{record.id}.json"
        write_json(self._outcome(run_key), {"record": str(path), "status": record.status})

    def outcome(self, run_key: str) -> dict[str, Any]:
        """{"record": its path, "status"}; {} while the run goes on."""
        return read_json(self._outcome(run_key))

    def _unit(self, unit: str) -> Path:
        return self.path / "units" / f"{unit}.json"

    def _outcome(self, run_key: str) -> Path:
        return self.path / "outcomes" / f"{run_key}.json"


def resources_of(launcher: LauncherConfig, section: str) -> ResourcesConfig:
    """What the launcher asks for on behalf of a stage of this section."""
    return getattr(launcher, section)


def units_of(stage: Planned) -> list[tuple[str, int | None]]:
    """(name, shard) of every job a stage is split into."""
    key, shards = stage.key, stage.work.shards
    return [(f"{key}-{shard}", shard) for shard in range(shards)] if shards > 1 else [(key, None)]


@dataclass
class StageJob:
    """Build one stage of a run, or one shard of it; the shard that ends last puts them together."""

    spec: RunSpec
    stage: Planned
    shard: int | None
    folder: SweepFolder
    cuda_devices: str | None = None

    @property
    def unit(self) -> str:
        return self.stage.key if self.shard is None else f"{self.stage.key}-{self.shard}"

    def __call__(self) -> str:
        with requeued_when_interrupted(self.cuda_devices):
            try:
                self._build()
            except Interrupted:
                raise
            except Exception as error:
                if Store().state(self.stage.recipe) != "cached":   # else another process finished it meanwhile
                    self._fail(traceback.format_exc(), unsupported=_unsupported(error))
                    raise
            self._mark(state="done")
        return self.stage.key

    def checkpoint(self) -> DelayedSubmission | None:
        """What submitit puts back into the queue: the same job, its progress in the store; nothing if it stalls."""
        if reason := why_given_up(self.spec, self.stage.stage.resources, self.unit, self.folder,
                                  Store().work_folder(self.stage.recipe)):
            self._fail(f"{self.stage.label}: {reason}")
            return None
        return DelayedSubmission(self)

    def _build(self) -> None:
        from bench.pipeline import build  # torch is imported in the job, never where jobs are submitted
        run = begun(self.spec)
        build(run, self.stage.stage, self.shard)
        if self.shard is None:
            return
        self._mark(state="done")
        if all(self.folder.marks(name).get("state") == "done" for name, _ in units_of(self.stage)):
            build(run, self.stage.stage)

    def _fail(self, message: str, *, unsupported: str = "") -> None:
        Store().set_status(self.stage.recipe, "failed", message)
        self._mark(state="failed", message=message, unsupported=unsupported)

    def _mark(self, **facts: Any) -> None:
        if _rank() == 0:
            self.folder.mark(self.unit, **facts)


@dataclass
class RunJob:
    """The end of one run: what its stages left to do, its metrics, its record."""

    spec: RunSpec
    folder: SweepFolder
    resubmit: Callable[[Sequence[RunSpec], SweepFolder], Any]
    cuda_devices: str | None = None

    def __call__(self) -> str:
        with requeued_when_interrupted(self.cuda_devices):
            return self._settle()

    def checkpoint(self) -> DelayedSubmission | None:
        """As for a stage; progress of a run means newly written metrics."""
        key = run_key(Run(self.spec))
        if reason := why_given_up(self.spec, MEASURING, f"run-{key}", self.folder, Store().root / "metric"):
            self._record(key, LostError(f"measuring: {reason}"))
            return None
        return DelayedSubmission(self)

    def _settle(self) -> str:
        run = Run(self.spec)
        try:
            if lost := lost_units(planned(run), self.folder, self.spec.launcher.retries):
                print(f"lost: {', '.join(lost)}; submitting this run again", flush=True)
                self.resubmit([self.spec], self.folder)
                return "resubmitted"
        except Interrupted:
            raise
        except Exception as error:
            return self._record(run_key(run), error)
        return self._record(run_key(run))

    def _record(self, key: str, error: BaseException | None = None) -> str:
        record = run_or_record_failure(self.spec, error)
        self.folder.finish_run(key, record, self.spec.results_dir)
        return record.status


def lost_units(stages: Sequence[Planned], folder: SweepFolder, retries: int) -> list[str]:
    """The jobs of these stages, in order, that ended without a result and may be tried again; [] if none is missing.

    Raises BenchError with the traceback if a stage failed, Unsupported if its prior cannot do what was asked, LostError
    if one was lost too often or cancelled. Stages that still run are waited for.
    """
    store = Store()
    for stage in stages:
        while (state := store.state(stage.recipe)) == "running":
            time.sleep(1.0)
        if state == "cached":
            continue
        marks = {name: folder.marks(name) for name, _ in units_of(stage)}
        failed = [mark for mark in marks.values() if mark.get("state") == "failed"]
        if failed or state == "failed":
            raise _failure(stage, failed[0] if failed else store.status(stage.recipe))
        lost = [name for name, mark in marks.items() if mark.get("state") != "done"]
        for name in lost:
            _count_loss(name, marks[name], stage, folder, retries)
        return lost or list(marks)
    return []


def _failure(stage: Planned, facts: dict[str, Any]) -> Exception:
    """What a failed stage says of itself, as the error its run ends in."""
    from priors.base import Unsupported
    if reason := facts.get("unsupported"):
        return Unsupported(reason)
    return BenchError(f"{stage.label} failed:\n{facts.get('message', '')}")


def _unsupported(error: Exception) -> str:
    """The reason of a prior that cannot do what was asked, "" of any other error."""
    from priors.base import Unsupported
    return str(error) if isinstance(error, Unsupported) else ""


def _count_loss(name: str, marks: dict[str, Any], stage: Planned, folder: SweepFolder, retries: int) -> None:
    job = marks.get("job", "")
    if launch_queue.was_cancelled(job):
        raise LostError(f"{stage.label}: job {job} was cancelled. Run the same command again to go on where it was.")
    if len(folder.losses(name)) <= retries:   # else the batch script has counted them all
        advice = f" at its time limit: raise launcher.{stage.stage.resources}.minutes"
        folder.add_loss(name, f"job {job} ended without a result" + advice * launch_queue.ended_at_limit(job))
    if len(folder.losses(name)) > retries:
        history = "\n".join([*folder.losses(name), *_log_tail(folder, job)])
        raise LostError(f"{stage.label}: lost {len(folder.losses(name))} times, launcher.retries={retries}:\n{history}")


def run_or_record_failure(spec: RunSpec, error: BaseException | None = None, *,
                          passing: type[Exception] | tuple[()] = ()) -> Record:
    """Run to the end in this process; whatever goes wrong (or went wrong: `error`) becomes a saved record.

    passing: errors that are the caller's to handle.
    """
    from bench.labels import label_of
    from bench.pipeline import failed_record, run
    from bench.records import Status, save_record
    from priors.base import Unsupported
    try:
        if error is None:
            return run(spec)
        raise error
    except Interrupted:
        raise
    except passing:
        raise
    except Exception as problem:
        status: Status = "unsupported" if isinstance(problem, Unsupported) else "failed"
        record = replace(failed_record(spec, label_of(spec), problem, status=status), run_key=run_key(Run(spec)))
        save_record(record, spec.results_dir)
        return record


def why_given_up(spec: RunSpec, section: str, unit: str, folder: SweepFolder, work: Path) -> str:
    """Why a warned job is not requeued, "" if it is: it reached MAX_STALLS time limits without making progress.

    A warning that comes long before the time limit (a preemption, or sent by the user) is not counted.
    """
    launcher = spec.launcher
    limit = resources_of(launcher, section).minutes
    used = launch_queue.seconds_used() if os.environ.get("SUBMITIT_EXECUTOR") == "slurm" and _rank() == 0 else None
    if used is None or used < 60 * limit - launcher.signal_delay_s - EARLY_SECONDS:
        return ""
    stalls = folder.add_stall(unit, _written(work))
    if stalls < MAX_STALLS:
        return ""
    return (f"came to its time limit {stalls} times in a row without having written anything new: "
            f"launcher.{section}.minutes={limit}, warned {launcher.signal_delay_s} s before, is too short to start and "
            f"get to the next checkpoint. Raise launcher.{section}.minutes and run the same command again.")


def _written(work: Path) -> str:
    """A digest of names, sizes and times of what lies in a folder's folders and itself; "" if nothing does.

    Leases and status files, which are rewritten without progress, are left out.
    """
    facts = []
    for path in sorted(work.rglob("*")):
        if path.is_file() and not path.name.endswith((".lease", ".status.json")):
            status = path.stat()
            facts.append([str(path.relative_to(work)), status.st_size, status.st_mtime_ns])
    return content_id(facts) if facts else ""


@contextmanager
def requeued_when_interrupted(cuda_devices: str | None) -> Iterator[None]:
    """Inside the block the warning signal raises Interrupted; if that leaves the block, the job is requeued.

    cuda_devices: CUDA_VISIBLE_DEVICES where the job was submitted; submitit's local executor hides every GPU.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") == "local":
        see_cuda_devices(cuda_devices)
    of_submitit = signal.signal(WARNING, _raise_interrupted)
    try:
        yield
    except Interrupted:
        signal.signal(WARNING, of_submitit)
        _requeue()
        raise
    finally:
        signal.signal(WARNING, of_submitit)


def see_cuda_devices(cuda_devices: str | None) -> None:
    """Make CUDA_VISIBLE_DEVICES what it was elsewhere; None: it was not set, and every device is seen."""
    if cuda_devices is None:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = cuda_devices


def _raise_interrupted(*_: Any) -> None:
    raise Interrupted("warned by the scheduler")


def _requeue() -> None:
    """Let submitit's own handler put this job back; it does not return if it could. Only the first process asks."""
    if _rank() != 0:
        time.sleep(600)   # killed together with the first one
    if os.environ.get("SUBMITIT_EXECUTOR") == "slurm" and not launch_queue.is_still_wanted():
        return   # cancelled: asking would bring it back from the dead
    signal.raise_signal(WARNING)


def _log_tail(folder: SweepFolder, job: str, num_lines: int = 30) -> list[str]:
    log = folder.path / "logs" / f"{job}_0_log.err"
    return log.read_text(errors="replace").splitlines()[-num_lines:] if job and log.exists() else []


def _rank() -> int:
    return int(os.environ.get("SLURM_PROCID", "0"))


def read_json(path: Path) -> dict[str, Any]:
    """The file's content, {} if it is not there."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
