"""The VQGAN's two convolutional networks, numbered block by block as in the official checkpoints.

Architecture of Esser et al. 2021 ("Taming Transformers") as Bond-Taylor et al. 2022 use it: a convolution, residual
blocks a level with attention at low resolution, a residual-attention-residual middle, GroupNorm and a convolution.

    Decoder(options, resolution=32)(torch.randn(4, options.embedding_dim, 8, 8))   # (4, 3, 32, 32)
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from vq.options import VQGANOptions

GROUP_NORM_EPS = 1e-6   # official code


class Encoder(nn.Module):
    """Images to latent vectors: (B, 3, H, W) float -> (B, D, h, w)."""

    def __init__(self, options: VQGANOptions, *, resolution: int):
        super().__init__()
        self.final_activation = options.final_activation
        groups, multipliers = options.norm_groups, options.channel_multipliers
        width = options.channels
        blocks: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
        for level, multiplier in enumerate(multipliers):
            for _ in range(options.num_res_blocks):
                blocks.append(ResBlock(width, options.channels * multiplier, groups=groups))
                width = options.channels * multiplier
                if resolution in options.attention_resolutions:
                    blocks.append(Attention(width, groups=groups))
            if level < len(multipliers) - 1:
                blocks.append(Downsample(width))
                resolution //= 2
        blocks += _middle(width, groups=groups)
        blocks += [_norm(width, groups), nn.Conv2d(width, options.encoder_channels, 3, padding=1)]
        self.blocks = nn.ModuleList(blocks)
        self.quant_conv = _quant_conv(options, options.encoder_channels, options.embedding_dim)

    def forward(self, images: Tensor) -> Tensor:
        h = images
        for block in self.blocks[:-1]:
            h = block(h)
        if self.final_activation:
            h = F.silu(h)
        return self.quant_conv(self.blocks[-1](h))


class Decoder(nn.Module):
    """Latent vectors to images: (B, D, h, w) -> (B, 3, H, W) float, unbounded (the paper's generator)."""

    def __init__(self, options: VQGANOptions, *, resolution: int):
        super().__init__()
        self.final_activation = options.final_activation
        groups, multipliers = options.norm_groups, options.channel_multipliers
        resolution //= options.downsampling
        width = options.channels * multipliers[-1]
        blocks: list[nn.Module] = [nn.Conv2d(options.decoder_channels, width, 3, padding=1)]
        blocks += _middle(width, groups=groups)
        for level in reversed(range(len(multipliers))):
            for _ in range(options.blocks_in_decoder):
                blocks.append(ResBlock(width, options.channels * multipliers[level], groups=groups))
                width = options.channels * multipliers[level]
                if resolution in options.attention_resolutions:
                    blocks.append(Attention(width, groups=groups))
            if level > 0:
                blocks.append(Upsample(width))
                resolution *= 2
        blocks += [_norm(width, groups), nn.Conv2d(width, 3, 3, padding=1)]
        self.blocks = nn.ModuleList(blocks)
        self.post_quant_conv = _quant_conv(options, options.embedding_dim, options.decoder_channels)
        self.logsigma = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 3, 1)) \
            if options.likelihood_head else None

    @property
    def last_weight(self) -> Tensor:
        """Weight of the last convolution, where the adaptive weight compares gradients (Eq. 9c)."""
        last = self.blocks[-1]
        assert isinstance(last, nn.Conv2d)
        return last.weight

    def features(self, latents: Tensor) -> Tensor:
        """What the last convolution and the log-sigma head read: (B, D, h, w) -> (B, C, H, W)."""
        h = self.post_quant_conv(latents)
        for block in self.blocks[:-1]:
            h = block(h)
        return F.silu(h) if self.final_activation else h

    def forward(self, latents: Tensor) -> Tensor:
        return self.blocks[-1](self.features(latents))

    def gaussian(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of every pixel value: (B, D, h, w) -> two (B, 3, H, W)."""
        if self.logsigma is None:
            raise ValueError("likelihood_head=False: this decoder has no pixel likelihood; build it with "
                             "likelihood_head=True and train the head (vq.training.LikelihoodTraining)")
        h = self.features(latents)
        return self.blocks[-1](h), self.logsigma(h)


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), with a 1x1 convolution on x where the width changes."""

    def __init__(self, width_in: int, width_out: int, *, groups: int):
        super().__init__()
        self.norm1 = _norm(width_in, groups)
        self.conv1 = nn.Conv2d(width_in, width_out, 3, padding=1)
        self.norm2 = _norm(width_out, groups)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1)
        self.skip = nn.Identity() if width_in == width_out else nn.Conv2d(width_in, width_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.skip(x) + h


class Attention(nn.Module):
    """x + projection of one-head self-attention over positions, with scale C^-0.5."""

    def __init__(self, width: int, *, groups: int):
        super().__init__()
        self.norm = _norm(width, groups)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).permute(0, 2, 3, 1).reshape(b, 1, h * w, 3 * c)
        attended = F.scaled_dot_product_attention(*qkv.split(c, dim=-1))   # (B, 1, hw, C)
        return x + self.proj_out(attended.reshape(b, h, w, c).permute(0, 3, 1, 2))


class Downsample(nn.Module):
    """Halve height and width: a stride-2 convolution over an image padded by one pixel at the right and the bottom."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double height and width: nearest neighbour, then a convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _middle(width: int, *, groups: int) -> list[nn.Module]:
    return [ResBlock(width, width, groups=groups), Attention(width, groups=groups),
            ResBlock(width, width, groups=groups)]


def _norm(width: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, width, eps=GROUP_NORM_EPS)


def _quant_conv(options: VQGANOptions, width_in: int, width_out: int) -> nn.Module:
    return nn.Conv2d(width_in, width_out, 1) if options.quant_convs == "separate" else nn.Identity()
