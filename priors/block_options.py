"""Knobs of block diffusion (priors.block_diffusion), as frozen dataclasses; nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass

from priors.option_checks import check_flag, check_integer, check_sampling
from priors.options import TransformerOptions


@dataclass(frozen=True)
class BlockDiffusionOptions(TransformerOptions):
    """Block diffusion (Arriola et al. 2025).

    block_size: tokens a block, in raster order; a divisor of N, a multiple of a row's for blocks of rows. None: one
        row. 1 is an autoregressive model, N absorbing diffusion.
    """

    block_size: int | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.block_size is not None:
            check_integer("block_size", self.block_size, "leave it out for blocks of one row")


@dataclass(frozen=True)
class BlockDiffusionSampler:
    """How blocks are unmasked, one after the other.

    steps: diffusion steps of the whole image, at least one a block, shared out as evenly over blocks as whole numbers
        can be; None: one a token. As in absorbing diffusion the network is called for those alone that reveal a token.
    temperature: logits are divided by it.
    top_k, top_p: sample among the k likeliest tokens, or the likeliest ones that hold probability p; None: all.
    cache: keep keys and values of finished blocks; the same tokens for less work.
    """

    steps: int | None = None
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    cache: bool = True

    def __post_init__(self):
        if self.steps is not None:
            check_integer("steps", self.steps, "leave it out for one step a token")
        check_sampling(self.temperature, self.top_k, self.top_p)
        check_flag("cache", self.cache)
