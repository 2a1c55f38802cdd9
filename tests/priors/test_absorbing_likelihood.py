"""The bounds of absorbing diffusion against exhaustive enumeration on three tokens of three codes."""

import itertools
import math

import pytest
import torch
from torch import nn

from priors.absorbing import AbsorbingDiffusion
from priors.base import Draws
from priors.options import AbsorbingOptions

N, K, T = 3, 3, 4
MASKS = [torch.tensor(mask) for mask in itertools.product([False, True], repeat=N)]
IMAGES = torch.tensor(list(itertools.product(range(K), repeat=N)))   # (27, 3)


@pytest.fixture(scope="module")
def prior():
    torch.manual_seed(1)
    options = AbsorbingOptions(width=8, num_layers=2, num_heads=2, timesteps=T)
    prior = AbsorbingDiffusion(grid=(1, 3), codebook_size=K, options=options).eval()
    for parameter in prior.parameters():
        nn.init.normal_(parameter, std=0.5)
    return prior.requires_grad_(False)


def masked_nats(prior, mask):
    """(27, 3) nats of the true tokens under this mask, 0 where known."""
    logits = prior.logits(IMAGES.masked_fill(mask, K)).double().log_softmax(-1)
    return -logits.gather(-1, IMAGES.unsqueeze(-1)).squeeze(-1) * mask


def enumerated_t_step_bound(prior, timesteps):
    total = torch.zeros(len(IMAGES), dtype=torch.float64)
    for mask in MASKS:
        hidden, nats = int(mask.sum()), masked_nats(prior, mask).sum(1)
        for t in range(1, timesteps + 1):
            total += (t / timesteps) ** hidden * (1 - t / timesteps) ** (N - hidden) * nats / t
    return total


def enumerated_continuous_bound(prior):
    """The expectation over all orders of -log p(x) generated in that order, one token at a time."""
    total = torch.zeros(len(IMAGES), dtype=torch.float64)
    orders = list(itertools.permutations(range(N)))
    for order in orders:
        hidden = torch.ones(N, dtype=torch.bool)
        for token in order:
            total += masked_nats(prior, hidden)[:, token] / len(orders)
            hidden[token] = False
    return total


def step_log_likelihood(prior, timesteps):
    """log p(x) of the T-step sampler, over all assignments of tokens to the steps that reveal them."""
    total = torch.zeros(len(IMAGES), dtype=torch.float64)
    for steps in itertools.product(range(1, timesteps + 1), repeat=N):
        steps = torch.tensor(steps)
        nats = sum(masked_nats(prior, steps <= t)[:, steps == t].sum(1) for t in steps.unique())
        total += (-nats).exp() / timesteps**N
    return total.log()


def many(prior, image, copies, **options):
    likelihood = prior.nll(IMAGES[image].repeat(copies, 1), draws=Draws.seeded(image), **options)
    return likelihood, likelihood.nats.mean(), likelihood.nats.std() / copies**0.5


@pytest.mark.parametrize("image", [0, 13, 25])
def test_the_t_step_sum_estimates_the_enumerated_bound(prior, image):
    likelihood, mean, error = many(prior, image, 6_000)
    assert likelihood.kind == "bound_T" and likelihood.network_evaluations == T
    assert abs(mean - enumerated_t_step_bound(prior, T)[image]) < 4 * error


@pytest.mark.parametrize("image", [0, 13, 25])
@pytest.mark.parametrize("budget", [T, 9])
def test_a_budget_of_t_or_more_estimates_the_same_enumerated_bound(prior, image, budget):
    likelihood, mean, error = many(prior, image, 6_000, budget=budget)
    assert likelihood.kind == "bound_T" and likelihood.network_evaluations <= budget
    assert abs(mean - enumerated_t_step_bound(prior, T)[image]) < 4 * error


