"""The timed part of `bench.speed claims`: several samplers of trained priors, in turn, in one process.

    priors = load(sides, store, "cpu")
    measurements, conditions = time_in_turn(sides, priors, options)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from bench import registry
from bench.errors import InputError
from bench.metrics.columns import COLUMNS
from bench.metrics.speed import take_turns, threads
from bench.provenance import provenance
from bench.records import Measurement, save_record
from bench.reporting.rows import Row, gather
from bench.reporting.speeds import pair_of, was_timed
from bench.schema import schema_of
from bench.store.store import Artefact, Store
from bench.timing.claims import Options, Side, distinct, median_measurement, record_of, sides_of, stage_of
from priors.base import Draws, Unsupported


def compare_speeds(options: Options, say: Callable[[str], None], *, store: Store | None = None) -> int:
    """Time both sides of every group that has them, and save a record of each; the exit code.

    A pair with a condition, or whose weights are not in the store, is named and left out. Raises InputError where
    there is nothing to compare, or no pair has its weights.
    """
    pairs = [(group, pair) for group in gather(options.results_dir, datasets=options.dataset).groups
             if (pair := pair_of(group)) and _is_unconditional(pair, say)]
    if not pairs:
        raise InputError(f"results_dir={options.results_dir}: no prior at half its steps beside an autoregressive one "
                         "on the same tokenizer and backbone. Make them: python -m bench.run "
                         "prior=absorbing,autoregressive sampler.steps=32")
    contests = distinct([sides_of(group, pair) for group, pair in pairs
                         if not (options.missing and was_timed(group, Path(options.results_dir)))])
    if not contests:
        say(f"nothing to do: records in {options.results_dir} tell every speed; without missing=true it is timed again")
        return 0
    store = store or Store()
    for sides, priors in _loaded(contests, store, options.device, say):
        say(f"timing {'; '.join(side.label for side in sides)} ...")
        measurements, conditions = time_in_turn(sides, priors, options)
        record = record_of(sides, measurements, conditions, options)
        save_record(record, options.results_dir)
        for m in measurements:
            say(f"  {sides[m.extra['side']].label}: {m.value:.4g} {m.unit}, batch {m.extra['batch']} "
                f"({min(m.extra['rounds']):.4g} - {max(m.extra['rounds']):.4g})")
        say(f"written: {Path(options.results_dir) / 'records' / record.id}.json")
    return 0


def _is_unconditional(pair: tuple[Row, Row], say: Callable[[str], None]) -> bool:
    """The claims, as the paper's, are about priors without a condition."""
    if any("condition" in record.spec for row in pair for record in row.records):
        say(f"left out: {pair[0].label} against {pair[1].label} have a condition; the claims are about priors without")
        return False
    return True


def _loaded(contests: Sequence[list[Side]], store: Store, device: str,
            say: Callable[[str], None]) -> list[tuple[list[Side], dict[str, Any]]]:
    """Those that can be timed, with their priors: what is missing is told before any is. InputError if none is left."""
    found, errors = [], []
    for sides in contests:
        try:
            found.append((sides, load(sides, store, device)))
        except InputError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    for missing in errors:
        say(f"left out: {missing}")
    return found


