"""One metric's measurements of one run, cached by what the metric says it depends on."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import registry, selection
from bench.config import ProtocolConfig, RunSpec
from bench.data.pictures import save_sheet
from bench.errors import InputError
from bench.plugin_code import marked
from bench.provenance import provenance
from bench.records import Measurement, Sheet
from bench.stages.base import Run, Stage
from bench.stages.condition import caption_means_of, condition_of_held_out, given_of, judged_as
from bench.stages.features import JUDGED_FEATURES, REAL_FEATURES, judged_images, real_images
from bench.stages.identity import protocol_id, protocol_values
from bench.stages.likelihood import LIKELIHOOD, PIXEL_METRIC
from bench.stages.models import sampler_of
from bench.stages.prior import PRIOR, held_out_parts, seen_images
from bench.stages.samples import SAMPLES
from bench.stages.tokenizer import TOKENIZER
from bench.stages.tokens import TOKENS
from bench.store import files
from bench.store.store import Artefact, Recipe

if TYPE_CHECKING:
    from bench.data.base import ImageData
    from bench.metrics.base import Evidence, FeatureSide, Metric, Side


@dataclass(frozen=True)
class Measured(Stage):
    """metric: its registered name. Opens as a list of measurements."""

    metric: str = ""
    name = "metric"

    @property
    def title(self) -> str:
        return f"metric {self.metric}"

    def recipe(self, run: Run) -> Recipe:
        """Of samples (for a likelihood, the prior), the reference and parts of the spec; for speed also the machine."""
        metric = metric_of(self.metric)
        versions = {column: info.version for column, info in metric.columns.items()}
        machine = {**provenance()["hardware"], **run.hardware} if getattr(metric, "is_machine_bound", False) else {}
        return recipe_of(run, self.metric, versions,
                         getattr(metric, "depends_on", ("protocol", "metrics.memory_gb")), machine,
                         ignores_samples=getattr(metric, "ignores_samples", False))

    def build(self, run: Run, out: Path, work: Path) -> None:
        sheets: dict[str, Sheet] = {}

        def picture(name: str, tiles: Any, rows: int, columns: int, labels: tuple[str, ...] = ()) -> None:
            sheets[name] = save_sheet(out / f"{name}.png", np.asarray(tiles), rows, columns, tuple(labels))

        evidence = dataclasses.replace(evidence_of(run), workspace=work, picture=picture)
        measurements = metric_of(self.metric)(evidence)
        files.write_json(out / "measurements.json", {"measurements": [dataclasses.asdict(m) for m in measurements],
                                                     "sheets": {k: dataclasses.asdict(s) for k, s in sheets.items()}})

    def open(self, run: Run, artefact: Artefact) -> list[Measurement]:
        stored = json.loads((artefact.path / "measurements.json").read_text())
        return [Measurement(**raw) for raw in stored["measurements"]]


def measure(run: Run, name: str) -> list[Measurement]:
    """One metric's measurements; none where it does not apply, and holes where it is the run's condition that lacks."""
    metric = metric_of(name)
    return run.open(Measured(metric=name)) if metric.applies(evidence_of(run)) else _holes(run, metric)


def _holes(run: Run, metric: Metric) -> list[Measurement]:
    conditions, given = getattr(metric, "conditions", ()), run.spec.condition.name
    if run.role != "prior" or not conditions or given in conditions:
        return []
    note = f"only with condition={' or '.join(conditions)}: this run has condition={given}"
    return [Measurement(column, None, protocol_id(run), unit=info.unit, better=info.better, note=note)
            for column, info in metric.columns.items()]


def metric_of(name: str) -> Metric:
    return registry.resolve("metrics", name)()


def recipe_of(run: Run, name: str, versions: dict[str, int], depends_on: tuple[str, ...], machine: dict[str, Any], *,
              ignores_samples: bool = False) -> Recipe:
    """The recipe of a metric with these declared dependencies."""
    config: dict[str, Any] = {
        "metric": marked("metrics", name), "versions": versions, "protocol_id": protocol_id(run),
        "settings": {key: _lookup(run.spec, key) for key in depends_on}, "machine": machine}
    of_prior = ignores_samples and run.role == "prior"
    inputs = [run.recipe(PRIOR if of_prior else SAMPLES).key, run.splits.fingerprint]
    if of_prior:
        config["seed"] = run.spec.sampler["seed"]
        if selection.is_apart(run.spec.prior.training):
            config["scored"] = selection.SCORED
        if (guidance := run.spec.sampler.get("guidance", 1)) != 1:   # which has no likelihood
            config["guidance"] = guidance
    else:
        if run.role == "prior" and selection.is_apart(run.spec.prior.training) and "+" in config["metric"]:
            config["scored"] = selection.SCORED   # a plug-in may look at them
        if saw_a_subset(run):   # keys of all other runs stay those of before metrics knew
            config["seen"] = run.spec.prior.training.images
    if name == PIXEL_METRIC and LIKELIHOOD.applies(run):
        inputs.append(run.recipe(LIKELIHOOD).key)
    return Recipe(Measured.name, config, tuple(inputs), Measured.version)


def saw_a_subset(run: Run) -> bool:
    """Whether the prior was trained on some of the training images, known ones."""
    return run.role == "prior" and not run.spec.prior.path and run.spec.prior.training.images is not None


def evidence_of(run: Run) -> Evidence:
    """All a metric may look at, each part made when it is asked for."""
    import torch

    from bench.metrics.base import Evidence

    spec, is_prior, given = run.spec, run.role == "prior", given_of(run)

    def images(side: Side) -> ImageData:
        return {"fake": judged_images, "real": real_images}[side](run) if side in ("fake", "real") \
            else getattr(run.splits, side)

    def features(side: FeatureSide) -> np.ndarray:
        if side not in ("fake", "real"):
            raise InputError(f"features of '{side}': only the judged (fake) and the protocol's real images have them.")
        return run.open(JUDGED_FEATURES if side == "fake" else REAL_FEATURES)

    def held_out_tokens() -> Any:
        return torch.from_numpy(run.open(TOKENS)[1][held_out_parts(run)[1]])

    return Evidence(
        role=run.role, protocol=spec.protocol, protocol_id=protocol_id(run), settings=spec.metrics, speed=spec.speed,
        images=images, features=features, validation_tokens=held_out_tokens,
        scored=held_out_parts(run)[1] if is_prior and selection.is_apart(spec.prior.training) else None,
        workspace=Path(), caches=run.store.root.parent / "metric-caches",
        prior=run.open(PRIOR) if is_prior else None, tokenizer=run.open(TOKENIZER) if run.uses_tokenizer else None,
        likelihood=run.open(LIKELIHOOD) if LIKELIHOOD.applies(run) else None,
        condition=condition_of_held_out(run) if is_prior else None, judged_as=judged_as(run),
        labels=given.labels if given else None, captions=given.captions if given else None,
        caption_means=caption_means_of(run), real_indices=run.real_indices,
        seen=seen_images(run) if saw_a_subset(run) else None,
        sampler=sampler_of(run) if is_prior else None, device=run.device, seed=spec.sampler["seed"],
        progress=run.announce,
        fingerprints={"train": run.splits.fingerprint + ":train",
                      "validation": run.splits.fingerprint + ":validation", "fake": run.recipe(SAMPLES).key})


def _lookup(spec: RunSpec, key: str) -> Any:
    value: Any = spec
    for part in key.split("."):
        value = getattr(value, part)
    if isinstance(value, ProtocolConfig):
        return protocol_values(value)
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
