"""Means over seeds and paired differences against closed forms."""

import math

import pytest
from scipy import stats

from bench.records import Measurement
from bench.reporting.differences import compare_cells
from bench.reporting.estimates import Point, combine, combine_runs, difference, t_interval
from bench.reporting.rows import Observation, cell_of


def test_the_t_interval_equals_scipys():
    values = [1.0, 2.5, 3.0, 4.5]
    expected = stats.t.interval(0.95, 3, loc=2.75, scale=stats.sem(values))
    assert t_interval(values) == pytest.approx(expected)


def test_one_run_keeps_its_own_interval():
    assert combine([Point(5.0, 4.0, 7.0)]).low == 4.0


def test_no_interval_is_made_up_for_a_run_that_has_none():
    assert not combine([Point(5.0, standard_error=1.0), Point(6.0, standard_error=1.0)]).has_interval


def test_three_runs_take_the_wider_of_seeds_and_single_run():
    narrow = combine([Point(v, v - 0.01, v + 0.01) for v in (1.0, 2.0, 3.0)])
    wide = combine([Point(2.0, 1.0, 3.0)] * 3)
    assert (narrow.low, narrow.high) == pytest.approx(t_interval([1.0, 2.0, 3.0]))
    assert (wide.low, wide.high) == (1.0, 3.0)


def test_samplings_of_one_training_are_one_measurement_of_what_training_varies():
    trainings = {0: 10.0, 1: 14.0, 2: 21.0}
    runs = {(0, 0): 9.0, (0, 1): 10.0, (0, 2): 11.0, (1, 0): 14.0, (2, 0): 21.0}
    estimate = combine_runs({seeds: Point(value, value - 1, value + 1, 0.5) for seeds, value in runs.items()})
    assert estimate.value == pytest.approx(15.0) and "3 trainings" in estimate.basis
    assert (estimate.low, estimate.high) == pytest.approx(t_interval(list(trainings.values())))


def test_a_difference_over_trainings_pairs_their_means():
    def cell(values):
        return cell_of("fid", [Observation("r", *seeds, Measurement("fid", value, "demo", n=500, standard_error=1.0))
                               for seeds, value in values.items()])
    ours = cell({(0, 0): 10.0, (0, 1): 12.0, (1, 0): 15.0, (2, 0): 19.0})
    theirs = cell({(0, 0): 8.0, (0, 1): 8.0, (1, 0): 11.0, (2, 0): 17.0, (3, 0): 90.0})
    estimate, seeds = compare_cells(ours, theirs)
    assert estimate.value == pytest.approx(3.0) and seeds == "3 training, 2 sampling"
    assert (estimate.low, estimate.high) == pytest.approx(t_interval([3.0, 4.0, 2.0]))


def test_a_paired_difference_ignores_what_both_share():
    ours = [Point(v + 1, standard_error=0.02) for v in (10.0, 20.0, 30.1)]
    theirs = [Point(v, standard_error=0.02) for v in (10.0, 20.0, 30.0)]
    estimate = difference(ours, theirs, paired=True)
    assert estimate.value == pytest.approx(3.1 / 3)
    assert estimate.high - estimate.low < 0.5


def test_a_paired_interval_is_never_narrower_than_that_of_a_single_run():
    ours = [Point(v + 1, standard_error=9.0) for v in (10.0, 20.0, 30.1)]
    theirs = [Point(v, standard_error=2.0) for v in (10.0, 20.0, 30.0)]
    estimate = difference(ours, theirs, paired=True)
    assert estimate.high - estimate.value == pytest.approx(1.959964 * 9)
    assert estimate.value - estimate.low == pytest.approx(1.959964 * 9) and "single run" in estimate.basis


def test_an_unpaired_difference_adds_errors_in_squares():
    estimate = difference([Point(5.0, standard_error=3.0)], [Point(1.0, standard_error=4.0)], paired=False)
    assert estimate.high - estimate.value == pytest.approx(1.959964 * 5)


def test_pairs_that_all_agree_fall_back_to_standard_errors():
    same = [Point(1.0, standard_error=0.1)] * 3
    estimate = difference(same, [Point(0.5, standard_error=0.1)] * 3, paired=True)
    assert estimate.high - estimate.value == pytest.approx(1.959964 * math.hypot(0.1, 0.1))


def test_t_intervals_cover_the_truth_as_often_as_they_say():
    import numpy as np
    rng = np.random.default_rng(0)
    hits = [low <= 0 <= high for low, high in (t_interval(list(rng.normal(0, 1, 3))) for _ in range(2000))]
    assert 0.93 < np.mean(hits) < 0.97
