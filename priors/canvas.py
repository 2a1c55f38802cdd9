"""Images larger than the prior's: a mixture over windows of its own size (Bond-Taylor et al. 2022, Section 3.3, Eq. 8).

    windows = strided_windows((32, 32), (16, 16))                   # every position, as the paper
    sample_canvas(prior, 2, windows=windows, sampler=CanvasSampler(temperature=0.8), draws=draws).tokens   # (2, 1024)

A window is evaluated only when a cell in it is revealed; nothing is lost by that, since the other windows' predictions
are not read. The algorithm as published evaluates all of them every time: priors.reference.naive_canvas_sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from priors import samplers, schedules
from priors.base import UNKNOWN, Draws, MaskedPredictor, Sample, Unsupported, inverse_cdf
from priors.checks import check_known
from priors.condition_options import GuidedSampler
from priors.conditions import Condition, check_condition
from priors.guidance import Guidance, guided, of_images
from priors.option_checks import check_choice, check_integer, check_sampling

WINDOWS_A_FORWARD = 128


@dataclass(frozen=True)
class CanvasSampler(GuidedSampler):
    """How a canvas is filled.

    steps: reveal steps; None means one cell a step. With fewer, the same windows serve several cells.
    temperature, top_k, top_p: of the mixture's log-probabilities (the paper: temperature 0.8).
    order: "random", "raster" (the published code) or "halton".  schedule: "even" or "cosine".
    guidance, guidance_schedule: of every window, before they are mixed.
    """

    steps: int | None = None
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    order: str = "random"
    schedule: str = "even"

    def __post_init__(self):
        super().__post_init__()
        if self.steps is not None:
            check_integer("steps", self.steps, "leave it out for one cell a step")
        check_sampling(self.temperature, self.top_k, self.top_p)
        check_choice("order", self.order, ("random", "raster", "halton"))
        check_choice("schedule", self.schedule, ("even", "cosine"))


@dataclass(frozen=True)
class Windows:
    """Windows of one size on a canvas that together cover every cell.

    canvas, window: (height, width) in tokens.  corners: (W, 2) int64, the row and column of each top left cell.
    Raises ValueError where a window leaves the canvas or a cell lies in none.
    """

    canvas: tuple[int, int]
    window: tuple[int, int]
    corners: Tensor

    def __post_init__(self):
        limit = torch.tensor(self.canvas) - torch.tensor(self.window)
        if (self.corners < 0).any() or (self.corners > limit).any():
            raise ValueError(f"windows of {_by(self.window)} start outside 0..{limit.tolist()} of {_by(self.canvas)}")
        bare = int((~self.inside.any(1)).sum())
        if bare:
            raise ValueError(f"{bare} of the {len(self.inside)} cells of the {_by(self.canvas)} canvas lie in none of "
                             f"the {len(self.corners)} windows of {_by(self.window)}: use a stride of at most the "
                             "window's size, or more windows")

    def __len__(self) -> int:
        return len(self.corners)

    @cached_property
    def cells(self) -> Tensor:
        """(W, N) int64, the canvas cell of every position of every window."""
        rows = self.corners[:, :1] + torch.arange(self.window[0])
        columns = self.corners[:, 1:] + torch.arange(self.window[1])
        return (rows.unsqueeze(2) * self.canvas[1] + columns.unsqueeze(1)).flatten(1)

    @cached_property
    def inside(self) -> Tensor:
        """(C, W) bool, whether a cell lies in a window."""
        inside = torch.zeros(len(self.corners), self.canvas[0] * self.canvas[1], dtype=torch.bool)
        return inside.scatter_(1, self.cells, True).T.contiguous()

    def position(self, cell: Tensor, window: Tensor) -> Tensor:
        """Where in its window a cell stands: (P,), (P,) -> (P,) int64 in [0, N)."""
        corner = self.corners[window]
        return (cell // self.canvas[1] - corner[:, 0]) * self.window[1] + cell % self.canvas[1] - corner[:, 1]


def strided_windows(canvas: tuple[int, int], window: tuple[int, int], *, stride: int = 1) -> Windows:
    """Windows every `stride` cells, and flush with the far edges.

    Raises ValueError if the canvas is smaller than a window, or the stride is larger and leaves cells uncovered.
    """
    check_integer("stride", stride, f"use 1 for every position, up to {min(window)} for windows that just meet")
    _check_size(canvas, window)
    rows, columns = (sorted({*range(0, c - w + 1, stride), c - w}) for c, w in zip(canvas, window, strict=True))
    return Windows(canvas, window, torch.cartesian_prod(torch.tensor(rows), torch.tensor(columns)))


def random_windows(canvas: tuple[int, int], window: tuple[int, int], *, num: int, draws: Draws) -> Windows:
    """`num` windows at random places that cover every cell: as few as can cover it, jittered, then any others.

    Raises ValueError if so few cannot cover the canvas, or there are not so many.
    """
    check_integer("windows", num, "leave it out for every position")
    _check_size(canvas, window)
    rows, columns = (_jittered_starts(c, w, draws) for c, w in zip(canvas, window, strict=True))
    cover = [(row, column) for row in rows for column in columns]
    places = [(r, c) for r in range(canvas[0] - window[0] + 1) for c in range(canvas[1] - window[1] + 1)]
    if not len(cover) <= num <= len(places):
        raise ValueError(f"windows={num}: a {_by(canvas)} canvas takes {len(cover)} (to cover it) to {len(places)} "
                         f"(all there are) windows of {_by(window)}; choose a number between")
    others = [places[i] for i in draws.permutation(len(places)).tolist() if places[i] not in set(cover)]
    return Windows(canvas, window, torch.tensor(sorted(cover + others[: num - len(cover)])))


@torch.inference_mode()
def sample_canvas(
    prior, num: int, *, windows: Windows, sampler: CanvasSampler, known: Tensor | None = None,
    condition: Condition | None = None, draws: Draws,
) -> Sample:
    """Draw `num` canvases, tokens (num, C); `known` (num, C) holds tokens to keep and UNKNOWN where to fill.

    condition: of each canvas, the same for all its windows.
    network_evaluations counts windows pushed through the network, for each canvas.
    Raises Unsupported for a prior without `logits_at`, which cannot predict any token from any others.
    """
    num_cells = windows.canvas[0] * windows.canvas[1]
    options = getattr(prior, "options", None)   # of a plug-in perhaps none
    predict = guided(
        predictor(prior, windows), check_condition(condition, getattr(options, "condition", None), num,
                                                   device=draws.device),
        Guidance.of(sampler), progress=lambda tokens, at: (tokens != UNKNOWN).float().mean(1),
        num_prefix=getattr(options, "num_prefix", 0),
    )
    tokens = check_known(known, num, num_cells, prior.codebook_size, device=draws.device)
    reveal = reveal_steps(sampler, windows.canvas, tokens == UNKNOWN, draws=draws)
    sample = fill_canvas(
        predict, tokens, reveal, draws.uniform(*tokens.shape), windows=windows,
        adjust=samplers.Adjust(sampler.temperature, sampler.top_k, sampler.top_p),
    )
    return predict.counted(sample)


def predictor(prior, windows: Windows) -> samplers.Predict:
    """The prior's `logits_at`, if it has one and windows of the prior's size."""
    grid = tuple(prior.grid)
    if not isinstance(prior, MaskedPredictor):
        raise Unsupported(
            f"{type(prior).__name__} cannot predict any token from any others (it has no `logits_at`), which a mixture "
            "over windows needs; absorbing diffusion can"
        )
    if grid != windows.window:
        raise ValueError(f"windows are {_by(windows.window)}: expected {_by(grid)}, the grid of the prior")
    return prior.logits_at


def fill_canvas(
    predict: samplers.Predict, tokens: Tensor, reveal: Tensor, uniforms: Tensor, *, windows: Windows,
    adjust: Callable[[Tensor], Tensor],
) -> Sample:
    """Reveal cells from the highest step down, each from the mean of the predictions of all windows that hold it.

    predict: (tokens (E, N) with UNKNOWN, positions (E, R)) -> logits (E, R, K).
    tokens: (B, C) or UNKNOWN; reveal: (B, C) int64, the step of each unknown cell; uniforms: (B, C), one a cell.
    """
    state = tokens.clone()
    evaluations = torch.zeros(len(tokens), dtype=torch.int64)
    for event in samplers.plan_events(reveal, tokens == UNKNOWN):
        images = event.rows if event.images is None else event.images[event.rows]   # (M,)
        cells = event.positions[event.rows, event.slots]   # (M,)
        log_probabilities, used = mixture(predict, state, images, cells, windows)
        values = inverse_cdf(adjust(log_probabilities), uniforms[images.to(uniforms.device), cells.to(uniforms.device)])
        state[images.to(state.device), cells.to(state.device)] = values.to(state.device)
        evaluations += torch.bincount(used, minlength=len(tokens))
    return Sample(state, evaluations, evaluations * windows.cells.shape[1])


def mixture(predict: samplers.Predict, state: Tensor, images: Tensor, cells: Tensor,
            windows: Windows) -> tuple[Tensor, Tensor]:
    """Eq. 8 at M cells: log of the mean over windows of p(cell | window), (M, K) float32.

    state: (B, C); images, cells: (M,), which cell of which canvas.  Second: (E,) the canvas of each window evaluated.
    """
    cell, window = windows.inside[cells].nonzero(as_tuple=True)   # (P,) pairs: a cell (of M), a window that holds it
    needed, evaluation = torch.unique(images[cell] * len(windows) + window, return_inverse=True)   # (E,), (P,)
    image, corner = needed // len(windows), needed % len(windows)
    positions, slot = _grouped(windows.position(cells[cell], window), evaluation, len(needed))   # (E, R), (P,)
    total: Tensor | None = None
    for chosen, rows in _chunks(evaluation, len(needed)):   # rows: the pairs of these evaluations
        content = state[image[chosen].to(state.device).unsqueeze(1), windows.cells[corner[chosen]].to(state.device)]
        width = int(slot[rows].max()) + 1
        logits = of_images(predict, image[chosen])(content, positions[chosen, :width].to(state.device))
        probabilities = logits[evaluation[rows] - chosen.start, slot[rows]].float().softmax(-1)   # (p, K)
        if total is None:
            total = probabilities.new_zeros(len(cells), probabilities.shape[-1])
        total.index_add_(0, cell[rows].to(total.device), probabilities)
    assert total is not None, "every cell lies in a window"
    return (total / torch.bincount(cell, minlength=len(cells)).to(total).unsqueeze(1)).log(), image


def reveal_steps(sampler: CanvasSampler, canvas: tuple[int, int], unknown: Tensor, *, draws: Draws) -> Tensor:
    """(B, C) int64: the step, n..1, at which each unknown cell is revealed; the steps of known ones are not read."""
    num_cells = unknown.shape[1]
    if sampler.order == "random":
        priority = draws.uniform(*unknown.shape).argsort(1).cpu()
    else:
        priority = schedules.grid_order(sampler.order, canvas).argsort().expand(unknown.shape)
    ranks = priority.masked_fill(~unknown.cpu(), num_cells).argsort(1).argsort(1)   # among the unknown
    reveal = torch.ones_like(ranks)
    for row, num_unknown in enumerate(unknown.sum(1).tolist()):
        if num_unknown:
            steps = num_unknown if sampler.steps is None else max(1, round(sampler.steps * num_unknown / num_cells))
            counts = schedules.masked_counts(sampler.schedule, num_unknown, steps)
            reveal[row] = schedules.exact_reveal_steps(ranks[row].clamp(max=num_unknown - 1), counts)
    return reveal


def film(tokens: Tensor, reveal: Tensor, unknown: Tensor, *, frames: int) -> Tensor:
    """States on the way, UNKNOWN where not revealed yet: (B, C) -> (B, frames, C), from what was known to all.

    Frames are even in the number of cells revealed.
    """
    steps = reveal.cpu().masked_fill(~unknown.cpu(), reveal.max().item() + 1)
    rank = steps.argsort(dim=1, descending=True, stable=True).argsort(1)   # known ones first
    first = (~unknown.cpu()).sum(1, keepdim=True)
    shown = first + (torch.linspace(0, 1, frames) * (tokens.shape[1] - first)).round().long()   # (B, frames)
    visible = rank.unsqueeze(1) < shown.unsqueeze(2)
    return torch.where(visible.to(tokens.device), tokens.unsqueeze(1), UNKNOWN)


def _grouped(positions: Tensor, group: Tensor, num_groups: int) -> tuple[Tensor, Tensor]:
    """Positions (P,) as one row a group (E, R), padded by repeating the first, and the slot of each in its row (P,)."""
    order = group.argsort(stable=True)
    counts = torch.bincount(group, minlength=num_groups)
    start = counts.cumsum(0) - counts
    slot = torch.empty_like(order)
    slot[order] = torch.arange(len(order)) - start[group[order]]
    rows = positions[order[start]].unsqueeze(1).repeat(1, int(counts.max()))
    rows[group, slot] = positions
    return rows, slot


def _chunks(evaluation: Tensor, num: int) -> Iterator[tuple[slice, Tensor]]:
    """Ranges of evaluations, and the pairs that belong to each."""
    if num <= WINDOWS_A_FORWARD:
        yield slice(0, num), torch.arange(len(evaluation))
        return
    for start in range(0, num, WINDOWS_A_FORWARD):
        stop = min(start + WINDOWS_A_FORWARD, num)
        yield slice(start, stop), ((evaluation >= start) & (evaluation < stop)).nonzero().squeeze(1)


def _jittered_starts(size: int, window: int, draws: Draws) -> list[int]:
    """As few starts as let windows of this size cover a line, the inner ones at random: the first 0, the last flush."""
    count, starts = -(-size // window), [0]
    for index in range(1, count):
        low = max(size - window * (count - index), starts[-1] + 1)   # further left, the rest could not reach the end
        high = min(starts[-1] + window, size - window - (count - 1 - index))   # and leave room for the rest
        starts.append(size - window if index == count - 1 else int(draws.integers(low, high + 1, 1)))
    return starts


def _check_size(canvas: tuple[int, int], window: tuple[int, int]) -> None:
    if canvas[0] < window[0] or canvas[1] < window[1]:
        raise ValueError(f"a canvas of {_by(canvas)} tokens is smaller than the window of {_by(window)} that the prior "
                         f"was trained on: use at least {_by(window)}")


def _by(size) -> str:
    return f"{size[0]}x{size[1]}"
