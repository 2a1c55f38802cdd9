"""PRDC against the prdc package, at ties and duplicates, in little memory, and what is refused."""

import numpy as np
import pytest

from bench.errors import InputError
from bench.metrics import pairwise
from bench.metrics import prdc as prdc_module
from bench.metrics.pairwise import Space, neighbour_radii
from bench.metrics.prdc import COLUMNS, prdc, prdc_reference


def gaussian(n, d, *, seed=0, scale=1.0, shift=0.0):
    return (np.random.default_rng(seed).standard_normal((n, d)) * scale + shift).astype(np.float32)


def by_definition(fake, real, k):
    """The four values from full float64 matrices, straight from their definitions."""
    def distances(a, b):
        squares = np.square(a[:, None].astype(np.float64) - b[None]).sum(axis=2)
        return np.sqrt(squares.astype(np.float32))

    def radii(a):
        return np.sort(distances(a, a) + np.diag(np.full(len(a), np.inf)), axis=1)[:, k - 1]

    across, real_radii, fake_radii = distances(real, fake), radii(real), radii(fake)
    in_real, in_fake = across < real_radii[:, None], across < fake_radii[None, :]
    return {"precision": in_real.any(0).mean(), "recall": in_fake.any(1).mean(),
            "density": in_real.sum() / (k * len(fake)), "coverage": in_real.any(1).mean()}


@pytest.mark.parametrize(("n", "m", "d", "k"), [
    (200, 300, 8, 5), (500, 400, 64, 3), (50, 40, 2, 1), (2100, 2300, 16, 5), (130, 129, 200, 7), (300, 300, 1, 3)])
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_prdc_equals_the_package(n, m, d, k, shift):
    fake, real = gaussian(n, d, scale=1.1, shift=shift), gaussian(m, d, seed=1, shift=shift + 0.1)
    ours = prdc(fake, real, k=k)
    if not ours.ties:
        assert ours.values() == pytest.approx(prdc_reference(fake, real, k=k).values(), abs=1e-12)
    assert ours.values() == pytest.approx(by_definition(fake, real, k), abs=1e-12)


def test_precision_and_recall_equal_torch_fidelity():
    from bench.assets.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    import torch
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    fake, real = gaussian(150, 8, scale=1.1), gaussian(170, 8, seed=1, shift=0.1)
    theirs = calculate_precision_recall_full(*(torch.from_numpy(x.astype(np.float64)) for x in (fake, real)),
                                             neighborhood=3)
    ours = prdc(fake, real, k=3)
    assert not ours.ties
    assert (ours.values()["precision"], ours.values()["recall"]) == pytest.approx(theirs, abs=1e-6)


def test_prdc_does_not_depend_on_the_block(monkeypatch):
    fake, real = gaussian(300, 8), gaussian(280, 8, seed=1)
    whole = prdc(fake, real, k=5)
    monkeypatch.setattr(prdc_module, "MAX_BLOCK", 64)
    pieces = prdc(fake, real, k=5)
    assert pieces.values() == whole.values()
    np.testing.assert_allclose(pieces.jackknife, whole.jackknife, atol=2e-2)


def test_integer_features_with_many_ties_follow_the_strict_definition():
    rng = np.random.default_rng(0)
    fake, real = (rng.integers(0, 4, (150, 5)).astype(np.float32) for _ in range(2))
    result = prdc(fake, real, k=3)
    assert result.values() == pytest.approx(by_definition(fake, real, 3), abs=1e-12)
    assert result.ties > 0


def test_a_point_on_a_radius_is_outside_and_counted_as_a_tie():
    real = np.array([[0.0], [1.0], [3.0]], np.float32)                   # radii (k=1): 1, 1, 2
    fake = np.array([[-1.0], [50.0], [60.0]], np.float32)                # -1 lies exactly on the ball of 0
    result = prdc(fake, real, k=1)
    assert (result.precision, result.coverage, result.ties) == (0, 0, 1)


def test_a_copy_of_the_training_set_scores_one_in_precision_recall_and_coverage():
    real = gaussian(200, 8)
    result = prdc(real.copy(), real, k=3)
    assert (result.precision, result.recall, result.coverage) == (1, 1, 1)


