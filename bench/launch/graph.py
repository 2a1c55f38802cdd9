"""A sweep as a graph: every stage its runs need, once, with what must be there before it. Torch-free.

    for node in graph(specs): print(node.stage.label, node.needs)
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.config import LauncherConfig, RunSpec
from bench.launch.jobs import SweepFolder, read_json
from bench.provenance import utc_now
from bench.stages.base import Run
from bench.stages.chain import Planned, planned
from bench.store.cache import cache_root
from bench.store.files import write_json


@dataclass(frozen=True)
class Node:
    """A stage, one run that needs it, and the keys of the stages before it."""

    spec: RunSpec
    stage: Planned
    needs: tuple[str, ...]

    @property
    def key(self) -> str:
        return self.stage.key


def graph(specs: Sequence[RunSpec]) -> list[Node]:
    """The stages of all runs without repetition, each after those it needs."""
    nodes: dict[str, Node] = {}
    for spec in specs:
        for stage in planned(Run(spec)):
            needs = tuple(recipe.key for recipe in stage.inputs)
            nodes.setdefault(stage.key, Node(spec, stage, needs))
    return list(nodes.values())


def sweep_folder(launcher: LauncherConfig) -> SweepFolder:
    """A new folder for the jobs of one sweep; it must be visible to every node."""
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"
    return SweepFolder(launch_root(launcher) / name)


def launch_root(launcher: LauncherConfig) -> Path:
    return (Path(launcher.folder) if launcher.folder else cache_root() / "launch").resolve()


def register(launcher: LauncherConfig, key: str, job: str, folder: SweepFolder) -> None:
    """Remember which job works on a key (of a stage or a run), for other sweeps and for `status=true`."""
    write_json(launch_root(launcher) / "jobs" / f"{key}.json",
               {"job": job, "folder": str(folder.path), "submitted": utc_now()})


def registered(launcher: LauncherConfig, key: str) -> dict[str, Any]:
    """{"job", "folder", "submitted"} of the last job for a key; {} if there never was one."""
    return read_json(launch_root(launcher) / "jobs" / f"{key}.json")
