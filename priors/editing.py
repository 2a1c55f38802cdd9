"""Known tokens from pixels: which to paint anew, which to keep, and whose (Bond-Taylor et al. 2022, Section 4.5).

    hidden = token_mask(repaint, grid=(16, 16))                    # (H, W) bool -> (N,) bool
    known = hide(tokens, hidden)                                   # (N,), UNKNOWN where hidden
    prior.sample(8, sampler=prior.Sampler(), known=known.expand(8, -1), draws=draws)

Pure functions on tokens and masks; every token of `known` that is not UNKNOWN comes back from `sample` unchanged.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from priors.base import UNKNOWN, Draws


def token_mask(pixels: Tensor, *, grid: tuple[int, int]) -> Tensor:
    """Tokens that a pixel mask touches, be it in one pixel (max-pooling): (H, W) bool -> (N,) bool.

    Raises ValueError if H, W is not a whole multiple of the grid.
    """
    return token_shares(pixels.unsqueeze(0), grid=grid)[0] > 0


def token_shares(pixels: Tensor, *, grid: tuple[int, int]) -> Tensor:
    """How much of each token's patch every mask covers: (S, H, W) bool -> (S, N) float32 in [0, 1]."""
    height, width = pixels.shape[-2:]
    if pixels.dtype != torch.bool or pixels.ndim != 3 or height % grid[0] or width % grid[1]:
        raise ValueError(
            f"masks are {pixels.dtype} of shape {tuple(pixels.shape)}: expected bool of (S, H, W), H and W whole "
            f"multiples of the token grid {grid[0]}x{grid[1]}; give a mask of the image's own size"
        )
    return F.avg_pool2d(pixels.float().unsqueeze(1), (height // grid[0], width // grid[1])).flatten(1)


def hide(tokens: Tensor, hidden: Tensor) -> Tensor:
    """Tokens (..., N) with UNKNOWN where `hidden` (N,) bool.

    Raises ValueError if nothing or everything is hidden: then there is nothing to paint or nothing to go by.
    """
    if hidden.dtype != torch.bool or hidden.shape != tokens.shape[-1:]:
        raise ValueError(
            f"hidden is {hidden.dtype} of shape {tuple(hidden.shape)}: expected bool of ({tokens.shape[-1]},), "
            "one for each token"
        )
    if not hidden.any():
        raise ValueError("the mask hides no token: nothing would be painted; mark what is to be painted anew")
    if hidden.all():
        raise ValueError(f"the mask touches all {len(hidden)} tokens: nothing is known; sample without known tokens, "
                         "or leave part of the image out of the mask")
    return tokens.masked_fill(hidden, UNKNOWN)


def stitch(tokens: Tensor, regions: Tensor, *, grid: tuple[int, int]) -> Tensor:
    """Known tokens taken from several images, UNKNOWN where none gives any: -> (N,) int64.

    tokens: (S, N), one row an image; regions: (S, H, W) bool, what to take of each. A token that the regions of two
    images touch is that of the one that covers more of it (of the earlier where they are equal).
    Raises ValueError where regions share a pixel, are empty, or leave nothing to fill.
    """
    if tokens.ndim != 2 or regions.shape[:1] != tokens.shape[:1]:
        raise ValueError(
            f"{tuple(tokens.shape)} tokens and {tuple(regions.shape)} regions: expected one region an image")
    shared = int((regions.sum(0) > 1).sum())
    if shared:
        raise ValueError(f"the regions of different images share {shared} pixels: expected each pixel in one at most")
    shares = token_shares(regions, grid=grid)   # (S, N)
    empty = [index for index, share in enumerate(shares) if not share.any()]
    if empty:
        raise ValueError(f"the region of image {empty[0] + 1} is empty: mark what is to be taken, or leave it out")
    most, owner = shares.max(0)
    chosen = tokens.gather(0, owner.unsqueeze(0)).squeeze(0)
    return hide(chosen, most == 0)


def box_mask(box: tuple[int, int, int, int], *, size: tuple[int, int]) -> Tensor:
    """True in x0 <= x < x1, y0 <= y < y1 of (height, width) pixels: -> (height, width) bool."""
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= size[1] and 0 <= y0 < y1 <= size[0]):
        raise ValueError(f"box={x0},{y0},{x1},{y1}: expected 0 <= x0 < x1 <= {size[1]} and 0 <= y0 < y1 <= {size[0]}, "
                         "in pixels, x1 and y1 not included")
    mask = torch.zeros(size, dtype=torch.bool)
    mask[y0:y1, x0:x1] = True
    return mask


def centre_box(grid: tuple[int, int]) -> Tensor:
    """The middle half of the height and of the width: (h, w) -> (N,) bool."""
    h, w = grid
    top, left = h // 4, w // 4
    mask = torch.zeros(grid, dtype=torch.bool)
    mask[top : top + max(1, h // 2), left : left + max(1, w // 2)] = True
    return mask.flatten()


def lower_half(grid: tuple[int, int]) -> Tensor:
    """All rows but the top half, which is what a prior in raster order can be given: (h, w) -> (N,) bool."""
    mask = torch.zeros(grid, dtype=torch.bool)
    mask[grid[0] // 2 :] = True
    return mask.flatten()


def random_half(grid: tuple[int, int], *, draws: Draws) -> Tensor:
    """Exactly half of the tokens (rounded down), anywhere: (h, w) -> (N,) bool."""
    num_tokens = grid[0] * grid[1]
    mask = torch.zeros(num_tokens, dtype=torch.bool)
    mask[draws.permutation(num_tokens)[: num_tokens // 2].cpu()] = True
    return mask


def to_pixels(mask: Tensor, *, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Each token's value over its patch: (..., N) -> (..., height, width)."""
    patch = (size[0] // grid[0], size[1] // grid[1])
    unflat = mask.unflatten(-1, grid)
    return unflat.repeat_interleave(patch[0], -2).repeat_interleave(patch[1], -1)
