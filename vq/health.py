"""How well a tokenizer does: use of its codebook, and likeness of its reconstructions. Pure functions.

    codebook_health(tokens, codebook_size=256).perplexity
    psnr(images, tokenizer.decode(tokenizer.encode(images)))   # (B,) decibels
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5         # Wang et al. 2004
SSIM_K1, SSIM_K2, LEVELS = 0.01, 0.03, 255.0


@dataclass(frozen=True)
class CodebookHealth:
    """usage: share of codes that occur, in [0, 1]. dead_codes: how many never do.

    perplexity: exp of the entropy of code frequencies, 1 (one code) to K (all equally often).
    """

    usage: float
    perplexity: float
    dead_codes: int


def codebook_health(tokens: Tensor, *, codebook_size: int) -> CodebookHealth:
    """Health over all tokens given, int64 of any shape."""
    return health_of_counts(count_codes(tokens, codebook_size))


def count_codes(tokens: Tensor, codebook_size: int) -> Tensor:
    """How often each code occurs: int64 of any shape -> (K,) int64. Counts of parts add up."""
    return torch.bincount(tokens.flatten(), minlength=codebook_size)


def health_of_counts(counts: Tensor) -> CodebookHealth:
    """Health from (K,) counts; ValueError if there are none."""
    if not counts.sum():
        raise ValueError("no tokens: codebook health needs at least one token")
    dead = int((counts == 0).sum())
    return CodebookHealth(usage=1 - dead / len(counts), perplexity=float(_perplexity_of(counts)), dead_codes=dead)


def perplexity(tokens: Tensor, codebook_size: int) -> Tensor:
    """exp of the entropy of code frequencies, (), without leaving the device."""
    return _perplexity_of(count_codes(tokens, codebook_size))


def psnr(images: Tensor, reconstruction: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in decibels: two (B, C, H, W) uint8 -> (B,) float64, infinite for equal images."""
    _check_pair(images, reconstruction)
    error = (images.double() - reconstruction.double()).square().flatten(1).mean(1)
    return 10 * torch.log10(LEVELS**2 / error)


def ssim(images: Tensor, reconstruction: Tensor) -> Tensor:
    """Structural similarity: two (B, C, H, W) uint8 -> (B,) float64 in [-1, 1], the mean over channels and windows.

    Wang et al. 2004: Gaussian window of 11 pixels and deviation 1.5, windows inside the image only, population
    variances; as skimage.metrics.structural_similarity(gaussian_weights=True, use_sample_covariance=False).
    """
    _check_pair(images, reconstruction)
    if min(images.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"images of {images.shape[-2]}x{images.shape[-1]} pixels: SSIM needs at least "
                         f"{SSIM_WINDOW}x{SSIM_WINDOW}")
    x, y = images.double(), reconstruction.double()
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = (SSIM_K1 * LEVELS) ** 2, (SSIM_K2 * LEVELS) ** 2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)
                  / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)))
    return similarity.flatten(1).mean(1)


def _perplexity_of(counts: Tensor) -> Tensor:
    share = counts.double() / counts.sum()
    return torch.exp(-torch.special.xlogy(share, share).sum())


def _blur(images: Tensor) -> Tensor:
    """Gaussian means of every full window: (B, C, H, W) -> (B, C, H-10, W-10)."""
    offsets = torch.arange(SSIM_WINDOW, dtype=images.dtype, device=images.device) - SSIM_WINDOW // 2
    kernel = torch.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, 1, -1)
    rows = F.conv2d(images, kernel, groups=images.shape[1])
    return F.conv2d(rows, kernel.transpose(2, 3), groups=images.shape[1])


def _check_pair(images: Tensor, reconstruction: Tensor) -> None:
    for name, tensor in (("images", images), ("reconstruction", reconstruction)):
        if tensor.dtype != torch.uint8 or tensor.ndim != 4:
            raise ValueError(f"{name} of shape {tuple(tensor.shape)} and type {tensor.dtype}: expected (B, C, H, W) "
                             "uint8")
    if images.shape != reconstruction.shape:
        raise ValueError(f"images {tuple(images.shape)} and reconstruction {tuple(reconstruction.shape)}: expected one "
                         "shape")
