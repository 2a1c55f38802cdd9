"""A tokenizer without training for tests, which copy this file onto their path: `vq=patch_means:PatchMeans`."""

from dataclasses import dataclass

import torch


class PatchMeans(torch.nn.Module):
    """The mean of each 4x4 patch in four steps."""

    @dataclass(frozen=True)
    class Options:
        pass

    def __init__(self, *, options, resolution):
        super().__init__()
        self.resolution, self.codebook_size, self.grid = resolution, 4, (resolution // 4, resolution // 4)

    def encode(self, images):
        if images.dtype != torch.uint8:
            raise ValueError(f"images are {images.dtype}: expected uint8")
        return (torch.nn.functional.avg_pool2d(images.double(), 4).mean(1) / 64).long().flatten(1)

    def decode(self, tokens):
        canvas = (tokens.view(-1, *self.grid) if tokens.ndim == 2 else tokens).to(torch.uint8) * 64 + 32
        return canvas[:, None].repeat(1, 3, 1, 1).repeat_interleave(4, 2).repeat_interleave(4, 3)
