"""Every knob of the VQGAN, with the published setting as default; needs no torch, so a wrong value fails at once.

Bond-Taylor et al. 2022, "Unleashing Transformers", section 3.1 and appendix; where the official code differs from the
paper, the default is what the official code does, because the published numbers came from it.

    VQGANOptions(channels=32, channel_multipliers=(1, 2, 2), attention_resolutions=(8,), codebook_size=256)
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

LATER = {"later": True}
"""Of a field that came after keys of artefacts had been made: at its default it is part of none. What `later` is to the
priors, in priors.option_checks, which a tokenizer does not import."""

_CHOICES = {
    "quantizer": ("nearest", "gumbel", "fsq", "lfq"),
    "lookup": ("euclidean", "cosine"),
    "beta_on": ("codebook", "commitment"),
    "codebook_init": ("uniform", "data"),
    "quant_convs": ("none", "separate", "folded"),
    "input_range": ("unit", "signed"),
    "perceptual_net": ("alex", "vgg"),
    "perceptual_input": ("unit", "signed"),
}
_POSITIVE_INTEGERS = ("channels", "num_res_blocks", "norm_groups", "embedding_dim", "codebook_size", "disc_channels",
                      "disc_layers", "gumbel_anneal_steps")
_NOT_NEGATIVE = ("beta", "codebook_weight", "entropy_weight", "gumbel_kl_weight", "lambda_max", "perceptual_weight")


@dataclass(frozen=True)
class VQGANOptions:
    """Architecture, quantiser and losses.

    Architecture
    channels: width of the first level (nf); channel_multipliers: width of each level, which halves the resolution of
        the one before; num_res_blocks: residual blocks a level; decoder_res_blocks: the same for the decoder
        (None: num_res_blocks; taming-transformers has one more).
    attention_resolutions: heights at which every residual block is followed by attention.
    norm_groups: groups of every GroupNorm; must divide every level's width.
    final_activation: SiLU between the last GroupNorm and the last convolution (taming: yes; official: no).
    quant_convs: 1x1 convolutions around the quantiser: "none", "separate" (taming), or "folded" into the encoder's
        last convolution and a second codebook that only decoding reads (an imported model; it cannot be trained).
    z_channels: what the encoder gives and the decoder takes on the far sides of the quant convs (None: embedding_dim).
    input_range: pixel values inside the networks, "unit" [0, 1] or "signed" [-1, 1] (taming).
    likelihood_head: the decoder also has the log-sigma head of the pixel likelihood.

    Quantiser
    quantizer: "nearest" code or "gumbel" softmax. "fsq" (Mentzer et al. 2023): embedding_dim numbers, each rounded to
        one of its `levels`, whose product is K. "lfq" (Yu et al. 2023, MAGVIT-v2): the signs of embedding_dim numbers,
        K = 2^embedding_dim. Neither has a codebook to learn.
    codebook_size: K, how many codes; embedding_dim: numbers a code.
    levels: of fsq, how many values each of the embedding_dim numbers has.
    lookup: "euclidean" distance, or "cosine": vectors and codes on the unit sphere (Yu et al. 2022, ViT-VQGAN).
    beta: weight of one term of the quantiser's loss; beta_on: of which term. Eq. 5 of the paper puts it on the
        "commitment" of the encoder; the official code puts it on the "codebook" term. codebook_weight: weight of the
        whole loss.
    codebook_init: "uniform" in +-1/K, or "data": vectors of the first training batch.
    restart_dead_codes_every: every so many steps, codes unused since the last time move to vectors of the batch
        (0: never, as in the paper).
    entropy_weight, entropy_temperature: of lfq's second loss, which wants each position sure of its code and the codes
        used alike; beta weighs its first, the commitment of the encoder.
    gumbel_kl_weight: weight of the relaxation's prior term; gumbel_anneal_steps, gumbel_temperature_floor: of its
        temperature max(floor, 1 - step / anneal_steps); gumbel_straight_through: one-hot samples in training too.

    Losses
    perceptual_weight: of LPIPS; perceptual_net: its network. perceptual_input: the range LPIPS is fed, "unit" as the
        official code does, or "signed" as the lpips package expects. perceptual_resolution: images smaller than this
        are enlarged to it before LPIPS (None: never).
    disc_start_step: first step with the adversarial loss (None: never). disc_channels, disc_layers: width of the first
        level of the PatchGAN, and its levels.
    disc_warmup_steps: over so many steps from there on lambda rises linearly to its full value (0: at once, as in the
        official code). Adam's steps are scaled by the gradients of the past; without a ramp the first adversarial ones
        undo in twenty steps what thousands have learnt, unless the learning rate is as small as the paper's.
    disc_learning_rate_factor: its learning rate as a multiple of the autoencoder's.
    lambda_max: ceiling of the adaptive weight (Eq. 9c); taming's default is 1e4, in effect none.
    diffaug: augment what the discriminator sees (Zhao et al. 2020).
    """

    channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_res_blocks: int = 2
    decoder_res_blocks: int | None = None
    attention_resolutions: tuple[int, ...] = (16,)
    norm_groups: int = 32
    final_activation: bool = False
    quant_convs: str = "none"
    z_channels: int | None = field(default=None, metadata=LATER)
    input_range: str = "unit"
    likelihood_head: bool = True

    quantizer: str = "nearest"
    levels: tuple[int, ...] = field(default=(), metadata=LATER)
    codebook_size: int = 1024
    embedding_dim: int = 256
    lookup: str = "euclidean"
    beta: float = 0.25
    beta_on: str = "codebook"
    codebook_weight: float = 1.0
    codebook_init: str = "uniform"
    restart_dead_codes_every: int = 0
    entropy_weight: float = field(default=0.1, metadata=LATER)
    entropy_temperature: float = field(default=0.01, metadata=LATER)
    gumbel_kl_weight: float = 1e-8
    gumbel_anneal_steps: int = 160_000
    gumbel_temperature_floor: float = 1 / 16
    gumbel_straight_through: bool = False

    perceptual_weight: float = 1.0
    perceptual_net: str = "vgg"
    perceptual_input: str = "unit"
    perceptual_resolution: int | None = None
    disc_start_step: int | None = 30_001
    disc_warmup_steps: int = 0
    disc_channels: int = 64
    disc_layers: int = 3
    disc_learning_rate_factor: float = 1.0
    lambda_max: float = 1.0
    diffaug: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "channel_multipliers", tuple(self.channel_multipliers))
        object.__setattr__(self, "attention_resolutions", tuple(self.attention_resolutions))
        object.__setattr__(self, "levels", tuple(self.levels))
        for name, valid in _CHOICES.items():
            _check(getattr(self, name) in valid, name, getattr(self, name), f"one of {', '.join(valid)}")
        for name in _POSITIVE_INTEGERS:
            _check(_is_integer(getattr(self, name), 1), name, getattr(self, name), "a positive integer")
        for name in _NOT_NEGATIVE:
            _check(getattr(self, name) >= 0, name, getattr(self, name), "zero or more")
        self._check_sizes()
        self._check_combinations()

    @property
    def downsampling(self) -> int:
        """Pixels along one side of what a token stands for (f)."""
        return 2 ** (len(self.channel_multipliers) - 1)

    @property
    def encoder_channels(self) -> int:
        """Of the encoder's last convolution."""
        return self.decoder_channels if self.quant_convs == "separate" else self.embedding_dim

    @property
    def decoder_channels(self) -> int:
        """Of what the decoder's first convolution reads."""
        return self.embedding_dim if self.z_channels is None else self.z_channels

    @property
    def blocks_in_decoder(self) -> int:
        """Residual blocks a level of the decoder."""
        return self.num_res_blocks if self.decoder_res_blocks is None else self.decoder_res_blocks

    @staticmethod
    def of_layout(layout: str, sizes: dict[str, Any]) -> dict[str, Any]:
        """What a checkpoint of another code base (vq.checkpoints.LAYOUTS) implies for a model of these `sizes`.

        sizes: options as far as they are known, and the `resolution` of the images. ValueError on an unknown layout.
        """
        both = {"norm_groups": 32, "lookup": "euclidean", "codebook_init": "uniform", "restart_dead_codes_every": 0}
        blocks = sizes.get("num_res_blocks", VQGANOptions.num_res_blocks)
        taming = {"final_activation": True, "decoder_res_blocks": blocks + 1, "input_range": "signed",
                  "likelihood_head": False,
                  "quant_convs": "separate" if sizes.get("quantizer") == "gumbel" else "folded"}
        layouts = {
            "unleashing": {"final_activation": False, "decoder_res_blocks": None, "quant_convs": "none",
                           "input_range": "unit", "likelihood_head": True},
            "taming": taming,
            "llamagen": taming | {"quant_convs": "folded", "lookup": "cosine", "codebook_size": 16_384,
                                  "embedding_dim": 8, "z_channels": 256, **_attention_at_the_bottom(sizes)}}
        _check(layout in layouts, "layout", layout, f"native or one of {', '.join(layouts)}; a folder "
               "of a diffusers VQModel is read by vq=diffusers")
        return both | layouts[layout]

    @staticmethod
    def implied(given: dict[str, Any], sizes: dict[str, Any]) -> dict[str, Any]:
        """What options that somebody gave imply over a preset's `sizes`: the sizes of a codebook that is not learnt.

        Wrong values are left to the constructor.
        """
        kind = given.get("quantizer")
        unlearnt = {"lookup": "euclidean", "codebook_init": "uniform", "restart_dead_codes_every": 0}
        if kind == "fsq" and all(_is_integer(level, 1) for level in given.get("levels", ())):
            levels = given.get("levels", ())
            return unlearnt | {"codebook_size": math.prod(levels), "embedding_dim": max(1, len(levels))}
        if kind == "lfq":
            size = (sizes | given).get("codebook_size", VQGANOptions.codebook_size)
            return unlearnt | ({"embedding_dim": (size - 1).bit_length()} if _is_integer(size, 2) else {})
        return unlearnt if kind == "gumbel" else {}

    def grid(self, resolution: int) -> tuple[int, int]:
        """Height and width of the token grid of images of this resolution, in tokens; ValueError if it does not fit."""
        if not _is_integer(resolution, 1) or resolution % self.downsampling:
            raise ValueError(
                f"resolution={resolution!r}: expected a multiple of {self.downsampling}, which "
                f"{len(self.channel_multipliers)} channel_multipliers imply; change the resolution or their number")
        heights = [resolution // 2**level for level in range(len(self.channel_multipliers))]
        unused = set(self.attention_resolutions) - set(heights)
        if unused:
            raise ValueError(f"attention_resolutions={list(self.attention_resolutions)}: no level has height "
                             f"{sorted(unused)}; at resolution {resolution} the levels have {heights}")
        return heights[-1], heights[-1]

    def _check_sizes(self) -> None:
        multipliers = self.channel_multipliers
        _check(len(multipliers) > 0 and all(_is_integer(m, 1) for m in multipliers), "channel_multipliers",
               list(multipliers), "positive integers, one for each level, such as [1, 2, 2]")
        widths = [self.channels * m for m in multipliers]
        _check(all(width % self.norm_groups == 0 for width in widths), "norm_groups", self.norm_groups,
               f"a divisor of every level's width {widths}; lower it or change channels")
        for name in ("disc_warmup_steps", "restart_dead_codes_every"):
            _check(_is_integer(getattr(self, name), 0), name, getattr(self, name), "a number of steps, zero or more")
        for name in ("decoder_res_blocks", "perceptual_resolution", "z_channels"):
            value = getattr(self, name)
            _check(value is None or _is_integer(value, 1), name, value, "a positive integer, or null")
        start = self.disc_start_step
        _check(start is None or _is_integer(start, 0), "disc_start_step", start,
               "a step number, or null for no discriminator")
        _check(self.codebook_size <= 2**32, "codebook_size", self.codebook_size,
               "at most 4294967296, since tokens are stored as uint32")
        _check(self.entropy_temperature > 0, "entropy_temperature", self.entropy_temperature, "a positive temperature")
        _check(0 < self.gumbel_temperature_floor <= 1, "gumbel_temperature_floor", self.gumbel_temperature_floor,
               "a temperature in (0, 1]")
        _check(self.disc_learning_rate_factor > 0, "disc_learning_rate_factor", self.disc_learning_rate_factor,
               "a positive factor; for no discriminator set disc_start_step=null")

    def _check_combinations(self) -> None:
        if self.quantizer != "nearest":
            for name, default in (("lookup", "euclidean"), ("codebook_init", "uniform"),
                                  ("restart_dead_codes_every", 0)):
                _check(getattr(self, name) == default, name, getattr(self, name), f"{default!r} with quantizer="
                       f"{self.quantizer}, which has no nearest-code lookup; use quantizer=nearest")
            _check(self.quant_convs != "folded", "quant_convs", self.quant_convs,
                   f"'none' or 'separate' with quantizer={self.quantizer}")
        self._check_codes_that_are_not_learnt()
        _check(self.quant_convs != "none" or self.z_channels in (None, self.embedding_dim), "z_channels",
               self.z_channels, f"embedding_dim ({self.embedding_dim}) or null with quant_convs=none, where nothing "
               "stands between the two; set quant_convs=separate")

    def _check_codes_that_are_not_learnt(self) -> None:
        """What is of fsq or lfq alone, and their sizes, which one number settles: nothing is silently ignored."""
        levels, size, dim = self.levels, self.codebook_size, self.embedding_dim
        if self.quantizer != "fsq":
            _check(not levels, "levels", list(levels), f"none with quantizer={self.quantizer}; set quantizer=fsq")
        if self.quantizer != "lfq":
            for name in ("entropy_weight", "entropy_temperature"):
                default = getattr(VQGANOptions, name)
                _check(getattr(self, name) == default, name, getattr(self, name), f"{default} with quantizer="
                       f"{self.quantizer}, whose loss has no entropies; leave it out, or set quantizer=lfq")
        if self.quantizer == "fsq":
            _check(len(levels) > 0 and all(_is_integer(level, 2) for level in levels), "levels", list(levels),
                   "two or more for each number of a code, such as [8, 5, 5, 5]")
            _check(size == math.prod(levels), "codebook_size", size, f"{math.prod(levels)}, the product of levels "
                   f"{list(levels)}")
            _check(dim == len(levels), "embedding_dim", dim, f"{len(levels)}, one for each of levels {list(levels)}; "
                   "quant_convs=separate and z_channels let the networks have more")
        if self.quantizer == "lfq":
            _check(size == 2**dim, "codebook_size", size, f"{2**dim} = 2^embedding_dim with quantizer=lfq, whose codes "
                   "are signs")


def _attention_at_the_bottom(sizes: dict[str, Any]) -> dict[str, Any]:
    """Attention at the lowest level alone, where resolution and levels are known."""
    if not {"resolution", "channel_multipliers"} <= sizes.keys():
        return {}
    return {"attention_resolutions": (sizes["resolution"] // 2 ** (len(sizes["channel_multipliers"]) - 1),)}


def _is_integer(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _check(is_right: bool, name: str, value: object, expectation: str | Collection[str]) -> None:
    if not is_right:
        raise ValueError(f"{name}={value!r}: expected {expectation}")
