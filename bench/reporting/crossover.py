"""Where one prior overtakes another along their trainings: the crossover, in passes over the data, with its interval.

    found = crossover(absorbing, autoregressive)      # two sides: the trainings of each
    found.passes, found.low, found.high               # math.inf where it lies beyond the shorter run
    found.text                                        # "75 passes [61, 92]", "> 213 passes"

Both sides are taken at their best so far: the point is chosen on the selection half of the held-out images and its
value read on the scoring half. The crossover is the first lasting change of sign of the difference of those values,
interpolated in log passes. The interval is a percentile bootstrap over trainings, over held-out images (the same ones
for both sides, because both are measured on the same) and over the Monte-Carlo error of bounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.training.trajectories import Trajectory

DRAWS = 1000


@dataclass(frozen=True)
class Training:
    """One training: its trajectory and the passes over the data at each of its points, ascending."""

    trajectory: Trajectory
    passes: np.ndarray


@dataclass(frozen=True)
class Crossover:
    """passes, low, high: where the first side overtakes the second, and the 95% interval; math.inf: not within the run.

    end: passes up to which both are known.
    difference, difference_low, difference_high: bits a token of the first minus the second, both at their best within
        `end`, with the same bootstrap's interval.
    trainings: of the two sides.
    """

    passes: float
    low: float
    high: float
    end: float
    difference: float
    difference_low: float
    difference_high: float
    trainings: tuple[int, int]

    @property
    def text(self) -> str:
        """As printed in a table."""
        ends = ", ".join(f"> {self.end:.0f}" if math.isinf(end) else f"{end:.0f}" for end in (self.low, self.high))
        if math.isinf(self.passes):
            return f"> {self.end:.0f} passes" + ("" if math.isinf(self.low) else f" [{ends}]")
        return f"{self.passes:.0f} passes [{ends}]"


def crossover(first: Sequence[Training], second: Sequence[Training], *, draws: int = DRAWS, seed: int = 0) -> Crossover:
    """Where `first` overtakes `second`; both measured on the same held-out images in the same order."""
    sides = (first, second)
    if not all(len(side) for side in sides) or not measured_alike([t for side in sides for t in side]):
        raise ValueError("a crossover needs trainings of both sides, measured on the same held-out images")
    grid = _grid(first, second)
    whole = [mean_best(side, grid) for side in sides]
    generator = np.random.default_rng(seed)
    found = [curves[0] - curves[1] for curves in (resampled(sides, (grid, grid), generator) for _ in range(draws))]
    low, high = np.quantile([_crossing(grid, difference) for difference in found], (0.025, 0.975),
                            method="closest_observation")
    difference_low, difference_high = np.quantile([difference[-1] for difference in found], (0.025, 0.975))
    difference = whole[0] - whole[1]
    return Crossover(_crossing(grid, difference), float(low), float(high), float(grid[-1]), float(difference[-1]),
                     float(difference_low), float(difference_high), (len(first), len(second)))


def measured_alike(trainings: Sequence[Training]) -> bool:
    """Whether they were measured on as many images of either half, as those on the same images are."""
    return len({tuple(len(t.trajectory.bits[half][0]) for half in ("selection", "scoring")) for t in trainings}) == 1


def best_so_far(training: Training, selection: np.ndarray, scoring: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """(points,) scoring bits at each number of passes of `grid`: of the point so far that `selection` ranks first."""
    leaders = np.array([int(selection[:end + 1].argmin()) for end in range(len(selection))])
    at = np.searchsorted(training.passes, grid * (1 + 1e-9), side="right") - 1   # a training that ended keeps its best
    return scoring[leaders[np.maximum(at, 0)]]


def _grid(first: Sequence[Training], second: Sequence[Training]) -> np.ndarray:
    """Passes at which every training has a point or has ended; up to the end of the first side's shortest."""
    every = [training.passes for training in (*first, *second)]
    begin, end = max(passes[0] for passes in every), min(training.passes[-1] for training in first)
    points = np.unique(np.round(np.concatenate(every), 9))
    return points[(points >= begin * (1 - 1e-9)) & (points <= end * (1 + 1e-9))]


def mean_best(side: Sequence[Training], grid: np.ndarray) -> np.ndarray:
    """(points,) `best_so_far` of a side's trainings, averaged."""
    return np.mean([best_so_far(t, t.trajectory.mean("selection"), t.trajectory.mean("scoring"), grid)
                    for t in side], 0)


def resampled(sides: Sequence[Sequence[Training]], grids: Sequence[np.ndarray], generator: np.random.Generator) \
        -> list[np.ndarray]:
    """`mean_best` of each side at its grid in one bootstrap draw: of each side's trainings, and of the held-out images,
    the same ones for all sides.
    """
    sizes = {half: len(sides[0][0].trajectory.bits[half][0]) for half in ("selection", "scoring")}
    weights = {half: np.bincount(generator.integers(size, size=size), minlength=size) / size
               for half, size in sizes.items()}
    curves = []
    for side, grid in zip(sides, grids, strict=True):
        # One fewer than there are: the spread of so small a bootstrap's means is then that of the trainings' mean.
        drawn = [side[i] for i in generator.integers(len(side), size=max(len(side) - 1, 1))]
        values = []
        for training in drawn:
            means = {}
            for half, weight in weights.items():
                # The points of a training share their draws, so one deviate moves them all.
                error = np.sqrt(np.array(training.trajectory.variance[half]) @ weight / sizes[half])
                means[half] = np.array(training.trajectory.bits[half]) @ weight + generator.normal() * error
            values.append(best_so_far(training, means["selection"], means["scoring"], grid))
        curves.append(np.mean(values, 0))
    return curves


def _crossing(grid: np.ndarray, difference: np.ndarray) -> float:
    """The last change to below zero, interpolated in log passes; inf where the end is not below, the first point where
    all is.
    """
    behind = np.flatnonzero(difference >= 0)
    if not len(behind):
        return float(grid[0])
    if (last := behind[-1]) == len(grid) - 1:
        return math.inf
    before, after = difference[last], difference[last + 1]
    share = before / (before - after)
    return float(np.exp(np.log(grid[last]) + share * (np.log(grid[last + 1]) - np.log(grid[last]))))
