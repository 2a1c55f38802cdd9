"""The difference of two cells: paired by seeds where both have the same ones.

    estimate, seeds = compare_cells(absorbing.cells["fid"], autoregressive.cells["fid"])
"""

from __future__ import annotations

from bench.reporting.catalogue import metric_of
from bench.reporting.conditions import Conditions
from bench.reporting.estimates import Estimate, Point, average_by_training, difference
from bench.reporting.rows import Cell


def is_sampled(metric: str) -> bool:
    """False for metrics of the model and not of its samples: their sampling seeds are no repetitions."""
    return not metric.startswith("bits_per_")


def contest_of(cell: Cell) -> tuple[str, str, str, int | None, Conditions | None]:
    """Only cells that share this are compared: one tokenizer, one kind of likelihood on the same part of the held-out
    images, one number of images, of threads.

    Bits a token are of one tokenizer's tokens, an upper bound above an exact value refutes nothing, what weights were
    chosen on flatters them, the expectation of FID moves with the number of images, and two threads are not one.
    """
    column = metric_of(cell.metric)
    return (cell.tokenizer if column.within_tokenizer else "", cell.kind or cell.bound, cell.scored,
            cell.n if column.moves_with_n and not cell.printed else None, cell.timed)


def why_no_contest(ours: Cell, theirs: Cell) -> str:
    """Why neither can be called better, "" where they compete."""
    reasons = ("bits of two tokenizers", "two kinds of likelihood", "scored on other held-out images",
               "another number of images",
               "timed with other threads or on another device")
    return next((reason for reason, a, b in zip(reasons, contest_of(ours), contest_of(theirs), strict=True) if a != b),
                "")


def is_worse(ours: Cell, theirs: Cell) -> bool:
    """Whether ours is worse beyond the 95% interval of their difference, by the direction of its column.

    Counts, and published numbers, have no error: they are worse as soon as they differ. Other numbers without an
    interval cannot be told apart.
    """
    if ours.value is None or theirs.value is None or ours.value == theirs.value:
        return False
    column = metric_of(ours.metric, ours.better)
    sign = 1 if column.better == "lower" else -1
    if not ours.sources or not theirs.sources:
        return sign * (ours.value - theirs.value) > 0
    estimate, _ = compare_timings(ours, theirs)
    if estimate.low is None or estimate.high is None:
        return column.is_exact and sign * estimate.value > 0
    return estimate.low > 0 if sign > 0 else estimate.high < 0


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
    sampling = "" if not is_sampled(ours.metric) else f", {len({sampling for _, sampling in common})} sampling"
    return estimate, f"{training} training{sampling}"


def common_trainings(ours: Cell, theirs: Cell) -> int:
    """Trainings a side that a comparison rests on: those whose seed both have, or of the side with fewer."""
    left, right = ({training for training, _ in cell.seeds()} for cell in (ours, theirs))
    return len(left & right) or min(len(left), len(right))


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
    return points if is_sampled(cell.metric) else average_by_training(points)
