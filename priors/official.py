"""The layout of the authors' checkpoints, and its translation into ours.

    prior.net.load_state_dict(convert(read_state("absorbing_ema_1400000.th"), prior.net, kind="absorbing"))
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

PREFIX = {"absorbing": "_denoise_fn.", "autoregressive": "net."}
HISTORIES = ("Lt_history", "Lt_count", "loss_history")   # statistics of training, (T + 1,) each


def read_state(source: Mapping[str, Tensor] | str | PathLike) -> Mapping[str, Tensor]:
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


def timesteps_of(state: Mapping[str, Tensor]) -> int | None:
    """T, from the length of the statistics of training; None where they are not kept."""
    return len(state["Lt_history"]) - 1 if "Lt_history" in state else None


def convert(state: Mapping[str, Tensor], net: nn.Module, *, kind: str) -> dict[str, Tensor]:
    """The official weights under our keys: queries, keys and values one matrix, `mlp.0` as `fc`, `mlp.2` as `out`.

    kind: "absorbing" or "autoregressive".  Raises ValueError on a missing, unexpected or wrongly shaped key.
    """
    shapes = {name: value.shape for name, value in net.state_dict().items()}
    sources = {name: [PREFIX[kind] + key for key in _official_keys(name)] for name in shapes}
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


def _some(names: set[str]) -> str:
    return f"{sorted(names)[:5]}{' ...' if len(names) > 5 else ''} ({len(names)})" if names else "none"
