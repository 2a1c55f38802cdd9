"""Import of the checkpoints that the paper's authors published (bare state dicts, `absorbing_ema_<step>.th` and so on).

    prior = load_official("absorbing_ema_1400000.th", kind="absorbing")   # the paper's sizes
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike

from torch import Tensor

from priors.absorbing import AbsorbingDiffusion
from priors.autoregressive import Autoregressive
from priors.official import PREFIX, convert, read_state, timesteps_of
from priors.option_checks import check_choice
from priors.options import AbsorbingOptions, AutoregressiveOptions


def load_official(
    source: Mapping[str, Tensor] | str | PathLike,
    *,
    kind: str,
    width: int = 512,
    num_layers: int = 24,
    num_heads: int = 8,
    grid: tuple[int, int] = (16, 16),
    codebook_size: int = 1024,
) -> AbsorbingDiffusion | Autoregressive:
    """A prior in evaluation mode with the weights of an official checkpoint.

    source: a state dict or the path of one; kind: "absorbing" or "autoregressive"; the rest are its sizes, by default
    the paper's. T is read from the length of its training statistics where they are kept, otherwise T = N.
    Raises ValueError on a missing, unexpected or wrongly shaped key, and on a file that is not a checkpoint.
    """
    check_choice("kind", kind, tuple(PREFIX))
    state = read_state(source)
    prior: AbsorbingDiffusion | Autoregressive
    if kind == "absorbing":
        timesteps = timesteps_of(state)
        options = AbsorbingOptions(width=width, num_layers=num_layers, num_heads=num_heads, timesteps=timesteps)
        prior = AbsorbingDiffusion(grid=grid, codebook_size=codebook_size, options=options)
    else:
        walk = AutoregressiveOptions(width=width, num_layers=num_layers, num_heads=num_heads)
        prior = Autoregressive(grid=grid, codebook_size=codebook_size, options=walk)
    prior.net.load_state_dict(convert(state, prior.net, kind=kind))
    return prior.eval()
