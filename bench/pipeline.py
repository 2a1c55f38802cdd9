"""A run, stage by stage: tokenizer -> tokens -> prior -> samples -> features -> metrics -> record.

    record = run(spec)                       # builds what is missing, reuses what exists
    build(spec, "prior")                     # one stage and whatever it needs
    build(spec, "samples", shard=3)          # one job's share of a sharded stage

Every stage can be killed at any moment and asked for again.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench import assets, files, registry
from bench.compose import schema_of
from bench.config import RunSpec, StageConfig, TrainingConfig
from bench.data.arrays import ArrayImages, SubsetImages, spread_indices
from bench.data.base import ImageData
from bench.data.tokens import TokenArray, encode_split, import_tokens
from bench.errors import BenchError, InputError
from bench.foreign import OWN_SOURCES, as_written, name_of
from bench.metrics.base import Evidence, Metric, Side
from bench.metrics.features import extract_to, load_features, resolve_extractor
from bench.plugin_code import what_changed
from bench.progress import Bar
from bench.provenance import provenance, utc_now
from bench.recipes import FEATURE_CHUNK, Judged, Recipes
from bench.records import Measurement, Record, Sheet, Status, save_record
from bench.sources import ImageDataSource, PriorSource, ReconstructionSource, Source
from bench.store import Artefact, Recipe, Store
from bench.trainer import PriorTask, flops_of_training, make_fabric, process_device, process_rank, train
from bench.trajectories import Trajectory
from priors.base import Draws

STAGES = ("tokenizer", "tokens", "prior", "likelihood", "samples", "features", "metrics")
TRAINED = ("tokenizer", "prior", "likelihood")
CALIBRATION_IMAGES = 128
Announce = Callable[[str], None]


def run(spec: RunSpec, *, store: Store | None = None, announce: Announce = print) -> Record:
    """Build whatever is missing, measure, and save the record. Raises what went wrong; nothing finished is lost."""
    return Pipeline(spec, store=store, announce=announce).record()


def build(spec: RunSpec, stage: str, *, shard: int | None = None, store: Store | None = None,
          announce: Announce = print) -> None:
    """Build one stage (and any missing input). With a shard, do that job's share of its chunks and no more."""
    pipeline = Pipeline(spec, store=store, announce=announce)
    if stage not in STAGES:
        raise InputError(f"stage '{stage}': expected one of {', '.join(STAGES)}.")
    pipeline.build(stage, shard)


def failed_record(spec: RunSpec, label: str, error: BaseException, *, status: Status = "failed") -> Record:
    """A record that keeps the cell of a run that could not be had, with the reason."""
    message = str(error) if status == "unsupported" else "".join(traceback.format_exception(error))
    now = utc_now()
    return Record(id=f"{status}-{uuid.uuid4().hex[:12]}", created=now, role="prior", label=label,
                  spec=as_written(spec), run_key="", status=status, provenance=dict(provenance()),
                  message=message)


def label_of(spec: RunSpec) -> str:
    """How tables name a row: its `label`, or the prior and what of its sampler differs from the defaults."""
    if spec.label:
        return spec.label
    if spec.source != "prior":
        return spec.source if spec.source in OWN_SOURCES else name_of(spec.source)
    sampler = schema_of(spec.prior, "priors")[1]
    defaults = {field.name: field.default for field in dataclasses.fields(sampler)} if sampler else {}
    changed = [f"{key} {value}" for key, value in spec.sampler.items() if key != "seed" and value != defaults.get(key)]
    return ", ".join([spec.prior.title, *changed])


