"""What makes two numbers comparable, and what a run measures: the ids of protocols and runs. Torch-free."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from bench import registry, selection
from bench.assets import cache as assets
from bench.config import ORDERED_METRIC, ProtocolConfig
from bench.data import encoder_files
from bench.metrics.extractor_names import folder_of, weights_of
from bench.plugin_code import marked
from bench.provenance import content_id, sha256_of
from bench.schema import schema_of
from bench.stages.base import Run, once
from bench.stages.completions import COMPLETIONS
from bench.stages.condition import protocol_of_condition
from bench.stages.likelihood import LIKELIHOOD, PIXEL_METRIC
from bench.stages.samples import SAMPLES

OF_EDITS = ("extractor", "dataset", "resolution", "resize", "reference_fingerprint", "num_real", "real_split",
            "neighbours_net", "neighbours_resolution")   # of a protocol's details, those an edit depends on

LIKELIHOODS = ("nll", ORDERED_METRIC, PIXEL_METRIC, "condition_information")   # of the held-out images that score


@once
def extractor_of(run: Run) -> str:
    """The extractor's name, with the hash of its weights where the name does not settle them.

    It does for the published Inception and for torchvision's own weights (their file names carry a hash); it does
    not for a file of the user's, or for a plug-in, which can state `weights` on its class; a plug-in's code is
    marked as well.
    """
    name = run.spec.protocol.extractor
    path = Path(name.split(":", 2)[-1])
    if name.count(":") > 1 and path.is_file():
        return f"{name}@{sha256_of(path)[:16]}"
    if name == "inception-v3-compat":
        return name + assets.weights_mark("inception")
    if name.startswith("torchvision:"):
        return name
    if folder := folder_of(name):   # known by its weights, wherever they lie
        return f"{name.partition(':')[0]}@{weights_of(folder)[:16]}"
    weights = getattr(registry.resolve("extractors", name), "weights", None)
    return marked("extractors", name) + (f"@{weights[:16]}" if isinstance(weights, str) else "")


@once
def protocol_details(run: Run) -> dict[str, Any]:
    """What the protocol id stands for, for the record."""
    data, net = run.spec.dataset, run.spec.protocol.neighbours_net
    details = {**protocol_values(run.spec.protocol), "extractor": extractor_of(run), "dataset": data.name,
            "neighbours_net": net + assets.weights_mark(f"lpips-{net}"),
            "resolution": data.resolution, "resize": data.resize, "num_real": len(run.real_indices),
            "reference_fingerprint": run.splits.fingerprint, "image_format": "uint8 arrays, never compressed",
            **protocol_of_condition(run)}
    return {**{key: details[key] for key in OF_EDITS}, **_of_edit(run)} if run.is_edit else details


def _of_edit(run: Run) -> dict[str, Any]:
    """What two completions share beside OF_EDITS; under a condition each has that of the image it completes."""
    told = {key: {**value, "sampled": "the completed image"} for key, value in protocol_of_condition(run).items()}
    return {"name": run.spec.edit.protocol_name, "mask": run.spec.edit.mask, "images": run.num_fake,
            "grid": _grid_of(run), "version": COMPLETIONS.version, **told}


def _grid_of(run: Run) -> tuple[int, ...]:
    """Of the run's tokenizer, in tokens; torch is imported only where its Options cannot tell."""
    options = schema_of(run.spec.vq, "tokenizers")[0](**run.spec.vq.options)
    from vq.base import KnowsGrid
    if isinstance(options, KnowsGrid):
        return tuple(options.grid(run.spec.dataset.resolution))
    from bench.stages.tokenizer_fit import constructed
    return tuple(constructed(run).grid)


def protocol_values(config: ProtocolConfig) -> dict[str, Any]:
    """What of a protocol moves numbers: statistics computed elsewhere, and a CLIP, by their content."""
    values = dataclasses.asdict(config)
    for key, identity in (("reference", sha256_of), ("clip", _clip)):
        if values[key] is None:   # keys stay those of before there were any
            del values[key]
        else:
            values[key] = identity(Path(values[key]).expanduser())
    return values


def _clip(folder: Path) -> str:
    encoder_files.check_clip(folder)
    return encoder_files.identity_of(folder)


@once
def protocol_id(run: Run) -> str:
    """Equal only if everything that makes two numbers comparable is: protocol, data, resize, extractor."""
    details = protocol_details(run)
    return f"{details['name']}-{content_id(details)[:8]}"


def may_score(metric: str) -> bool:
    """Whether a metric looks at the held-out images that score likelihoods, as one from elsewhere may."""
    return metric in LIKELIHOODS or "+" in marked("metrics", metric)


@once
def run_key(run: Run) -> str:
    """Hash of what the run measures."""
    spec = run.spec
    if run.is_edit:   # what is measured of completions is always the same
        return content_id([run.recipe(COMPLETIONS).key, protocol_id(run)])
    measured = {"metrics": dataclasses.asdict(spec.metrics), "speed": dataclasses.asdict(spec.speed)}
    if PIXEL_METRIC not in spec.metrics.names:   # keys stay those of before there was one
        del measured["metrics"]["pixel_bits"]
    if ORDERED_METRIC not in spec.metrics.names:   # likewise
        del measured["metrics"]["orders"]
    likelihood = [run.recipe(LIKELIHOOD).key] if LIKELIHOOD.applies(run) else []
    if run.role == "prior" and selection.is_apart(spec.prior.training) and any(map(may_score, spec.metrics.names)):
        likelihood.append(selection.SCORED)
    plugins = [mark for name in spec.metrics.names if "+" in (mark := marked("metrics", name))]
    return content_id([run.recipe(SAMPLES).key, protocol_id(run), measured, *likelihood, *plugins])


def plugins_of(run: Run) -> list[str]:
    """The names of all that comes from elsewhere, with the marks of their code, for the record."""
    spec = run.spec
    used = [("datasets", spec.dataset.entry), ("extractors", spec.protocol.extractor),
            *(("metrics", name) for name in spec.metrics.names)]
    used += [("tokenizers", spec.vq.entry)] if run.uses_tokenizer else []
    used += [("priors", spec.prior.entry)] if run.role == "prior" else []
    known = [marked(kind, name) for kind, name in used
             if not (name.startswith("torchvision:") or kind == "extractors" and folder_of(name))]
    return [mark for mark in known if "+" in mark]
