"""The difference of two cells: paired by seeds where both have the same ones.

    estimate, seeds = compare_cells(absorbing.cells["fid"], autoregressive.cells["fid"])
"""

from __future__ import annotations

from bench.reporting.estimates import Estimate, Point, average_by_training, difference
from bench.reporting.rows import Cell

NOT_SAMPLED = ("bits_per_token", "bits_per_dim")
"""Metrics of the model and not of its samples: their sampling seeds are no repetitions."""


def compare_cells(ours: Cell, theirs: Cell) -> tuple[Estimate, str]:
    """ours - theirs, and the seeds behind it in words."""
    left, right = _by_seed(ours), _by_seed(theirs)
    common = sorted(left.keys() & right.keys())
    if not common:
        return difference(list(left.values()), list(right.values()), paired=False), "no common seed"
    training = len({training for training, _ in common})
    left, right = ({seeds: side[seeds] for seeds in common} for side in (left, right))
    if training > 1:
        left, right = average_by_training(left), average_by_training(right)
    estimate = difference(list(left.values()), list(right.values()), paired=True)
    sampling = "" if ours.metric in NOT_SAMPLED else f", {len({sampling for _, sampling in common})} sampling"
    return estimate, f"{training} training{sampling}"


def compare_timings(ours: Cell, theirs: Cell) -> tuple[Estimate, str]:
    """ours - theirs in seconds; where timings have no interval, from the ranges of their rounds.

    A range is no confidence interval: its verdict is that every round of one side beat every round of the other.
    """
    estimate, seeds = compare_cells(ours, theirs)
    left, right = _rounds(ours), _rounds(theirs)
    if estimate.has_interval or min(len(left), len(right)) < 3:
        return estimate, seeds
    basis = f"ranges of {len(left)} and {len(right)} rounds"
    return Estimate(estimate.value, min(left) - max(right), max(left) - min(right), basis), seeds


def _rounds(cell: Cell) -> list[float]:
    """Every timed round behind a cell."""
    return [float(value) for source in cell.sources for value in source.measurement.extra.get("rounds", ())]


def _by_seed(cell: Cell) -> dict[tuple[int, int], Point]:
    """(training seed, sampling seed) -> value; for metrics that need no samples one a training seed."""
    points = dict(zip(cell.seeds(), cell.points(), strict=True))
    return average_by_training(points) if cell.metric in NOT_SAMPLED else points
