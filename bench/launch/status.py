"""Where every stage of a sweep stands, read from files: `python -m bench.run ... status=true`. Torch-free.

cached: finished before this sweep asked for it.  done: finished by its jobs.  queued: a job waits for it, or for its
turn to resume.  running: a process holds it now.  failed: with the last line of the traceback.  lost: its job has left
the queue without a result; its run submits it again.  missing: nobody was asked to build it.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.config import RunSpec
from bench.labels import label_of
from bench.launch.graph import Node, graph, registered
from bench.launch.jobs import SweepFolder, units_of
from bench.launch.queue import active_jobs
from bench.printable import cell, last_line
from bench.records import Record, load_records
from bench.stages.base import Run
from bench.stages.identity import run_key
from bench.store.store import Store


@dataclass(frozen=True)
class Standing:
    """One stage, or one run's measuring. job: the last job that was given it; detail: why, where, how far."""

    label: str
    key: str
    state: str
    job: str = ""
    detail: str = ""


def status(specs: Sequence[RunSpec]) -> list[Standing]:
    """Every stage of these runs once, then every run."""
    active = active_jobs() if any(spec.launcher.name == "slurm" for spec in specs) else None
    store = Store()
    records = {folder: _records_of(folder) for folder in {spec.results_dir for spec in specs}}
    return [_of_stage(node, store, active) for node in graph(specs)] + \
        [_of_run(spec, active, records[spec.results_dir]) for spec in specs]


def _records_of(folder: str) -> dict[str, Record]:
    """The last record of every run, one of success before one of failure."""
    found = load_records(folder)[0]
    return {record.run_key: record for record in [*(r for r in found if r.status != "ok"),
                                                  *(r for r in found if r.status == "ok")]}


def _of_stage(node: Node, store: Store, active: set[str] | None) -> Standing:
    recipe, asked = node.stage.recipe, registered(node.spec.launcher, node.key)
    job, state = asked.get("job", ""), store.state(node.stage.recipe)
    label = f"{node.stage.name}: {node.stage.label}"
    if state == "cached":
        artefact = store.find(recipe)
        built_at = artefact.manifest["built_at"] if artefact else ""
        ours = bool(asked) and built_at >= asked["submitted"]
        return Standing(label, node.key, "done" if ours else "cached", job if ours else "", built_at)
    facts = store.status(recipe)
    if state == "running":
        return Standing(label, node.key, state, job, f"on {facts.get('host', '?')} since {facts.get('when', '?')}")
    if state == "failed":
        return Standing(label, node.key, state, job, last_line(facts.get("message", "")))
    if not asked:
        return Standing(label, node.key, "missing")
    return Standing(label, node.key, _waiting_or_lost(job, active), job, _progress(node, asked["folder"]))


def _of_run(spec: RunSpec, active: set[str] | None, records: dict[str, Record]) -> Standing:
    key = run_key(Run(spec))
    asked = registered(spec.launcher, key)
    job = asked.get("job", "")
    label = f"edit: {label_of(spec)}, {spec.edit.mask}" if spec.edit.mask else f"run: {label_of(spec)}"
    record = records.get(key)
    if record and record.status == "ok":
        return Standing(label, key, "done", job)
    if not asked:
        return Standing(label, key, record.status, detail=last_line(record.message)) if record else \
            Standing(label, key, "missing")
    outcome = SweepFolder(Path(asked["folder"])).outcome(key)
    if outcome:
        return Standing(label, key, outcome["status"], job, outcome["record"])
    return Standing(label, key, _waiting_or_lost(job, active), job)


def _waiting_or_lost(job: str, active: set[str] | None) -> str:
    return "lost" if job and active is not None and job not in active else "queued"


def _progress(node: Node, folder: str) -> str:
    if node.stage.work.shards == 1:
        return ""
    states = [SweepFolder(Path(folder)).marks(name).get("state") for name, _ in units_of(node.stage)]
    return f"{states.count('done')} of {len(states)} shards done"


def print_status(specs: Sequence[RunSpec], *, as_json: bool = False) -> None:
    """The table of `status`, and how many stand where; or a list of `Standing`s as JSON."""
    standings = status(specs)
    if as_json:
        print(json.dumps([asdict(standing) for standing in standings], indent=1, allow_nan=False))
        return
    print_table(standings)
    print(counted(standings))


def print_table(standings: Sequence[Standing]) -> None:
    """One row each on standard output."""
    table = Table("stage", "key", "state", "job", "detail", title="status")
    for standing in standings:
        table.add_row(*map(cell, (standing.label, standing.key, standing.state, standing.job, standing.detail)))
    Console(width=160 if not sys.stdout.isatty() else None).print(table)


def counted(standings: Sequence[Standing]) -> str:
    """How many stand where, such as "3 done, 1 failed"."""
    return ", ".join(f"{number} {state}" for state, number in Counter(s.state for s in standings).items())
