"""Clipped density and coverage: against their definitions, and linear in the share of bad samples."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta, binom
from sklearn.neighbors import NearestNeighbors

from bench.errors import InputError
from bench.metrics import pairwise
from bench.metrics import prdc as prdc_module
from bench.metrics.clipped import COLUMNS, calibrated, clipped, expected_filled
from bench.metrics.intervals import jackknife_groups


def gaussian(n, d, *, seed=0, scale=1.0, shift=0.0):
    return (np.random.default_rng(seed).standard_normal((n, d)) * scale + shift).astype(np.float32)


def with_bad(share, *, n=400, d=16, seed=0):
    """Samples of which a share lies far from all real images."""
    fake = gaussian(n, d, seed=seed)
    fake[:round(share * n)] += 20
    return fake


def by_definition(fake, real, k):
    """Both means before calibration, from scikit-learn's neighbours of each real image and full matrices."""
    found, indices = NearestNeighbors(n_neighbors=k + 1).fit(real.astype(np.float64)).kneighbors()
    found, indices = found[:, :k], indices[:, :k]
    radii = found[:, -1]
    limits = np.minimum(radii, np.median(radii))
    across = np.sqrt(np.square(real[:, None].astype(np.float64) - fake[None]).sum(axis=2))
    of_fakes = np.minimum((across <= limits[:, None]).sum(axis=0) / k, 1).mean()
    of_reals = np.bincount(indices[found <= limits[:, None]], minlength=len(real))
    filled = np.minimum((across < radii[:, None]).sum(axis=1) / k, 1).mean()
    return of_fakes / np.minimum(of_reals / k, 1).mean(), filled


@pytest.mark.parametrize(("n", "m", "d", "k"), [(200, 300, 8, 5), (400, 350, 64, 3), (50, 41, 2, 1),
                                                (130, 129, 200, 7)])
@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_both_means_follow_their_definitions(n, m, d, k, shift):
    fake, real = gaussian(n, d, scale=1.1, shift=shift), gaussian(m, d, seed=1, shift=shift + 0.1)
    result = clipped(fake, real, k=k)
    assert (result.relative, result.filled) == pytest.approx(by_definition(fake, real, k), abs=1e-12)


def test_calibration_is_the_expectation_over_the_mass_of_a_ball():
    """A ball of k neighbours among n_real - 1 has a mass of Beta(k, n_real - k); samples fall into it binomially."""
    k, n_real = 3, 20
    for drawn, value in enumerate(expected_filled(k=k, n=8, n_real=n_real)):
        def filled(mass, drawn=drawn):
            inside = np.arange(drawn + 1)
            expected = (np.minimum(inside, k) / k * binom.pmf(inside, drawn, mass)).sum()
            return expected * beta.pdf(mass, k, n_real - k)
        assert value == pytest.approx(quad(filled, 0, 1)[0], abs=1e-9)


def test_calibration_grows_from_zero_to_one():
    ends = [calibrated(filled, k=5, n=100, n_real=90) for filled in (0.0, 0.3, 0.5, 1.0)]
    assert ends[0] == 0 and ends[-1] == 1 and ends == sorted(ends)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_scores_fall_linearly_with_the_share_of_bad_samples(share):
    found = [clipped(with_bad(share, seed=2 * s), gaussian(400, 16, seed=2 * s + 1), k=5, uncertainty=False).values()
             for s in range(8)]
    for column in COLUMNS:
        assert np.mean([values[column] for values in found]) == pytest.approx(1 - share, abs=0.06)


def test_outliers_among_real_images_lend_no_density():
    real = gaussian(300, 8, seed=1)
    real[:30] = gaussian(30, 8, seed=2, scale=40)                        # far apart: their balls hold anything
    fake = gaussian(300, 8, seed=3, scale=40)
    assert clipped(fake, real, k=5).density < 0.05 < prdc_module.prdc(fake, real, k=5).density


def test_a_copy_of_the_training_set_scores_one():
    real = gaussian(200, 8)
    assert list(clipped(real.copy(), real, k=3).values().values()) == [1, 1]


def test_identical_and_duplicate_images_have_defined_values():
    real = gaussian(10, 4)[np.random.default_rng(0).integers(0, 10, 200)]
    for fake in (real[::-1].copy(), np.repeat(real[:1], 150, axis=0)):
        assert all(0 <= value <= 1 for value in clipped(fake, real, k=5).values().values())


def test_values_do_not_depend_on_the_block_or_the_replicates(monkeypatch):
    fake, real = gaussian(300, 8), gaussian(280, 8, seed=1)
    whole = clipped(fake, real, k=5, uncertainty=False)
    monkeypatch.setattr(prdc_module, "MAX_BLOCK", 64)
    pieces = clipped(fake, real, k=5)
    assert (pieces.relative, pieces.filled) == (whole.relative, whole.filled)


def test_a_replicate_equals_measuring_the_images_that_are_left():
    fake, real = gaussian(200, 6), gaussian(220, 6, seed=1)
    result = clipped(fake, real, k=3)
    kept = [jackknife_groups(len(x), 20) != 4 for x in (fake, real)]
    left = clipped(fake[kept[0]], real[kept[1]], k=3, uncertainty=False)
    assert (left.relative, left.filled) == pytest.approx(tuple(result.jackknife[4]), abs=0.02)


def test_intervals_contain_their_value_and_stay_inside_zero_and_one():
    result = clipped(with_bad(0.4), gaussian(400, 16, seed=1), k=3)
    for column, value in result.values().items():
        low, high = result.interval(column)
        assert 0 <= low <= value <= high <= 1


def test_too_few_images_give_values_without_intervals_and_say_why():
    result = clipped(gaussian(30, 4), gaussian(30, 4, seed=1), k=3)
    assert result.interval("clipped_density") is None and "fewer than" in result.note


def test_rows_settled_in_float64_agree_with_the_rest(monkeypatch):
    fake, real = gaussian(150, 6), gaussian(160, 6, seed=1)
    expected = clipped(fake, real, k=5)
    monkeypatch.setattr(pairwise, "_exact_radius",
                        lambda space, side, squares, *rest: (squares[:, 0], np.ones(len(squares), bool)))
    assert clipped(fake, real, k=5).values() == expected.values()


@pytest.mark.parametrize(("fake", "k", "message"), [
    (gaussian(5, 4), 5, "at least 6"), (gaussian(9, 4), 0, "prdc_k=0"), (np.ones((9, 4)), 3, "float64")])
def test_bad_input_is_an_error(fake, k, message):
    with pytest.raises(InputError, match=message):
        clipped(fake, gaussian(20, 4), k=k)


def test_a_budget_that_is_too_small_names_what_it_takes():
    with pytest.raises(InputError, match="memory_gb=0.01 is too small"):
        clipped(gaussian(300, 8), gaussian(300, 8), k=3, memory_gb=0.01)
