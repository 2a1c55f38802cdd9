"""What a token costs by how many are unknown: closed forms, errors that cover, the bound of T steps."""

import math

import pytest
import torch

from bench.metrics.by_unknown import bound_T, by_unknown, joined
from priors.absorbing import AbsorbingDiffusion
from priors.autoregressive import Autoregressive
from priors.base import Draws, Likelihood, NatsByUnknown
from priors.bounds import level_weights

GRID = (2, 4)
N = 8


def seen_of(num, seed=0, *, every=True):
    """m_k = k nats, with noise of each image; unless `every`, half of the levels are met by each."""
    generator = torch.Generator().manual_seed(seed)
    level = torch.arange(1, N + 1, dtype=torch.float64)
    nats = level + torch.randn(num, 1, generator=generator) + torch.randn(num, N, generator=generator)
    times = torch.ones(num, N) if every else (torch.rand(num, N, generator=generator) < 0.5).float()
    return NatsByUnknown(nats.double() * times, times.double(), level_weights(N, N))


def test_the_ranges_are_octaves_and_the_last_row_has_the_grid_s_width():
    told = by_unknown(seen_of(4000), grid=GRID)
    assert [entry["unknown"] for entry in told["bits_by_unknown"]] == [[1, 1], [2, 3], [4, 7], [8, 8]]
    assert [entry["bits"] * math.log(2) for entry in told["bits_by_unknown"]] == pytest.approx([1, 2.5, 5.5, 8], abs=.1)
    assert told["last_row"]["unknown"] == [1, 4]
    assert told["last_row"]["bits"] * math.log(2) == pytest.approx(2.5, abs=0.1)


def test_intervals_cover_whether_or_not_every_image_met_every_level():
    for every in (True, False):
        covered = 0
        for seed in range(200):
            entry = by_unknown(seen_of(60, seed, every=every), grid=GRID)["last_row"]
            covered += abs(entry["bits"] - 2.5 / math.log(2)) <= 1.96 * entry["standard_error"]
        assert 0.90 <= covered / 200 <= 0.99


def test_a_range_that_no_evaluation_met_is_left_out():
    seen = seen_of(5)
    seen.times[:, 3:7], seen.nats[:, 3:7] = 0, 0
    assert [entry["unknown"][0] for entry in by_unknown(seen, grid=GRID)["bits_by_unknown"]] == [1, 2, 8]


def test_a_batch_that_counts_nothing_by_level_leaves_nothing():
    assert joined([seen_of(3), None]) is None and joined([seen_of(3), seen_of(2)]).nats.shape == (5, N)


def test_the_bound_of_t_steps_is_that_of_the_estimator_made_for_it():
    prior = AbsorbingDiffusion(grid=GRID, codebook_size=5, options=AbsorbingDiffusion.Options(width=16, num_layers=1,
                                                                                            num_heads=2)).eval()
    tokens = torch.randint(5, (1, N), generator=torch.Generator().manual_seed(0)).expand(800, N)
    continuous = prior.nll(tokens, draws=Draws.seeded(0), budget=6)
    direct = prior.nll(tokens, draws=Draws.seeded(1), budget=40)
    assert continuous.kind == "bound_continuous" and direct.kind == "bound_T" and bound_T(direct) is None
    told, scale = bound_T(continuous), 1 / (N * math.log(2))
    error = math.hypot(told["standard_error"], float(direct.nats.std()) / 800**0.5 * scale)
    assert told["bits"] == pytest.approx(float(direct.nats.mean()) * scale, abs=4 * error)
    assert 0 < told["standard_error"] < 0.01


def test_the_bound_of_t_steps_needs_every_level_that_it_weighs_otherwise():
    seen = seen_of(5)
    seen.times[:, 0] = 0
    assert bound_T(Likelihood(torch.ones(5).double(), torch.zeros(5), "bound_continuous", 3, seen)) is None


def test_an_autoregressive_prior_tells_its_nats_by_position_and_they_add_up():
    prior = Autoregressive(grid=GRID, codebook_size=5,
                           options=Autoregressive.Options(width=16, num_layers=1, num_heads=2)).eval()
    tokens = torch.randint(5, (6, N), generator=torch.Generator().manual_seed(0))
    likelihood = prior.nll(tokens, draws=Draws.seeded(0))
    assert torch.allclose(likelihood.by_unknown.nats.sum(1), likelihood.nats)
    first = -prior.logits(tokens)[:, 0].log_softmax(-1).gather(1, tokens[:, :1])[:, 0]
    assert torch.allclose(likelihood.by_unknown.nats[:, -1], first.double(), atol=1e-5)   # all unknown: the first token
