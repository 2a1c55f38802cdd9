"""KID against the naive U-statistic, its jackknife against leaving out for real, and what is refused."""

import numpy as np
import pytest

from bench.errors import InputError
from bench.metrics.kernel import kid, kid_naive


def features(n, d, *, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    return np.abs(rng.standard_normal((n, d)) * 0.5 + shift).astype(np.float32)


@pytest.mark.parametrize(("n", "m", "d"), [(40, 50, 8), (300, 200, 64), (130, 129, 16)])
def test_kid_equals_the_naive_u_statistic(n, m, d):
    fake, real = features(n, d, shift=0.2), features(m, d, seed=1)
    assert kid(fake, real).value == pytest.approx(kid_naive(fake, real), rel=1e-5, abs=1e-8)


def test_kid_in_float64_equals_the_naive_u_statistic_to_rounding():
    fake, real = features(100, 16).astype(np.float64), features(90, 16, seed=1).astype(np.float64)
    assert kid(fake, real).value == pytest.approx(kid_naive(fake, real), rel=1e-10)


@pytest.mark.parametrize("block", [7, 64, 1000])
def test_kid_does_not_depend_on_the_block(block):
    fake, real = features(150, 12), features(140, 12, seed=1, shift=0.1)
    assert kid(fake, real, block=block).value == pytest.approx(kid(fake, real).value, rel=1e-6)


def test_kid_of_an_array_with_itself_is_that_with_its_copy():
    same = features(50, 8)
    assert kid(same, same).value == pytest.approx(kid(same, same.copy()).value, rel=1e-5)
    alike = np.repeat(same[:1], 50, axis=0)
    assert kid(alike, alike).value == pytest.approx(0, abs=1e-9)


def test_kid_equals_torch_fidelity_with_one_subset_of_everything():
    from bench.assets.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    import torch
    from torch_fidelity.metric_kid import kid_features_to_metric

    fake, real = (features(200, 32, seed=s).astype(np.float64) for s in (0, 1))
    theirs = kid_features_to_metric(torch.from_numpy(fake), torch.from_numpy(real), kid_subsets=1, kid_subset_size=200,
                                    verbose=False)["kernel_inception_distance_mean"]
    assert kid(fake, real).value == pytest.approx(theirs, rel=1e-9)


def test_influence_is_the_jackknife_of_leaving_each_image_out():
    fake, real = features(30, 6, shift=0.2).astype(np.float64), features(25, 6, seed=1).astype(np.float64)
    left_out = np.array([kid_naive(np.delete(fake, i, 0), real) for i in range(30)])
    expected = 29 * (left_out.mean() - left_out)
    np.testing.assert_allclose(kid(fake, real).influence_fake, expected, atol=1e-10)


def test_standard_error_is_the_two_sample_jackknife_less_its_second_order_part():
    fake, real = features(20, 6, shift=0.2).astype(np.float64), features(25, 6, seed=1).astype(np.float64)
    sides = [np.array([kid_naive(np.delete(fake, i, 0), real) for i in range(20)]),
             np.array([kid_naive(fake, np.delete(real, i, 0)) for i in range(25)])]
    whole = np.sqrt(sum((len(s) - 1) / len(s) * np.square(s - s.mean()).sum() for s in sides))
    assert 0.8 * whole < kid(fake, real).standard_error < whole


def test_standard_error_is_that_of_repeated_draws_where_both_sides_are_alike():
    draws = [kid(features(120, 24, seed=s), features(120, 24, seed=500 + s)) for s in range(200)]
    assert np.mean([d.standard_error for d in draws]) == pytest.approx(np.std([d.value for d in draws]), rel=0.25)


def test_kid_of_one_distribution_is_near_zero_and_may_be_negative():
    values = [kid(features(100, 16, seed=s), features(100, 16, seed=50 + s)).value for s in range(20)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(20) and min(values) < 0


def test_identical_images_have_a_defined_distance():
    fake, real = np.ones((10, 4), np.float32), features(50, 4)
    assert kid(fake, real).value == pytest.approx(kid_naive(fake, real), rel=1e-5)


@pytest.mark.parametrize(("fake", "message"), [
    (np.ones((2, 4), np.float32), "at least 3"), (np.full((9, 4), np.nan, np.float32), "9 of 9 fake feature rows"),
    (np.ones((9, 5), np.float32), "5 dimensions"), (np.ones((9, 4)), "float64"), (np.ones(9, np.float32), "shape")])
def test_bad_input_is_an_error(fake, message):
    with pytest.raises(InputError, match=message):
        kid(fake, features(10, 4))
