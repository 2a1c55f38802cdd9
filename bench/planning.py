"""What a command would build, and how long that took before: `plan=true`, and `bench.plan` from Python. Torch-free.

    plan("prior=absorbing", preset="demo")          # a table, one row a stage
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from bench.baselines import with_baselines
from bench.compose import Request, expand
from bench.door import split_off
from bench.labels import label_as_asked
from bench.printable import cell
from bench.progress import duration
from bench.stages.base import Run
from bench.stages.chain import planned
from bench.stages.durations import estimated_seconds
from bench.store.store import Store
from bench.words import arguments_of


@dataclass(frozen=True)
class Step:
    """One stage of a plan, or a run that cannot be.

    state: "cached", "unsupported", or what the store says of one that is to be built ("missing", "running", ...).
    work, unit: how much there is to do.  seconds: what it will take by what took how long here, None where unknown.
    note: why a run is unsupported.
    """

    stage: str
    key: str
    state: str
    work: int | None = None
    unit: str = ""
    seconds: float | None = None
    note: str = ""


def plan(*texts: str, **keys: Any) -> pd.DataFrame:
    """What these runs would build, one row a stage: stage, key, state, work, unit, seconds, note (see `Step`).

    Arguments are those of `bench.run`. seconds: an estimate from the nearest one built here, NaN where there is none
    and for what is cached. Nothing is built. Raises InputError if anything asked for is wrong.
    """
    steps = steps_of(with_baselines(expand(split_off(arguments_of(texts, keys))[1], announce=lambda text: None)))
    table = pd.DataFrame(steps, columns=list(Step.__dataclass_fields__))
    return table.astype({"work": "Int64", "seconds": "float64"})


def steps_of(runs: Sequence[Request]) -> list[Step]:
    """Every stage of these runs once, in the order they are built."""
    store, steps = Store(), dict[str, Step]()
    built = list(store.artefacts())
    for number, run in enumerate(runs):
        if run.unsupported:
            label = label_as_asked(run.spec, run.overrides)
            steps[f"unsupported {number}"] = Step(label, "", "unsupported", note=run.unsupported)
            continue
        for stage in planned(Run(run.spec)):
            if stage.key not in steps:
                state = store.state(stage.recipe)
                steps[stage.key] = Step(stage.label, stage.key, state, stage.work.amount, stage.work.unit,
                                        None if state == "cached" else estimated_seconds(built, stage))
    return list(steps.values())


def print_plan(runs: Sequence[Request], *, as_json: bool = False) -> int:
    """The table (or a list of `Step`s as JSON) on standard output; returns the exit code."""
    if as_json:
        print(json.dumps([asdict(step) for step in steps_of(runs)], indent=1, allow_nan=False))
        return 0
    table, steps = Table("stage", "key", "state", "work", "estimate", title="plan"), steps_of(runs)
    for step in steps:
        if step.state == "unsupported":
            table.add_row(cell(step.stage), "", "unsupported", "", cell(step.note))
            continue
        estimate = "unknown until one was built here" if step.seconds is None else f"about {duration(step.seconds)}"
        cached = step.state == "cached"
        table.add_row(cell(step.stage), step.key, "cached" if cached else f"to build ({step.state})",
                      f"{step.work:,} {step.unit}", "" if cached else estimate)
    Console(width=140 if not sys.stdout.isatty() else None).print(table)
    print(f"{len(runs)} runs; nothing was built. {total_of(steps)}")
    return 0


def total_of(steps: Sequence[Step]) -> str:
    """How much there is to build before anything is measured."""
    missing = [step for step in steps if step.state not in ("cached", "unsupported")]
    known = [step.seconds for step in missing if step.seconds is not None]
    if not missing:
        return "All stages are there; what is left is to measure."
    told = [f"{len(known)} in about {duration(sum(known))}"] if known else []
    told += [f"{len(missing) - len(known)} unknown until one was built here"] if len(known) < len(missing) else []
    return f"To build before measuring: {len(missing)} stages, {', '.join(told)}."
