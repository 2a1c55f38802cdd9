"""Run benchmarks: whatever is missing is built, whatever exists is reused.

    python -m bench.run prior=absorbing dataset=cifar10 sampler.steps=8,16,32,64
    python -m bench.run prior=absorbing,autoregressive,unigram preset=demo
    python -m bench.run prior=absorbing preset=demo plan=true          # what would be built, and stop
    python -m bench.run prior=absorbing preset=demo status=true        # where every stage stands, and stop
    python -m bench.run prior=absorbing preset=demo rebuild=prior      # that stage (or metric) and what follows, anew
    python -m bench.run keys=true                                      # every key: type, default, range, what it is
    python -m bench.run prior=absorbing --help                         # the keys of that prior and its sampler
    python -m bench.run list=priors                                    # or datasets, metrics, tokenizers, presets, ...
    python -m bench.run config=sweep.yaml sampler.steps=8              # keys from a file (config_out= writes one)

json=true prints plan, status or summary as JSON and nothing else on standard output.

Exit codes: 0 done, 1 something failed while working (what was finished is kept), 2 the input was wrong, 130 Ctrl-C.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from typing import Any

import pandas as pd
from rich.console import Console

from bench import rebuild
from bench.baselines import with_baselines
from bench.callable_module import CallableModule
from bench.command import run_command
from bench.compose import Request, expand
from bench.data.foreign import as_written
from bench.door import HELP, Door, keep, split_off
from bench.errors import InputError
from bench.face import tidy
from bench.keys import print_keys, sections, sections_of
from bench.labels import label_as_asked
from bench.launch.launch import check_launcher, launch
from bench.launch.status import print_status
from bench.listing import print_entries
from bench.needs import assets_of, check_present, prepare
from bench.planning import print_plan
from bench.printable import cell, one_line
from bench.provenance import utc_now
from bench.records import Record, Sweep, load_records, save_sweep
from bench.stages.base import Run
from bench.stages.identity import run_key
from bench.store.store import Store
from bench.summary import print_summary, summaries_of
from bench.words import arguments_of


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    if len(arguments) > 1:   # `--help prior=absorbing` is about that prior
        arguments = sorted(arguments, key=lambda text: text in HELP)
    return run_command(arguments, doc=__doc__, work=run_all, needs_arguments=True,
                       kept="what was finished is kept, the same command goes on from here.")


def run(*texts: str, **keys: Any) -> pd.DataFrame:
    """Build what is missing, measure, keep the records, and return every number, one a row (see `bench.face.tidy`).

        bench.run("prior=absorbing,autoregressive", preset="smoke", dataset="digits")
        bench.run(prior="absorbing", sampler={"steps": (8, 16)}, metrics={"names": ["fid", "nll"]})

    texts: as typed after `python -m bench.run`; keys: names and values, nested or dotted, where a tuple is swept over
    and a list is one value. `python -m bench.run keys=true` prints all of them.
    The table holds the rows of this call alone, reused records and the real and reconstructed baselines included; a run
    that failed or cannot be is a row without a metric. Progress is printed.
    Raises InputError (a ValueError) if anything asked for is wrong, before anything is built.
    """
    arguments = arguments_of(texts, keys)
    console = Console(stderr=True)
    door, rest = split_off(arguments)
    if door != Door(config=door.config):
        raise InputError("keys=, list=, json= and config_out= print or write: from Python, bench.run returns a table.")
    runs, wanted = asked(rest, console)
    if any(run.spec.plan or run.spec.status for run in runs):
        raise InputError("plan=true and status=true print tables: from Python, ask bench.plan(...) for one.")
    return tidy(execute(runs, " ".join(["bench.run", *arguments]), console, anew=wanted))


def run_all(arguments: list[str]) -> int:
    """What the arguments ask for: a list, a plan, a status, or the runs themselves."""
    console = Console(stderr=True)
    door, rest = split_off(arguments)
    if door.keys or door.help or door.list:
        return print_reference(door, rest)
    try:
        runs, wanted = asked(rest, console)
    except InputError as error:
        if not door.config:
            raise
        raise InputError(f"{error} (Some keys are those of config={door.config}.)") from None
    if wanted and any(run.spec.plan or run.spec.status for run in runs):
        raise InputError("rebuild= marks what is to be built anew, plan=true and status=true only look. Leave one out.")
    command, began = " ".join(["python -m bench.run", *arguments]), utc_now()
    if door.config_out:
        keep(door.config_out, rebuild.split_off(rest)[1], command=one_line(command))
    if any(run.spec.plan for run in runs):
        return print_plan(runs, as_json=door.json)
    if any(run.spec.status for run in runs):
        print_status([run.spec for run in runs if not run.unsupported], as_json=door.json)
        return 0
    with redirect_stdout(sys.stderr) if door.json else nullcontext():
        records = execute(runs, command, console, anew=wanted)
    if door.json:
        print(json.dumps(summaries_of(records), indent=1, allow_nan=False))
    else:
        print_summary(records, since=began)
    return 1 if any(record.status == "failed" for record in records) else 0


def asked(arguments: Sequence[str], console: Console) -> tuple[list[Request], list[str]]:
    """The runs that the arguments ask for, checked as far as can be before anything is built, and what to rebuild."""
    say = lambda text: console.print(cell(text), soft_wrap=True)   # noqa: E731
    wanted, rest = rebuild.split_off(arguments)
    runs = with_baselines(expand(rest, announce=say))
    check_present([run.spec for run in runs if not run.unsupported], announce=say)
    rebuild.check_names(runs, wanted)
    return runs, wanted


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
    check_launcher([run.spec for run in missing])
    prepare([run.spec for run in missing], assets_of(run.spec for run in missing))
    if not missing:
        console.print(cell(f"nothing to do: all {len(set(keys) - {''})} runs have their records in {results_dir}."))
    fresh = launch([run.spec for run in missing], console=console)
    found = done | {record.run_key: record for record in fresh}
    unsupported = [_unsupported(run) for run in runs if run.unsupported]
    return [found[key] for key in dict.fromkeys(keys) if key in found] + unsupported


def print_reference(door: Door, rest: list[str]) -> int:
    """What there is: of a kind, or which keys, of all or of the models that the other arguments choose."""
    if door.list:
        if rest:
            raise InputError(f"{' '.join(rest)} beside list={door.list}: the list is the same for all runs. Leave one "
                             "of them out.")
        return print_entries(door.list, as_json=door.json)
    print_keys(sections(rest) if door.keys else sections_of(rest))
    return 0


def _unsupported(run: Request) -> Record:
    from bench.pipeline import failed_record
    label = label_as_asked(run.spec, run.overrides)
    return failed_record(run.spec, label, InputError(run.unsupported), status="unsupported")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

sys.modules[__name__].__class__ = CallableModule   # bench.run(...) is run(...)
