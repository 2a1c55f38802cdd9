"""The PatchGAN discriminator (Isola et al. 2017): a score for every patch of an image.

    Discriminator(channels=64, layers=3)(images)   # (B, 3, 256, 256) -> (B, 1, 30, 30)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MAX_WIDENING = 8   # widths grow 1, 2, 4, 8 and then stay


class Discriminator(nn.Module):
    """`layers` stride-2 convolutions, then two of stride 1; numbered as in the official checkpoints (main.0 ...)."""

    def __init__(self, *, channels: int, layers: int):
        super().__init__()
        modules: list[nn.Module] = [nn.Conv2d(3, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        width = channels
        for layer in range(1, layers + 1):
            wider = channels * min(2**layer, MAX_WIDENING)
            modules += [nn.Conv2d(width, wider, 4, stride=2 if layer < layers else 1, padding=1, bias=False),
                        nn.BatchNorm2d(wider), nn.LeakyReLU(0.2)]
            width = wider
        self.main = nn.Sequential(*modules, nn.Conv2d(width, 1, 4, padding=1))
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float -> (B, 1, h, w): higher is more like a photograph."""
        return self.main(images)


@torch.no_grad()
def _initialise(module: nn.Module) -> None:
    """Normal weights of deviation 0.02, as in pix2pix and the official code."""
    if isinstance(module, nn.Conv2d):
        module.weight.normal_(0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        module.weight.normal_(1.0, 0.02)
        module.bias.zero_()
