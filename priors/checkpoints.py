"""Import of the checkpoints that the paper's authors published (bare state dicts, `absorbing_ema_<step>.th` and so on).

    prior = load_official("absorbing_ema_1400000.th", kind="absorbing")   # the paper's sizes
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from priors.absorbing import AbsorbingDiffusion
from priors.autoregressive import Autoregressive
from priors.options import AbsorbingOptions, AutoregressiveOptions, check_choice

PREFIX = {"absorbing": "_denoise_fn.", "autoregressive": "net."}
HISTORIES = ("Lt_history", "Lt_count", "loss_history")   # statistics of training, (T + 1,) each


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
    state = _read(source)
    sizes = dict(width=width, num_layers=num_layers, num_heads=num_heads)
    if kind == "absorbing":
        timesteps = len(state["Lt_history"]) - 1 if "Lt_history" in state else None
        options = AbsorbingOptions(**sizes, timesteps=timesteps)
        prior = AbsorbingDiffusion(grid=grid, codebook_size=codebook_size, options=options)
    else:
        prior = Autoregressive(grid=grid, codebook_size=codebook_size, options=AutoregressiveOptions(**sizes))
    prior.net.load_state_dict(convert(state, _shapes(prior.net), prefix=PREFIX[kind]))
    return prior.eval()


def convert(state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], *, prefix: str) -> dict[str, Tensor]:
    """The official keys as ours: queries, keys and values become one matrix, `mlp.0` is `fc` and `mlp.2` is `out`."""
    sources = {name: [prefix + key for key in _official_keys(name)] for name in shapes}
    expected = {key for keys in sources.values() for key in keys}
    present = {key for key in state if key not in HISTORIES and not key.endswith("attn.mask")}
    if present != expected:
        raise ValueError(
            f"this is not the checkpoint of such a network: missing keys {_some(expected - present)}, "
            f"unexpected keys {_some(present - expected)}; check kind and num_layers"
        )
    converted = {name: torch.cat([state[key] for key in keys]) for name, keys in sources.items()}
    wrong = {
        f"{name} {tuple(converted[name].shape)}, expected {tuple(shape)}"
        for name, shape in shapes.items()
        if converted[name].shape != shape
    }
    if wrong:
        raise ValueError(f"sizes do not fit: {_some(wrong)}; check width, grid and codebook_size")
    return converted


def _official_keys(name: str) -> list[str]:
    """Ours -> theirs: "blocks.3.qkv.bias" -> the biases of blocks.3.attn.query, .key and .value, in that order."""
    if ".qkv." in name:
        return [name.replace("qkv", f"attn.{part}") for part in ("query", "key", "value")]
    for ours, theirs in ((".proj.", ".attn.proj."), (".fc.", ".mlp.0."), (".out.", ".mlp.2.")):
        if ours in name:
            return [name.replace(ours, theirs)]
    return [name]


def _shapes(net: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in net.state_dict().items()}


def _some(names: set[str]) -> str:
    return f"{sorted(names)[:5]}{' ...' if len(names) > 5 else ''} ({len(names)})" if names else "none"


def _read(source: Mapping[str, Tensor] | str | PathLike) -> Mapping[str, Tensor]:
    """A state dict, from memory or from a file; nothing in the file is executed."""
    if isinstance(source, Mapping):
        return source
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"checkpoint {path}: no such file; expected a state dict such as absorbing_ema_1400000.th")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"checkpoint {path}: not a readable state dict ({error}); fetch it again") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"checkpoint {path}: expected a bare state dict of tensors; found {type(state).__name__}")
    return state
