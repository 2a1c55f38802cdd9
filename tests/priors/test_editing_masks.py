"""Masks from pixels to tokens, known tokens, stitching."""

import pytest
import torch

from priors.base import UNKNOWN, Draws
from priors.editing import (
    box_mask,
    centre_box,
    hide,
    lower_half,
    random_half,
    stitch,
    to_pixels,
    token_mask,
    token_shares,
)

GRID = (4, 4)


def pixel(y: int, x: int, size: int = 16) -> torch.Tensor:
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[y, x] = True
    return mask


@pytest.mark.parametrize(("y", "x", "token"), [(0, 0, 0), (3, 3, 0), (3, 4, 1), (4, 0, 4), (15, 15, 15)])
def test_one_pixel_masks_the_token_it_lies_in(y, x, token):
    assert token_mask(pixel(y, x), grid=GRID).nonzero().flatten().tolist() == [token]


def test_a_box_that_crosses_token_borders_masks_every_token_it_touches():
    mask = token_mask(box_mask((3, 3, 9, 5), size=(16, 16)), grid=GRID).view(GRID)
    assert mask.nonzero().tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


def test_masks_need_not_be_square():
    assert token_mask(torch.ones(8, 24, dtype=torch.bool), grid=(2, 6)).tolist() == [True] * 12


def test_shares_are_the_covered_part_of_a_patch():
    assert token_shares(box_mask((0, 0, 6, 2), size=(16, 16))[None], grid=GRID)[0, :3].tolist() == [0.5, 0.25, 0.0]


@pytest.mark.parametrize("mask", [torch.ones(15, 16, dtype=torch.bool), torch.ones(16, 16), torch.ones(3, 3).bool()])
def test_a_mask_of_another_size_or_type_is_an_error(mask):
    with pytest.raises(ValueError, match="multiples of the token grid 4x4"):
        token_mask(mask, grid=GRID)


def test_hidden_tokens_are_unknown_and_the_others_stay():
    hidden = torch.tensor([False, True, False, True])
    assert hide(torch.tensor([5, 6, 7, 8]), hidden).tolist() == [5, UNKNOWN, 7, UNKNOWN]


def test_hiding_nothing_is_an_error():
    with pytest.raises(ValueError, match="hides no token"):
        hide(torch.arange(4), torch.zeros(4, dtype=torch.bool))


def test_hiding_everything_is_an_error():
    with pytest.raises(ValueError, match="all 4 tokens"):
        hide(torch.arange(4), torch.ones(4, dtype=torch.bool))


def test_hidden_of_another_length_is_an_error():
    with pytest.raises(ValueError, match="one for each token"):
        hide(torch.arange(4), torch.ones(5, dtype=torch.bool))


def stitched(first: tuple, second: tuple) -> list[int]:
    tokens = torch.stack([torch.full((16,), 1), torch.full((16,), 2)])
    regions = torch.stack([box_mask(first, size=(16, 16)), box_mask(second, size=(16, 16))])
    return stitch(tokens, regions, grid=GRID).tolist()


def test_stitching_takes_each_region_from_its_own_image():
    assert stitched((0, 0, 16, 4), (0, 12, 16, 16)) == [1] * 4 + [UNKNOWN] * 8 + [2] * 4


def test_a_token_that_two_regions_touch_goes_to_the_one_that_covers_more():
    assert stitched((0, 0, 16, 5), (0, 5, 16, 8)) == [1] * 4 + [2] * 4 + [UNKNOWN] * 8


def test_a_token_covered_equally_goes_to_the_earlier_image():
    assert stitched((0, 0, 16, 6), (0, 6, 16, 8)) == [1] * 8 + [UNKNOWN] * 8


def test_regions_that_share_pixels_are_an_error():
    with pytest.raises(ValueError, match="share 16 pixels"):
        stitched((0, 0, 16, 5), (0, 4, 16, 8))


def test_an_empty_region_is_an_error_that_names_its_image():
    regions = torch.stack([box_mask((0, 0, 4, 4), size=(16, 16)), torch.zeros(16, 16, dtype=torch.bool)])
    with pytest.raises(ValueError, match="image 2 is empty"):
        stitch(torch.zeros(2, 16, dtype=torch.int64), regions, grid=GRID)


@pytest.mark.parametrize("box", [(4, 0, 4, 8), (0, 0, 17, 8), (-1, 0, 4, 4), (0, 9, 4, 3)])
def test_a_box_outside_the_image_is_an_error(box):
    with pytest.raises(ValueError, match="x1 <= 16"):
        box_mask(box, size=(16, 16))


def test_the_centre_box_is_a_quarter_of_the_tokens():
    assert int(centre_box((8, 8)).sum()) == 16 and not centre_box((8, 8)).view(8, 8)[:2].any()


def test_the_lower_half_leaves_a_prefix_in_raster_order():
    assert lower_half((4, 4)).tolist() == [False] * 8 + [True] * 8


def test_a_random_half_is_exactly_half_and_follows_its_draws():
    first, again, other = (random_half((5, 5), draws=Draws.seeded(seed)) for seed in (0, 0, 1))
    assert int(first.sum()) == 12 and torch.equal(first, again) and not torch.equal(first, other)


def test_a_token_mask_over_pixels_pools_back_to_itself():
    mask = random_half((4, 4), draws=Draws.seeded(3))
    assert torch.equal(token_mask(to_pixels(mask, size=(12, 8), grid=(4, 4)), grid=(4, 4)), mask)
