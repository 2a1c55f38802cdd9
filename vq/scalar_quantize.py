"""Quantisers without a codebook to learn: every number of a latent vector is rounded by itself.

Finite scalar quantisation (Mentzer et al. 2023, "Finite Scalar Quantization: VQ-VAE Made Simple") and lookup-free
quantisation (Yu et al. 2023, "Language Model Beats Diffusion: Tokenizer is key to visual generation", MAGVIT-v2).
They answer the calls of vq.quantize's.

    latents, indices, loss = quantizer(h)                     # (B, D, h, w), (B, h*w) int64, ()
    quantizer.lookup(indices.view(B, h, w))                   # the same latents
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.base import UniformDraws
from vq.options import VQGANOptions

MARGIN = 1e-3   # by how much the bounded value may pass the outermost level, so that float32 reaches it
GROUP = 10      # numbers whose joint distribution over codes is formed at once: 1,024 codes


class ScalarQuantizer(nn.Module):
    """FSQ: tanh bounds number i to its L_i levels, rounding chooses one; codes lie in [-1, 1].

    An id is a number in mixed radix, the first of `levels` changing fastest, as in the paper.
    """

    levels: Tensor
    radix: Tensor

    def __init__(self, options: VQGANOptions):
        super().__init__()
        levels = options.levels
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        radix = list(itertools.accumulate(levels[:-1], lambda product, level: product * level, initial=1))
        self.register_buffer("radix", torch.tensor(radix), persistent=False)

    def forward(self, h: Tensor, *, step: int | None = None,
                draws: UniformDraws | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, D, h, w) -> latents (B, D, h, w), indices (B, h*w) int64, loss () = 0: there is nothing to pull.

        The gradient is the bound's: rounding passes it on as it is.
        """
        bounded = self._bounded(h)
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / self._half_width(), self.indices(h), h.new_zeros((), dtype=torch.float32)

    @torch.no_grad()
    def indices(self, h: Tensor) -> Tensor:
        """The code of each position: (B, D, h, w) -> (B, h*w) int64."""
        digits = self._bounded(h).round().long() + self._along_channels(self.levels // 2)
        return (digits * self._along_channels(self.radix)).sum(1).flatten(1)

    def lookup(self, tokens: Tensor) -> Tensor:
        """What the decoder is given: (B, h, w) int64 -> (B, D, h, w) in [-1, 1]."""
        digits = tokens[:, None] // self._along_channels(self.radix) % self._along_channels(self.levels)
        return (digits - self._along_channels(self.levels // 2)).float() / self._half_width()

    def _bounded(self, h: Tensor) -> Tensor:
        """Float32 between the outermost levels, integers being levels; an even number of them is shifted by a half.

        The shift is undone at zero, where an encoder's outputs begin.
        """
        with torch.autocast(h.device.type, enabled=False):
            half = self._along_channels((self.levels - 1) * (1 + MARGIN) / 2)
            offset = self._along_channels((self.levels % 2 == 0) * 0.5)
            return torch.tanh(h.float() + torch.atanh(offset / half)) * half - offset

    def _half_width(self) -> Tensor:
        return self._along_channels(self.levels // 2).float()

    def _along_channels(self, values: Tensor) -> Tensor:
        return values[:, None, None]


class BinaryQuantizer(nn.Module):
    """LFQ: the signs of D numbers, an id being their bits, the first number's the lowest.

    Loss: beta mean (h - sg[code])^2 + entropy_weight (mean of the entropy of q(code | position) - entropy of its mean),
    in nats, with q(code | position) proportional to exp(-|h - code|^2 / entropy_temperature).
    """

    def __init__(self, options: VQGANOptions):
        super().__init__()
        self.options = options
        self.register_buffer("radix", 2 ** torch.arange(options.embedding_dim), persistent=False)

    radix: Tensor

    def forward(self, h: Tensor, *, step: int | None = None,
                draws: UniformDraws | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, D, h, w) -> latents (B, D, h, w), indices (B, h*w) int64, loss (); the gradient goes straight through."""
        h = h.float()
        codes = _signs(h)
        loss = self.options.beta * F.mse_loss(h, codes)
        loss = loss + self.options.entropy_weight * entropy_loss(h, temperature=self.options.entropy_temperature)
        return h + (codes - h).detach(), self.indices(h), loss

    @torch.no_grad()
    def indices(self, h: Tensor) -> Tensor:
        """The code of each position: (B, D, h, w) -> (B, h*w) int64."""
        return ((h > 0).long() * self.radix[:, None, None]).sum(1).flatten(1)

    def lookup(self, tokens: Tensor) -> Tensor:
        """What the decoder is given: (B, h, w) int64 -> (B, D, h, w) of -1 and 1."""
        return (tokens[:, None] // self.radix[:, None, None] % 2 * 2 - 1).float()


def entropy_loss(h: Tensor, *, temperature: float) -> Tensor:
    """Mean entropy of q(code | position) minus the entropy of the mean over positions, in nats: (B, D, h, w) -> ().

    Bits are independent given the position, so the first is a sum over them. The second is exact up to ten numbers;
    beyond, it is summed over groups of ten, which is the joint entropy where groups are independent.
    """
    logits = 4 * h.permute(0, 2, 3, 1).reshape(-1, h.shape[1]) / temperature   # log q(+1) / q(-1): (P, D)
    logs = torch.stack([F.logsigmoid(-logits), F.logsigmoid(logits)], -1)      # (P, D, 2)
    of_positions = -(logs.exp() * logs).sum((1, 2)).mean()
    of_means = [_entropy(_joint(group.exp()).mean(0)) for group in logs.split(GROUP, dim=1)]
    return of_positions - torch.stack(of_means).sum()


def _joint(bits: Tensor) -> Tensor:
    """Probabilities of every combination of independent bits: (P, D, 2) -> (P, 2^D)."""
    joint = bits.new_ones(len(bits), 1)
    for index in range(bits.shape[1]):
        joint = (joint[:, :, None] * bits[:, index, None]).flatten(1)
    return joint


def _entropy(probabilities: Tensor) -> Tensor:
    """(K,) -> (), in nats, 0 log 0 being 0."""
    return -torch.xlogy(probabilities, probabilities.clamp(min=math.exp(-80))).sum()


def _signs(h: Tensor) -> Tensor:
    """1 above zero, else -1; no gradient."""
    return (h.detach() > 0).to(h) * 2 - 1
