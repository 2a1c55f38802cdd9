"""What a VQModel folder of the `diffusers` package says of itself; needs neither torch nor that package.

    DiffusersVQOptions.of_layout("diffusers", {"path": "vqvae"})   # the fields of vqvae/config.json
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

NOT_OURS = ("sample_size", "scaling_factor", "lookup_from_codebook", "force_upcast")
"""Fields of a config.json that neither tokens nor images depend on; those that begin with "_" are not options."""
_COUNTS = ("layers_per_block", "latent_channels", "num_vq_embeddings", "norm_num_groups")


@dataclass(frozen=True)
class DiffusersVQOptions:
    """The arguments of diffusers' VQModel that decide which weights there are; config.json sets them.

    block_out_channels: width of each level, every one but the last halving the resolution.
    down_block_types, up_block_types: the blocks of each level.
    layers_per_block, norm_num_groups, act_fn, mid_block_add_attention: of these.
    in_channels, out_channels: 3, colours.
    latent_channels: what the encoder gives; vq_embed_dim: numbers a code (None: as many); num_vq_embeddings: K.
    norm_type: "group", or "spatial" for the decoder of MoVQ.
    """

    block_out_channels: tuple[int, ...] = (64,)
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    layers_per_block: int = 1
    act_fn: str = "silu"
    latent_channels: int = 3
    num_vq_embeddings: int = 256
    norm_num_groups: int = 32
    vq_embed_dim: int | None = None
    norm_type: str = "group"
    mid_block_add_attention: bool = True
    in_channels: int = 3
    out_channels: int = 3

    def __post_init__(self) -> None:
        for name in ("block_out_channels", "down_block_types", "up_block_types"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        levels = len(self.block_out_channels)
        for name in ("down_block_types", "up_block_types"):
            _check(len(getattr(self, name)) == levels > 0, name, getattr(self, name),
                   f"one block type for each of the {levels} block_out_channels")
        for name in _COUNTS:
            _check(_is_count(getattr(self, name)), name, getattr(self, name), "a positive integer")
        for width in self.block_out_channels:
            _check(_is_count(width) and width % self.norm_num_groups == 0, "block_out_channels",
                   self.block_out_channels, f"multiples of norm_num_groups={self.norm_num_groups}")
        _check(self.vq_embed_dim is None or _is_count(self.vq_embed_dim), "vq_embed_dim", self.vq_embed_dim,
               "a positive integer, or null")
        _check(self.norm_type in ("group", "spatial"), "norm_type", self.norm_type, "group or spatial")
        _check(self.act_fn in ("silu", "swish", "mish", "gelu", "relu"), "act_fn", self.act_fn,
               "one of silu, swish, mish, gelu, relu")
        for name in ("in_channels", "out_channels"):
            _check(getattr(self, name) == 3, name, getattr(self, name), "3: images here have red, green and blue")

    @staticmethod
    def of_layout(layout: str, sizes: dict[str, Any]) -> dict[str, Any]:
        """The options in config.json of the folder `sizes["path"]`.

        ValueError on another layout, a folder without such a file, one of another class, and an unknown field.
        """
        _check(layout == "diffusers", "layout", layout, "diffusers, the one layout of this tokenizer")
        path = Path(sizes["path"]) / "config.json"
        try:
            config = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ValueError(f"path={sizes['path']}: {path} cannot be read ({error}). Expected a folder with the "
                             "config.json and the .safetensors of a diffusers VQModel") from None
        found = config.get("_class_name") if isinstance(config, dict) else None
        _check(found == "VQModel", "path", str(sizes["path"]), f"a folder of a VQModel; its config.json is of {found}")
        known = {field.name for field in fields(DiffusersVQOptions)}
        unknown = [name for name in config if name not in known and name not in NOT_OURS and not name.startswith("_")]
        _check(not unknown, "path", str(sizes["path"]), f"a config.json without {', '.join(unknown)}, whose meaning is "
               "not known here")
        return {name: value for name, value in config.items() if name in known}

    def grid(self, resolution: int) -> tuple[int, int]:
        """Height and width of the token grid; ValueError where the resolution does not fit."""
        downsampling = 2 ** (len(self.block_out_channels) - 1)
        _check(resolution % downsampling == 0 and resolution > 0, "resolution", resolution,
               f"a multiple of {downsampling}, which {len(self.block_out_channels)} block_out_channels imply")
        return resolution // downsampling, resolution // downsampling


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _check(is_right: bool, name: str, value: object, expectation: str) -> None:
    if not is_right:
        raise ValueError(f"{name}={value!r}: expected {expectation}")
