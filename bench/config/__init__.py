"""The schema of a run, as dataclasses: each field with its type and the rule of its values (bench.rules).

The values stand in conf/; bench.compose puts both together. Nothing in this module imports torch: a wrong option is an
error within a second or two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from bench.config.launcher import LauncherConfig
from bench.config.models import (
    FIXED_ORDERS,
    NAME,
    SEED_MOST,
    BackboneConfig,
    PriorConfig,
    Registered,
    TokenizerConfig,
)
from bench.errors import InputError
from bench.rules import Checked, Choice, Number, Place, Plain, Several, Text, Whole

SOURCES = ("prior", "reconstruction", "real")
MASKS = ("centre", "lower", "random")
ORDERS = (*FIXED_ORDERS, "random")
CONDITIONS = ("none", "class", "text")
ORDERED_METRIC = "ordered_nll"   # the one metric that looks at metrics.orders
CLIP_METRIC = "caption_retrieval"   # the one metric that looks at protocol.clip
SEED = Whole(0, SEED_MOST)
THREADS = Whole(1, 1024, of="threads", null="torch's own choice")
GIGABYTES = Number(0.0, 1e6, of="gigabytes", low_open=True)
SIDE = Whole(1, 8192, of="pixels")


@dataclass
class DatasetConfig(Registered):
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

    name: Annotated[str, NAME] = "cifar10"
    path: Annotated[str | None, Place(("file", "folder"), null="the cache or a download")] = None
    resolution: Annotated[int, SIDE] = 32
    resize: Annotated[str, Choice(("antialias", "plain"))] = "antialias"
    max_train: Annotated[int | None, Whole(1, of="images", null="all")] = None
    max_validation: Annotated[int | None, Whole(1, of="images", null="all")] = None
    validation_fraction: Annotated[float, Number(0.0, 1.0, low_open=True, high_open=True)] = 0.05
    on_corrupt: Annotated[str, Choice(("error", "skip"))] = "error"
    flip: bool = False
    default_preset: Annotated[str, NAME] = "small"


@dataclass
class ConditionConfig(Checked):
    """What the prior is told of each image: nothing, its class, or its caption.

    name: none, class or text.
    encoder: of text, the folder of a BERT or CLIP text encoder as transformers keeps one; None is the pinned sentence
        encoder.
    length: of text, how many positions of a caption are read, with its start and end.
    """

    name: Annotated[str, Choice(CONDITIONS)] = "none"
    encoder: Annotated[str | None, Place(("folder",), null="the pinned sentence encoder")] = None
    length: Annotated[int | None, Whole(3, 10_000, of="positions", null="32")] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("encoder", "length"):
            if self.name != "text" and getattr(self, key) is not None:
                raise InputError(f"condition.{key}={getattr(self, key)} has no effect on condition={self.name}: leave "
                                 "it out, or use condition=text.")


@dataclass
class SamplingConfig(Checked):
    """chunk: images drawn at once, the unit of seed and of the forward batch, and so a part of what is drawn.
    shards: jobs that share the drawing; they change nothing in what is drawn."""

    chunk: Annotated[int, Whole(1, 10**6, of="images")] = 100
    shards: Annotated[int, Whole(1, 10_000, of="jobs")] = 1


@dataclass
class ProtocolConfig(Checked):
    """What is compared with what (docs: protocols). Equal protocol ids, and only those, may be compared.

    name: what its ids begin with.
    extractor: whose features FID, KID and PRDC compare.
    num_fake, num_real: how many images; num_real None means the whole `real_split`.
    real_split: "train" (the paper) or "validation".
    reference: an .npz with mu and sigma of reference features computed elsewhere, for FID alone; None: of real images.
    clip: the folder of a whole CLIP, which judges samples by their captions (caption_retrieval); None: nothing does.
    prdc_num, prdc_k: images of each side and neighbours for precision, recall, density, coverage.
    neighbours_queries, neighbours_candidates, neighbours_top_k: of the LPIPS search, samples looked up, training images
        looked through (None: all) and nearest ones kept.
    neighbours_net, neighbours_resolution: its LPIPS network, and the side images are enlarged to, in pixels.
    nll_images: held-out images whose likelihood is measured, spread over the validation split (None: all).
    """

    name: Annotated[str, Text()] = "demo"
    extractor: Annotated[str, Text("a registered name, package.module:Name, torchvision:<model>[:<file>], "
                                   "dinov2:<folder> or clip:<folder>")] = "inception-v3-compat"
    num_fake: Annotated[int, Whole(2, of="images")] = 500
    num_real: Annotated[int | None, Whole(2, of="images", null="all")] = 1000
    real_split: Annotated[str, Choice(("train", "validation"))] = "train"
    reference: Annotated[str | None, Place(("file",), null="the real images themselves")] = None
    clip: Annotated[str | None, Place(("folder",), null="no measure by CLIP")] = None
    prdc_num: Annotated[int, Whole(2, of="images")] = 500
    prdc_k: Annotated[int, Whole(1, 10**6, of="neighbours")] = 5
    neighbours_queries: Annotated[int, Whole(1, of="images")] = 32
    neighbours_candidates: Annotated[int | None, Whole(1, of="images", null="all")] = 10000
    neighbours_top_k: Annotated[int, Whole(1, 1000, of="neighbours")] = 10
    neighbours_net: Annotated[str, Choice(("alex", "vgg"))] = "alex"
    neighbours_resolution: Annotated[int, SIDE] = 64
    nll_images: Annotated[int | None, Whole(1, of="images", null="all")] = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prdc_num <= self.prdc_k:
            raise InputError(f"protocol.prdc_num={self.prdc_num}: expected more than prdc_k={self.prdc_k}. "
                             "Raise the one or lower the other.")


@dataclass
class NllConfig(Checked):
    """budget: network evaluations an image for a bound (None: the prior's sum over all steps, as published).
    batch_size: images at once."""

    budget: Annotated[int | None, Whole(1, of="network evaluations", null="the sum over all steps")] = 64
    batch_size: Annotated[int, Whole(1, 10**6, of="images")] = 100


@dataclass
class PrdcConfig(Checked):
    """backend: "blocked" (memory-bounded, same output) or "reference" (the prdc package)."""

    backend: Annotated[str, Choice(("blocked", "reference"))] = "blocked"


@dataclass
class MetricsConfig(Checked):
    """names: which metrics run.

    feature_batch_size: images at once through the extractor.
    memory_gb: what PRDC and the neighbour search may use beyond their input.
    cache_gb: embeddings of a candidate set are kept on disk if they take no more than this, else computed anew.
    pixel_bits: the bit depth of the images whose pixel likelihood is measured (paper: 5), for the metric pixel_nll.
    orders: the orders of tokens whose likelihood is measured, for the metric ordered_nll; of several fixed ones also
        the best, chosen on half of the images. "random" is the mean over random orders.
    """

    names: Annotated[list[str], Several(NAME)] = field(default_factory=lambda: [
        "fid", "kid", "prdc", "memorisation", "nll", "speed", "neighbours", "reconstruction"])
    memory_gb: Annotated[float, GIGABYTES] = 2.0
    cache_gb: Annotated[float, Number(0.0, 1e6, of="gigabytes")] = 4.0
    feature_batch_size: Annotated[int, Whole(1, 10**6, of="images")] = 50
    pixel_bits: Annotated[int, Whole(1, 8, of="bits a channel")] = 8
    orders: Annotated[list[str], Several(Choice(ORDERS))] = field(default_factory=lambda: ["raster"])
    nll: NllConfig = field(default_factory=NllConfig)
    prdc: PrdcConfig = field(default_factory=PrdcConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        given = f"metrics.orders=[{','.join(self.orders)}]"
        if not self.orders or len(set(self.orders)) < len(self.orders):
            raise InputError(f"{given}: expected one order or several different ones of {', '.join(ORDERS)}. Leave it "
                             "out for raster.")
        if self.orders != ["raster"] and ORDERED_METRIC not in self.names:
            raise InputError(f"{given}: used by the metric {ORDERED_METRIC} alone. Add it to metrics.names, or leave "
                             "metrics.orders out.")


@dataclass
class SpeedConfig(Checked):
    """Batch sizes and repetitions of the wall-clock measurement, which are its own and not those of sampling.

    latency_batch: images at once for the latency; throughput_batch: for images a second; rounds: how often each is
        measured, in turn; warmup: how often before that, uncounted; threads: of the CPU meanwhile (None: the run's).
    """

    latency_batch: Annotated[int, Whole(1, 10**6, of="images")] = 1
    throughput_batch: Annotated[int, Whole(1, 10**6, of="images")] = 32
    rounds: Annotated[int, Whole(1, 1000, of="repetitions")] = 3
    warmup: Annotated[int, Whole(0, 1000, of="repetitions")] = 1
    threads: Annotated[int | None, THREADS] = None


@dataclass
class EditConfig(Checked):
    """What `bench.edit task=benchmark` asks of a run; no key of the command line.

    mask: the part that is hidden of held-out images, one of MASKS, for the prior to complete (source="prior") or left
        to the tokenizer alone (source="reconstruction"); "" where the run judges samples.
    showcase: whether the record also shows the other tasks and measures the seams of canvases. Part of no key.
    """

    mask: Annotated[str, Choice(("", *MASKS))] = ""
    showcase: bool = False

    @property
    def protocol_name(self) -> str:
        return f"edit-{self.mask}"


@dataclass
class RunSpec(Checked):
    """Everything one run depends on.

    source: what is judged: "prior" (samples of the prior), "reconstruction" (validation images through the tokenizer),
        "real" (validation images themselves), or the path of a folder, zip or .npz (`theirs.npz:key`) of images from
        elsewhere.
    label: what tables call the row, instead of the name made of its options.
    baselines: also measure the reconstruction and real rows of the same data set, tokenizer and protocol.
    backbone, autoencoder: sizes a preset gives to whatever prior and tokenizer is chosen, where its Options has the
        field; `prior.<field>` and `vq.<field>` go before them.
    seed: of training; prior.seed: of the prior's training alone; sampler["seed"]: of sampling.
    edit: of held-out images that are completed instead of samples that are drawn.
    device: "auto" (CUDA where there is any), "cpu", "cuda" or "cuda:<index>".
    threads: CPU threads of torch (None: torch's own choice).
    results_dir: where records are kept.
    tracking: "tensorboard" or "wandb": curves and final measurements there too, in results_dir/tracking.
    plan: print what would be built, and stop; status: print where every stage stands, and stop.
    """

    source: Annotated[str, Place(("file", "folder"), words=SOURCES)] = "prior"
    label: Annotated[str | None, Text(null="the name of what is judged")] = None
    baselines: bool = True
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    autoencoder: Annotated[dict[str, Any], Plain()] = field(default_factory=dict)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    vq: TokenizerConfig = field(default_factory=TokenizerConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    condition: ConditionConfig = field(default_factory=ConditionConfig)
    sampler: dict[str, Any] = field(default_factory=dict)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    speed: SpeedConfig = field(default_factory=SpeedConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    edit: EditConfig = field(default_factory=EditConfig)
    seed: Annotated[int, SEED] = 0
    device: Annotated[str, Text("auto, cpu, cuda or cuda:<index>", pattern="auto|cpu|cuda(:[0-9]{1,3})?")] = "auto"
    threads: Annotated[int | None, THREADS] = None
    results_dir: Annotated[str, Place(("folder",), made=True)] = "results/runs"
    tracking: Annotated[str, Choice(("none", "tensorboard", "wandb"))] = "none"
    plan: bool = False
    status: bool = False
