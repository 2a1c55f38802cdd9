"""Run benchmarks: whatever is missing is built, whatever exists is reused.

    python -m bench.run prior=absorbing dataset=cifar10 sampler.steps=8,16,32,64
    python -m bench.run prior=absorbing,autoregressive,unigram preset=demo
    python -m bench.run prior=absorbing preset=demo plan=true          # what would be built, and stop
    python -m bench.run prior=absorbing preset=demo status=true        # where every stage stands, and stop
    python -m bench.run prior=absorbing preset=demo rebuild=prior      # that stage (or metric) and what follows, anew

Exit codes: 0 done, 1 something failed while working (what was finished is kept), 2 the input was wrong, 130 Ctrl-C.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import rebuild
from bench.baselines import with_baselines
from bench.command import run_command
from bench.compose import Request, expand
from bench.data.foreign import as_written
from bench.errors import InputError
from bench.labels import label_as_asked
from bench.launch.launch import launch
from bench.launch.status import print_status
from bench.needs import assets_of, check_checkpoints, check_data, check_own_files, have_assets
from bench.printable import cell, last_line, one_line
from bench.provenance import utc_now
from bench.records import Record, Sweep, load_records, save_sweep
from bench.stages.base import Run
from bench.stages.chain import Planned, planned
from bench.stages.identity import run_key
from bench.store.store import Store

COLUMNS = ("fid", "kid", "precision", "recall", "density", "coverage", "bits_per_token", "seconds_per_image",
           "network_evaluations", "token_forwards")


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    return run_command(arguments, doc=__doc__, work=run_all, needs_arguments=True,
                       kept="what was finished is kept, the same command goes on from here.")


def run_all(arguments: list[str]) -> int:
    """What the arguments ask for: a plan, a status, or the runs themselves."""
    console = Console(stderr=True)
    say = lambda text: console.print(cell(text), soft_wrap=True)   # noqa: E731
    wanted, rest = rebuild.split_off(arguments)
    runs = with_baselines(expand(rest, announce=say))
    check_data([run.spec for run in runs], announce=say)
    check_own_files(run.spec for run in runs if not run.unsupported)
    rebuild.check_names(runs, wanted)
    if wanted and any(run.spec.plan or run.spec.status for run in runs):
        raise InputError("rebuild= marks what is to be built anew, plan=true and status=true only look. Leave one out.")
    if any(run.spec.plan for run in runs):
        return print_plan(runs)
    if any(run.spec.status for run in runs):
        print_status([run.spec for run in runs if not run.unsupported])
        return 0
    records = execute(runs, " ".join(["python -m bench.run", *arguments]), console, anew=wanted)
    print_summary(records)
    return 1 if any(record.status == "failed" for record in records) else 0


def execute(runs: list[Request], command: str, console: Console, *, anew: Sequence[str] = ()) -> list[Record]:
    """Write the sweep's manifest, launch what has no record yet, and return all its records in order.

    anew: stages and metrics to build again, and with them the records.
    """
    keys = [run_key(Run(run.spec)) if not run.unsupported else "" for run in runs]
    cells = [{"run_key": key, "label": label_as_asked(run.spec, run.overrides), "overrides": list(run.overrides),
              "spec": as_written(run.spec), "unsupported": run.unsupported}
             for key, run in zip(keys, runs, strict=True)]
    results_dir = runs[0].spec.results_dir
    save_sweep(Sweep(id=uuid.uuid4().hex[:12], created=utc_now(), command=command, cells=tuple(cells)), results_dir)
    if anew:
        marked = rebuild.ask_anew(runs, anew, Store())
        console.print(f"rebuild={','.join(anew)}: {len(marked)} artefacts are built anew; each is kept until then.",
                      highlight=False)
    again = {key for key, run in zip(keys, runs, strict=True) if rebuild.concerns(run, anew)}
    records, damaged = load_records(results_dir)
    for path, problem in damaged:
        console.print(cell(f"damaged, skipped: {path}: {problem}", "red"), soft_wrap=True)
    done = {record.run_key: record for record in rebuild.settled(records, Store())
            if record.status == "ok" and record.run_key not in again}
    missing = [run for key, run in zip(keys, runs, strict=True) if not run.unsupported and not (
        key in done and run.spec.label in (None, done[key].spec.get("label")))]   # a new label is a new record
    have_assets(assets_of(run.spec for run in missing))
    check_checkpoints([run.spec for run in missing])
    if not missing:
        console.print(cell(f"nothing to do: all {len(set(keys) - {''})} runs have their records in {results_dir}."))
    fresh = launch([run.spec for run in missing], console=console)
    found = done | {record.run_key: record for record in fresh}
    unsupported = [_unsupported(run) for run in runs if run.unsupported]
    return [found[key] for key in dict.fromkeys(keys) if key in found] + unsupported


def print_plan(runs: list[Request]) -> int:
    """Every stage once, with its state and an estimate from what similar ones took here."""
    store, table = Store(), Table("stage", "key", "state", "work", "estimate", title="plan")
    seen: set[str] = set()
    for run in runs:
        if run.unsupported:
            table.add_row(cell(label_as_asked(run.spec, run.overrides)), "", "unsupported", "", cell(run.unsupported))
            continue
        for stage in planned(Run(run.spec)):
            if stage.key not in seen:
                seen.add(stage.key)
                state = store.state(stage.recipe)
                estimate = "" if state == "cached" else estimated_cost(store, stage)
                table.add_row(cell(stage.label), stage.key,
                              "cached" if state == "cached" else f"to build ({state})",
                              f"{stage.work.amount:,} {stage.work.unit}", estimate)
    Console(width=140 if not sys.stdout.isatty() else None).print(table)
    print(f"{len(runs)} runs; nothing was built.")
    return 0


def estimated_cost(store: Store, stage: Planned) -> str:
    """Seconds, from the artefact of the same stage and model built here whose amount of work is nearest."""
    similar = []
    for artefact in store.artefacts():
        manifest = artefact.manifest
        if manifest["stage"] == stage.name and _model_of(manifest["config"]) == _model_of(stage.recipe.config):
            work = _work_of(manifest["config"])
            if work:
                similar.append((abs(work - stage.work.amount), manifest["wall_seconds"] / work))
    if not similar:
        return "unknown until one was built here"
    return f"about {min(similar)[1] * stage.work.amount:.0f} s"


def print_summary(records: list[Record]) -> None:
    """One row a run on standard output."""
    table = Table("run", "status", *COLUMNS)
    for record in records:
        values = {m.metric: m for m in record.measurements}
        table.add_row(cell(record.label), record.status, *(_cell(values.get(column)) for column in COLUMNS))
    Console(width=200 if not sys.stdout.isatty() else None).print(table)
    for record in records:
        if record.message:
            print(f"{one_line(record.label)}: {record.status}: {last_line(record.message)}")
    if records:
        results_dir = records[0].spec.get("results_dir", "results/runs")
        option = "" if results_dir == "results/runs" else f" results_dir={one_line(results_dir)}"
        print(f"{len(records)} records in {one_line(results_dir)}; tables and figures: python -m bench.report{option}")


def _cell(measurement: Any) -> str:
    if measurement is None or measurement.value is None:
        return "-"
    return f"{'<= ' if measurement.bound == 'upper' else ''}{measurement.value:.4g}"


def _unsupported(run: Request) -> Record:
    from bench.pipeline import failed_record
    label = label_as_asked(run.spec, run.overrides)
    return failed_record(run.spec, label, InputError(run.unsupported), status="unsupported")


def _model_of(config: dict[str, Any]) -> Any:
    options = config.get("options", {})
    sizes = {k: options.get(k) for k in ("width", "num_layers", "channels", "embedding_dim")}
    return config.get("class"), config.get("source"), sizes, config.get("sampler"), config.get("extractor")


def _work_of(config: dict[str, Any]) -> int:
    return config.get("training", {}).get("steps", 0) or config.get("num", 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
