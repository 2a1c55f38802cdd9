"""A VQGAN's networks and what it computes: images to tokens, tokens to images, the likelihood of pixels.

Esser et al. 2021, as used by Bond-Taylor et al. 2022 ("Unleashing Transformers", section 3.1). How it is trained and
what checkpoints it is read from, vq.training and vq.checkpoints know, and vq.vqgan puts all of it together.

    tokenizer = VQGANModel(options=VQGANOptions(), resolution=256)
    tokenizer.decode(tokenizer.encode(images))   # (B, 3, 256, 256) uint8, there and back
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vq.autoencoder import Decoder, Encoder
from vq.base import PixelLikelihood
from vq.checks import check_canvas, check_images
from vq.discriminator import Discriminator
from vq.losses import discretised_gaussian_log_mass, gaussian_log_density
from vq.options import VQGANOptions
from vq.quantize import GumbelQuantizer, NearestQuantizer
from vq.scalar_quantize import BinaryQuantizer, ScalarQuantizer

QUANTIZERS: dict[str, type[NearestQuantizer | GumbelQuantizer | ScalarQuantizer | BinaryQuantizer]] = {
    "nearest": NearestQuantizer, "gumbel": GumbelQuantizer, "fsq": ScalarQuantizer, "lfq": BinaryQuantizer}

class VQGANModel(nn.Module):
    """Networks on float tensors (`encoder`, `quantizer`, `decoder`, `discriminator`) and a Tokenizer on uint8 images.

    Weights are kept in channels_last, which is faster for these shapes on CPU and GPU.
    unused_keys: of an imported model alone (vq.checkpoints), the keys of its file that it has no use for.
    Raises ValueError if the resolution does not suit the options.
    """

    Options = VQGANOptions
    unused_keys: tuple[str, ...]

    def __init__(self, *, options: VQGANOptions, resolution: int):
        super().__init__()
        self.grid = options.grid(resolution)
        self.options = options
        self.resolution = resolution
        self.codebook_size = options.codebook_size
        self.encoder = Encoder(options, resolution=resolution)
        self.quantizer = QUANTIZERS[options.quantizer](options)
        self.decoder = Decoder(options, resolution=resolution)
        self.discriminator = Discriminator(channels=options.disc_channels, layers=options.disc_layers)
        self.to(memory_format=torch.channels_last)   # type: ignore[call-overload]   # torch's stubs lack it

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, N) int64 in [0, K), row by row."""
        return self.quantizer.indices(self.encoder(self.to_float(images)))

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """(B, N) int64 -> (B, 3, H, W) uint8; a (B, h, w) canvas of another size decodes to its own size.

        Raises ValueError if a token is outside the codebook, or N is not the grid's.
        """
        return self.to_uint8(self.decoder(self.quantizer.lookup(self._canvas(tokens))))

    @property
    def likelihood_head(self) -> nn.Module | None:
        """The log-sigma head, None without one."""
        return self.decoder.logsigma

    @torch.no_grad()
    def log_likelihood(self, images: Tensor, *, bits: int = 8) -> PixelLikelihood:
        """log p(image | its tokens) of (B, 3, H, W) uint8 images, reduced to `bits` a channel first (`reduce_bits`).

        mass: the Gaussian's integral over each value's bin, a true probability. density: its density at the value
        times the bin's width, which is what the paper's 2.72 bits per dimension rests on.
        Bits per dimension of an image are (-log p(image | tokens) - log p(tokens)) / (3 H W ln 2).
        Raises ValueError without a likelihood head.
        """
        reduced = reduce_bits(images, bits)
        tokens = self.encode(reduced)
        mean, logsigma = (t.double() for t in self.gaussian(self.quantizer.lookup(self._canvas(tokens))))
        values, width = bin_centres(reduced, bits).to(mean), 2.0**-bits
        mass = discretised_gaussian_log_mass(values, mean, logsigma, width=width)
        density = gaussian_log_density(values, mean, logsigma) + math.log(width)
        return PixelLikelihood(tokens, mass.flatten(1).sum(1), density.flatten(1).sum(1))

    def gaussian(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of every pixel, for values in [0, 1]: (B, D, h, w) -> two (B, 3, H, W)."""
        return self.in_unit_range(*self.decoder.gaussian(latents))

    def in_unit_range(self, mean: Tensor, logsigma: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's Gaussian as one of values in [0, 1]."""
        if self.options.input_range == "signed":
            return (mean + 1) / 2, logsigma - math.log(2)
        return mean, logsigma

    def to_float(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> float in the networks' range and the weights' memory format; else ValueError."""
        check_images(images)
        weight = self.decoder.last_weight
        layout = torch.channels_last if weight.is_contiguous(memory_format=torch.channels_last) else \
            torch.contiguous_format
        x = images.to(weight.device, weight.dtype, memory_format=layout)
        return x.div_(127.5).sub_(1) if self.options.input_range == "signed" else x.div_(255)

    def to_uint8(self, values: Tensor) -> Tensor:
        """Float in the networks' range -> uint8, clamped and rounded to the nearest."""
        if self.options.input_range == "signed":
            values = (values + 1) / 2
        return values.float().mul(255).add_(0.5).clamp_(0, 255).to(torch.uint8, memory_format=torch.contiguous_format)

    def _canvas(self, tokens: Tensor) -> Tensor:
        """(B, N) or (B, h, w) -> (B, h, w) on this device."""
        canvas = check_canvas(tokens, grid=self.grid, codebook_size=self.codebook_size)
        return canvas.to(self.decoder.last_weight.device)


def reduce_bits(images: Tensor, bits: int) -> Tensor:
    """Keep the `bits` highest bits of every value and put it in the middle of its bin: uint8 -> uint8."""
    if not 1 <= bits <= 8:
        raise ValueError(f"bits={bits}: expected 1 to 8 bits a channel")
    dropped = 8 - bits
    return ((images >> dropped) << dropped) + ((1 << dropped) >> 1)


def bin_centres(reduced: Tensor, bits: int) -> Tensor:
    """Where images of `bits` a channel lie in (0, 1): uint8 -> float64, (k + 1/2) / 2^bits of level k."""
    return ((reduced >> (8 - bits)).double() + 0.5) * 2.0**-bits
