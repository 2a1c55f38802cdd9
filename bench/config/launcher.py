"""Where jobs run and what they ask a cluster for: the part of the schema that a site sets once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from bench.rules import Checked, Choice, Place, Plain, Several, Text, Whole

SITE = Text("a name your site knows", null="its default")


@dataclass
class ResourcesConfig(Checked):
    """What a stage asks of SLURM. gpus, memory_gb: of each node; cpus: of each task; minutes: its time limit; nodes: of
    the job; tasks: processes a node, which train data parallel."""

    gpus: Annotated[int, Whole(0, 1024, of="GPUs")] = 0
    cpus: Annotated[int, Whole(1, 10_000, of="CPUs")] = 2
    memory_gb: Annotated[int, Whole(1, 10**6, of="gigabytes")] = 8
    minutes: Annotated[int, Whole(1, 10**6, of="minutes")] = 60
    nodes: Annotated[int, Whole(1, 10_000, of="nodes")] = 1
    tasks: Annotated[int, Whole(1, 10_000, of="tasks")] = 1


@dataclass
class LauncherConfig(Checked):
    """Where the work runs.

    name: local, slurm or debug (in this process).
    partition, account, constraint, qos: what the site asks for, as sbatch has them.
    setup: shell commands of the batch script before the work.
    python: the command that is Python in a job, such as "apptainer exec image.sif python" (None: the one that submits).
    additional: any other option of sbatch, one by one, as launcher.additional.exclude=node17.
    wait: wait for the records; false returns once the jobs are in the queue.
    retries: how often work that vanished is tried again; a time limit or a preemption is no loss.
    max_parallel: processes at once, of launcher=local.
    array_parallelism: tasks of one array job that run at once, of launcher=slurm, as after `%` in sbatch --array.
    signal_delay_s: seconds of warning before a time limit: long enough to write a checkpoint.
    folder: where scripts and logs go, seen by all nodes (None: below the cache).
    """

    name: Annotated[str, Choice(("local", "slurm", "debug"))] = "debug"
    partition: Annotated[str | None, SITE] = None
    account: Annotated[str | None, SITE] = None
    constraint: Annotated[str | None, SITE] = None
    qos: Annotated[str | None, SITE] = None
    setup: Annotated[list[str], Several(Text("a shell command of one line"))] = field(default_factory=list)
    python: Annotated[str | None, Text("a command of one line")] = None
    additional: Annotated[dict[str, Any], Plain()] = field(default_factory=dict)
    wait: bool = True
    retries: Annotated[int, Whole(0, 1000, of="retries")] = 3
    max_parallel: Annotated[int, Whole(1, 10_000, of="jobs")] = 2
    array_parallelism: Annotated[int, Whole(1, 10_000, of="tasks")] = 256
    signal_delay_s: Annotated[int, Whole(0, 10**6, of="seconds")] = 90
    folder: Annotated[str | None, Place(("folder",), null="a folder in the cache", made=True)] = None
    training: ResourcesConfig = field(default_factory=lambda: ResourcesConfig(minutes=720))
    sampling: ResourcesConfig = field(default_factory=ResourcesConfig)
    features: ResourcesConfig = field(default_factory=ResourcesConfig)
    metrics: ResourcesConfig = field(default_factory=ResourcesConfig)
