"""Estimators of the bound on problems whose answer is a closed form."""

import pytest
import torch

from priors.base import Draws
from priors.bounds import continuous_bound, level_weights, strata, t_step_bound, t_step_sum

N, COPIES = 16, 2_500
EASE = torch.linspace(0.2, 2.0, N, dtype=torch.float64)   # tokens differ, and differ more when more is masked
TOKENS = torch.zeros(COPIES, N, dtype=torch.int64)


def score(masked, wanted):
    """A token's nats depend on it, on how many tokens are masked and on whether its neighbour is."""
    share = masked.double().sum(1, keepdim=True) / N
    return (EASE * (0.5 + share) + 0.3 * masked.roll(1, 1) * EASE.flip(0)).masked_fill(~wanted, 0.0)


def continuous_answer():
    """sum_k m_k: the neighbour of a masked token is masked with probability (k - 1)/(N - 1)."""
    k = torch.arange(1, N + 1, dtype=torch.float64)
    return float((EASE.mean() * (0.5 + k / N) + 0.3 * EASE.mean() * (k - 1) / (N - 1)).sum())


def t_step_answer(timesteps):
    """sum_t E[CE_t]/t with q = t/T: E[CE_t] = sum_i q EASE_i (1/2 + (1 + (N - 1) q)/N) + 0.3 q^2 EASE_i."""
    q = torch.arange(1, timesteps + 1, dtype=torch.float64) / timesteps
    terms = q * EASE.sum() * (0.5 + (1 + (N - 1) * q) / N) + 0.3 * q**2 * EASE.sum()
    return float((terms / torch.arange(1, timesteps + 1)).sum())


def textbook_variance(evaluations):
    """Of the mean of T CE_t / t over independent t ~ U{1..T}, T = N."""
    draws = Draws.seeded(1)
    total = torch.zeros(COPIES, dtype=torch.float64)
    for _ in range(evaluations):
        t = draws.integers(1, N + 1, COPIES)
        masked = draws.uniform(COPIES, N) < (t / N).unsqueeze(1)
        total += N * score(masked, masked).sum(1) / t / evaluations
    return float(total.var())


@pytest.mark.parametrize("budget", [3, 4, 9, 16, 31, 80])
def test_the_continuous_bound_is_unbiased_at_every_budget(budget):
    estimate = continuous_bound(score, TOKENS, budget=budget, draws=Draws.seeded(budget))
    assert estimate.evaluations <= budget
    error = float(estimate.nats.std()) / COPIES**0.5
    assert float(estimate.nats.mean()) == pytest.approx(continuous_answer(), abs=4 * error)


@pytest.mark.parametrize("budget", [3, 9, 31, 80])
def test_the_reported_variance_of_the_continuous_bound_is_the_true_one(budget):
    estimate = continuous_bound(score, TOKENS, budget=budget, draws=Draws.seeded(budget))
    assert float(estimate.variance.mean() / estimate.nats.var()) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("budget", [9, 15])
def test_the_continuous_bound_varies_far_less_than_the_textbook_estimate(budget):
    estimate = continuous_bound(score, TOKENS, budget=budget, draws=Draws.seeded(0))
    assert 15 * float(estimate.nats.var()) < textbook_variance(budget)


@pytest.mark.parametrize("timesteps, budget", [(1, 3), (2, 3), (5, 9), (5, 31), (16, 16), (16, 80), (40, 15)])
def test_the_t_step_bound_is_unbiased_at_every_budget(timesteps, budget):
    estimate = t_step_bound(score, TOKENS, timesteps=timesteps, budget=budget, draws=Draws.seeded(budget))
    assert estimate.evaluations <= budget
    error = max(float(estimate.nats.std()) / COPIES**0.5, 1e-6)
    assert float(estimate.nats.mean()) == pytest.approx(t_step_answer(timesteps), abs=4 * error)


@pytest.mark.parametrize("timesteps, budget", [(5, 9), (16, 16), (16, 80)])
def test_the_reported_variance_of_the_t_step_bound_is_the_true_one(timesteps, budget):
    estimate = t_step_bound(score, TOKENS, timesteps=timesteps, budget=budget, draws=Draws.seeded(budget))
    assert float(estimate.variance.mean() / estimate.nats.var()) == pytest.approx(1, abs=0.15)


