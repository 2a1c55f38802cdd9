"""Step schedules and orders against hand counts, enumeration and chi-square."""

import itertools
from fractions import Fraction

import pytest
import torch

from priors import schedules


@pytest.mark.parametrize("schedule", ["even", "cosine"])
@pytest.mark.parametrize("num_steps", [1, 3, 8, 300])
def test_counts_fall_from_all_to_none(schedule, num_steps):
    counts = schedules.masked_counts(schedule, 64, num_steps)
    assert counts[0] == 64 and counts[-1] == 0 and (counts.diff() <= 0).all() and len(counts) == num_steps + 1


def test_the_even_schedule_reveals_the_same_number_at_every_step():
    assert schedules.masked_counts("even", 64, 8).tolist() == [64, 56, 48, 40, 32, 24, 16, 8, 0]


def test_the_cosine_schedule_starts_slowly():
    assert schedules.masked_counts("cosine", 256, 8).tolist() == [256, 251, 237, 213, 181, 142, 98, 50, 0]


@pytest.mark.parametrize("schedule", ["even", "cosine"])
def test_random_reveal_steps_leave_the_scheduled_share_masked(schedule):
    n, uniforms = 5, torch.arange(100_000) / 100_000
    steps = schedules.random_reveal_steps(schedule, uniforms, n)
    assert steps.min() == 1 and steps.max() == n
    shares = torch.stack([(steps < t).double().mean() for t in range(n + 1, 0, -1)])
    expected = schedules.masked_share(schedule, torch.arange(n + 1, dtype=torch.float64) / n)
    torch.testing.assert_close(shares, expected, rtol=0, atol=2e-5)


def test_exact_reveal_steps_follow_the_counts():
    steps = schedules.exact_reveal_steps(torch.arange(5), torch.tensor([5, 4, 4, 1, 0]))
    assert steps.tolist() == [4, 2, 2, 2, 1]   # the step of the repeated count reveals nothing


@pytest.mark.parametrize("num_steps", [1, 2, 3, 6, 9])
def test_the_optimal_schedule_is_the_best_of_all(num_steps):
    nats = torch.tensor([0.0, 0.3, 0.5, 0.9, 1.0, 1.6, 1.7], dtype=torch.float64)
    inner = itertools.combinations(range(5, 0, -1), min(num_steps, 6) - 1)
    best = min(schedules.schedule_bound(nats, torch.tensor([6, *choice, 0])) for choice in inner)
    counts = schedules.optimal_counts(nats, 6, num_steps)
    assert len(counts) == num_steps + 1
    assert schedules.schedule_bound(nats, counts) == pytest.approx(best)


def test_the_optimal_schedule_is_no_worse_than_the_others():
    nats = torch.cat([torch.zeros(1), torch.linspace(1, 4, 64).sqrt()]).double()
    bound = {name: schedules.schedule_bound(nats, schedules.masked_counts(name, 64, 8)) for name in ("even", "cosine")}
    assert schedules.schedule_bound(nats, schedules.optimal_counts(nats, 64, 8)) < min(bound.values())


@pytest.mark.parametrize("name", ["raster", "column", "spiral", "halton"])
@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (8, 8), (16, 16)])
def test_a_walk_visits_every_cell_once(name, grid):
    assert sorted(schedules.grid_order(name, grid).tolist()) == list(range(grid[0] * grid[1]))


def test_a_spiral_goes_around_the_edge_first():
    assert schedules.grid_order("spiral", (3, 3)).tolist() == [0, 1, 2, 5, 8, 7, 6, 3, 4]


def test_a_column_walk_goes_down_first():
    assert schedules.grid_order("column", (2, 3)).tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize("grid", [(8, 8), (9, 9), (16, 27), (5, 7)])
def test_a_halton_walk_follows_the_sequence_in_exact_fractions(grid):
    def mirrored(i, base):
        digits = [i // base**place % base for place in range(12)]
        return sum(Fraction(digit, base ** (place + 1)) for place, digit in enumerate(digits))

    h, w = grid
    cells = [int(mirrored(i, 2) * h) * w + int(mirrored(i, 3) * w) for i in range(1, 4000)]
    assert schedules.grid_order("halton", grid).tolist() == list(dict.fromkeys(cells))


def test_the_first_cells_of_a_halton_walk_lie_in_different_quarters():
    rows, columns = schedules.grid_order("halton", (8, 8))[:4] // 8, schedules.grid_order("halton", (8, 8))[:4] % 8
    assert len({(int(r) // 4, int(c) // 4) for r, c in zip(rows, columns, strict=True)}) >= 3


def test_interpolation_passes_through_what_was_measured():
    values = schedules.interpolate(torch.tensor([1, 3, 6]), torch.tensor([1.0, 5.0, 2.0]), 6)
    assert values.tolist() == [1.0, 3.0, 5.0, 4.0, 3.0, 2.0]
