"""What a run says of its tokenizer and its prior: which, of what size, and how long each is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from bench.errors import InputError
from bench.rules import Checked, Choice, Number, Place, Plain, Several, Text, Whole

SEED_MOST = 2**32 - 1   # what every generator takes
FIXED_ORDERS = ("raster", "column", "spiral", "halton")
SHARE = Number(0.0, 1.0, high_open=True)
NAME = Text("a registered name or package.module:Name")
OPTIONAL_NAME = Text("package.module:Name", null="none")


@dataclass
class Registered(Checked):
    """What `bench.registry` finds.

    target: package.module:Name of a class that is not registered.
    """

    name: Annotated[str, NAME] = ""
    target: Annotated[str | None, OPTIONAL_NAME] = None

    @property
    def entry(self) -> str:
        """By which it is found."""
        return self.target or self.name


@dataclass
class TrainingConfig(Checked):
    """One training budget, in steps.

    steps: optimizer steps, each of batch_size images.
    batch_size: images a step, of all processes together.
    learning_rate: of Adam; warmup_steps: over so many steps it rises linearly from zero.
    weight_decay: of AdamW; betas: Adam's decay rates of the mean and of the square of gradients.
    log_every: steps between the points of the training curve; validation_batches: batches a validation looks at.
    schedule: "constant" (the paper's; a longer budget continues the same series) or "cosine" (to zero at `steps`).
    ema_decay, ema_every: weights are averaged every so many steps (paper: .995, 10).
    validate_every: steps between validations; checkpoint_every: between resumable checkpoints.
    select: which averaged weights the stage publishes, "best" by validation loss or "latest".
    precision: "float32", "bf16" or "fp16" autocast.
    """

    steps: Annotated[int, Whole(1, of="steps")] = 1000
    batch_size: Annotated[int, Whole(1, 10**6, of="images")] = 64
    learning_rate: Annotated[float, Number(0.0, 1e3, low_open=True)] = 1e-3
    warmup_steps: Annotated[int, Whole(0, of="steps")] = 100
    schedule: Annotated[str, Choice(("constant", "cosine"))] = "constant"
    weight_decay: Annotated[float, Number(0.0, 1e3)] = 0.0
    betas: Annotated[tuple[float, float], Several(SHARE, 2)] = (0.9, 0.999)
    ema_decay: Annotated[float, SHARE] = 0.995
    ema_every: Annotated[int, Whole(1, of="steps")] = 10
    validate_every: Annotated[int, Whole(1, of="steps")] = 500
    validation_batches: Annotated[int, Whole(1, 10**6, of="batches")] = 8
    checkpoint_every: Annotated[int, Whole(1, of="steps")] = 500
    log_every: Annotated[int, Whole(1, of="steps")] = 20
    select: Annotated[str, Choice(("best", "latest"))] = "latest"
    precision: Annotated[str, Choice(("float32", "bf16", "fp16"))] = "float32"


@dataclass
class PriorTrainingConfig(TrainingConfig):
    """images: how many training images the prior sees the grids of (None: all), evenly drawn and nested: the smaller of
    two sets lies inside the larger. Tokenizer, tokens and validation stay those of the whole data set.
    measure_at: "log" measures the averaged weights at log-spaced steps, image by image, on training images and on two
        halves of held-out images; the best point is then chosen on the selection half. "none" measures nothing.
    measure_images: held-out images measured at each point, both halves together, and training images at most.
    measure_budget: network evaluations an image where the likelihood is a sum.
    measure_order: measure the exact likelihood of tokens drawn one at a time in this order, which an absorbing
        diffusion has for one network evaluation a token (priors.chain_rule), instead of the prior's own (None).
    patience: training ends at the first measured step that is this many times the best one's (None: never earlier).
    selection: "apart" chooses weights (and calibrates schedules) on every other held-out image and scores likelihoods
        on the rest; "shared" does both on all of them, as records were made before there was the choice.
    """

    images: Annotated[int | None, Whole(1, of="images", null="all")] = None
    measure_at: Annotated[str, Choice(("none", "log"))] = "none"
    measure_images: Annotated[int, Whole(4, of="images")] = 1000
    measure_budget: Annotated[int, Whole(1, 10**6, of="network evaluations")] = 8
    measure_order: Annotated[str | None, Choice(FIXED_ORDERS)] = None
    patience: Annotated[float | None, Number(1.0, 1e6, low_open=True, null="no early end")] = None
    selection: Annotated[str, Choice(("apart", "shared"))] = "apart"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("patience", "measure_order"):
            if self.measure_at == "none" and getattr(self, name) is not None:
                raise InputError(f"prior.training.{name}={getattr(self, name)}: it looks at a trajectory. Set "
                                 "prior.training.measure_at=log, or leave it out.")
        if self.measure_at != "none" and self.schedule != "constant":
            raise InputError(f"prior.training.schedule={self.schedule}: expected constant with measure_at=log, because "
                             "a point along a cosine is not the end of a shorter training.")


@dataclass
class ModelConfig(Registered):
    """A tokenizer (`vq`) or a `prior`.

    name: registry name, or "plugin" with a target.
    schema: where Options and Sampler can be had without importing torch, as package.module:Prefix for the classes
        PrefixOptions and PrefixSampler; None asks the class itself.
    path: an imported checkpoint to use instead of training one; layout: "native" (a model.safetensors of ours) or a
        layout that the class's `load_official` knows; what `Options.of_layout` says it implies need not be set.
    options: the fields of the class's own Options dataclass; on the command line they are `vq.<field>` and
        `prior.<field>`, without `options`.
    """

    name: Annotated[str, Text("a registered name or package.module:Name", pattern=".*")] = ""
    schema: Annotated[str | None, Text("package.module:Prefix", null="the class itself")] = None
    path: Annotated[str | None, Place(("file",), null="training one")] = None
    layout: Annotated[str, Text("native, or a layout the class reads")] = "native"
    options: Annotated[dict[str, Any], Plain()] = field(default_factory=dict)
    training: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass
class TokenizerConfig(ModelConfig):
    """path: a file, or a folder where the layout is one of folders (diffusers).
    tokens: a folder with train.npy and validation.npy, (n, N) or (n, h, w) integers computed elsewhere by this very
    tokenizer, in the order of the data set's images; where `bench.encode` wrote them, that is checked before anything
    is built. None encodes the data set here.

    likelihood: how its pixel likelihood is fine-tuned where the metric pixel_nll asks for it; tokens and images do not
        depend on it.
    """

    path: Annotated[str | None, Place(("file", "folder"), null="training one")] = None
    tokens: Annotated[str | None, Place(("folder",), null="encoding the data set")] = None
    likelihood: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass
class PriorConfig(ModelConfig):
    """path: a file, or a folder where the layout is one of folders.
    training: with the number of images it may see.

    seed: of the prior's training alone, so that several share one tokenizer (None: the run's `seed`).
    recipe: the file of conf/prior whose options and sampler these are, where it does not name a prior of its own: what
        labels say, and part of no key. None where they were changed on the command line.
    """

    path: Annotated[str | None, Place(("file", "folder"), null="training one")] = None
    training: PriorTrainingConfig = field(default_factory=PriorTrainingConfig)
    seed: Annotated[int | None, Whole(0, SEED_MOST, null="the run's seed")] = None
    recipe: Annotated[str | None, Text("a recipe of conf/prior", null="none")] = None

    @property
    def title(self) -> str:
        """What people call it: the recipe, or the prior."""
        return self.recipe or self.entry

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is not None and self.seed is not None:
            raise InputError(f"prior.seed={self.seed}: it is the seed of a training, and prior.path={self.path} is "
                             "trained already. Leave one of them out.")
        if self.path is not None and self.layout == "native" and Path(self.path).is_dir():
            raise InputError(f"prior.path={self.path}: expected the path of a regular file, as layout=native is; for a "
                             "folder name the layout it is of, prior.layout=<name>.")


@dataclass
class BackboneConfig(Checked):
    """The transformer every prior shares, so that priors differ in what they model and not in what they model with.
    width: of embeddings; num_layers: blocks; num_heads: attention heads, a divisor of the width."""

    width: Annotated[int, Whole(1, 10**6)] = 512
    num_layers: Annotated[int, Whole(1, 10_000, of="blocks")] = 24
    num_heads: Annotated[int, Whole(1, 10_000, of="heads")] = 8
