"""How many tokens each sampling step reveals, in what order, and in what order a grid is walked: pure functions.

    masked_counts("cosine", 256, 8)   # tensor([256, 251, 237, 213, 181, 142, 98, 50, 0])

u is the number of unknown tokens of an image, n the number of steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def masked_share(schedule: str, progress: Tensor) -> Tensor:
    """Share of tokens still masked after a share `progress` of the steps: 1 at 0, 0 at 1."""
    return {"even": _even, "cosine": _cosine}[schedule](progress)


def _even(progress: Tensor) -> Tensor:
    return 1 - progress


def _cosine(progress: Tensor) -> Tensor:
    return torch.cos(progress * (math.pi / 2))   # Chang et al. 2022, Section 3.3


def revealed_shares(schedule: str, num_steps: Tensor) -> Tensor:
    """(B, n + 1) float64: each image's share of tokens revealed before its steps and after them, from 0 to 1.

    num_steps: (B,) int64, n being the largest; an image of fewer steps stays at 1 when it has made them.
    """
    steps = torch.arange(int(num_steps.max()) + 1, dtype=torch.float64)
    return 1 - masked_share(schedule, (steps / num_steps.unsqueeze(1)).clamp(max=1.0))


def cosine_times(t: Tensor, timesteps: int) -> Tensor:
    """Times even in 1..T -> times of the same range whose shares t/T are cosines of even angles (Chang et al. 2022)."""
    exact = _cosine((t.double() - 1) / timesteps) * timesteps
    return (exact - 1e-9).ceil().long()   # the cosine of 60 degrees comes out above a half


def masked_counts(schedule: str, num_unknown: int, num_steps: int) -> Tensor:
    """(n + 1,) int64: tokens masked before each step and after the last, from u down to 0; a step may reveal none."""
    progress = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    counts = (masked_share(schedule, progress) * num_unknown).round().long()
    counts[0], counts[-1] = num_unknown, 0   # cos(pi/2) is not quite 0
    return counts


def random_reveal_steps(schedule: str, uniforms: Tensor, num_steps: Tensor | int) -> Tensor:
    """The step, n..1, at which each token is revealed, independently of the others: distributed as in the paper's loop.

    A token still masked at step t of the even schedule is revealed with probability 1/t: its step is uniform on 1..n.
    uniforms: any shape, in [0, 1); num_steps: an int or a tensor that broadcasts.  Returns int64.
    """
    if schedule == "even":
        time = uniforms.double()
    else:   # still masked after progress s with probability cos(pi s / 2): invert at the uniform
        time = 1 - torch.acos(uniforms.double()) / (math.pi / 2)
    return (time * num_steps).floor().long().clamp(min=0) + 1


def exact_reveal_steps(ranks: Tensor, counts: Tensor) -> Tensor:
    """The step, n..1, at which the token of each rank (0 first) is revealed, so that `counts` (n + 1,) stay masked."""
    revealed = counts[0] - counts[1:]   # (n,) how many are known after each step
    num_steps = len(revealed)
    return num_steps - torch.searchsorted(revealed.to(ranks.device), ranks, right=True)


def optimal_counts(nats_by_masked: Tensor, num_unknown: int, num_steps: int) -> Tensor:
    """(n + 1,) int64: the schedule of smallest bound, by dynamic programming (Watson et al. 2021; paper-spec's m_k).

    nats_by_masked: (N + 1,) m_k, the mean nats of a masked token when exactly k are masked (m_0 is not read).
    Revealing from k down to j tokens at once costs (k - j) m_k, and best[n](k) = min_j (k - j) m_k + best[n - 1](j).
    """
    u = num_unknown
    if num_steps >= u:   # one token a step is the best there is
        return torch.cat([torch.arange(u, -1, -1), torch.zeros(num_steps - u, dtype=torch.int64)])
    k = torch.arange(u + 1)
    cost = (k.unsqueeze(1) - k) * nats_by_masked[: u + 1].double().nan_to_num().unsqueeze(1)   # (from k, to j)
    cost = cost.masked_fill(k.unsqueeze(1) <= k, math.inf)
    best = torch.full((u + 1,), math.inf, dtype=torch.float64)
    best[0] = 0.0
    choices = []
    for _ in range(num_steps):
        best, choice = (cost + best).min(1)
        choices.append(choice)
    counts = [u]
    for choice in reversed(choices):
        counts.append(int(choice[counts[-1]]))
    return torch.tensor(counts)


def schedule_bound(nats_by_masked: Tensor, counts: Tensor) -> float:
    """Nats an image of the schedule's bound: sum over steps of (k_i - k_{i+1}) m_{k_i}."""
    return float(((counts[:-1] - counts[1:]) * nats_by_masked[counts[:-1]].double().nan_to_num()).sum())


def grid_order(name: str, grid: tuple[int, int]) -> Tensor:
    """(N,) int64: raster indices of an (h, w) grid in the order of the walk."""
    return torch.tensor({"raster": _raster, "column": _column, "spiral": _spiral, "halton": _halton}[name](*grid))


def _raster(h: int, w: int) -> list[int]:
    return list(range(h * w))


def _column(h: int, w: int) -> list[int]:
    return [row * w + column for column in range(w) for row in range(h)]


def _spiral(h: int, w: int) -> list[int]:
    """Clockwise from the top left corner inwards."""
    rows = [[row * w + column for column in range(w)] for row in range(h)]
    order = []
    while rows:
        order += rows.pop(0)
        rows = [list(row) for row in zip(*rows, strict=True)][::-1]   # turn the rest by 90 degrees
    return order


def _halton(h: int, w: int) -> list[int]:
    """Cells in the order in which the Halton sequence of bases 2 and 3 first hits them (Besnier et al. 2025)."""
    order: dict[int, None] = {}
    i = 0
    while len(order) < h * w:
        i += 1
        order.setdefault(_van_der_corput(i, 2, cells=h) * w + _van_der_corput(i, 3, cells=w))
    return list(order)


def _van_der_corput(i: int, base: int, *, cells: int) -> int:
    """Which of so many equal cells of [0, 1) holds 0.d0 d1 d2 ..., the digits of i mirrored at the point; exact."""
    mirrored, scale = 0, 1
    while i:
        i, digit = divmod(i, base)
        mirrored, scale = mirrored * base + digit, scale * base
    return mirrored * cells // scale


def interpolate(levels: Tensor, values: Tensor, n: int) -> Tensor:
    """(n,) values at 1..n, linear between the measured `levels` (ascending, from 1 to n)."""
    k = torch.arange(1, n + 1)
    right = torch.searchsorted(levels, k).clamp(1, max(len(levels) - 1, 1)).clamp(max=len(levels) - 1)
    left = (right - 1).clamp(min=0)
    share = (k - levels[left]) / (levels[right] - levels[left]).clamp(min=1)
    return values[left] + share * (values[right] - values[left])
