"""The VQGAN's losses as pure functions (Bond-Taylor et al. 2022, Eqs. 5 and 9).

    weight = adaptive_weight(reconstruction_gradient, adversarial_gradient, lambda_max=1.0)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""LPIPS-like: two (B, 3, H, W) -> (B,) or (B, 1, 1, 1)."""

DELTA = 1e-4   # keeps the adaptive weight finite where the adversarial gradient vanishes (Eq. 9c)


def l1(images: Tensor, reconstruction: Tensor) -> Tensor:
    """Mean absolute difference, ()."""
    return (images - reconstruction).abs().mean()


def perceptual_distance(images: Tensor, reconstruction: Tensor, *, perceptual: Perceptual, values: str, fed: str,
                        resolution: int | None) -> Tensor:
    """Mean LPIPS, ().

    values: the range of both images, and fed: the range handed to LPIPS, "unit" [0, 1] or "signed" [-1, 1].
    resolution: enlarge smaller images to this many pixels first (bilinear); None leaves them as they are.
    """
    both = [_enlarge(_in_range(x, values, fed), resolution) for x in (images, reconstruction)]
    return perceptual(*both).mean()


def generator_loss(scores_of_fakes: Tensor) -> Tensor:
    """-mean D(T(x_hat)), ()."""
    return -scores_of_fakes.mean()


def discriminator_loss(scores_of_reals: Tensor, scores_of_fakes: Tensor) -> Tensor:
    """Hinge loss, halved, ()."""
    return 0.5 * (F.relu(1 - scores_of_reals).mean() + F.relu(1 + scores_of_fakes).mean())


def adaptive_weight(reconstruction_gradient: Tensor, adversarial_gradient: Tensor, *, lambda_max: float) -> Tensor:
    """lambda of Eq. 9c, (): how much the adversarial loss counts, from both gradients at the last decoder weight."""
    ratio = reconstruction_gradient.norm() / (adversarial_gradient.norm() + DELTA)
    return ratio.clamp(0.0, lambda_max).detach()


def _in_range(images: Tensor, values: str, wanted: str) -> Tensor:
    if values == wanted:
        return images
    return images * 2 - 1 if wanted == "signed" else (images + 1) / 2


def _enlarge(images: Tensor, resolution: int | None) -> Tensor:
    if resolution is None or images.shape[-1] >= resolution:
        return images
    return F.interpolate(images, size=(resolution, resolution), mode="bilinear", align_corners=False)


def gaussian_log_density(values: Tensor, mean: Tensor, logsigma: Tensor) -> Tensor:
    """log N(value; mean, exp(logsigma)^2), elementwise, in nats."""
    return -0.5 * ((values - mean) / logsigma.exp()).square() - logsigma - 0.5 * math.log(2 * math.pi)


def discretised_gaussian_log_mass(values: Tensor, mean: Tensor, logsigma: Tensor, *, width: float) -> Tensor:
    """log of the Gaussian's mass within width/2 of each value, elementwise, in nats.

    The bins at 0 and 1 reach to infinity, so that the masses of all values sum to one (Salimans et al. 2017).
    values: bin centres (k + 1/2) * width in (0, 1).
    """
    upper, lower = ((values + s * width / 2 - mean) / logsigma.exp() for s in (1, -1))
    upper = torch.where(values + width > 1, torch.inf, upper)
    lower = torch.where(values - width < 0, -torch.inf, lower)
    swap = lower > 0   # use the tail where the cumulative distribution has its precision
    low, high = torch.where(swap, -upper, lower), torch.where(swap, -lower, upper)
    log_high, log_low = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    return log_high + torch.log1p(-torch.exp(log_low - log_high).clamp(max=1 - 1e-7))