class Pipeline:
    """The stages of one run as artefacts, each obtained when first asked for."""

    def __init__(self, spec: RunSpec, *, store: Store | None = None, announce: Announce = print):
        self.spec = spec
        self.recipes = Recipes(spec)
        self.store = store or Store()
        self.announce = announce
        self.used: dict[str, Artefact] = {}
        if spec.threads:
            torch.set_num_threads(spec.threads)

    # -- the stages, in reading order --------------------------------------------------------------------------------

    @cached_property
    def tokenizer(self) -> Any:
        """The frozen tokenizer: imported, or trained here."""
        artefact = self._obtain("tokenizer", self.recipes.tokenizer(), self._build_tokenizer)
        return self._load(self._new_tokenizer(), artefact)

    @cached_property
    def tokens(self) -> tuple[TokenArray, TokenArray]:
        """Token grids of the training and of the validation images."""
        artefact = self._obtain("tokens", self.recipes.tokens(), self._build_tokens)
        return TokenArray(artefact.path / "train"), TokenArray(artefact.path / "validation")

    @cached_property
    def prior(self) -> Any:
        """The trained (fitted, imported) prior."""
        artefact = self._obtain("prior", self.recipes.prior(), self._build_prior)
        return self._load(self._new_prior(self.tokenizer), artefact)

    @cached_property
    def likelihood(self) -> Any:
        """The tokenizer with its pixel likelihood fine-tuned; it encodes and decodes as before."""
        artefact = self._obtain("likelihood", self.recipes.likelihood(), self._build_likelihood)
        self._load(self.tokenizer.likelihood_head, artefact)
        return self.tokenizer

    @cached_property
    def samples(self) -> Artefact:
        """images.npy (n, 3, H, W) uint8, and tokens and costs where the source has them."""
        return self._obtain("samples", self.recipes.samples(), self._build_samples)

    def features(self, side: Side) -> np.ndarray:
        """(n, D) float32 memory map of the judged ("fake") or of the protocol's real images."""
        if side not in ("fake", "real"):
            raise InputError(f"features of '{side}': only the judged (fake) and the protocol's real images have them.")
        recipe = self.recipes.features(side)
        artefact = self._obtain(f"features of {side}", recipe, lambda out, work: self._build_features(side, out, work))
        return np.load(artefact.path / "features.npy", mmap_mode="r")

    def measure(self, name: str) -> list[Measurement]:
        """One metric's measurements, cached by what it depends on."""
        metric: Metric = registry.resolve("metrics", name)()
        evidence = self._evidence()
        if not metric.applies(evidence):
            return []
        versions = {column: info.version for column, info in metric.columns.items()}
        depends_on = getattr(metric, "depends_on", ("protocol", "metrics.memory_gb"))
        machine = {**provenance()["hardware"], "device": self.device, "threads": torch.get_num_threads(), **self.gpu}
        recipe = self.recipes.metric(name, versions, depends_on,
                                     machine if getattr(metric, "is_machine_bound", False) else {},
                                     ignores_samples=getattr(metric, "ignores_samples", False))
        artefact = self._obtain(f"metric {name}", recipe, lambda out, work: self._build_metric(metric, out, work))
        stored = json.loads((artefact.path / "measurements.json").read_text())
        return [Measurement(**raw) for raw in stored["measurements"]]

    def record(self) -> Record:
        """Measure everything and save the record with its pictures and curves."""
        began = time.perf_counter()
        measurements = [m for name in self.spec.metrics.names for m in self.measure(name)]
        record_id = f"{self.recipes.run_key}-{uuid.uuid4().hex[:6]}"
        media, curves = self._publish_media(record_id)
        record = Record(
            id=record_id, created=utc_now(), role=self.recipes.role, label=label_of(self.spec),
            spec=as_written(self.spec), run_key=self.recipes.run_key, status="ok",
            measurements=tuple(measurements), media=media, curves=curves,
            provenance={**provenance(), "artefacts": {name: _summary(a) for name, a in self.used.items()},
                        "protocol": self.recipes.protocol_details, "dataset_notes": self.recipes.splits.notes,
                        "parameters": self._parameters(), "sampling": self._sampling_cost(),
                        "regime": self._regime(), "plugins": self.recipes.plugins, **self._foreign(),
                        "holes": [m.metric for m in measurements if m.value is None],
                        "threads": torch.get_num_threads(), "device": self.device, **self.gpu,
                        "wall_seconds": time.perf_counter() - began})
        save_record(record, self.spec.results_dir)
        return record

    def build(self, stage: str, shard: int | None = None, sides: tuple[Judged, ...] = ("real", "fake")) -> None:
        """Make one stage exist (of features, these sides); with a shard, only its share of the chunks."""
        if stage == "samples" and shard is not None:
            self._fill_samples(self.store.work_folder(self.recipes.samples()), shard)
        elif stage == "features" and shard is not None:
            for side in sides:
                recipe = self.recipes.features(side)
                if not self.store.find(recipe):
                    self._fill_features(side, self.store.work_folder(recipe), shard)
        elif stage == "features":
            for side in sides:
                self.features(side)
        elif stage == "metrics":
            self.record()
        else:
            getattr(self, stage)

    def check_imports(self) -> None:
        """Read checkpoints of the user's into untrained models: a wrong one is an InputError before any work."""
        spec, recipes = self.spec, self.recipes
        tokenizer = self._new_tokenizer()
        if spec.vq.path and not self.store.find(recipes.tokenizer()):
            self._imported(tokenizer, spec.vq)
        if spec.prior.path and recipes.role == "prior" and not self.store.find(recipes.prior()):
            self._imported(self._new_prior(tokenizer), spec.prior)

    # -- how each is built -------------------------------------------------------------------------------------------

    def _build_tokenizer(self, out: Path, work: Path) -> None:
        model, config = self._new_tokenizer(), self.spec.vq
        if config.path:
            return _save_model(self._imported(model, config), out)
        perceptual = assets.lpips_model(getattr(model.options, "perceptual_net", "alex")).to(self.device)
        task = model.trainable(perceptual=perceptual, learning_rate=config.training.learning_rate,
                               betas=tuple(config.training.betas))
        self._train_on_images(task, config.training, out, work, "tokenizer", self.recipes.tokenizer())

    def _build_likelihood(self, out: Path, work: Path) -> None:
        config = self.spec.vq.likelihood
        task = self.tokenizer.trainable_likelihood(bits=self.spec.metrics.pixel_bits, betas=tuple(config.betas),
                                                   learning_rate=config.learning_rate)
        self._train_on_images(task, config, out, work, "pixel likelihood", self.recipes.likelihood())

    def _build_tokens(self, out: Path, work: Path) -> None:
        def encode(images: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return self.tokenizer.encode(torch.from_numpy(images).to(self.device)).cpu().numpy()

        for split in ("train", "validation"):
            data: ImageData = getattr(self.recipes.splits, split)
            if self.spec.vq.tokens:
                height, width = self.tokenizer.grid
                import_tokens(Path(self.spec.vq.tokens) / f"{split}.npy", out / split, num_images=len(data),
                              num_tokens=height * width, codebook_size=self.tokenizer.codebook_size)
                continue
            with Bar(f"tokens of {split}", len(data), unit="image") as bar:
                encode_split(encode, data, work / split, codebook_size=self.tokenizer.codebook_size,
                             progress=bar.advance)
            shutil.copytree(work / split, out / split, ignore=shutil.ignore_patterns(".*", "*.sha256"))

    def _build_prior(self, out: Path, work: Path) -> None:
        train_tokens, held_out = self.tokens
        model, config = self._new_prior(self.tokenizer), self.spec.prior
        if config.path:
            _save_model(self._imported(model, config), out)
            return self._calibrate(model, out)
        seen = self.recipes.prior_indices
        fetch = lambda indices: torch.from_numpy(train_tokens[seen[indices]])   # noqa: E731
        if hasattr(model, "fit"):
            model.fit(fetch(chunk) for chunk in _ranges(len(seen), 4096))
            return _save_model(model, out)
        probes = {"validation": _batches(lambda i: held_out[i], len(held_out), config.training),
                  "train": _batches(lambda i: train_tokens[seen[i]], len(seen), config.training)}
        self._train(PriorTask(model, config.training), fetch, config.training, len(seen), probes, out, work,
                    f"prior {config.name}", self.recipes.prior(),
                    measured=self._measured(train_tokens, seen, held_out))
        if process_rank() == 0:
            self._calibrate(model, out)

    def _measured(self, train_tokens: TokenArray, seen: np.ndarray, held_out: TokenArray) \
            -> dict[str, Callable[[], Iterator[Tensor]]] | None:
        """The parts of a trajectory: training images, and held-out ones dealt to the two halves in turn."""
        training = self.spec.prior.training
        if training.measure_at == "none":
            return None
        chosen = spread_indices(len(held_out), training.measure_images)
        parts = {"train": (train_tokens, seen[spread_indices(len(seen), training.measure_images // 2)]),
                 "selection": (held_out, chosen[::2]), "scoring": (held_out, chosen[1::2])}

        def batches(tokens: TokenArray, indices: np.ndarray) -> Callable[[], Iterator[Tensor]]:
            return lambda: (torch.from_numpy(tokens[indices[chunk]]) for chunk in _ranges(len(indices), 100))
        return {part: batches(*found) for part, found in parts.items()}

    def _calibrate(self, model: Any, out: Path) -> None:
        """Let a prior that can measure on held-out tokens what its best step schedule needs; kept with its weights."""
        if not hasattr(model, "calibrate"):
            return
        model.load_state_dict(load_file(out / "model.safetensors", device=self.device))
        held_out = self.tokens[1]
        tokens = torch.from_numpy(held_out[spread_indices(len(held_out), CALIBRATION_IMAGES)]).to(self.device)
        model.eval().calibrate(tokens, draws=Draws.seeded("calibration", self.spec.seed, device=self.device))
        _save_model(model, out)

    def _build_samples(self, out: Path, work: Path) -> None:
        self._fill_samples(work, None)
        paths = [work / f"chunk-{index:06d}.npz" for index in range(len(self._sample_chunks))]
        _concatenate(paths, self.recipes.num_fake, out)

    def _fill_samples(self, work: Path, shard: int | None) -> None:
        if self.store.find(self.recipes.samples()):
            return
        mine = _missing(work, len(self._sample_chunks), shard, self.spec.sampling.shards)
        source = self._source() if mine else None
        with Bar(f"images ({label_of(self.spec)})", len(mine), unit="chunk") as bar:
            for index in mine:
                assert source is not None
                save_chunk(work / f"chunk-{index:06d}.npz", source.chunk(*self._sample_chunks[index]))
                bar.advance()

    def _build_features(self, side: Judged, out: Path, work: Path) -> None:
        self._fill_features(side, work, None)
        np.save(out / "features.npy", load_features(work))

    def _fill_features(self, side: Judged, work: Path, shard: int | None) -> None:
        images, num_jobs = self._images(side), self.spec.sampling.shards
        extractor = resolve_extractor(self.spec.protocol.extractor, device=self.device)
        total = len(images) if shard is None else -(-len(images) // num_jobs)
        with Bar(f"features of {len(images)} {side} images", total, unit="image") as bar:
            extract_to(work, images, extractor, fingerprint=self.recipes.features(side).key, shard_size=FEATURE_CHUNK,
                       batch_size=self.spec.metrics.feature_batch_size, job=shard or 0,
                       num_jobs=1 if shard is None else num_jobs, progress=bar.advance)

    def _build_metric(self, metric: Metric, out: Path, work: Path) -> None:
        sheets: dict[str, Sheet] = {}

        def picture(name: str, tiles: Tensor | np.ndarray, rows: int, columns: int,
                    labels: tuple[str, ...] = ()) -> None:
            sheets[name] = _save_sheet(out / f"{name}.png", np.asarray(tiles), rows, columns, tuple(labels))

        evidence = dataclasses.replace(self._evidence(), workspace=work, picture=picture)
        measurements = metric(evidence)
        files.write_json(out / "measurements.json", {"measurements": [dataclasses.asdict(m) for m in measurements],
                                               "sheets": {k: dataclasses.asdict(s) for k, s in sheets.items()}})

    # -- helpers -----------------------------------------------------------------------------------------------------

    @cached_property
    def device(self) -> str:
        if self.spec.device == "auto":
            return process_device("cuda" if torch.cuda.is_available() else "cpu")
        if self.spec.device.startswith("cuda") and not torch.cuda.is_available():
            raise InputError(f"device={self.spec.device}: torch sees no CUDA device here. Use device=cpu or auto.")
        if self.spec.device.startswith("cuda:") and int(self.spec.device[5:]) >= torch.cuda.device_count():
            raise InputError(f"device={self.spec.device}: torch sees {torch.cuda.device_count()} CUDA devices here, "
                             "numbered from 0. Use one of them, or device=cuda.")
        return process_device(self.spec.device)

    @property
    def gpu(self) -> dict[str, str]:
        """{"gpu": its name} on CUDA, else {}: the name of the CPU stands among the hardware already."""
        return {"gpu": torch.cuda.get_device_name(self.device)} if self.device.startswith("cuda") else {}

    def _obtain(self, name: str, recipe: Recipe, fill: Callable[[Path, Path], None]) -> Artefact:
        if name not in self.used and process_rank() > 0:
            self._help_train(name, recipe, fill)
        if name not in self.used:
            found = self.store.find(recipe)
            if not found and (reason := what_changed(recipe, self.store.artefacts())):
                self.announce(f"{reason} {name}")
            self.announce(f"{'reusing' if found else 'building'} {name} {recipe.key}")
            self.used[name] = self.store.obtain(recipe, fill, announce=self.announce)
        return self.used[name]

    def _help_train(self, name: str, recipe: Recipe, fill: Callable[[Path, Path], None]) -> None:
        """A process that is not the first of its job joins trainings only, and reads what the first one publishes."""
        if name in TRAINED and not self.store.find(recipe):
            with tempfile.TemporaryDirectory() as unused:
                fill(Path(unused), self.store.work_folder(recipe))
        while not self.store.find(recipe):
            time.sleep(0.5)

    def _new_tokenizer(self) -> Any:
        config = self.spec.vq
        cls = registry.resolve("tokenizers", config.target or config.name)
        with _seeded("tokenizer", self.spec.seed):
            return cls(options=schema_of(config, "tokenizers")[0](**config.options),
                       resolution=self.spec.dataset.resolution).to(self.device)

    def _new_prior(self, tokenizer: Any) -> Any:
        config = self.spec.prior
        cls = registry.resolve("priors", config.target or config.name)
        with _seeded("prior", self.spec.seed):
            return cls(grid=tuple(tokenizer.grid), codebook_size=tokenizer.codebook_size,
                       options=schema_of(config, "priors")[0](**config.options)).to(self.device)

    def _load(self, model: Any, artefact: Artefact) -> Any:
        model.load_state_dict(load_file(artefact.path / "model.safetensors", device=self.device))
        return model.to(self.device).eval().requires_grad_(False)

    def _imported(self, model: Any, config: StageConfig) -> Any:
        """The model with a checkpoint of the user's, whose damage is the user's to know about."""
        assert config.path
        section = "vq" if config is self.spec.vq else "prior"
        if config.layout != "native" and not hasattr(model, "load_official"):
            raise InputError(f"{section}.layout={config.layout}: {config.target or config.name} reads no other layout "
                             "than native.")
        try:
            if config.layout != "native":
                return model.load_official(config.path, layout=config.layout)
            state, head = load_file(config.path), _own_head(model)
            model.load_state_dict(state if head.keys() & state.keys() else head | state)
        except (SafetensorError, RuntimeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:600]
            expected = ("the model.safetensors of a run with the same options" if config.layout == "native" else
                        f"a checkpoint of layout {config.layout} and of the sizes that {section}.* and the preset give")
            raise InputError(f"{section}.path={config.path} is not a checkpoint of this model, or is damaged: {reason}."
                             f" Expected {expected}.") from None
        return model

    def _train(self, task: Any, fetch: Callable[[np.ndarray], Any], config: TrainingConfig, num_items: int,
               validation: dict[str, Callable[[], Iterator[Tensor]]], out: Path, work: Path, label: str,
               recipe: Recipe, measured: dict[str, Callable[[], Iterator[Tensor]]] | None = None) -> None:
        if (of_the_first := config.ema_decay ** (config.steps // config.ema_every)) > 0.2:
            self.announce(f"note: {of_the_first:.0%} of the averaged weights will be those of the first steps "
                          f"(ema_decay={config.ema_decay}, ema_every={config.ema_every}, steps={config.steps}); for "
                          "results, lower ema_decay or train longer")
        fabric = make_fabric(config.precision, device=self.device)
        train(task, lambda indices: torch.as_tensor(fetch(indices)), config, num_items=num_items, validation=validation,
              seed=self.spec.seed, work=work, out=out, fabric=fabric, label=label,
              resume_from=self._shorter(recipe, config), measured=measured)

    def _train_on_images(self, task: Any, config: TrainingConfig, out: Path, work: Path, label: str,
                         recipe: Recipe) -> None:
        splits, flip = self.recipes.splits, self.spec.dataset.flip
        held_out = _batches(splits.validation.images, len(splits.validation), config)
        self._train(task, lambda indices: _flipped(splits.train.images(indices), indices, flip), config,
                    len(splits.train), {"validation": held_out}, out, work, label, recipe)

    def _shorter(self, recipe: Recipe, config: TrainingConfig) -> Path | None:
        """The state of the longest finished run of the same series: fewer steps, or as many and another `select`."""
        if config.schedule != "constant" or self.store.is_asked_anew(recipe):
            return None   # a cosine depends on where it ends; anew is from the start
        series = _without_steps(recipe.config)
        found = [(a.manifest["config"]["training"]["steps"], a) for a in self.store.artefacts()
                 if a.manifest["stage"] == recipe.stage and tuple(a.manifest["inputs"]) == recipe.inputs
                 and "training" in a.manifest["config"] and _without_steps(a.manifest["config"]) == series]
        for steps, artefact in sorted(found, key=lambda pair: -pair[0]):
            if steps <= config.steps and (artefact.path / "state.pt").is_file() and self.store.is_sound(artefact):
                return artefact.path / "state.pt"
        return None

    @cached_property
    def _sample_chunks(self) -> list[tuple[int, int]]:
        size = self.spec.sampling.chunk
        return [(int(c[0]), int(c[-1]) + 1) for c in _ranges(self.recipes.num_fake, size)]

    def _source(self) -> Source:
        splits = self.recipes.splits
        if self.recipes.role == "prior":
            sampler = schema_of(self.spec.prior, "priors")[1]
            values = {key: value for key, value in self.spec.sampler.items() if key != "seed"}
            return PriorSource(self.prior, self.tokenizer, sampler(**values) if sampler else None,
                               seed=self.spec.sampler["seed"], chunk=self.spec.sampling.chunk, device=self.device)
        if self.recipes.role == "source":
            return ImageDataSource(self.recipes.foreign.images)
        held_out = SubsetImages(splits.validation, spread_indices(len(splits.validation), self.recipes.num_fake))
        if self.recipes.role == "reconstruction":
            return ReconstructionSource(held_out, self.tokenizer, device=self.device)
        return ImageDataSource(held_out)

    def _images(self, side: str) -> ImageData:
        if side == "fake":
            return ArrayImages(np.load(self.samples.path / "images.npy", mmap_mode="r"))
        splits, split = self.recipes.splits, self.spec.protocol.real_split
        if side == "real":
            return SubsetImages(getattr(splits, split), self.recipes.real_indices)
        return getattr(splits, side)

    def _evidence(self) -> Evidence:
        spec, recipes = self.spec, self.recipes
        needs_prior = recipes.role == "prior"
        sampler = schema_of(spec.prior, "priors")[1] if needs_prior else None
        options = {key: value for key, value in spec.sampler.items() if key != "seed"}

        def images(side: Side) -> ImageData:
            return self._images(side)

        return Evidence(
            role=recipes.role, protocol=spec.protocol, protocol_id=recipes.protocol_id, settings=spec.metrics,
            speed=spec.speed, images=images, features=self.features,
            validation_tokens=lambda: torch.from_numpy(self.tokens[1][np.arange(len(self.tokens[1]))]),
            workspace=Path(), caches=self.store.root.parent / "metric-caches",
            prior=self.prior if needs_prior else None, tokenizer=self.tokenizer if recipes.uses_tokenizer else None,
            likelihood=self.likelihood if recipes.uses_likelihood else None,
            sampler=sampler(**options) if sampler else None, device=self.device,
            seed=spec.sampler["seed"], progress=self.announce,
            fingerprints={"train": recipes.splits.fingerprint + ":train",
                          "validation": recipes.splits.fingerprint + ":validation", "fake": recipes.samples().key})

    def _publish_media(self, record_id: str) -> tuple[dict[str, Sheet], dict[str, str]]:
        folder = Path(self.spec.results_dir) / "media" / record_id
        folder.mkdir(parents=True, exist_ok=True)
        media = {"samples": self._sample_sheet(folder)}
        curves = {}
        for name, artefact in self.used.items():
            if name in TRAINED and (artefact.path / "curves.csv").is_file():
                shutil.copy(artefact.path / "curves.csv", folder / f"{name}.csv")
                curves[name] = f"media/{record_id}/{name}.csv"
            if (artefact.path / "trajectory.npz").is_file():
                shutil.copy(artefact.path / "trajectory.npz", folder / "trajectory.npz")
            if name.startswith("metric "):
                sheets = json.loads((artefact.path / "measurements.json").read_text())["sheets"]
                for key, raw in sheets.items():
                    shutil.copy(artefact.path / f"{key}.png", folder / f"{key}.png")
                    media[key] = Sheet(**{**raw, "tile": tuple(raw["tile"]), "labels": tuple(raw["labels"]),
                                          "path": f"media/{record_id}/{key}.png"})
        return {key: dataclasses.replace(sheet, path=f"media/{record_id}/{Path(sheet.path).name}")
                for key, sheet in media.items()}, curves

    def _sample_sheet(self, folder: Path) -> Sheet:
        images = self._images("fake")
        side = max(1, int(min(64, len(images)) ** 0.5))
        return _save_sheet(folder / "samples.png", images.images(np.arange(side * side)), side, side)

    def _sampling_cost(self) -> dict[str, float]:
        """Tokens an image, and the means of what the judged samples cost, as they were counted when drawn."""
        costs = {name: float(np.load(self.samples.path / f"{name}.npy").mean())
                 for name in ("network_evaluations", "token_forwards")
                 if (self.samples.path / f"{name}.npy").is_file()}
        return costs | ({"num_tokens": float(np.prod(self.tokenizer.grid))} if self.recipes.uses_tokenizer else {})

    def _regime(self) -> dict[str, float]:
        """How often the prior saw how many images, which is what a verdict holds for; {} if not trained in steps."""
        if self.recipes.role != "prior" or self.spec.prior.path or hasattr(self.prior, "fit"):
            return {}
        training, images = self.spec.prior.training, len(self.recipes.prior_indices)
        path = self.used["prior"].path / "trajectory.npz"
        trajectory = Trajectory.load(path) if path.is_file() else None
        steps = trajectory.steps[-1] if trajectory else training.steps   # patience may have ended it early
        presentations = steps * training.batch_size
        tokens = images * float(np.prod(self.tokenizer.grid))
        regime = {"images": images, "presentations": presentations, "passes": presentations / images,
                  "training_flops": presentations * flops_of_training(self.prior),
                  "tokens_per_parameter": tokens / sum(p.numel() for p in self.prior.parameters())}
        if trajectory:
            regime["best_step"] = trajectory.steps[trajectory.best()]
            regime["best_passes"] = regime["best_step"] * training.batch_size / images
        return regime

    def _foreign(self) -> dict[str, Any]:
        """How samples from elsewhere were read."""
        return {"source": self.recipes.foreign.described} if self.recipes.role == "source" else {}

    def _parameters(self) -> dict[str, int]:
        models = {"tokenizer": self.tokenizer} if self.recipes.uses_tokenizer else {}
        if self.recipes.role == "prior":
            models["prior"] = self.prior
        return {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}


def _without_steps(config: dict[str, Any]) -> dict[str, Any]:
    plain = json.loads(json.dumps(config))
    for name in ("steps", "select"):
        plain.get("training", {}).pop(name, None)
    return plain


def _summary(artefact: Artefact) -> dict[str, Any]:
    return {"key": artefact.key, "wall_seconds": artefact.manifest["wall_seconds"],
            "built_at": artefact.manifest["built_at"],
            "git_commit": artefact.manifest["provenance"].get("git_commit")}


def _ranges(total: int, size: int) -> list[np.ndarray]:
    return [np.arange(start, min(start + size, total)) for start in range(0, total, size)]


def _batches(read: Callable[[np.ndarray], Any], total: int, config: TrainingConfig) -> Callable[[], Iterator[Tensor]]:
    """The same few batches every time, spread over the split."""
    def batches() -> Iterator[Tensor]:
        chosen = spread_indices(total, config.batch_size * config.validation_batches)
        for start in range(0, len(chosen), config.batch_size):
            yield torch.as_tensor(read(chosen[start:start + config.batch_size]))
    return batches


def _flipped(images: np.ndarray, indices: np.ndarray, flip: bool) -> np.ndarray:
    """Every other image of a batch mirrored, which ones changing with the batch."""
    if not flip:
        return images
    mirrored = (np.random.default_rng(int(indices.sum())).random(len(images)) < 0.5)[:, None, None, None]
    return np.where(mirrored, images[..., ::-1], images)


def _missing(work: Path, total: int, shard: int | None, shards: int) -> list[int]:
    mine = range(total) if shard is None else range(shard, total, shards)
    return [index for index in mine if not has_chunk(work / f"chunk-{index:06d}.npz")]


def _own_head(model: Any) -> dict[str, Tensor]:
    """The model's fresh likelihood head, for a checkpoint without one: its fine-tuning is a stage of its own."""
    head = getattr(model, "likelihood_head", None)
    inside = [f"{name}." for name, module in model.named_modules() if module is head]
    return {key: value for key, value in model.state_dict().items() if key.startswith(tuple(inside))}


def save_chunk(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with files.keeping(path) as stream:
        np.savez(stream, **arrays)   # type: ignore[arg-type]


def has_chunk(path: Path) -> bool:
    """Whether a finished chunk is there; a damaged one is removed, and said so."""
    return files.read(path, lambda path: True) is not None


def _concatenate(paths: list[Path], total: int, out: Path) -> None:
    """Chunks one after the other into `<name>.npy` files, without holding them all in memory."""
    start, whole = 0, {}
    for path in paths:
        with np.load(path, allow_pickle=False) as chunk:
            for name in chunk.files:
                part = chunk[name]
                if name not in whole:
                    whole[name] = np.lib.format.open_memmap(out / f"{name}.npy", "w+", part.dtype,
                                                            (total, *part.shape[1:]))
                whole[name][start:start + len(part)] = part
            start += len(part)
    if start != total:
        raise BenchError(f"{out.name}: the chunks hold {start} rows, expected {total}.")
    for array in whole.values():
        array.flush()


def _save_model(model: nn.Module, out: Path) -> None:
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()},
              out / "model.safetensors")


def _save_sheet(path: Path, tiles: np.ndarray, rows: int, columns: int, labels: tuple[str, ...] = ()) -> Sheet:
    """(rows * columns, 3, H, W) uint8 as one PNG without margins."""
    count, _, height, width = tiles.shape
    assert count == rows * columns, f"{count} tiles for {rows} x {columns}"
    page = tiles.reshape(rows, columns, 3, height, width).transpose(0, 3, 1, 4, 2)
    Image.fromarray(np.ascontiguousarray(page.reshape(rows * height, columns * width, 3))).save(path)
    return Sheet(path=str(path), rows=rows, columns=columns, tile=(height, width), labels=labels)


@contextmanager
def _seeded(*key: int | str) -> Iterator[None]:
    """Initial weights from the seed alone, leaving torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(Draws.seeded(*key).generator.initial_seed())
        yield
