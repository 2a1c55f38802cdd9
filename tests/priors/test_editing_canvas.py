"""Larger canvases: coverage, equality with the all-windows algorithm under equal draws, cost, parity, errors."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from priors.absorbing import AbsorbingDiffusion
from priors.autoregressive import Autoregressive
from priors.base import UNKNOWN, Draws, Unsupported, inverse_cdf
from priors.canvas import (
    CanvasSampler,
    fill_canvas,
    film,
    mixture,
    random_windows,
    reveal_steps,
    sample_canvas,
    strided_windows,
)
from priors.checkpoints import load_official
from priors.options import AbsorbingOptions, AutoregressiveOptions, UnigramOptions
from priors.reference import naive_canvas_sample
from priors.samplers import Adjust
from priors.unigram import Unigram

HERE = Path(__file__).parent


def network(grid: tuple[int, int] = (4, 4), codes: int = 6) -> AbsorbingDiffusion:
    """One random layer with weights large enough that every token changes every prediction."""
    torch.manual_seed(0)
    options = AbsorbingOptions(width=8, num_layers=1, num_heads=2)
    prior = AbsorbingDiffusion(grid=grid, codebook_size=codes, options=options).eval()
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return prior


def both(prior, canvas, sampler, *, stride=1, known=None, adjust=Adjust(), num=1):   # noqa: B008
    """(our Sample, tokens of the all-windows algorithm, windows it evaluated for each canvas) under equal draws."""
    draws, cells = Draws.seeded("coupled"), canvas[0] * canvas[1]
    tokens = torch.full((num, cells), UNKNOWN) if known is None else known
    reveal, uniforms = reveal_steps(sampler, canvas, tokens == UNKNOWN, draws=draws), draws.uniform(num, cells)
    with torch.inference_mode():
        ours = fill_canvas(prior.logits_at, tokens, reveal, uniforms, adjust=adjust,
                           windows=strided_windows(canvas, prior.grid, stride=stride))
        naive, evaluations = naive_canvas_sample(
            prior.logits, tokens.view(num, *canvas), reveal.view(num, *canvas), window=prior.grid, stride=stride,
            adjust=adjust, choose=lambda logits: inverse_cdf(logits, uniforms.view(num, *canvas)))
    return ours, naive.flatten(1), evaluations


@pytest.mark.parametrize("order", ["random", "raster", "halton"])
@pytest.mark.parametrize("steps", [None, 7])
def test_skipping_windows_that_are_not_read_changes_no_token(order, steps):
    ours, naive, _ = both(network(), (7, 6), CanvasSampler(order=order, steps=steps), num=2)
    assert torch.equal(ours.tokens, naive)


def test_the_same_holds_for_temperature_top_k_stride_and_known_tokens():
    known = torch.full((2, 64), UNKNOWN)
    known[:, 20:30] = 3
    ours, naive, _ = both(network(), (8, 8), CanvasSampler(), stride=2, known=known, adjust=Adjust(0.7, 4, None), num=2)
    assert torch.equal(ours.tokens, naive) and (ours.tokens[:, 20:30] == 3).all()


@pytest.mark.parametrize("grid", [(4, 4), (8, 8)])
def test_doubling_height_and_width_takes_at_most_a_third_of_all_windows(grid):
    canvas = (2 * grid[0], 2 * grid[1])
    windows, sampler = strided_windows(canvas, grid), CanvasSampler()
    unigram = Unigram(grid=grid, codebook_size=3, options=UnigramOptions())   # the count depends on no weights
    ours = sample_canvas(unigram, 1, windows=windows, sampler=sampler, draws=Draws.seeded(0))
    all_windows = len(windows) * canvas[0] * canvas[1]
    assert 3 * int(ours.network_evaluations) <= all_windows


def test_eight_by_eight_to_sixteen_by_sixteen_equals_all_windows_at_a_quarter_of_the_evaluations():
    ours, naive, evaluations = both(network((8, 8)), (16, 16), CanvasSampler())
    assert torch.equal(ours.tokens, naive) and 3 * int(ours.network_evaluations) <= evaluations == 81 * 256


class LeftNeighbour:
    """A table: the logits of a token by what stands to its left in its window, so windows disagree at their edges."""

    grid, codebook_size = (16, 16), 3

    def __init__(self):
        self.table = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))

    def logits(self, tokens):
        left = torch.nn.functional.pad(tokens.view(-1, *self.grid), (1, 0), value=3)[..., :-1]
        return self.table[left.flatten(1)]   # UNKNOWN, -1, is the last row

    def logits_at(self, tokens, positions):
        return self.logits(tokens).gather(1, positions.unsqueeze(2).expand(-1, -1, 3))


def test_a_table_on_sixteen_by_sixteen_gives_equal_canvases_of_thirty_two_by_thirty_two():
    ours, naive, evaluations = both(LeftNeighbour(), (32, 32), CanvasSampler(), stride=4)
    assert torch.equal(ours.tokens, naive) and 3 * int(ours.network_evaluations) <= evaluations == 25 * 1024


@pytest.mark.parametrize("canvas", [(16, 48), (48, 16), (32, 32), (17, 23)])
def test_sizes_of_the_paper_are_filled(canvas):
    sample = sample_canvas(LeftNeighbour(), 1, windows=strided_windows(canvas, (16, 16), stride=4),
                           sampler=CanvasSampler(steps=16), draws=Draws.seeded(0))
    assert sample.tokens.shape == (1, canvas[0] * canvas[1]) and sample.tokens.min() >= 0


@pytest.mark.slow
def test_sixteen_by_sixteen_to_thirty_two_by_thirty_two_equals_all_windows():
    ours, naive, evaluations = both(network((16, 16)), (32, 32), CanvasSampler())
    assert torch.equal(ours.tokens, naive) and 3 * int(ours.network_evaluations) <= evaluations == 289 * 1024


def test_evaluations_count_the_windows_that_the_network_saw():
    prior, seen = network(), 0
    logits_at = prior.logits_at

    def counting(tokens, positions):
        nonlocal seen
        seen += len(tokens)
        return logits_at(tokens, positions)

    prior.logits_at = counting
    sample = sample_canvas(prior, 3, windows=strided_windows((6, 5), (4, 4)), sampler=CanvasSampler(steps=9),
                           draws=Draws.seeded(0))
    assert int(sample.network_evaluations.sum()) == seen
    assert torch.equal(sample.token_forwards, 16 * sample.network_evaluations)


def test_raster_order_one_a_step_at_temperature_08_is_the_official_algorithm():
    record = load_file(HERE / "official_small_canvas.safetensors")
    weights = load_file(HERE / "official_small_priors.safetensors")
    prefix = "absorbing.state."
    state = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    prior = load_official(state, kind="absorbing", width=48, num_layers=3, num_heads=4, grid=(8, 8), codebook_size=32)
    official = record["tokens"].long()   # (2, 10, 9)
    windows, tokens = strided_windows((10, 9), (8, 8)), torch.full((2, 90), UNKNOWN)
    for cell, noise in enumerate(record["noise"]):   # (2, 32), exponentials: the largest p / noise wins
        with torch.inference_mode():
            logits, _ = mixture(prior.logits_at, tokens, torch.arange(2), torch.tensor([cell, cell]), windows)
        tokens[:, cell] = (Adjust(0.8)(logits).softmax(-1) / noise).argmax(-1)
    assert torch.equal(tokens.view(2, 10, 9), official)


def test_raster_steps_go_from_the_first_cell_to_the_last():
    unknown = torch.ones(1, 12, dtype=torch.bool)
    steps = reveal_steps(CanvasSampler(order="raster"), (3, 4), unknown, draws=Draws.seeded(0))
    assert steps.tolist() == [list(range(12, 0, -1))]


def test_the_mixture_is_the_mean_of_the_windows_probabilities():
    table = torch.tensor([[2.0, 0.0], [0.0, 1.0]])

    def predict(tokens, positions):   # by whether the window's first token is known
        return table[(tokens[:, :1] != UNKNOWN).long()].expand(-1, positions.shape[1], -1)

    state = torch.tensor([[1, UNKNOWN, UNKNOWN]])
    windows = strided_windows((1, 3), (1, 2))
    found, used = mixture(predict, state, torch.tensor([0]), torch.tensor([1]), windows)
    torch.testing.assert_close(found.exp(), table.softmax(-1).mean(0, keepdim=True))
    assert used.tolist() == [0, 0]


def test_one_window_on_its_own_canvas_gives_the_priors_own_logits():
    prior, state = network(), torch.full((1, 16), UNKNOWN)
    found, _ = mixture(prior.logits_at, state, torch.tensor([0]), torch.tensor([5]), strided_windows((4, 4), (4, 4)))
    torch.testing.assert_close(found, prior.logits(state)[:, 5].log_softmax(-1))


@pytest.mark.parametrize("canvas", [(4, 4), (4, 12), (12, 4), (9, 7), (8, 8), (5, 13)])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_strided_windows_cover_every_cell_of_every_canvas(canvas, stride):
    assert strided_windows(canvas, (4, 4), stride=stride).inside.any(1).all()


@pytest.mark.parametrize("canvas", [(4, 4), (9, 7), (8, 8), (5, 13), (32, 11)])
@pytest.mark.parametrize("seed", range(5))
def test_random_windows_cover_every_cell_from_the_least_number_on(canvas, seed):
    least = -(-canvas[0] // 4) * -(-canvas[1] // 4)
    windows = random_windows(canvas, (4, 4), num=least, draws=Draws.seeded(seed))
    assert len(windows) == least and windows.inside.any(1).all()
    assert len(windows.corners.unique(dim=0)) == least


def test_random_windows_are_different_ones_up_to_all_of_them():
    windows = random_windows((6, 6), (4, 4), num=9, draws=Draws.seeded(0))
    assert len(windows.corners.unique(dim=0)) == 9


@pytest.mark.parametrize("canvas", [(12, 4), (4, 12), (8, 8), (9, 7)])
def test_every_cell_of_every_canvas_is_filled_and_known_ones_stay(canvas):
    cells = canvas[0] * canvas[1]
    known = torch.where(torch.arange(cells) % 3 == 0, 2, UNKNOWN).expand(2, -1)
    sample = sample_canvas(network(), 2, windows=strided_windows(canvas, (4, 4), stride=3), known=known,
                           sampler=CanvasSampler(steps=6), draws=Draws.seeded(1))
    assert ((sample.tokens >= 0) & (sample.tokens < 6)).all() and (sample.tokens[known == 2] == 2).all()


def test_a_canvas_that_is_known_already_costs_nothing():
    known = torch.zeros(1, 64, dtype=torch.int64)
    sample = sample_canvas(network(), 1, windows=strided_windows((8, 8), (4, 4)), sampler=CanvasSampler(), known=known,
                           draws=Draws.seeded(0))
    assert torch.equal(sample.tokens, known) and int(sample.network_evaluations) == 0


def test_equal_draws_give_equal_canvases():
    one, two = (sample_canvas(network(), 1, windows=strided_windows((6, 6), (4, 4)), sampler=CanvasSampler(),
                              draws=Draws.seeded(4)).tokens for _ in range(2))
    assert torch.equal(one, two)


def test_many_windows_are_pushed_through_in_pieces_with_the_same_result(monkeypatch):
    whole = sample_canvas(network(), 2, windows=strided_windows((8, 8), (4, 4)), sampler=CanvasSampler(steps=5),
                          draws=Draws.seeded(4))
    monkeypatch.setattr("priors.canvas.WINDOWS_A_FORWARD", 3)
    pieces = sample_canvas(network(), 2, windows=strided_windows((8, 8), (4, 4)), sampler=CanvasSampler(steps=5),
                           draws=Draws.seeded(4))
    assert torch.equal(whole.tokens, pieces.tokens)


def test_a_film_goes_from_what_is_known_to_everything():
    tokens, unknown = torch.arange(12).view(1, 12), torch.ones(1, 12, dtype=torch.bool)
    unknown[0, :2] = False
    reveal = reveal_steps(CanvasSampler(), (3, 4), unknown, draws=Draws.seeded(0))
    frames = film(tokens, reveal, unknown, frames=6)[0]
    shown = (frames != UNKNOWN).sum(1)
    assert shown.tolist() == [2, 4, 6, 8, 10, 12] and torch.equal(frames[0][:2], tokens[0, :2])
    assert ((frames[1:] != UNKNOWN) | (frames[:-1] == UNKNOWN)).all()


def test_a_canvas_smaller_than_the_window_is_an_error():
    with pytest.raises(ValueError, match="3x8 tokens is smaller than the window of 4x4"):
        strided_windows((3, 8), (4, 4))


def test_a_stride_that_leaves_cells_uncovered_is_an_error_that_counts_them():
    with pytest.raises(ValueError, match="96 of the 160 cells.*use a stride of at most"):
        strided_windows((4, 40), (4, 4), stride=12)


@pytest.mark.parametrize("num", [3, 26])
def test_too_few_or_too_many_random_windows_are_an_error(num):
    with pytest.raises(ValueError, match="takes 4 .* to 25"):
        random_windows((8, 8), (4, 4), num=num, draws=Draws.seeded(0))


def test_an_autoregressive_prior_is_unsupported():
    options = AutoregressiveOptions(width=8, num_layers=1, num_heads=2)
    prior = Autoregressive(grid=(4, 4), codebook_size=6, options=options)
    with pytest.raises(Unsupported, match="cannot predict any token from any others"):
        sample_canvas(prior, 1, windows=strided_windows((8, 8), (4, 4)), sampler=CanvasSampler(), draws=Draws.seeded(0))


def test_windows_of_another_size_than_the_priors_grid_are_an_error():
    with pytest.raises(ValueError, match="expected 4x4"):
        sample_canvas(network(), 1, windows=strided_windows((8, 8), (8, 4)), sampler=CanvasSampler(),
                      draws=Draws.seeded(0))


@pytest.mark.parametrize("bad", [{"order": "spiral"}, {"steps": 0}, {"temperature": 0.0}, {"schedule": "optimal"}])
def test_a_wrong_sampler_value_is_an_error(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        CanvasSampler(**bad)
