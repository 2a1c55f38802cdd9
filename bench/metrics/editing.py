"""Does an edit show? Steps of brightness across a border, against steps where there is no border.

    border = border_step(completed, hidden, patch=4)              # (n,) grey levels, across the mask's border
    ratio = border.mean() / border_step(originals, hidden, patch=4).mean()     # 1: no more of a step than there was
"""

from __future__ import annotations

import numpy as np

from bench.metrics.intervals import normal_interval


def border_step(images: np.ndarray, hidden: np.ndarray, *, patch: int) -> np.ndarray:
    """Mean absolute difference of neighbouring pixels on two sides of the mask's border: (n,) float64, 0..255.

    images: (n, 3, H, W) uint8; hidden: (n, h, w) bool tokens, each of patch x patch pixels.
    """
    pixels = images.astype(np.float64)
    mask = hidden.repeat(patch, 1).repeat(patch, 2)[:, None]   # (n, 1, H, W)
    total, count = np.zeros(len(images)), np.zeros(len(images))
    for axis in (2, 3):
        crosses = np.diff(mask, axis=axis)   # of booleans: where it changes
        step = np.abs(np.diff(pixels, axis=axis))
        total += (step * crosses).sum((1, 2, 3))
        count += 3 * crosses.sum((1, 2, 3))
    if not count.all():
        raise ValueError("a mask without a border hides nothing or everything; expected some of both")
    return total / count


def line_steps(images: np.ndarray, *, patch: int) -> np.ndarray:
    """Mean absolute step across every line between rows of tokens and between columns: (n, h - 1 + w - 1) float64.

    Only steps between patches are compared with each other, so that the decoder's own patches tell nothing.
    """
    pixels = images.astype(np.float64)
    rows = np.abs(np.diff(pixels, axis=2))[:, :, patch - 1::patch].mean((1, 3))
    columns = np.abs(np.diff(pixels, axis=3))[:, :, :, patch - 1::patch].mean((1, 2))
    return np.concatenate([rows, columns], 1)


def window_edges(canvas: tuple[int, int], window: tuple[int, int], corners: np.ndarray) -> np.ndarray:
    """(h - 1 + w - 1,) bool, in the order of `line_steps`: lines where some window begins or ends."""
    parts = []
    for axis in (0, 1):
        lines = np.arange(1, canvas[axis])   # line i lies between token i - 1 and i
        edges = {*corners[:, axis].tolist(), *(corners[:, axis] + window[axis]).tolist()}
        parts.append(np.isin(lines, sorted(edges)))
    return np.concatenate(parts)


def seam_ratio(images: np.ndarray, edges: np.ndarray, *, patch: int) -> tuple[float, float, float]:
    """Mean step across window edges over the mean step across the other lines, with its 95% interval over images."""
    steps = line_steps(images, patch=patch)
    return ratio_of_means(steps[:, edges].mean(1), steps[:, ~edges].mean(1))


def ratio_of_means(above: np.ndarray, below: np.ndarray) -> tuple[float, float, float]:
    """mean(above) / mean(below) of n pairs, and its 95% interval by the delta method (paired)."""
    ratio = above.mean() / below.mean()
    if len(above) < 2:
        return float(ratio), float("nan"), float("nan")
    error = (above - ratio * below).std(ddof=1) / np.sqrt(len(above)) / below.mean()
    return float(ratio), *normal_interval(float(ratio), float(error))
