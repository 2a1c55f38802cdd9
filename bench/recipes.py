"""What every stage of a run depends on: the recipes whose hashes are the artefacts' keys. Torch-free.

    recipes = Recipes(spec)
    recipes.prior().key
    for stage in recipes.stages(): print(stage.label, store.state(stage.recipe))
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench import assets, registry
from bench.config import ProtocolConfig, RunSpec, StageConfig, TrainingConfig
from bench.data.arrays import spread_indices
from bench.data.base import Splits
from bench.errors import InputError
from bench.foreign import OWN_SOURCES, ForeignSamples, look_at
from bench.metrics.extractor_names import folder_of, weights_of
from bench.plugin_code import marked
from bench.provenance import sha256_of
from bench.records import Role, content_id
from bench.store import Recipe

# Raised whenever a stage's code changes what comes out of it.
VERSIONS = {"tokenizer": 1, "likelihood": 1, "tokens": 1, "prior": 1, "samples": 1, "features": 1, "metric": 1}
FEATURE_CHUNK = 250   # images whose features are saved together: the unit of resuming and of sharding
NESTED_SEED = 20260
"""Of the one draw behind every subset of training images."""
PIXEL_METRIC = "pixel_nll"   # the one metric that needs the tokenizer's pixel likelihood
Judged = Literal["fake", "real"]


@dataclass(frozen=True)
class Stage:
    """One step of a run. shards: how many jobs share its work; work: its size in `unit`, for estimates."""

    recipe: Recipe
    inputs: tuple[Recipe, ...]
    label: str
    shards: int = 1
    work: int = 0
    unit: str = ""

    @property
    def name(self) -> str:
        return self.recipe.stage


class Recipes:
    """The recipes of one run. Opening the data set is the only work done here, and only when a key is asked for."""

    def __init__(self, spec: RunSpec):
        self.spec = spec

    @cached_property
    def splits(self) -> Splits:
        """The data set, opened (and downloaded, where it has a pinned public source)."""
        config = self.spec.dataset
        dataset = registry.resolve("datasets", config.target or config.name)()
        dataset.check(config)
        splits = dataset.open(config)
        if not len(splits.train) or not len(splits.validation):
            raise InputError(f"dataset={config.name} has {len(splits.train)} training and {len(splits.validation)} "
                             "validation images: both splits need at least one.")
        mark = marked("datasets", config.target or config.name)
        if "+" in mark:   # a plug-in's code reads the pixels
            splits = dataclasses.replace(splits, fingerprint=f"{splits.fingerprint} {mark}")
        return splits

    @property
    def role(self) -> Role:
        return self.spec.source if self.spec.source in OWN_SOURCES else "source"   # type: ignore[return-value]

    @property
    def uses_tokenizer(self) -> bool:
        return self.role in ("prior", "reconstruction")

    def tokenizer(self) -> Recipe:
        return self._model_recipe("tokenizer", self.spec.vq, (self.splits.fingerprint,),
                                  {"resolution": self.spec.dataset.resolution, "flip": self.spec.dataset.flip})

    @property
    def uses_likelihood(self) -> bool:
        """Whether a metric asks for the pixel likelihood of a tokenizer that has one."""
        return (self.role == "prior" and PIXEL_METRIC in self.spec.metrics.names
                and bool(self.spec.vq.options.get("likelihood_head")))

    def likelihood(self) -> Recipe:
        """The tokenizer's fine-tuned likelihood head, which tokens, priors and samples do not depend on."""
        config = {"bits": self.spec.metrics.pixel_bits, "training": _training(self.spec.vq.likelihood),
                  "seed": self.spec.seed}
        return Recipe("likelihood", config, (self.tokenizer().key, self.splits.fingerprint), VERSIONS["likelihood"])

    def tokens(self) -> Recipe:
        imported = {}
        if folder := self.spec.vq.tokens:
            files = [Path(folder) / f"{split}.npy" for split in ("train", "validation")]
            if absent := [str(file) for file in files if not file.is_file()]:
                raise InputError(f"vq.tokens={folder}: {' and '.join(absent)} missing; expected train.npy and "
                                 "validation.npy of (images, tokens) integers.")
            imported = {"imported": [sha256_of(file) for file in files]}
        return Recipe("tokens", imported, (self.tokenizer().key, self.splits.fingerprint), VERSIONS["tokens"])

    def prior(self) -> Recipe:
        images, whole = self.spec.prior.training.images, len(self.splits.train)
        if images is not None and images > whole:
            raise InputError(f"prior.training.images={images}: {self.spec.dataset.name} has {whole} training images. "
                             "Give at most that many, or null for all.")
        return self._model_recipe("prior", self.spec.prior, (self.tokens().key,), {})

    @cached_property
    def prior_indices(self) -> np.ndarray:
        """Which training images' grids the prior sees."""
        return nested_indices(len(self.splits.train), self.spec.prior.training.images)

    @cached_property
    def foreign(self) -> ForeignSamples:
        """The samples from elsewhere that `source` names."""
        return look_at(self.spec.source, self.spec.dataset, num=self.spec.protocol.num_fake)

    def samples(self) -> Recipe:
        """The images to be judged, whatever their source."""
        config: dict[str, Any] = {"source": self.role, "num": self.num_fake}
        inputs: tuple[str, ...]
        if self.role == "prior":
            config |= {"sampler": self.spec.sampler, "chunk": self.spec.sampling.chunk}
            inputs = (self.prior().key, self.tokenizer().key)
        elif self.role == "reconstruction":
            inputs = (self.tokenizer().key, self.splits.fingerprint)
        elif self.role == "real":
            inputs = (self.splits.fingerprint,)
        else:
            config["of"] = self.foreign.total   # which of them are judged is spread over all
            inputs = (self.foreign.sha256, str(self.spec.dataset.resolution), self.spec.dataset.resize)
        return Recipe("samples", config, inputs, VERSIONS["samples"])

    def features(self, side: Judged) -> Recipe:
        protocol = self.spec.protocol
        if side == "fake":
            source: dict[str, Any] = {"samples": self.samples().key}
        else:
            source = {"split": protocol.real_split, "num": len(self.real_indices),
                      "fingerprint": self.splits.fingerprint}
        return Recipe("features", {"extractor": self.extractor, **source}, (), VERSIONS["features"])

    def metric(self, name: str, versions: dict[str, int], depends_on: tuple[str, ...], machine: dict[str, Any], *,
               ignores_samples: bool = False) -> Recipe:
        """A metric depends on samples (a likelihood on the prior), the reference and parts of the spec that it names.

        Speed depends on the machine too.
        """
        config = {"metric": marked("metrics", name), "versions": versions, "protocol_id": self.protocol_id,
                  "settings": {key: _lookup(self.spec, key) for key in depends_on}, "machine": machine}
        of_prior = ignores_samples and self.role == "prior"
        inputs = [self.prior().key if of_prior else self.samples().key, self.splits.fingerprint]
        if of_prior:
            config["seed"] = self.spec.sampler["seed"]
        if name == PIXEL_METRIC and self.uses_likelihood:
            inputs.append(self.likelihood().key)
        return Recipe("metric", config, tuple(inputs), VERSIONS["metric"])

    @property
    def num_fake(self) -> int:
        """Real and reconstructed images are held-out ones, of which there may be fewer than samples asked for."""
        asked = self.spec.protocol.num_fake
        return asked if self.role in ("prior", "source") else min(asked, len(self.splits.validation))

    @cached_property
    def real_indices(self) -> np.ndarray:
        """Which images of the reference split stand for the real ones."""
        split = self.splits.train if self.spec.protocol.real_split == "train" else self.splits.validation
        return spread_indices(len(split), self.spec.protocol.num_real)

    @cached_property
    def extractor(self) -> str:
        """The extractor's name, with the hash of its weights where the name does not settle them.

        It does for the published Inception and for torchvision's own weights (their file names carry a hash); it does
        not for a file of the user's, or for a plug-in, which can state `weights` on its class; a plug-in's code is
        marked as well.
        """
        name = self.spec.protocol.extractor
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

    @cached_property
    def protocol_id(self) -> str:
        """Equal only if everything that makes two numbers comparable is: protocol, data, resize, extractor."""
        return f"{self.spec.protocol.name}-{content_id(self.protocol_details)[:8]}"

    @cached_property
    def protocol_details(self) -> dict[str, Any]:
        """What the protocol id stands for, for the record."""
        data, net = self.spec.dataset, self.spec.protocol.neighbours_net
        return {**_protocol(self.spec.protocol), "extractor": self.extractor, "dataset": data.name,
                "neighbours_net": net + assets.weights_mark(f"lpips-{net}"),
                "resolution": data.resolution, "resize": data.resize, "num_real": len(self.real_indices),
                "reference_fingerprint": self.splits.fingerprint, "image_format": "uint8 arrays, never compressed"}

    @cached_property
    def run_key(self) -> str:
        """Hash of what the run measures."""
        measured = {"metrics": dataclasses.asdict(self.spec.metrics), "speed": dataclasses.asdict(self.spec.speed)}
        if PIXEL_METRIC not in self.spec.metrics.names:   # keys stay those of before there was one
            del measured["metrics"]["pixel_bits"]
        likelihood = [self.likelihood().key] if self.uses_likelihood else []
        plugins = [mark for name in self.spec.metrics.names if "+" in (mark := marked("metrics", name))]
        return content_id([self.samples().key, self.protocol_id, measured, *likelihood, *plugins])

    @cached_property
    def plugins(self) -> list[str]:
        """The names of all that comes from elsewhere, with the marks of their code, for the record."""
        spec = self.spec
        used = [("datasets", spec.dataset.target or spec.dataset.name), ("extractors", spec.protocol.extractor),
                *(("metrics", name) for name in spec.metrics.names)]
        used += [("tokenizers", spec.vq.target or spec.vq.name)] if self.uses_tokenizer else []
        used += [("priors", spec.prior.target or spec.prior.name)] if self.role == "prior" else []
        known = [marked(kind, name) for kind, name in used
                 if not (name.startswith("torchvision:") or kind == "extractors" and folder_of(name))]
        return [mark for mark in known if "+" in mark]

    def stages(self) -> list[Stage]:
        """Every stage before the metrics, in the order they are built."""
        chain: list[Stage] = []
        if self.uses_tokenizer:
            training = self.spec.vq.training
            steps = 0 if self.spec.vq.path else training.steps
            chain.append(Stage(self.tokenizer(), (), f"tokenizer {self.spec.vq.name}", work=steps, unit="steps"))
        if self.role == "prior":
            images = len(self.splits.train) + len(self.splits.validation)
            chain.append(Stage(self.tokens(), (self.tokenizer(),), f"tokens of {images:,} images", work=images,
                               unit="images"))
            steps = 0 if self.spec.prior.path else self.spec.prior.training.steps
            chain.append(Stage(self.prior(), (self.tokens(),), f"prior {self.spec.prior.name}", work=steps,
                               unit="steps"))
        if self.uses_likelihood:
            chain.append(Stage(self.likelihood(), (self.tokenizer(),), "pixel likelihood",
                               work=self.spec.vq.likelihood.steps, unit="steps"))
        judged = f"{self.num_fake:,}{f' of {self.foreign.total:,}' if self.role == 'source' else ''}"
        samples_inputs = {"prior": (self.prior, self.tokenizer), "reconstruction": (self.tokenizer,)}.get(self.role, ())
        chain.append(Stage(self.samples(), tuple(recipe() for recipe in samples_inputs),
                           f"{judged} images ({self.role})",
                           self._shards(self.num_fake, self.spec.sampling.chunk), self.num_fake, "images"))
        chain.append(Stage(self.features("real"), (), f"features of {len(self.real_indices):,} real images",
                           self._shards(len(self.real_indices), FEATURE_CHUNK), len(self.real_indices), "images"))
        chain.append(Stage(self.features("fake"), (self.samples(),), f"features of {self.num_fake:,} images",
                           self._shards(self.num_fake, FEATURE_CHUNK), self.num_fake, "images"))
        return chain

    def _shards(self, num_images: int, chunk: int) -> int:
        """No more than there are chunks: a shard without work would still be a job."""
        return min(self.spec.sampling.shards, -(-num_images // chunk))

    def _model_recipe(self, stage: str, config: StageConfig, inputs: tuple[str, ...], more: dict[str, Any]) -> Recipe:
        kind = "tokenizers" if stage == "tokenizer" else "priors"
        identity = {"class": marked(kind, config.target or config.name), "options": config.options, **more}
        if config.path:
            path = Path(config.path)
            if not path.exists():
                section = "vq" if stage == "tokenizer" else "prior"
                raise InputError(f"{section}.path={config.path}: no such file. Give the path of a checkpoint, or leave "
                                 f"{section}.path out to train one.")
            recipe = {**identity, "imported": sha256_of(path), "layout": config.layout}
        else:
            recipe = {**identity, "training": _training(config.training), "seed": self.spec.seed}
        return Recipe(stage, recipe, inputs, VERSIONS[stage])


def _training(config: TrainingConfig) -> dict[str, Any]:
    """What of a training budget changes the weights."""
    training = dataclasses.asdict(config)
    for name in ("checkpoint_every", "log_every"):
        training.pop(name)
    # Keys stay those of before there were subsets and trajectories.
    if training.get("images", 0) is None:
        del training["images"]
    if training.get("measure_at") == "none":
        for name in ("measure_at", "measure_images", "measure_budget", "patience"):
            del training[name]
    return training


def nested_indices(total: int, num: int | None) -> np.ndarray:
    """`num` of 0..total-1 in ascending order, drawn evenly (all for None); of two numbers the smaller's lie inside.

    The draw is always the same: a training seed changes what is made of the images, not which they are.
    """
    if num is None or num >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(NESTED_SEED).permutation(total)[:num])


def _protocol(config: ProtocolConfig) -> dict[str, Any]:
    """What of a protocol moves numbers: statistics computed elsewhere by their content."""
    values = dataclasses.asdict(config)
    if config.reference is None:   # keys stay those of before there were any
        del values["reference"]
        return values
    return values | {"reference": sha256_of(Path(config.reference))}


def _lookup(spec: RunSpec, key: str) -> Any:
    value: Any = spec
    for part in key.split("."):
        value = getattr(value, part)
    if isinstance(value, ProtocolConfig):
        return _protocol(value)
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
