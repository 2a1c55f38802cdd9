"""Steps across borders and window edges: pictures whose steps are known."""

import numpy as np
import pytest

from bench.metrics.editing import border_step, line_steps, ratio_of_means, seam_ratio, window_edges


def squares(inside: int, outside: int) -> tuple[np.ndarray, np.ndarray]:
    """One 8x8 image of a flat square on a flat ground, and the mask of the square's 2x2-pixel tokens."""
    image = np.full((1, 3, 8, 8), outside, np.uint8)
    image[:, :, 2:6, 2:6] = inside
    mask = np.zeros((1, 4, 4), bool)
    mask[:, 1:3, 1:3] = True
    return image, mask


def test_the_step_across_a_border_is_the_difference_of_its_two_sides():
    assert border_step(*squares(90, 50), patch=2).tolist() == [40.0]


def test_a_flat_image_has_no_step():
    assert border_step(*squares(50, 50), patch=2).tolist() == [0.0]


def test_steps_elsewhere_do_not_count():
    image, mask = squares(50, 50)
    image[:, :, 0, 0] = 255
    assert border_step(image, mask, patch=2).tolist() == [0.0]


def test_a_mask_without_a_border_is_an_error():
    with pytest.raises(ValueError, match="without a border"):
        border_step(np.zeros((1, 3, 8, 8), np.uint8), np.ones((1, 4, 4), bool), patch=2)


def test_lines_between_tokens_come_rows_first():
    image = np.zeros((1, 3, 4, 6), np.uint8)
    image[:, :, 2:] = 10   # a step between the two rows of tokens
    assert line_steps(image, patch=2).tolist() == [[10.0, 0.0, 0.0]]


def test_window_edges_are_where_windows_begin_and_end():
    edges = window_edges((8, 6), (4, 4), np.array([[0, 0], [4, 0], [0, 2], [4, 2]]))
    assert edges.tolist() == [False, False, False, True, False, False, False] + [False, True, False, True, False]


def test_a_seam_shows_as_a_ratio_above_one_and_noise_as_one():
    generator = np.random.default_rng(0)
    image = generator.integers(100, 120, (40, 3, 32, 32)).astype(np.uint8)
    edges = np.isin(np.arange(14) % 7, [3])
    ratio, low, high = seam_ratio(image, edges, patch=4)
    assert low < 1 < high
    image[:, :, 16:] += 60
    assert seam_ratio(image, edges, patch=4)[1] > 2 > ratio


def test_the_interval_of_a_ratio_covers_it_as_often_as_it_says():
    generator, hits = np.random.default_rng(1), 0
    for _ in range(400):
        below = generator.normal(10, 2, 60)
        _, low, high = ratio_of_means(1.5 * below + generator.normal(0, 1, 60), below)
        hits += low < 1.5 < high
    assert 0.91 < hits / 400 < 0.98
