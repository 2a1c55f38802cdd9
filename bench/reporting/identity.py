"""What makes two runs the same row of a report: everything but their seeds, and but where their files lie.

    row_key("prior", "absorbing", spec)        # equal for two sampling seeds, different for two temperatures
"""

from __future__ import annotations

import json
from typing import Any

from bench.records import Record

PARTS = {"prior": ("dataset", "vq", "prior", "condition", "sampler", "sampling", "protocol"),
         "source": ("dataset", "protocol"),
         "edit": ("dataset", "vq", "prior", "condition", "sampler", "sampling", "protocol"),
         "reconstruction": ("dataset", "vq", "protocol"), "real": ("dataset", "protocol")}
"""Which parts of the configuration a row of each role depends on."""
ONE_STEP_A_TOKEN = ("absorbing", "block_diffusion")
"""Priors that, left to themselves, are trained with as many steps as an image has tokens (T = N)."""
IGNORED = {"dataset.path", "dataset.default_preset", "sampler.seed", "prior.seed", "sampling.shards",
           "vq.schema", "prior.schema", "prior.recipe",   # a name for options that stand beside it
           *(f"{stage}.training.{key}" for stage in ("vq", "prior") for key in ("checkpoint_every", "log_every"))}
LATER = {"prior.training.images": None, "prior.training.measure_order": None, "protocol.reference": None,
         "protocol.clip": None,
         "prior.training.selection": "shared", "prior.training.measure_at": "none"}
"""Options that older records lack, and the value that does what was done before there was such."""
MEASURED_SO = tuple(f"prior.training.{key}" for key in ("measure_images", "measure_budget", "patience"))
UNTOLD = object()
SEEDS = 2**32
"""What every seed is below (bench.config.SEED_MOST)."""


def row_key(role: str, label: str, spec: dict[str, Any]) -> str:
    """Equal for two runs that differ in seeds alone. Samples from elsewhere are known by their content.

    In records made before there was its hash, by their label and path.
    """
    content = (spec.get("source_sha256") or [label, spec.get("source")]) if role == "source" else ""
    return json.dumps([role, content, identity(role, spec)], sort_keys=True, default=str)


def identity(role: str, spec: dict[str, Any]) -> dict[str, Any]:
    """The flat configuration that a row depends on; steps left to their default are the number they come to.

    Without vq.likelihood: it moves bits per dimension and nothing else of a row.
    """
    flat = flatten({part: spec.get(part) or {} for part in PARTS[role]})
    if "sampler.steps" in flat:
        flat["sampler.steps"] = steps_of(spec)
    for later, idle in LATER.items():
        if flat.get(later, UNTOLD) == idle:
            del flat[later]
    if "prior.training.measure_at" not in flat:   # nothing is measured while training: how much of it says nothing
        flat = {key: value for key, value in flat.items() if key not in MEASURED_SO}
    return {key: value for key, value in flat.items() if key not in IGNORED and not key.startswith("vq.likelihood.")}


def tokenizer_of(spec: dict[str, Any]) -> str:
    """Equal for two runs whose tokens mean the same, seeds apart; "" where nothing is tokenized."""
    own = {key: value for key, value in identity("reconstruction", spec).items() if key.startswith("vq.")}
    return json.dumps(own, sort_keys=True, default=str) if own else ""


def role_of(record: Record) -> str:
    """Of a run that failed, what it was to be."""
    source = record.spec.get("source", "prior")
    return str(source) if record.role == "prior" and source in ("real", "reconstruction") else record.role


def steps_of(spec: dict[str, Any]) -> int | None:
    """Diffusion steps: as asked for, or as many as were trained; None without steps and where no one knows."""
    sampler, prior = spec.get("sampler") or {}, spec.get("prior") or {}
    if "steps" not in sampler:
        return None
    asked = sampler["steps"] or prior.get("options", {}).get("timesteps")
    if asked is None and prior.get("name") in ONE_STEP_A_TOKEN:
        return num_tokens(spec)
    return int(asked) if asked else None


def num_tokens(spec: dict[str, Any]) -> int | None:
    """Tokens an image, where the tokenizer halves the resolution once for every level after the first."""
    levels = (spec.get("vq") or {}).get("options", {}).get("channel_multipliers")
    resolution = (spec.get("dataset") or {}).get("resolution")
    return (int(resolution) // 2 ** (len(levels) - 1)) ** 2 if levels and resolution else None


def seeds_of(spec: dict[str, Any]) -> tuple[int, int]:
    """(training seed, sampling seed); images that nothing here trained or drew have none: (0, 0).

    A prior seeded apart from its tokenizer is a training of its own, numbered above all seeds, which are below SEEDS.
    """
    source = spec.get("source", "prior")
    if source not in ("prior", "reconstruction"):
        return 0, 0
    training, of_prior = int(spec.get("seed") or 0), (spec.get("prior") or {}).get("seed")
    if source == "prior" and of_prior is not None and of_prior != training:
        training += SEEDS * (int(of_prior) + 1)
    return training, int((spec.get("sampler") or {}).get("seed") or 0)


def dataset_of(spec: dict[str, Any]) -> str:
    return str((spec.get("dataset") or {}).get("name", "unknown data set"))


def condition_of(spec: dict[str, Any]) -> str:
    """What the run's samples were drawn for: "class" or "text"; "" for nothing."""
    name = str((spec.get("condition") or {}).get("name") or "none")
    return "" if name == "none" else name


def protocol_name_of(spec: dict[str, Any]) -> str:
    return str((spec.get("protocol") or {}).get("name", "unknown protocol"))


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