def test_the_t_step_bound_varies_far_less_than_the_sum_over_steps():
    textbook = t_step_sum(score, TOKENS, timesteps=N, draws=Draws.seeded(0))
    estimate = t_step_bound(score, TOKENS, timesteps=N, budget=N, draws=Draws.seeded(0))
    assert estimate.evaluations <= textbook.evaluations
    assert 15 * float(estimate.nats.var()) < float(textbook.nats.var())


@pytest.mark.parametrize("num_tokens, timesteps", [(1, 3), (3, 4), (16, 1), (16, 50), (256, 256)])
def test_the_levels_of_the_t_step_bound_weigh_as_much_as_there_are_tokens(num_tokens, timesteps):
    assert float(level_weights(num_tokens, timesteps).sum()) == pytest.approx(num_tokens, rel=1e-9)


def test_level_weights_tend_to_one_with_the_number_of_steps():
    assert torch.allclose(level_weights(8, 100_000), torch.ones(8, dtype=torch.float64), atol=1e-3)


def test_one_step_is_the_all_masked_evaluation_alone():
    estimate = t_step_bound(score, TOKENS[:2], timesteps=1, budget=1, draws=Draws.seeded(0))
    assert estimate.evaluations == 1 and estimate.nats.tolist() == pytest.approx([t_step_answer(1)] * 2)


@pytest.mark.parametrize("timesteps", [1, 5, 16, 40])
def test_the_t_step_sum_is_unbiased(timesteps):
    estimate = t_step_sum(score, TOKENS, timesteps=timesteps, draws=Draws.seeded(timesteps))
    error = max(float(estimate.nats.std()) / COPIES**0.5, 1e-6)
    assert float(estimate.nats.mean()) == pytest.approx(t_step_answer(timesteps), abs=4 * error)


@pytest.mark.parametrize("length", [1, 2, 7, 14, 15])
def test_strata_cover_every_level_once(length):
    edges = strata(torch.ones(15, dtype=torch.float64), length)
    assert edges[0] == 0 and edges[-1] == 15 and (edges.diff() > 0).all() and len(edges) == length + 1


def test_strata_lie_where_the_weights_are():
    edges = strata(torch.tensor([0, 0, 0, 0, 1, 1, 1, 1.0]), 4)
    assert edges[1] >= 5 and edges[-1] == 8


def test_one_token_needs_one_evaluation():
    estimate = continuous_bound(lambda masked, wanted: torch.ones(2, 1, dtype=torch.float64), TOKENS[:2, :1], budget=1,
                                draws=Draws.seeded(0))
    assert estimate.nats.tolist() == [1.0, 1.0] and estimate.evaluations == 1


def nats_at(k):
    """m_k in closed form, see `continuous_answer`."""
    return float(EASE.mean() * (0.5 + k / N) + 0.3 * EASE.mean() * (k - 1) / (N - 1))


@pytest.mark.parametrize("bound, budget", [(continuous_bound, {"budget": 9}), (t_step_bound, {"budget": 16}),
                                           (t_step_sum, {})])
def test_the_evaluations_tell_the_nats_of_a_token_by_how_many_are_masked(bound, budget):
    seen = bound(score, TOKENS, timesteps=N, draws=Draws.seeded(2), **budget).by_unknown
    measured = seen.nats.sum(0) / seen.times.sum(0)
    expected = torch.tensor([nats_at(k) for k in range(1, N + 1)], dtype=torch.float64)
    assert (measured - expected).abs().max() < 0.03


def test_every_evaluation_is_counted_once():
    estimate = continuous_bound(score, TOKENS[:5], budget=31, draws=Draws.seeded(0))
    assert estimate.by_unknown.times.sum(1).tolist() == [estimate.evaluations] * 5


def test_the_levels_seen_by_the_continuous_bound_give_the_bound_of_t_steps_too():
    seen = continuous_bound(score, TOKENS, budget=9, draws=Draws.seeded(3), timesteps=5).by_unknown
    derived = float((seen.step_weights * seen.nats.sum(0) / seen.times.sum(0)).sum())
    assert derived == pytest.approx(t_step_answer(5), rel=0.01)
