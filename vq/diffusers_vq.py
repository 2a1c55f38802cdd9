"""A VQModel of the `diffusers` package as a frozen tokenizer: `vq=diffusers vq.path=<its folder>`.

    options = DiffusersVQOptions(**DiffusersVQOptions.of_layout("diffusers", {"path": "vqvae"}))
    tokenizer = DiffusersVQ(options=options, resolution=256).load_official("vqvae", layout="diffusers")

The networks are the package's own, so they need it: pip install diffusers.
"""

from __future__ import annotations

import dataclasses
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vq.checks import check_canvas, check_images
from vq.diffusers_options import DiffusersVQOptions


class DiffusersVQ(nn.Module):
    """A Tokenizer on uint8 images around a VQModel, whose networks see pixels in [-1, 1].

    Raises ValueError if the resolution does not suit the options, or if diffusers is not installed.
    """

    Options = DiffusersVQOptions

    def __init__(self, *, options: DiffusersVQOptions, resolution: int):
        super().__init__()
        self.grid = options.grid(resolution)
        self.resolution = resolution
        self.codebook_size = options.num_vq_embeddings
        self.model = _vq_model()(**dataclasses.asdict(options))

    def load_official(self, path: str | PathLike[str], *, layout: str) -> DiffusersVQ:
        """Take the weights of a folder of this model's architecture; ValueError where they are not of it."""
        if layout != "diffusers":
            raise ValueError(f"layout={layout!r}: expected diffusers")
        if not list(Path(path).glob("*.safetensors")):
            raise ValueError(f"{path} holds no .safetensors, and pickled weights are not read; save them with "
                             "VQModel.from_pretrained(...).save_pretrained(folder)")
        found, loading = _vq_model().from_pretrained(path, use_safetensors=True, local_files_only=True,
                                                     low_cpu_mem_usage=False, output_loading_info=True)
        wrong = {kind: sorted(keys)[:6] for kind, keys in loading.items() if keys}
        if wrong:
            raise ValueError(f"{path}: its weights are not those of its config.json: {wrong}")
        self.model.load_state_dict(found.float().state_dict())
        return self

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, N) int64 in [0, K), row by row."""
        check_images(images)
        weight = self.model.quantize.embedding.weight
        h = self.model.encode(images.to(weight) / 127.5 - 1).latents   # (B, D, h, w)
        return self.model.quantize(h)[2][2].view(len(images), -1)

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """(B, N) int64 -> (B, 3, H, W) uint8; a (B, h, w) canvas of another size decodes to its own size.

        Raises ValueError if a token is outside the codebook, or N is not the grid's.
        """
        canvas = check_canvas(tokens, grid=self.grid, codebook_size=self.codebook_size)
        embedding = self.model.quantize.embedding
        codes = embedding(canvas.to(embedding.weight.device)).permute(0, 3, 1, 2)   # (B, D, h, w)
        spatial = codes if self.model.config.norm_type == "spatial" else None
        values = self.model.decoder(self.model.post_quant_conv(codes), spatial)
        return ((values.float() + 1) * 127.5 + 0.5).clamp(0, 255).to(torch.uint8)


def _vq_model() -> Any:
    try:
        from diffusers import VQModel
    except (ImportError, RuntimeError) as error:   # the package wraps what its own imports raise
        raise ValueError(f"diffusers cannot be imported ({' '.join(str(error).split())[:200]}). Its networks are those "
                         "of this tokenizer: pip install diffusers") from error
    return VQModel
