"""Losses against autograd, sums and closed forms."""

import math

import pytest
import torch

from vq.losses import (
    adaptive_weight,
    discretised_gaussian_log_mass,
    discriminator_loss,
    gaussian_log_density,
    generator_loss,
    perceptual_distance,
)


def test_lambda_is_the_ratio_of_gradient_norms_up_to_its_ceiling():
    reconstruction, adversarial = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])
    assert adaptive_weight(reconstruction, adversarial, lambda_max=10.0).item() == pytest.approx(5 / 2.0001)
    assert adaptive_weight(reconstruction, adversarial, lambda_max=1.0).item() == 1.0


def test_lambda_stays_finite_where_the_adversarial_gradient_vanishes():
    assert adaptive_weight(torch.ones(1), torch.zeros(1), lambda_max=1e5).item() == pytest.approx(1e4)


def test_the_hinge_loss_is_half_the_two_margins():
    assert discriminator_loss(torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])).item() == pytest.approx(0.375)
    assert generator_loss(torch.tensor([1.0, 3.0])).item() == -2.0


@pytest.mark.parametrize(("values", "fed", "expected"), [("unit", "unit", 0.25), ("unit", "signed", -0.5),
                                                        ("signed", "signed", 0.25), ("signed", "unit", 0.625)])
def test_lpips_is_fed_the_range_that_was_asked_for(values, fed, expected):
    seen = []
    perceptual_distance(torch.full((1, 3, 4, 4), 0.25), torch.zeros(1, 3, 4, 4), values=values, fed=fed,
                        resolution=None, perceptual=lambda x, y: seen.append(x) or (x - y).flatten(1).mean(1))
    torch.testing.assert_close(seen[0], torch.full((1, 3, 4, 4), expected))


def test_small_images_are_enlarged_before_lpips_and_large_ones_are_not():
    sizes = []
    for side in (4, 32):
        x = torch.zeros(1, 3, side, side)
        perceptual_distance(x, x, values="unit", fed="unit", resolution=16,
                            perceptual=lambda x, y: sizes.append(x.shape[-1]) or torch.zeros(1))
    assert sizes == [16, 32]


def test_the_density_is_the_closed_form():
    value, mean, logsigma = torch.tensor(0.3), torch.tensor(0.1), torch.tensor(-1.0)
    expected = -0.5 * (0.2 * math.e) ** 2 + 1.0 - 0.5 * math.log(2 * math.pi)
    assert gaussian_log_density(value, mean, logsigma).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("mean", [-0.5, 0.01, 0.4, 1.3])
@pytest.mark.parametrize("logsigma", [-4.0, -1.0, 0.5])
def test_masses_of_all_values_sum_to_one(mean, logsigma):
    centres = (torch.arange(32, dtype=torch.float64) + 0.5) / 32
    masses = discretised_gaussian_log_mass(centres, torch.tensor(mean).double(), torch.tensor(logsigma).double(),
                                           width=1 / 32)
    assert masses.logsumexp(0).item() == pytest.approx(0.0, abs=1e-9)


def test_the_mass_of_a_narrow_bin_is_density_times_width():
    centre, mean, logsigma = (torch.tensor(v, dtype=torch.float64) for v in (0.5 + 0.5 / 256, 0.3, -0.5))
    mass = discretised_gaussian_log_mass(centre, mean, logsigma, width=1 / 256)
    density = gaussian_log_density(centre, mean, logsigma) - math.log(256)
    assert mass.item() == pytest.approx(density.item(), abs=1e-5)