def test_at_equal_evaluations_the_low_variance_form_varies_less_than_the_sum(prior):
    likelihood, _, _ = many(prior, 13, 6_000, budget=T)
    published, _, _ = many(prior, 13, 6_000)
    assert likelihood.network_evaluations <= published.network_evaluations
    assert likelihood.nats.var() < published.nats.var()


@pytest.mark.parametrize("image", [0, 13, 25])
def test_the_low_variance_form_estimates_the_enumerated_continuous_bound(prior, image):
    likelihood, mean, error = many(prior, image, 6_000, budget=3)
    assert likelihood.kind == "bound_continuous" and likelihood.network_evaluations <= 3
    assert abs(mean - enumerated_continuous_bound(prior)[image]) < 4 * error


def test_the_bounds_exceed_the_exact_negative_log_likelihood(prior):
    exact = -step_log_likelihood(prior, T)
    assert (enumerated_t_step_bound(prior, T) > exact).all()


def test_the_t_step_sampler_defines_a_distribution(prior):
    assert step_log_likelihood(prior, T).exp().sum() == pytest.approx(1, abs=1e-6)


def test_the_t_step_bound_falls_to_the_continuous_one(prior):
    limit = enumerated_continuous_bound(prior)
    gaps = [(enumerated_t_step_bound(prior, steps) - limit).abs().max() for steps in (4, 40, 400)]
    assert gaps[0] > 5 * gaps[1] > 25 * gaps[2]


def test_the_reported_variance_of_the_low_variance_form_is_the_true_one(prior):
    likelihood, _, _ = many(prior, 13, 12_000, budget=3)
    assert likelihood.monte_carlo_variance.mean() == pytest.approx(float(likelihood.nats.var()), rel=0.1)


def test_the_reported_variance_of_the_t_step_sum_is_not_below_the_true_one(prior):
    likelihood, _, _ = many(prior, 13, 6_000)
    assert 1 < likelihood.monte_carlo_variance.mean() / likelihood.nats.var() < 1.5


def test_the_weighted_training_loss_estimates_the_bound(prior):
    """elbo in bits a token, over many times and masks, is the T-step bound."""
    torch.manual_seed(0)
    tokens = IMAGES[13].repeat(40_000, 1)
    objective = AbsorbingDiffusion(
        grid=(1, 3), codebook_size=K,
        options=AbsorbingOptions(width=8, num_layers=2, num_heads=2, timesteps=T, objective="elbo"),
    ).eval()
    objective.load_state_dict(prior.state_dict())
    with torch.no_grad():
        bits = objective.training_loss(tokens, draws=Draws.seeded(3))
    assert float(bits) * N * math.log(2) == pytest.approx(float(enumerated_t_step_bound(prior, T)[13]), rel=0.03)


def test_too_small_a_budget_is_an_error(prior):
    with pytest.raises(ValueError, match="budget=1: expected at least"):
        prior.nll(IMAGES, draws=Draws.seeded(0), budget=1)


def test_a_token_outside_the_codebook_is_an_error(prior):
    with pytest.raises(ValueError, match=r"\[0, 3\]: expected \[0, 3\)"):
        prior.nll(torch.tensor([[0, 1, 3]]), draws=Draws.seeded(0))


def test_calibration_measures_the_mean_nats_of_a_masked_token():
    torch.manual_seed(0)
    options = AbsorbingOptions(width=8, num_layers=1, num_heads=2)
    prior = AbsorbingDiffusion(grid=(1, 3), codebook_size=K, options=options).eval()
    nn.init.normal_(prior.requires_grad_(False).net.head.weight, std=2.0)
    prior.calibrate(IMAGES.repeat(500, 1), draws=Draws.seeded(0))
    for k in range(1, N + 1):
        expected = torch.stack([masked_nats(prior, m).sum(1).mean() / k for m in MASKS if int(m.sum()) == k]).mean()
        assert float(prior.nats_by_masked[k]) == pytest.approx(float(expected), rel=0.02)
