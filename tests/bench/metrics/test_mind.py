"""MIND against one-dimensional optimal transport, whole and with sides of two sizes, and its influence."""

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from bench.errors import InputError
from bench.metrics.mind import _Coupling, mind, unit_vectors


def gaussian(n, d, *, seed=0, shift=0.0):
    return (np.random.default_rng(seed).standard_normal((n, d)) + shift).astype(np.float32)


def by_sorting(fake, real, directions):
    """As torch-fidelity has it: both sides of one size."""
    x, y = (np.sort(side.astype(np.float64) @ directions.T.astype(np.float64), axis=0) for side in (fake, real))
    return 3 * fake.shape[1] * np.square(x - y).mean()


@pytest.mark.parametrize("shift", [0.0, 0.3, 50.0])
def test_mind_of_equal_sides_is_the_mean_of_sorted_differences(shift):
    fake, real = gaussian(200, 16, shift=shift), gaussian(200, 16, seed=1, shift=shift)
    assert mind(fake, real).value == pytest.approx(by_sorting(fake, real, unit_vectors(1000, 16, seed=2020).numpy()),
                                                   rel=1e-5)


def test_sides_of_two_sizes_are_compared_as_if_each_image_were_repeated():
    fake, real = gaussian(60, 8), gaussian(90, 8, seed=1, shift=0.2)
    same = mind(np.repeat(fake, 3, axis=0), np.repeat(real, 2, axis=0))
    assert mind(fake, real).value == pytest.approx(same.value, rel=1e-6)


def test_transport_between_two_sizes_is_scipy_s():
    """W1 of the same coupling, which scipy has."""
    x, y = np.sort(gaussian(7, 1)[:, 0]), np.sort(gaussian(11, 1, seed=1)[:, 0])
    coupling = _Coupling.of(7, 11)
    cost = (np.abs(x[coupling.left] - y[coupling.right]) * coupling.mass).sum()
    assert cost == pytest.approx(wasserstein_distance(x, y), rel=1e-6)


def test_a_shift_costs_three_times_its_square():
    real = gaussian(300, 5)
    step = np.array([0.5, 0, 0, 0, -1.0], np.float32)
    assert mind(real + step, real, num_projections=8000).value == pytest.approx(3 * 1.25, rel=0.04)


def test_influence_predicts_the_value_without_one_image():
    fake, real = gaussian(300, 6, shift=0.5), gaussian(400, 6, seed=1)
    whole = mind(fake, real)
    for i in (0, 17):
        without_fake, without_real = mind(np.delete(fake, i, axis=0), real), mind(fake, np.delete(real, i, axis=0))
        for left, num, influence in ((without_fake, 300, whole.influence_fake),
                                     (without_real, 400, whole.influence_real)):
            assert (whole.value - left.value) * (num - 1) == pytest.approx(influence[i], abs=0.35 * influence.std())


def test_identical_sides_are_at_distance_zero_and_repeats_are_exact():
    real = gaussian(50, 4)
    assert mind(real.copy(), real).value == 0
    assert mind(gaussian(50, 4, seed=1), real).value == mind(gaussian(50, 4, seed=1), real).value


def test_bad_input_is_an_error():
    with pytest.raises(InputError, match="5 dimensions"):
        mind(gaussian(9, 5), gaussian(9, 4))
