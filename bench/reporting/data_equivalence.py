"""How many images the one prior needs for what another learns from fewer, with an interval.

    found = equivalence(absorbing_on_500, 500, {500: ar_on_500, 800: ar_on_800, 1500: ar_on_1500})
    found.text        # "1.20 [1.10, 1.30]": times as many; "> 3.00", "< 1.00": beyond what was trained

Both sides are taken at the best of their trainings, chosen on the selection half of the held-out images and read on the
scoring half. Between numbers of images that were trained, bits are interpolated in log images. The interval is the
bootstrap of the crossover: over trainings, images and Monte-Carlo error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.reporting.crossover import DRAWS, Training, mean_best, resampled

END = np.array([math.inf])
"""The grid of whole trainings."""


@dataclass(frozen=True)
class Equivalence:
    """ratio, low, high: images of the other side over those of the first, and the 95% interval; 0 below the fewest and
    inf beyond the most that were trained.  fewest, most: those two, as ratios.
    """

    ratio: float
    low: float
    high: float
    fewest: float
    most: float

    @property
    def text(self) -> str:
        """As printed in a table."""
        if self.low == self.high and self.ratio in (0, math.inf):   # all of it on one side of what was trained
            return self._end(self.ratio)
        return f"{self._end(self.ratio)} [{self._end(self.low)}, {self._end(self.high)}]"

    def _end(self, ratio: float) -> str:
        if math.isinf(ratio):
            return f"> {self.most:.2f}"
        return f"{ratio:.2f}" if ratio else f"< {self.fewest:.2f}"


def equivalence(first: Sequence[Training], images: int, others: Mapping[int, Sequence[Training]], *,
                draws: int = DRAWS, seed: int = 0) -> Equivalence:
    """first: trainings on so many images; others: the other prior's, by their images. All on the same held-out ones."""
    numbers = sorted(others)
    sides = [first, *(others[number] for number in numbers)]
    generator = np.random.default_rng(seed)
    found = [_needed([float(curve[0]) for curve in curves], numbers)
             for curves in (resampled(sides, [END] * len(sides), generator) for _ in range(draws))]
    low, high = np.quantile(found, (0.025, 0.975), method="closest_observation")
    whole = _needed([float(mean_best(side, END)[0]) for side in sides], numbers)
    return Equivalence(*(float(value) / images for value in (whole, low, high, numbers[0], numbers[-1])))


def _needed(bits: Sequence[float], numbers: Sequence[int]) -> float:
    """Images of the other side (bits[1:], at `numbers`) that reach bits[0]; 0 or inf outside of them."""
    aim, reached = bits[0], np.minimum.accumulate(bits[1:])
    if reached[0] <= aim:
        return 0.0 if reached[0] < aim else float(numbers[0])
    after = np.flatnonzero(reached <= aim)
    if not len(after):
        return math.inf
    at = int(after[0])
    share = (reached[at - 1] - aim) / (reached[at - 1] - reached[at])
    return float(np.exp(np.log(numbers[at - 1]) + share * (np.log(numbers[at]) - np.log(numbers[at - 1]))))
