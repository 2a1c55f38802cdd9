"""DiffAug's pieces against loops; its whole against recorded draws stands in test_vqgan_parity.py."""

import pytest
import torch

from priors.base import Draws
from vq.diffaug import adjust_brightness, adjust_contrast, adjust_saturation, diffaug, largest_shift, translate


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (2, 0), (-1, 3), (4, -4)])
def test_translation_moves_pixels_and_fills_with_zeros(rows, columns):
    images = torch.rand(2, 3, 6, 7)
    expected = torch.zeros_like(images)
    for i in range(6):
        for j in range(7):
            if 0 <= i + rows < 6 and 0 <= j + columns < 7:
                expected[:, :, i, j] = images[:, :, i + rows, j + columns]
    moved = translate(images, torch.full((2, 1, 1), rows), torch.full((2, 1, 1), columns))
    assert torch.equal(moved, expected)


def test_the_middle_of_every_range_changes_no_colour():
    images, half = torch.rand(2, 3, 4, 4), torch.full((2, 1, 1, 1), 0.5)
    for adjust in (adjust_brightness, adjust_saturation, adjust_contrast):
        torch.testing.assert_close(adjust(images, half), images)


def test_no_saturation_is_grey():
    grey = adjust_saturation(torch.rand(2, 3, 4, 4), torch.zeros(2, 1, 1, 1))
    torch.testing.assert_close(grey, grey.mean(1, keepdim=True).expand_as(grey))


def test_contrast_keeps_the_mean_of_each_image():
    images = torch.rand(2, 3, 4, 4)
    changed = adjust_contrast(images, torch.tensor([0.1, 0.9]).view(2, 1, 1, 1))
    torch.testing.assert_close(changed.mean((1, 2, 3)), images.mean((1, 2, 3)))


@pytest.mark.parametrize(("side", "pixels"), [(32, 4), (256, 32), (28, 4), (8, 1)])
def test_the_largest_shift_is_an_eighth_rounded(side, pixels):
    assert largest_shift(side) == pixels


def test_gradients_flow_to_the_images():
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    diffaug(images, Draws.seeded(0)).square().sum().backward()
    assert images.grad.abs().sum() > 0
