"""The schema of a run, as dataclasses. The values stand in conf/; bench.compose puts both together.

Nothing in this module imports torch: a wrong option is an error within a second or two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bench.errors import InputError, did_you_mean


@dataclass
class DatasetConfig:
    """Images and their split.

    name: registry name (cifar10, digits, folder, ffhq, churches, bedroom, emoji, fashion_mnist) or package.module:Name.
    path: where the files are; None means the cache, or a download where there is a pinned source.
    resolution: height and width after Resize + CenterCrop, in pixels.
    resize: "antialias" or "plain" bilinear; part of the protocol.
    max_train, max_validation: keep only the first so many of each split (None: all).
    validation_fraction: for folders without a split of their own.
    on_corrupt: "error" or "skip" (skipped files are recorded).
    flip: random horizontal flips while training the tokenizer.
    default_preset: the preset a run of this data set takes when the command names none.
    """

    name: str = "cifar10"
    target: str | None = None
    path: str | None = None
    resolution: int = 32
    resize: str = "antialias"
    max_train: int | None = None
    max_validation: int | None = None
    validation_fraction: float = 0.05
    on_corrupt: str = "error"
    flip: bool = False
    default_preset: str = "small"

    def __post_init__(self) -> None:
        _require(self.resolution >= 1, "dataset.resolution", self.resolution, "a positive number of pixels")
        _one_of("dataset.resize", self.resize, ("antialias", "plain"))
        _one_of("dataset.on_corrupt", self.on_corrupt, ("error", "skip"))
        _require(0 < self.validation_fraction < 1, "dataset.validation_fraction", self.validation_fraction,
                 "a share between 0 and 1")
        for name in ("max_train", "max_validation"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"dataset.{name}", value, "a positive number, or null for all")


@dataclass
class TrainingConfig:
    """One training budget, in steps.

    schedule: "constant" (the paper's; a longer budget continues the same series) or "cosine" (to zero at `steps`).
    ema_decay, ema_every: weights are averaged every so many steps (paper: .995, 10).
    validate_every: steps between validations; checkpoint_every: between resumable checkpoints.
    select: which averaged weights the stage publishes, "best" by validation loss or "latest".
    precision: "float32", "bf16" or "fp16" autocast.
    """

    steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    schedule: str = "constant"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    ema_decay: float = 0.995
    ema_every: int = 10
    validate_every: int = 500
    validation_batches: int = 8
    checkpoint_every: int = 500
    log_every: int = 20
    select: str = "latest"
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "validate_every", "checkpoint_every", "log_every", "ema_every"):
            _require(getattr(self, name) >= 1, f"training.{name}", getattr(self, name), "a whole number of at least 1")
        _require(self.learning_rate > 0, "training.learning_rate", self.learning_rate, "a positive number")
        _require(0 <= self.ema_decay < 1, "training.ema_decay", self.ema_decay, "a number in [0, 1)")
        _one_of("training.schedule", self.schedule, ("constant", "cosine"))
        _one_of("training.select", self.select, ("best", "latest"))
        _one_of("training.precision", self.precision, ("float32", "bf16", "fp16"))


@dataclass
class PriorTrainingConfig(TrainingConfig):
    """images: how many training images the prior sees the grids of (None: all), evenly drawn and nested: the smaller of
    two sets lies inside the larger. Tokenizer, tokens and validation stay those of the whole data set.
    measure_at: "log" measures the averaged weights at log-spaced steps, image by image, on training images and on two
        halves of held-out images; the best point is then chosen on the selection half. "none" measures nothing.
    measure_images: held-out images measured at each point, both halves together, and training images at most.
    measure_budget: network evaluations an image where the likelihood is a sum.
    patience: training ends at the first measured step that is this many times the best one's (None: never earlier).
    """

    images: int | None = None
    measure_at: str = "none"
    measure_images: int = 1000
    measure_budget: int = 8
    patience: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.images is None or self.images >= 1, "prior.training.images", self.images,
                 "a positive number of images, or null for all")
        _one_of("prior.training.measure_at", self.measure_at, ("none", "log"))
        _require(self.measure_images >= 4, "prior.training.measure_images", self.measure_images, "at least 4 images")
        _require(self.measure_budget >= 1, "prior.training.measure_budget", self.measure_budget, "at least 1")
        _require(self.patience is None or self.patience > 1, "prior.training.patience", self.patience,
                 "a factor above 1, or null")
        _require(self.patience is None or self.measure_at != "none", "prior.training.patience", self.patience,
                 "null unless prior.training.measure_at=log, which it looks at")
        _require(self.measure_at == "none" or self.schedule == "constant", "prior.training.schedule", self.schedule,
                 "constant with measure_at=log: a point along a cosine is not the end of a shorter training")


@dataclass
class StageConfig:
    """A tokenizer (`vq`) or a `prior`.

    name: registry name, or "plugin" with target=package.module:Name.
    schema: where Options and Sampler can be had without importing torch, as package.module:Prefix for the classes
        PrefixOptions and PrefixSampler; None asks the class itself.
    path: an imported checkpoint to use instead of training one; layout: "native" (a model.safetensors of ours) or a
        layout that the class's `load_official` knows; what `Options.of_layout` says it implies need not be set.
    options: the fields of the class's own Options dataclass; on the command line they are `vq.<field>` and
        `prior.<field>`, without `options`.
    """

    name: str = ""
    target: str | None = None
    schema: str | None = None
    path: str | None = None
    layout: str = "native"
    options: dict[str, Any] = field(default_factory=dict)
    training: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass
class TokenizerConfig(StageConfig):
    """tokens: a folder with train.npy and validation.npy, (n, N) or (n, h, w) integers computed elsewhere by this very
    tokenizer, in the order of the data set's images; None encodes the data set here.

    likelihood: how its pixel likelihood is fine-tuned where the metric pixel_nll asks for it; tokens and images do not
        depend on it.
    """

    tokens: str | None = None
    likelihood: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass
class PriorConfig(StageConfig):
    """training: with the number of images it may see."""

    training: PriorTrainingConfig = field(default_factory=PriorTrainingConfig)


@dataclass
class SamplingConfig:
    """How many images are drawn, and in what chunks. A chunk is the unit of seed and of the forward batch."""

    chunk: int = 100
    shards: int = 1

    def __post_init__(self) -> None:
        _require(self.chunk >= 1, "sampling.chunk", self.chunk, "at least 1 image")
        _require(self.shards >= 1, "sampling.shards", self.shards, "at least 1")


@dataclass
class ProtocolConfig:
    """What is compared with what (docs: protocols). Equal protocol ids, and only those, may be compared.

    num_fake, num_real: how many images; num_real None means the whole `real_split`.
    real_split: "train" (the paper) or "validation".
    prdc_num, prdc_k: images of each side and neighbours for precision, recall, density, coverage.
    neighbours_queries, neighbours_candidates, neighbours_top_k, neighbours_net: the LPIPS search.
    """

    name: str = "demo"
    extractor: str = "inception-v3-compat"
    num_fake: int = 500
    num_real: int | None = 1000
    real_split: str = "train"
    prdc_num: int = 500
    prdc_k: int = 5
    neighbours_queries: int = 32
    neighbours_candidates: int | None = 10000
    neighbours_top_k: int = 10
    neighbours_net: str = "alex"
    neighbours_resolution: int = 64
    nll_images: int | None = 1000

    def __post_init__(self) -> None:
        _one_of("protocol.real_split", self.real_split, ("train", "validation"))
        _require(self.num_fake >= 2, "protocol.num_fake", self.num_fake, "at least 2 images (a covariance needs two)")
        _require(self.num_real is None or self.num_real >= 2, "protocol.num_real", self.num_real, "at least 2, or null")
        _require(self.prdc_k >= 1, "protocol.prdc_k", self.prdc_k, "at least 1 neighbour")
        _require(self.prdc_num > self.prdc_k, "protocol.prdc_num", self.prdc_num, f"more than prdc_k={self.prdc_k}")


@dataclass
class NllConfig:
    """budget: network evaluations an image for a bound (None: the prior's sum over all steps, as published)."""

    budget: int | None = 64
    batch_size: int = 100


@dataclass
class PrdcConfig:
    """backend: "blocked" (memory-bounded, same output) or "reference" (the prdc package)."""

    backend: str = "blocked"


@dataclass
class MetricsConfig:
    """names: which metrics run.

    memory_gb: what PRDC and the neighbour search may use beyond their input.
    cache_gb: embeddings of a candidate set are kept on disk if they take no more than this, else computed anew.
    pixel_bits: the bit depth of the images whose pixel likelihood is measured (paper: 5), for the metric pixel_nll.
    """

    names: list[str] = field(default_factory=lambda: ["fid", "kid", "prdc", "memorisation", "nll", "speed",
                                                      "neighbours", "reconstruction"])
    memory_gb: float = 2.0
    cache_gb: float = 4.0
    feature_batch_size: int = 50
    pixel_bits: int = 8
    nll: NllConfig = field(default_factory=NllConfig)
    prdc: PrdcConfig = field(default_factory=PrdcConfig)

    def __post_init__(self) -> None:
        _require(1 <= self.pixel_bits <= 8, "metrics.pixel_bits", self.pixel_bits, "1 to 8 bits a channel")


@dataclass
class SpeedConfig:
    """Batch sizes and repetitions of the wall-clock measurement, which are its own and not those of sampling."""

    latency_batch: int = 1
    throughput_batch: int = 32
    rounds: int = 3
    warmup: int = 1
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("latency_batch", "throughput_batch", "rounds"):
            _require(getattr(self, name) >= 1, f"speed.{name}", getattr(self, name), "at least 1")


@dataclass
class ResourcesConfig:
    """What a stage asks of SLURM; minutes is its time limit."""

    gpus: int = 0
    cpus: int = 2
    memory_gb: int = 8
    minutes: int = 60
    nodes: int = 1
    tasks: int = 1


@dataclass
class LauncherConfig:
    """name: local, slurm or debug (in this process)."""

    name: str = "debug"
    partition: str | None = None
    account: str | None = None
    constraint: str | None = None
    qos: str | None = None
    setup: list[str] = field(default_factory=list)
    additional: dict[str, Any] = field(default_factory=dict)
    wait: bool = True
    retries: int = 3
    max_parallel: int = 2
    signal_delay_s: int = 90
    folder: str | None = None
    training: ResourcesConfig = field(default_factory=lambda: ResourcesConfig(minutes=720))
    sampling: ResourcesConfig = field(default_factory=ResourcesConfig)
    features: ResourcesConfig = field(default_factory=ResourcesConfig)
    metrics: ResourcesConfig = field(default_factory=ResourcesConfig)


@dataclass
class BackboneConfig:
    """The transformer every prior shares, so that priors differ in what they model and not in what they model with."""

    width: int = 512
    num_layers: int = 24
    num_heads: int = 8


@dataclass
class RunSpec:
    """Everything one run depends on.

    source: what is judged: "prior" (samples of the prior), "reconstruction" (validation images through the tokenizer),
        "real" (validation images themselves), or the path of a folder, zip or .npz (`theirs.npz:key`) of images from
        elsewhere.
    label: what tables call the row, instead of the name made of its options.
    baselines: also measure the reconstruction and real rows of the same data set, tokenizer and protocol.
    backbone, autoencoder: sizes a preset gives to whatever prior and tokenizer is chosen, where its Options has the
        field; `prior.<field>` and `vq.<field>` go before them.
    seed: of training; sampler["seed"]: of sampling.
    device: "auto" (CUDA where there is any), "cpu", "cuda" or "cuda:<index>".
    threads: CPU threads of torch (None: torch's own choice).
    """

    source: str = "prior"
    label: str | None = None
    baselines: bool = True
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    autoencoder: dict[str, Any] = field(default_factory=dict)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    vq: TokenizerConfig = field(default_factory=TokenizerConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    sampler: dict[str, Any] = field(default_factory=dict)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    speed: SpeedConfig = field(default_factory=SpeedConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    results_dir: str = "results/runs"
    plan: bool = False
    status: bool = False

    def __post_init__(self) -> None:
        _require(self.label is None or bool(self.label.strip()) and self.label.isprintable(), "label",
                 repr(self.label), "text that can be printed, or null")
        kind, colon, index = self.device.partition(":")
        known = kind in ("auto", "cpu", "cuda") and (not colon or kind == "cuda" and index.isdigit())
        _require(known, "device", self.device, "auto, cpu, cuda or cuda:<index>")


def _require(holds: bool, key: str, value: object, expected: str) -> None:
    if not holds:
        raise InputError(f"{key}={value}: expected {expected}.")


def _one_of(key: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise InputError(f"{key}={value}: {did_you_mean(value, valid)}")
