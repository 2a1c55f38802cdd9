"""Build again what exists already: `rebuild=prior` of `python -m bench.run`. Torch-free.

    wanted, rest = split_off(["prior=absorbing", "rebuild=prior,fid"])
    ask_anew(runs, wanted, Store())

A stage (or a metric, by its name) and whatever depends on it, in this run and in any other that shares the store, is
marked as to be built anew. What was there stays on disk until the new one takes its place, and the marks stay until
then: after an interruption the command without `rebuild` goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.compose import Request
from bench.errors import InputError, did_you_mean
from bench.records import Record
from bench.stages.base import Run
from bench.stages.chain import METRICS, NAMES, planned
from bench.stages.features import Features
from bench.stages.identity import protocol_id
from bench.stages.measurements import Measured
from bench.store.store import Artefact, Recipe, Store

OPTION = "rebuild"


def split_off(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names that `rebuild=` lists, and the other arguments."""
    values = [text.partition("=")[2] for text in arguments if text.partition("=")[:2] == (OPTION, "=")]
    rest = [text for text in arguments if text.partition("=")[0] != OPTION or "=" not in text]
    names = [name.strip(" '\"") for value in values[-1:] for name in value.strip("[] ").split(",")]
    if values and not all(names):
        raise InputError(f"{OPTION}={values[-1]}: expected stages or metrics, such as {OPTION}=prior or "
                         f"{OPTION}=samples,fid.")
    return names, rest


def check_names(runs: Sequence[Request], wanted: Sequence[str]) -> None:
    """Raise InputError unless every name is a stage or a metric of one of these runs."""
    if not wanted:
        return
    there = set().union(*(_names(run) for run in runs))
    for name in wanted:
        if name not in there:
            raise InputError(f"{OPTION}={name}: " + (
                f"no run of this command has that stage. Valid here: {', '.join(sorted(there))}."
                if name in NAMES else did_you_mean(name, there)))


def ask_anew(runs: Sequence[Request], wanted: Sequence[str], store: Store) -> list[Artefact]:
    """Mark the named stages and metrics, and what depends on them; returns the artefacts that were marked."""
    every, chosen, chains = list(store.artefacts()), set[str](), dict[str, Recipe]()
    for run in (Run(request.spec) for request in runs if not request.unsupported):
        chain = {stage.key: stage.recipe for stage in planned(run)}
        chains |= chain
        chosen |= {key for key, recipe in chain.items() if recipe.stage in wanted}
        names = [name for name in run.spec.metrics.names if name in wanted or METRICS in wanted]
        chosen |= {a.key for a in every if _measures(a, chain, protocol_id(run), names, whole=Features.name in wanted)}
    chosen = dependents(chosen, every) | dependents(chosen, chains.values())
    for recipe in chains.values():
        if recipe.key in chosen and not store.is_asked_anew(recipe):
            store.drop_work(recipe)   # begun with what is now to be replaced
    found = [artefact for artefact in every if artefact.key in chosen]
    for artefact in found:
        store.ask_anew(artefact)
    return found


def dependents(keys: set[str], of: Iterable[Artefact | Recipe]) -> set[str]:
    """These keys, and those of everything that is made of them, directly or not."""
    inputs = {item.key: _inputs(item) for item in of}
    found = set(keys)
    while more := {key for key, needs in inputs.items() if key not in found and needs & found}:
        found |= more
    return found


def concerns(run: Request, wanted: Sequence[str]) -> bool:
    """Whether the run has one of these stages or metrics."""
    return bool(wanted) and not _names(run).isdisjoint(wanted)


def settled(records: Iterable[Record], store: Store) -> list[Record]:
    """Those made of nothing that is still to be built anew."""
    marked = store.keys_asked_anew()
    return [record for record in records if marked.isdisjoint(
        made.get("key") for made in record.provenance.get("artefacts", {}).values())]


def _names(run: Request) -> set[str]:
    """The stages and metrics of a run."""
    if run.unsupported:
        return set()
    return {METRICS, *run.spec.metrics.names, *(stage.name for stage in planned(Run(run.spec)))}


def _inputs(item: Artefact | Recipe) -> set[str]:
    """Features and edits name what they are of in their configuration."""
    config = item.config if isinstance(item, Recipe) else item.manifest["config"]
    inputs = item.inputs if isinstance(item, Recipe) else item.manifest["inputs"]
    return {*inputs, *(config.get(name) for name in ("samples", "edits") if isinstance(config.get(name), str))}


def _measures(artefact: Artefact, chain: dict[str, Recipe], protocol: str, names: Sequence[str], *,
              whole: bool) -> bool:
    """Whether it holds one of these metrics of this run; whole: or any under its protocol, which shares features."""
    config = artefact.manifest["config"]
    if artefact.manifest["stage"] != Measured.name or config.get("protocol_id") != protocol:
        return False
    name = str(config.get("metric"))
    is_named = any(name == known or name.startswith(f"{known}+") for known in names)
    return whole or is_named and bool(set(artefact.manifest["inputs"]) & chain.keys())
