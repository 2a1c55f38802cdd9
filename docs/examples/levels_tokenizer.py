"""A tokenizer of one's own: each patch becomes the nearest of K grey levels, which training puts where they are needed.

    python -m bench.run vq=levels_tokenizer:Levels vq.patch=4 prior=unigram dataset=digits preset=smoke
"""
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Options:
    """patch: side of the square that is one token, in pixels.  codebook_size: K, how many levels."""

    patch: int = 4
    codebook_size: int = 16

    def __post_init__(self):
        for name in ("patch", "codebook_size"):
            if not 1 <= getattr(self, name) <= 65_536:
                raise ValueError(f"{name}={getattr(self, name)}: expected 1 to 65536; leave it out for the default")


class Levels(nn.Module):
    Options = Options

    def __init__(self, *, options, resolution):
        super().__init__()
        if resolution % options.patch:
            raise ValueError(f"patch={options.patch}: expected a divisor of the resolution {resolution}; change one")
        self.options, self.resolution, self.codebook_size = options, resolution, options.codebook_size
        self.grid = (resolution // options.patch, resolution // options.patch)
        self.levels = nn.Parameter(torch.linspace(0, 255, self.codebook_size))

    def grey(self, images):   # (B, 3, H, W) uint8 -> (B, h, w), the mean of each patch
        if images.dtype != torch.uint8:
            raise ValueError(f"images are {images.dtype}, expected torch.uint8")
        return nn.functional.avg_pool2d(images.float().mean(1, keepdim=True), self.options.patch)[:, 0]

    def encode(self, images):   # (B, 3, H, W) uint8 -> (B, N)
        return (self.grey(images).flatten(1).unsqueeze(2) - self.levels).abs().argmin(2)

    def decode(self, tokens):   # (B, N), or a (B, h, w) canvas -> (B, 3, H, W) uint8
        grey = self.levels[tokens.view(len(tokens), *(self.grid if tokens.dim() == 2 else tokens.shape[1:]))]
        large = grey.repeat_interleave(self.options.patch, 1).repeat_interleave(self.options.patch, 2)
        return large.round().clamp(0, 255).to(torch.uint8)[:, None].expand(-1, 3, -1, -1).contiguous()

    def trainable(self, *, perceptual, learning_rate, betas):   # `perceptual`, an LPIPS network, is not needed here
        return Training(self, learning_rate, tuple(betas))


class Training(nn.Module):
    """What the one training loop trains: levels move towards the patches that are nearest to them."""

    def __init__(self, model, learning_rate, betas):
        super().__init__()
        self.model = model
        self.optimizer = torch.optim.Adam(model.parameters(), lr=255 * learning_rate, betas=betas)

    def optimizers(self):
        return [self.optimizer]

    def update(self, batch, step, draws, optimize):
        loss = self.validate(self.model, batch, draws)["loss"]
        optimize(loss, self.optimizer)
        return {"loss": loss.detach()}

    def validate(self, model, batch, draws):
        grey = model.grey(batch).flatten(1)
        return {"loss": (grey - model.levels[model.encode(batch)]).square().mean()}
