"""FID against closed forms, torch-fidelity and float64 singular values; what is refused."""

import numpy as np
import pytest

from bench.errors import InputError
from bench.metrics.frechet import (
    ReferenceStatistics,
    cached_reference,
    fid,
    fid_to,
    fid_torch_fidelity,
    frechet_distance,
    moments,
    symmetric_root,
)


def gaussian(n, d, *, seed=0, scale=1.0, shift=0.0, dtype=np.float64):
    return (np.random.default_rng(seed).standard_normal((n, d)) * scale + shift).astype(dtype)


def inception_like(n, d, *, seed):
    """Non-negative features of decaying spectrum."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((d, d)) * np.arange(1, d + 1)[:, None] ** -0.5
    return np.maximum(rng.standard_normal((n, d)) @ mixing + 0.3, 0).astype(np.float32)


def test_fid_of_commuting_gaussians_is_the_closed_form():
    mean1, mean2 = np.array([0.0, 1.0, 2.0]), np.array([1.0, 0.0, 2.5])
    scale1, scale2 = np.array([1, 2, 3.0]), np.array([2, 2, 1.0])
    exact = np.square(mean1 - mean2).sum() + np.square(scale1 - scale2).sum()
    assert frechet_distance(mean1, np.diag(scale1**2), mean2, np.diag(scale2**2)) == pytest.approx(exact)


def test_fid_of_features_against_themselves_is_zero():
    features = gaussian(500, 20)
    assert fid(features, features).value == pytest.approx(0, abs=1e-9)


def test_fid_of_a_shifted_copy_is_the_squared_shift():
    features = gaussian(500, 20)
    assert fid(features + 0.5, features).value == pytest.approx(20 * 0.25, rel=1e-9)


def test_fid_of_a_scaled_copy_is_the_squared_difference_of_scales():
    features = gaussian(500, 20)
    expected = np.trace(moments(features)[1]) + np.square(features.mean(0)).sum()
    assert fid(2 * features, features).value == pytest.approx(expected, rel=1e-9)


def test_fid_is_symmetric():
    a, b = gaussian(400, 16), gaussian(300, 16, seed=1, scale=1.3, shift=0.2)
    assert fid(a, b).value == pytest.approx(fid(b, a).value, rel=1e-9)


def test_fid_equals_torch_fidelity_on_the_same_features():
    fake, real = inception_like(2048, 128, seed=1), inception_like(2500, 128, seed=2) * np.float32(1.1)
    assert fid(fake, real).value == pytest.approx(fid_torch_fidelity(fake, real), rel=1e-6)


@pytest.mark.slow
def test_fid_equals_torch_fidelity_at_2048_dimensions():
    fake, real = inception_like(3000, 2048, seed=1), inception_like(3500, 2048, seed=2) * np.float32(1.05)
    assert fid(fake, real, uncertainty=False).value == pytest.approx(fid_torch_fidelity(fake, real), rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(30, 500), (500, 30), (30, 40), (65, 500)])
def test_fid_with_fewer_images_than_dimensions_equals_float64_singular_values(n, m):
    fake, real = gaussian(n, 64), gaussian(m, 64, seed=1, scale=1.2)
    factors = [(x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (fake, real)]
    cross = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    exact = np.square(fake.mean(0) - real.mean(0)).sum() + sum(np.square(f).sum() for f in factors) - 2 * cross
    result = fid(fake, real)
    assert result.value == pytest.approx(exact, rel=1e-9)
    assert result.method == ("eigen" if min(n, m) > 64 else "nuclear")


def test_fid_does_not_depend_on_the_order_of_images():
    fake, real = gaussian(300, 16), gaussian(300, 16, seed=1)
    assert fid(fake[::-1], real).value == pytest.approx(fid(fake, real).value, rel=1e-10)


def test_float32_features_are_computed_in_float64():
    fake, real = inception_like(600, 32, seed=1), inception_like(600, 32, seed=2)
    wide = fid(fake.astype(np.float64), real.astype(np.float64))
    assert fid(fake, real).value == pytest.approx(wide.value, rel=1e-12)


def test_cached_reference_gives_the_same_value(tmp_path):
    fake, real = gaussian(200, 16), gaussian(300, 16, seed=1, scale=1.1)
    ReferenceStatistics.of(real).save(tmp_path / "reference.npz")
    cached = fid_to(ReferenceStatistics.load(tmp_path / "reference.npz"), fake)
    assert cached.value == pytest.approx(fid(fake, real).value, rel=1e-12)


def test_a_damaged_cached_reference_is_taken_again(tmp_path, damage):
    real = gaussian(300, 16)
    expected = cached_reference(real, tmp_path)
    [path] = tmp_path.glob("*.npz")
    damage(path)
    np.testing.assert_array_equal(cached_reference(real, tmp_path).factor, expected.factor)


def test_a_cached_reference_belongs_to_its_bytes_alone(tmp_path):
    cached_reference(gaussian(300, 16), tmp_path)
    other = cached_reference(gaussian(300, 16, seed=1), tmp_path)
    np.testing.assert_array_equal(other.mean, ReferenceStatistics.of(gaussian(300, 16, seed=1)).mean)


def test_symmetric_root_squares_to_the_matrix():
    _, covariance = moments(gaussian(100, 12, scale=3))
    np.testing.assert_allclose(symmetric_root(covariance) @ symmetric_root(covariance), covariance, atol=1e-12)


def test_influence_is_the_derivative_of_fid_along_the_weight_of_one_image():
    """Repeating the whole set often and one image once more moves FID by about its influence / n."""
    fake, real = gaussian(200, 6, scale=1.3, shift=0.2), gaussian(250, 6, seed=1)
    result, copies = fid(fake, real), 400
    many = np.tile(fake, (copies, 1))
    step = fid(np.vstack([many, fake[:1]]), real, uncertainty=False).value - fid(many, real, uncertainty=False).value
    influence = result.influence_fake[0]
    assert step * len(many) == pytest.approx(influence, rel=0.05)


def test_standard_error_is_that_of_repeated_draws_where_both_sides_are_alike():
    draws = [fid(gaussian(300, 24, seed=s), gaussian(300, 24, seed=1000 + s)) for s in range(150)]
    spread = np.std([draw.value for draw in draws])
    assert np.mean([draw.standard_error for draw in draws]) == pytest.approx(spread, rel=0.2)


def test_fid_infinity_removes_most_of_the_bias():
    draws = [fid(gaussian(600, 24, seed=s), gaussian(600, 24, seed=1000 + s)) for s in range(10)]
    bias = np.mean([draw.value for draw in draws])
    assert abs(np.mean([draw.fid_infinity for draw in draws])) < bias / 8


def test_fid_infinity_is_refused_with_fewer_images_than_dimensions():
    result = fid(gaussian(30, 64), gaussian(40, 64, seed=1))
    assert result.fid_infinity is None and "fewer images" in result.infinity_note


def test_two_images_are_enough_for_a_value_and_one_is_an_error():
    assert np.isfinite(fid(gaussian(2, 4), gaussian(2, 4, seed=1)).value)
    with pytest.raises(InputError, match="at least 2"):
        fid(gaussian(1, 4), gaussian(5, 4))


def test_identical_images_have_a_defined_distance():
    fake, real = np.ones((10, 4)), gaussian(300, 4)
    mean, covariance = moments(real)
    assert fid(fake, real).value == pytest.approx(np.square(1 - mean).sum() + np.trace(covariance), rel=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_an_error(bad):
    fake = gaussian(20, 4)
    fake[3, 1] = bad
    with pytest.raises(InputError, match="1 of 20 fake feature rows"):
        fid(fake, gaussian(20, 4))


def test_unequal_dimensions_are_an_error():
    with pytest.raises(InputError, match="4 dimensions and real features 5"):
        fid(gaussian(20, 4), gaussian(20, 5))


def test_unequal_types_are_an_error():
    with pytest.raises(InputError, match="float32 and real features float64"):
        fid(gaussian(20, 4, dtype=np.float32), gaussian(20, 4))


def test_images_instead_of_features_are_an_error():
    with pytest.raises(InputError, match="uint8"):
        fid(np.zeros((20, 4), np.uint8), np.zeros((20, 4), np.uint8))
