"""Where runs are worked on: in this process, in processes of this machine, or as jobs of a SLURM cluster.

    python -m bench.run prior=absorbing,autoregressive sampler.steps=8,16 launcher=slurm
    python -m bench.run ... launcher=slurm launcher.wait=false        # returns once the jobs are in the queue
    python -m bench.run ... status=true                               # where every stage of the sweep stands

A sweep is a graph of stages: a stage that several runs share is built once, sampling and features are split into
`sampling.shards` jobs, and each run ends in a job that measures. What is finished, running or failed is read from the
store's files, so it is known after the terminal that submitted it has gone, and without the scheduler's accounting.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.config import RunSpec
from bench.errors import InputError, did_you_mean
from bench.launch import local as launch_local
from bench.launch import slurm as launch_slurm
from bench.launch.graph import sweep_folder
from bench.launch.jobs import run_or_record_failure
from bench.launch.pace import Pace
from bench.plugin_code import what_changed
from bench.printable import cell
from bench.records import Record
from bench.stages.base import Run
from bench.stages.chain import planned
from bench.store.store import Store

LAUNCHERS = ("debug", "local", "slurm")


def launch(specs: Sequence[RunSpec], *, console: Any) -> list[Record]:
    """Work on every run and return the records in order; those of failed runs say why.

    With launcher.wait=false the list is empty: the jobs go on by themselves.
    Raises InputError if a run's input is wrong; the other runs are finished first.
    """
    if not specs:
        return []
    check_launcher(specs)
    launcher = specs[0].launcher
    if launcher.name != "debug":
        announce_changed_code(specs, console)
    if launcher.name == "slurm":
        return launch_slurm.launch(specs, sweep_folder(launcher), console)
    if launcher.name == "local":
        return launch_local.launch(specs, sweep_folder(launcher), console)
    return _in_this_process(specs, console)


def check_launcher(specs: Sequence[RunSpec]) -> None:
    """Raise InputError, before anything is fetched, if runs cannot be launched as they ask for."""
    launchers = [spec.launcher for spec in specs]
    for launcher in launchers:
        if launcher.name not in LAUNCHERS:
            raise InputError(f"launcher={launcher.name}: {did_you_mean(launcher.name, LAUNCHERS)}")
        if launcher != launchers[0]:
            raise InputError("launcher.* differs between the runs of one sweep: start one sweep for each setting.")
    if launchers and launchers[0].name == "slurm":
        launch_slurm.check(specs)


def announce_changed_code(specs: Sequence[RunSpec], console: Any) -> None:
    """Say which plug-ins were edited, where jobs will build: their own words go to logs."""
    store = Store()
    for stage in {stage.key: stage for spec in specs for stage in planned(Run(spec))}.values():
        if store.state(stage.recipe) != "cached" and (reason := what_changed(stage.recipe, store.artefacts())):
            console.print(f"{reason} {stage.label}", markup=False, highlight=False, soft_wrap=True)


def _in_this_process(specs: Sequence[RunSpec], console: Any) -> list[Record]:
    if not specs[0].launcher.wait:
        raise InputError("launcher.wait=false: launcher=debug works in this process, there is nothing to leave alone. "
                         "Use launcher=local or launcher=slurm.")
    records, wrong_inputs = [], []
    pace = Pace(specs, say=lambda text: console.print(cell(text, "bold"), soft_wrap=True))
    for spec in specs:
        pace.begin()
        try:
            records.append(run_or_record_failure(spec, passing=InputError))
        except InputError as error:
            wrong_inputs.append(error)
        pace.end()
    if wrong_inputs:
        raise wrong_inputs[0]
    return records
