"""What a token costs by how much of its image is known: tells a prior that underfits from one with a harder task.

A diffusion predicts tokens from any others, an autoregressive prior from those before them. Both are asked with k
tokens unknown, k = 1..N, in the evaluations that their likelihood makes anyway; m_k is the mean cost then. The same
m_k give the bound of T steps, sum_k w_k m_k, where the likelihood is the bound of infinitely many, sum_k m_k.

    by_unknown(seen, grid=(8, 8))["bits_by_unknown"][0]   # {"unknown": [1, 1], "bits": ..., "standard_error": ...}
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from priors.base import Likelihood, NatsByUnknown

BIT = math.log(2)


def joined(parts: Sequence[NatsByUnknown | None]) -> NatsByUnknown | None:
    """Those of all batches, (M, N) on the CPU; None if one has none."""
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    return NatsByUnknown(torch.cat([part.nats.double().cpu() for part in known]),
                         torch.cat([part.times.double().cpu() for part in known]), known[0].step_weights)


def by_unknown(seen: NatsByUnknown, *, grid: tuple[int, int]) -> dict[str, Any]:
    """For a record: bits a token by octaves of k, and of the last row of the grid (k = 1 .. its width).

    The levels of a range count alike, those that no evaluation met not at all. standard_error: over images, None for
    one; a range without any evaluation is left out.
    """
    num_tokens, ranges, least = seen.nats.shape[1], [], 1
    while least <= num_tokens:
        ranges.append((least, min(2 * least - 1, num_tokens)))
        least *= 2
    found = [entry for entry in (_of_range(seen, *ends) for ends in ranges) if entry]
    row = _of_range(seen, 1, min(grid[1], num_tokens))
    return {"bits_by_unknown": found} | ({"last_row": row} if row else {})


def bound_T(likelihood: Likelihood) -> dict[str, float | None] | None:
    """Bits a token of the T-step bound, from a likelihood of kind bound_continuous: sum of nats + sum_k (w_k - 1) m_k.

    None where the likelihood is of another kind, or a level that matters was never met.
    """
    seen = likelihood.by_unknown
    if likelihood.kind != "bound_continuous" or seen is None or seen.step_weights is None:
        return None
    extra = seen.step_weights.double().cpu() - 1
    mean, influence, met = _levels(seen)
    if (extra[~met].abs() > 1e-3).any() or not likelihood.nats.isfinite().all():
        return None
    each = likelihood.nats.double().cpu() + (mean[met] * extra[met]).sum() + influence[:, met] @ extra[met]   # (M,)
    num_tokens = seen.nats.shape[1]
    return {"bits": float(each.mean()) / num_tokens / BIT, "standard_error": _error(each / num_tokens / BIT)}


def _levels(seen: NatsByUnknown) -> tuple[Tensor, Tensor, Tensor]:
    """m_k (N,), each image's influence on it (M, N), of mean 0, and which levels were met (N,) bool."""
    times = seen.times.mean(0)
    met = times > 0
    mean = seen.nats.mean(0) / times.clamp_min(1e-300)
    return mean, (seen.nats - mean * seen.times) / times.clamp_min(1e-300), met


def _of_range(seen: NatsByUnknown, least: int, most: int) -> dict[str, Any] | None:
    mean, influence, met = (part[..., least - 1:most] for part in _levels(seen))
    if not met.any():
        return None
    each = influence[:, met].mean(1) / BIT   # (M,)
    return {"unknown": [least, most], "bits": float(mean[met].mean()) / BIT, "standard_error": _error(each)}


def _error(each: Tensor) -> float | None:
    return float(each.std()) / len(each) ** 0.5 if len(each) > 1 else None