def test_points_far_from_the_origin_and_close_together_are_settled_exactly():
    """Clusters of width 1e-3 at distance 1e3: float32 products alone see nothing of the clusters."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((4, 6)) * 1e3
    fake, real = ((centres[rng.integers(0, 4, 120)] + rng.standard_normal((120, 6)) * 1e-3).astype(np.float32)
                  for _ in range(2))
    assert prdc(fake, real, k=3).values() == pytest.approx(by_definition(fake, real, 3), abs=1e-12)


def test_many_duplicates_are_settled_exactly():
    rng = np.random.default_rng(0)
    fake, real = (gaussian(10, 4)[rng.integers(0, 10, 200)] for _ in range(2))
    assert prdc(fake, real, k=5).values() == pytest.approx(by_definition(fake, real, 5), abs=1e-12)


def test_knowing_which_rows_are_equal_changes_nothing(monkeypatch):
    fake, real = (gaussian(10, 4)[np.random.default_rng(s).integers(0, 10, 200)] for s in (0, 1))
    expected = prdc(fake, real, k=5).values()
    monkeypatch.setattr(pairwise, "LABELS_PAY", 0)
    assert prdc(fake, real, k=5).values() == expected


def test_identical_images_have_defined_values():
    real = gaussian(150, 4)
    result = prdc(np.repeat(real[:1], 150, axis=0), real, k=5)
    assert result.values() == pytest.approx(by_definition(np.repeat(real[:1], 150, axis=0), real, 5), abs=1e-12)
    assert result.recall == 0 and np.isfinite(result.density)


def test_a_replicate_equals_measuring_the_images_that_are_left():
    fake, real = gaussian(200, 6), gaussian(220, 6, seed=1)
    present = tuple(prdc_module._present(len(x), True, seed) for seed, x in enumerate((fake, real)))
    result = prdc(fake, real, k=3)
    for column, replicate in ((1, result.jackknife[0]), (22, result.halves[0, 1])):
        left = prdc(fake[present[0][:, column]], real[present[1][:, column]], k=3, uncertainty=False)
        assert list(left.values().values()) == pytest.approx(list(replicate), abs=0.02)


def test_radii_exclude_the_point_itself():
    points = np.array([[0.0], [1.0], [3.0], [7.0]], np.float32)
    space = Space.of(points, points, block=2)
    radii = neighbour_radii(space, 0, k=1, present=np.ones((4, 1), bool))
    assert radii[:, 0].tolist() == [1, 1, 2, 4]


def test_the_rounding_bound_holds_for_float32_blocks():
    space = Space.of(gaussian(300, 100, shift=3), gaussian(300, 100, seed=1), block=128)
    for rows, columns, squares, bound in space.blocks(0, 1):
        i, j = (index.ravel() for index in np.indices(squares.shape))
        exact = np.square(space.sides[0][rows][i].astype(np.float64) - space.sides[1][columns][j]).sum(1)
        assert np.abs(squares.ravel() - exact).max() < bound


def test_intervals_contain_their_value_and_stay_inside_zero_and_one():
    result = prdc(gaussian(200, 16, scale=0.5), gaussian(200, 16, seed=1), k=3)
    for column in COLUMNS:
        low, high = result.interval(column)
        assert 0 <= low <= getattr(result, column) <= high
        assert high <= 1 or column == "density"


def test_too_few_images_give_values_without_intervals_and_say_why():
    result = prdc(gaussian(30, 4), gaussian(30, 4, seed=1), k=3)
    assert result.interval("recall") is None and "fewer than" in result.note


def test_the_package_gives_no_interval_and_says_so():
    result = prdc_reference(gaussian(30, 4), gaussian(30, 4, seed=1), k=3)
    assert result.interval("recall") is None and "package" in result.note


def test_a_budget_that_is_too_small_names_what_it_takes():
    with pytest.raises(InputError, match="memory_gb=0.01 is too small"):
        prdc(gaussian(300, 8), gaussian(300, 8), k=3, memory_gb=0.01)


def test_a_smaller_budget_gives_the_same_values():
    fake, real = gaussian(2500, 8), gaussian(2500, 8, seed=1)
    block = prdc_module.block_size(fake, real, 0.2, 61)
    assert block < prdc_module.MAX_BLOCK
    assert prdc(fake, real, k=5, memory_gb=0.2).values() == prdc(fake, real, k=5, uncertainty=False).values()


@pytest.mark.parametrize(("fake", "k", "message"), [
    (gaussian(5, 4), 5, "at least 6"), (gaussian(9, 4), 0, "prdc_k=0"), (gaussian(9, 5), 3, "5 dimensions"),
    (np.full((9, 4), np.nan, np.float32), 3, "NaN"), (np.ones((9, 4)), 3, "float64")])
def test_bad_input_is_an_error(fake, k, message):
    with pytest.raises(InputError, match=message):
        prdc(fake, gaussian(20, 4), k=k)


def test_one_image_is_an_error():
    with pytest.raises(InputError, match="1 fake images"):
        prdc(gaussian(1, 4), gaussian(20, 4), k=3)


def test_rows_settled_in_float64_agree_with_the_rest(monkeypatch):
    fake, real = gaussian(150, 6), gaussian(160, 6, seed=1)
    expected = prdc(fake, real, k=5).values()
    monkeypatch.setattr(pairwise, "NUM_KEPT", 7)
    monkeypatch.setattr(pairwise, "_exact_radius",
                        lambda space, side, squares, *rest: (squares[:, 0], np.ones(len(squares), bool)))
    assert prdc(fake, real, k=5).values() == expected
