"""Interval helpers against known answers."""

import numpy as np
import pytest

from bench.metrics.intervals import (
    clip_interval,
    jackknife_corrected,
    jackknife_error,
    jackknife_groups,
    mean_error,
    normal_interval,
    random_halves,
    student_interval,
    wilson_interval,
)


def test_normal_interval_is_1_96_errors_wide_on_each_side():
    assert normal_interval(5, 1) == pytest.approx((3.040036, 6.959964))


def test_student_interval_has_the_published_quantile():
    assert student_interval(0, 1, degrees=19) == pytest.approx((-2.093024, 2.093024), rel=1e-6)


def test_wilson_interval_of_ten_in_a_hundred_is_the_textbook_one():
    assert wilson_interval(0.1, 100) == pytest.approx((0.0552, 0.1744), abs=1e-4)


def test_wilson_interval_at_zero_and_one_has_width_and_stays_inside():
    assert wilson_interval(0, 20)[0] == 0 and wilson_interval(0, 20)[1] > 0.1
    assert wilson_interval(1, 20)[1] == 1 and wilson_interval(1, 20)[0] < 0.9


@pytest.mark.parametrize("num", [3, 56.8, 97.3, 193.7, 10_000])
def test_wilson_interval_ends_exactly_at_a_share_of_zero_or_one(num):
    assert wilson_interval(0, num)[0] == 0 and wilson_interval(1, num)[1] == 1


def test_clipping_keeps_the_part_inside():
    assert clip_interval((-0.2, 0.5), 0, 1) == (0, 0.5)


def test_jackknife_groups_are_balanced_and_repeatable():
    groups = jackknife_groups(103, 10)
    assert set(np.bincount(groups)) == {10, 11}
    np.testing.assert_array_equal(groups, jackknife_groups(103, 10))


def test_random_halves_are_halves():
    assert (random_halves(101, 5, seed=0).sum(axis=0) == 50).all()


def test_jackknife_error_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(size=40)
    left_out = np.array([np.delete(values, i).mean() for i in range(40)])
    assert jackknife_error(left_out) == pytest.approx(mean_error(values))


def test_jackknife_correction_removes_the_bias_of_the_plain_variance_exactly():
    values = np.random.default_rng(0).normal(size=30)
    left_out = np.array([np.delete(values, i).var() for i in range(30)])
    assert jackknife_corrected(values.var(), left_out) == pytest.approx(values.var(ddof=1))


@pytest.mark.parametrize("call", [lambda: normal_interval(0, np.nan), lambda: normal_interval(0, -1),
                                  lambda: student_interval(0, 1, degrees=0), lambda: wilson_interval(1.2, 10),
                                  lambda: jackknife_groups(3, 5), lambda: mean_error(np.ones(1)),
                                  lambda: jackknife_error(np.ones(1))])
def test_impossible_requests_are_errors(call):
    with pytest.raises(ValueError):
        call()
