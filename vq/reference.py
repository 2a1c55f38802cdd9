"""The VQGAN as one writes it down first, on the weights of ours: what speed is measured against, and an oracle.

    naive_decode(model, naive_encode(model, images))

Activations lie in the contiguous format, attention builds its matrix of scores, distances to the codes are all formed,
codes are looked up by a one-hot product, and the adaptive weight costs two more backward passes through the losses.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam

from vq.autoencoder import Attention, ResBlock
from vq.base import UniformDraws
from vq.diffaug import diffaug
from vq.losses import Perceptual, adaptive_weight, discriminator_loss, generator_loss, l1, perceptual_distance
from vq.model import VQGANModel
from vq.quantize import NearestQuantizer


def textbook_copy(model: VQGANModel) -> VQGANModel:
    """The model with its own weights in the contiguous format. Only nearest codes by Euclidean distance are covered.

    Raises ValueError for other options, and for quant convs and a final activation.
    """
    options = model.options
    if (options.quantizer, options.lookup, options.quant_convs, options.final_activation) != (
            "nearest", "euclidean", "none", False):
        raise ValueError("the textbook VQGAN is the paper's: quantizer=nearest, lookup=euclidean, quant_convs=none and "
                         "final_activation=False")
    return copy.deepcopy(model).to(memory_format=torch.contiguous_format)   # type: ignore[call-overload]


@torch.no_grad()
def naive_encode(model: VQGANModel, images: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 -> (B, N) int64."""
    return _nearest(model, _through(model.encoder.blocks, _to_float(model, images)))


@torch.no_grad()
def naive_decode(model: VQGANModel, tokens: Tensor) -> Tensor:
    """(B, N) int64 -> (B, 3, H, W) uint8."""
    values = _through(model.decoder.blocks, _codes(model, tokens))
    values = (values + 1) / 2 if model.options.input_range == "signed" else values
    return (values * 255).round().clamp(0, 255).to(torch.uint8)


def naive_training_step(model: VQGANModel, *, perceptual: Perceptual,
                        learning_rate: float) -> Callable[[Tensor, UniformDraws], float]:
    """A function of (B, 3, H, W) uint8 and draws: one step with the adversarial loss; returns L1 + LPIPS."""
    options, last = model.options, model.decoder.last_weight
    autoencoder = Adam([*model.encoder.parameters(), *model.quantizer.parameters(), *model.decoder.blocks.parameters()],
                       lr=learning_rate)
    discriminator = Adam(model.discriminator.parameters(), lr=learning_rate)

    def augment(images: Tensor, draws: UniformDraws) -> Tensor:
        return diffaug(images, draws) if options.diffaug else images

    def step(batch: Tensor, draws: UniformDraws) -> float:
        images = _to_float(model, batch)
        h = _through(model.encoder.blocks, images)
        codes = _codes(model, _nearest(model, h))
        to_codes, to_latents = F.mse_loss(h, codes.detach()), F.mse_loss(codes, h.detach())
        codebook = to_codes + options.beta * to_latents if options.beta_on == "codebook" else \
            options.beta * to_codes + to_latents
        fake = _through(model.decoder.blocks, h + (codes - h).detach())
        distance = perceptual_distance(images, fake, perceptual=perceptual, values=options.input_range,
                                       fed=options.perceptual_input, resolution=options.perceptual_resolution)
        nll = l1(images, fake) + options.perceptual_weight * distance
        adversarial = generator_loss(model.discriminator(augment(fake, draws)))
        gradients = [torch.autograd.grad(loss, last, retain_graph=True)[0] for loss in (nll, adversarial)]
        weight = adaptive_weight(gradients[0], gradients[1], lambda_max=options.lambda_max)
        autoencoder.zero_grad()
        (nll + weight * adversarial + options.codebook_weight * codebook).backward()
        autoencoder.step()
        scores = [model.discriminator(augment(x, draws)) for x in (images, fake.detach())]
        discriminator.zero_grad()
        discriminator_loss(scores[0], scores[1]).backward()
        discriminator.step()
        return float(nll.detach())

    return step


def _to_float(model: VQGANModel, images: Tensor) -> Tensor:
    unit = images.float() / 255
    return unit * 2 - 1 if model.options.input_range == "signed" else unit


def _nearest(model: VQGANModel, h: Tensor) -> Tensor:
    vectors, codes = h.permute(0, 2, 3, 1).reshape(-1, h.shape[1]), _codebook(model)
    distances = vectors.square().sum(1, keepdim=True) + codes.square().sum(1) - 2 * vectors @ codes.t()
    return distances.argmin(1).view(len(h), -1)


def _codebook(model: VQGANModel) -> Tensor:
    assert isinstance(model.quantizer, NearestQuantizer)   # `textbook_copy` lets no other through
    return model.quantizer.embedding.weight


def _codes(model: VQGANModel, tokens: Tensor) -> Tensor:
    """(B, N) -> (B, D, h, w), by a one-hot product."""
    hot = F.one_hot(tokens, model.codebook_size).float()   # (B, N, K)
    height, width = model.grid
    vectors = hot @ _codebook(model)
    return vectors.transpose(1, 2).reshape(len(tokens), -1, height, width)


def _through(blocks: nn.ModuleList, x: Tensor) -> Tensor:
    for block in blocks:
        if isinstance(block, ResBlock):
            x = _residual(block, x)
        elif isinstance(block, Attention):
            x = _attention(block, x)
        else:
            x = block(x)
    return x


def _residual(block: ResBlock, x: Tensor) -> Tensor:
    h = block.norm1(x)
    h = block.norm2(block.conv1(h * torch.sigmoid(h)))
    return block.skip(x) + block.conv2(h * torch.sigmoid(h))


def _attention(block: Attention, x: Tensor) -> Tensor:
    b, c, height, width = x.shape
    query, key, value = block.qkv(block.norm(x)).reshape(b, 3, c, height * width).unbind(1)   # (B, C, hw)
    weights = (query.transpose(1, 2) @ key * c**-0.5).softmax(-1)   # (B, hw, hw)
    return x + block.proj_out((value @ weights.transpose(1, 2)).reshape(b, c, height, width))