def load(sides: Sequence[Side], store: Store, device: str) -> dict[str, Any]:
    """Key of the weights -> the prior, ready to sample. Raises InputError for weights that are not in the store."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device={device}: torch sees no CUDA device here. Use device=cpu.")
    priors: dict[str, Any] = {}
    for side in sides:
        if side.prior not in priors:
            priors[side.prior] = _prior(side, find(side, store), device)
    return priors


def find(side: Side, store: Store) -> Artefact:
    """The weights that the record names."""
    found = next((a for a in store.artefacts() if a.manifest["stage"] == "prior" and a.key == side.prior), None)
    if found is None or not store.is_sound(found):
        raise InputError(f"{side.record.label}: its weights, prior {side.prior}, are not in {store.root}. Speeds are "
                         f"those of trained priors: run record {side.record.id} again here, or set "
                         "VQ_PRIOR_BENCH_CACHE to the cache it was made with.")
    return found


def time_in_turn(sides: Sequence[Side], priors: dict[str, Any], options: Options) \
        -> tuple[list[Measurement], dict[str, Any]]:
    """Every side at batch 1 and at its own best batch, round by round; and the conditions they share.

    Raises InputError for a side that cannot sample.
    """
    with threads(options.threads):
        conditions = conditions_of(priors[sides[0].prior], options.device)
        samplings = {index: Sampling(priors[side.prior], _sampler(side), options.device)
                     for index, side in enumerate(sides)}
        try:
            best = {index: best_batch(sampling, options) for index, sampling in samplings.items()}
            methods = {f"{index} {batch}": samplings[index].of(batch) for index in samplings
                       for batch in dict.fromkeys((1, best[index]))}
            laps = take_turns(methods, rounds=options.rounds, warmup=1, device=options.device)
        except Unsupported as error:
            raise InputError(f"a side of the comparison cannot sample: {error}") from error
    measurements = []
    for index in samplings:
        for metric, batch in (("seconds_per_image", 1), ("images_per_second", best[index])):
            wall = laps[f"{index} {batch}"].wall
            rounds = [s / batch for s in wall] if metric == "seconds_per_image" else [batch / s for s in wall]
            measurements.append(median_measurement(metric, index, batch, rounds, COLUMNS[metric].unit, conditions))
    return measurements, conditions


class Sampling:
    """A prior with a sampler. Every call has draws of its own, the n-th call the same ones for every side."""

    def __init__(self, prior: Any, sampler: Any, device: str):
        self.prior, self.sampler, self.device = prior, sampler, device

    def of(self, batch: int) -> Callable[[], Any]:
        calls = 0

        def sample() -> Any:
            nonlocal calls
            calls += 1
            draws = Draws.seeded("speed in turn", batch, calls, device=self.device)
            self.prior.sample(batch, sampler=self.sampler, draws=draws)

        return sample


def best_batch(sampling: Sampling, options: Options) -> int:
    """The batch with the most images a second, by the better of two warmed samplings that are judged nowhere else."""
    methods = {str(batch): sampling.of(batch) for batch in options.batches}
    laps = take_turns(methods, rounds=2, warmup=1, device=options.device)
    return max(options.batches, key=lambda batch: batch / min(laps[str(batch)].wall))


def conditions_of(prior: Any, device: str) -> dict[str, Any]:
    """What a wall-clock number means nothing without; equal for all sides by construction."""
    dtype = next((str(p.dtype) for p in prior.parameters()), "") if isinstance(prior, torch.nn.Module) else ""
    return {"device": torch.cuda.get_device_name(device) if device.startswith("cuda") else
            provenance()["hardware"]["cpu"], "dtype": dtype.removeprefix("torch."),
            "threads": torch.get_num_threads(), "compiled": hasattr(prior, "_orig_mod"), "warmup": 1}


def _prior(side: Side, artefact: Artefact, device: str) -> Any:
    """An untrained one of the record's sizes with the stored weights."""
    stage, spec = stage_of(side.record), side.record.spec
    cls = registry.resolve("priors", stage.entry)
    try:
        options = schema_of(stage, "priors")[0](**stage.options)
        grid, codes = _tokens_of(spec)
        prior = cls(grid=grid, codebook_size=codes, options=options)
        prior.load_state_dict(load_file(artefact.path / "model.safetensors"))
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"{side.record.label}: its weights {side.prior} do not fit the prior of its record: "
                         f"{' '.join(str(error).split())[:300]}. Run record {side.record.id} again.") from error
    return prior.to(device).eval().requires_grad_(False)


def _tokens_of(spec: dict[str, Any]) -> tuple[tuple[int, int], int]:
    """Grid and codebook size of the tokenizer that a record describes."""
    from bench.config.models import TokenizerConfig

    raw = spec.get("vq", {})
    stage = TokenizerConfig(name=str(raw.get("name", "")), target=raw.get("target"), schema=raw.get("schema"),
                            options=dict(raw.get("options", {})))
    cls = registry.resolve("tokenizers", stage.entry)
    options = schema_of(stage, "tokenizers")[0](**stage.options)
    tokenizer = cls(options=options, resolution=int(spec["dataset"]["resolution"]))
    height, width = tokenizer.grid
    return (height, width), tokenizer.codebook_size


def _sampler(side: Side) -> Any:
    cls = schema_of(stage_of(side.record), "priors")[1]
    return cls(**side.sampler) if cls else None
