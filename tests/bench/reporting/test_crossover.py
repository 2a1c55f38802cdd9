"""The crossover of two priors along their trainings, against trajectories whose crossing is known."""

import math

import numpy as np
import pytest

from bench.reporting.crossover import Training, crossover
from bench.training.trajectories import Trajectory

PASSES = 4 * 2 ** (np.arange(19) / 3)


def training(mean, generator=None, images=500, spread=0.8, seed_error=0.02, base=None):
    """A training whose means follow `mean(passes)`; images differ by `spread`, trainings by `seed_error` bits."""
    points = mean(PASSES)
    if generator is None:
        rows = {split: [np.full(images, value) for value in points] for split in ("train", "selection", "scoring")}
    else:
        offset = generator.normal(0, seed_error)
        rows = {split: [value + offset + base[split] + generator.normal(0, 0.1, images) for value in points]
                for split in ("train", "selection", "scoring")}
    none = {split: [np.zeros(images)] * len(points) for split in rows}
    return Training(Trajectory(list(range(1, len(points) + 1)), rows, none, "exact"), PASSES)


def overfits(passes):
    """Best at 16 passes with 6.5 bits, then worse."""
    return 6.5 + 0.3 * np.log(passes / 16) ** 2


def goes_on(passes, at=75.0):
    """Falls by .25 bits a unit of log passes and meets 6.5 bits at `at`."""
    return 6.5 - 0.25 * np.log(passes / at)


def test_a_known_crossing_is_found():
    found = crossover([training(goes_on)], [training(overfits)], draws=20)
    assert found.passes == pytest.approx(75, rel=0.02) and found.trainings == (1, 1)
    assert found.difference == pytest.approx(goes_on(PASSES[-1]) - overfits(PASSES).min(), abs=1e-6)


def test_what_lies_beyond_the_run_is_said_to():
    found = crossover([training(lambda p: goes_on(p, at=5000))], [training(overfits)], draws=20)
    assert math.isinf(found.passes) and found.text == "> 256 passes"


def test_only_a_lasting_change_of_sign_counts():
    early = lambda p: np.where(p < 8, 5.9 + p / 10, goes_on(p))   # noqa: E731
    late = lambda p: np.where(p < 8, 7.0, np.where(p < 20, 6.4, 6.3))   # noqa: E731
    found = crossover([training(early)], [training(late)], draws=20)
    assert math.isinf(found.passes) or found.passes > 20


def test_a_training_that_patience_ended_keeps_its_best():
    whole = training(overfits)
    short = Training(Trajectory(whole.trajectory.steps[:10], *(
        {split: rows[:10] for split, rows in arrays.items()}
        for arrays in (whole.trajectory.bits, whole.trajectory.variance)), "exact"), PASSES[:10])
    assert crossover([training(goes_on)], [short], draws=20).passes == \
        crossover([training(goes_on)], [whole], draws=20).passes


def test_trainings_of_other_images_are_refused():
    with pytest.raises(ValueError, match="same held-out images"):
        crossover([training(goes_on, images=500)], [], draws=2)


def synthetic(generator):
    """Two sides of six trainings on the same images."""
    base = {split: generator.normal(0, 0.8, 500) for split in ("train", "selection", "scoring")}
    return [[training(mean, generator, base=base) for _ in range(6)] for mean in (goes_on, overfits)]


@pytest.mark.slow
def test_the_interval_covers_a_known_crossing():
    covered = 0
    for draw in range(200):
        found = crossover(*synthetic(np.random.default_rng(draw)), draws=200, seed=draw)
        covered += found.low <= 75 <= found.high
    assert 0.90 * 200 <= covered <= 0.99 * 200 + 1, covered
