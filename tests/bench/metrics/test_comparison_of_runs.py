"""Paired comparison: what cancels, what decides, what is refused."""

import numpy as np
import pytest

from bench.errors import InputError
from bench.metrics.compare import Judged, compare
from bench.metrics.frechet import fid
from bench.metrics.intervals import mean_error


def gaussian(n, d, *, seed, scale=1.0, shift=0.0):
    return (np.random.default_rng(seed).standard_normal((n, d)) * scale + shift).astype(np.float32)


def judged(label, *, seeds=(0,), **options):
    return Judged(label, "p", {s: gaussian(300, 8, seed=[ord(label), s], **options) for s in seeds})


REAL = gaussian(320, 8, seed=99)


def test_one_call_compares_every_metric():
    table = compare(judged("a", shift=0.1), judged("b", shift=0.6), REAL, k=3)
    assert list(table.metric) == ["fid", "kid", "precision", "recall", "density", "coverage"]
    assert (table.set_index("metric").verdict[["fid", "kid"]] == "a").all()


def test_a_difference_is_a_minus_b_and_lies_in_its_interval():
    table = compare(judged("a"), judged("b", shift=0.3), REAL, k=3)
    np.testing.assert_allclose(table.difference, table.a - table.b)
    assert ((table.ci_low <= table.difference) & (table.difference <= table.ci_high)).all()


def test_a_paired_difference_has_a_smaller_error_than_unpaired_values():
    a, b = judged("a", shift=0.5), judged("b", shift=0.5)
    unpaired = np.hypot(*(fid(x.features[0], REAL).standard_error for x in (a, b)))
    assert compare(a, b, REAL, k=3).set_index("metric").standard_error["fid"] < 0.85 * unpaired


def test_more_seeds_make_the_interval_narrower():
    few, many = (compare(judged("a", seeds=range(s)), judged("b", shift=0.2, seeds=range(s)), REAL, k=3)
                 for s in (1, 4))
    assert (many.standard_error.to_numpy()[:2] < few.standard_error.to_numpy()[:2]).all()


def test_three_seeds_give_an_interval_over_seeds_and_one_does_not():
    three = compare(judged("a", seeds=range(3)), judged("b", seeds=range(3)), REAL, k=3)
    one = compare(judged("a"), judged("b"), REAL, k=3)
    assert three.seed_ci_low.notna().all() and one.seed_ci_low.isna().all()


def test_a_run_against_itself_differs_by_nothing_and_decides_nothing():
    table = compare(judged("a"), judged("a"), REAL, k=3)
    assert (table.difference == 0).all() and (table.verdict == "undecided").all() and table.note.str.len().all()


def test_likelihoods_are_paired_by_image():
    rng = np.random.default_rng(0)
    difficulty, gain = rng.normal(100, 20, 200), rng.normal(1, 0.5, 200)
    a = Judged("a", "p", nats={0: difficulty}, num_tokens=64)
    b = Judged("b", "p", nats={0: difficulty + gain}, num_tokens=64)
    row = compare(a, b).iloc[0]
    assert row.difference == pytest.approx(-gain.mean() / (64 * np.log(2)))
    assert row.standard_error == pytest.approx(mean_error(gain) / (64 * np.log(2)))
    assert row.verdict == "a"


def test_a_bound_against_an_exact_value_is_said_so():
    a = Judged("ar", "p", nats={0: np.arange(5.0)}, num_tokens=4)
    b = Judged("absorbing", "p", nats={0: np.ones(5)}, num_tokens=4, likelihood="bound_T")
    assert "absorbing is bound_T" in compare(a, b).note[0]


@pytest.mark.parametrize(("b", "message"), [
    (Judged("b", "q", {0: REAL}), "only equal protocols"), (Judged("b", "p", {1: REAL}), "same seeds")])
def test_runs_that_cannot_be_paired_are_an_error(b, message):
    with pytest.raises(InputError, match=message):
        compare(Judged("a", "p", {0: REAL}), b, REAL)


@pytest.mark.parametrize(("bad", "message"), [
    (REAL[:, :-1], "dimensions"), (REAL.astype(np.float64), "float64"), (REAL[:2], "at least 3"),
    (np.where(REAL == REAL.max(), np.nan, REAL), "NaN"), (REAL.tolist(), "a list")])
def test_features_that_do_not_fit_are_an_error(bad, message):
    with pytest.raises(InputError, match=message):
        compare(Judged("a", "p", {0: REAL}), Judged("b", "p", {0: bad}), REAL)


def test_nats_of_different_images_are_an_error():
    a, b = (Judged(name, "p", nats={0: np.ones(n)}, num_tokens=4) for name, n in (("a", 5), ("b", 6)))
    with pytest.raises(InputError, match="same validation images"):
        compare(a, b)


def test_features_without_real_images_are_an_error():
    with pytest.raises(InputError, match="as `real`"):
        compare(judged("a"), judged("b"))
