"""Exact likelihoods by the chain rule in a fixed order, against enumeration on three tokens of three codes."""

import itertools

import pytest
import torch
from torch import nn

from priors import chain_rule
from priors.absorbing import AbsorbingDiffusion
from priors.any_order import AnyOrder
from priors.autoregressive import Autoregressive
from priors.base import Draws, Unsupported
from priors.options import AbsorbingOptions, AnyOrderOptions, AutoregressiveOptions
from priors.schedules import grid_order
from priors.vq_diffusion import VQDiffusion

N, K = 3, 3
IMAGES = torch.tensor(list(itertools.product(range(K), repeat=N)))   # (27, 3)
ORDERS = [torch.tensor(order) for order in itertools.permutations(range(N))]
TINY = dict(width=8, num_layers=2, num_heads=2)


def random_weights(prior):
    for parameter in prior.parameters():
        nn.init.normal_(parameter, std=0.5)
    return prior.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def prior():
    torch.manual_seed(1)
    return random_weights(AbsorbingDiffusion(grid=(1, N), codebook_size=K, options=AbsorbingOptions(**TINY)))


def enumerated(prior, order):
    """(27,) nats of revealing one token at a time, by the logits of all positions under each mask."""
    nats, masked = torch.zeros(len(IMAGES), dtype=torch.float64), torch.ones(N, dtype=torch.bool)
    for position in order.tolist():
        log_p = prior.logits(IMAGES.masked_fill(masked, K))[:, position].double().log_softmax(-1)
        nats -= log_p.gather(1, IMAGES[:, position : position + 1])[:, 0]
        masked[position] = False
    return nats


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_the_chain_rule_equals_enumeration_in_every_order(prior, order):
    found = prior.nll_in_order(IMAGES, order)
    assert (found.nats - enumerated(prior, order)).abs().max() < 1e-5
    assert (found.kind, found.network_evaluations) == ("exact", N) and not found.monte_carlo_variance.any()


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_probabilities_of_all_images_sum_to_one_in_every_order(prior, order):
    assert float((-prior.nll_in_order(IMAGES, order).nats).exp().sum()) == pytest.approx(1, abs=1e-6)


def test_each_image_may_have_an_order_of_its_own(prior):
    several = torch.stack([ORDERS[i % 6] for i in range(27)])
    expected = torch.stack([enumerated(prior, order)[i] for i, order in enumerate(several)])
    assert (prior.nll_in_order(IMAGES, several).nats - expected).abs().max() < 1e-5


def test_the_mean_over_all_orders_is_the_bound_of_infinite_t(prior):
    """What Monte Carlo estimates as bound_continuous, here without any randomness on one side."""
    every = torch.stack([prior.nll_in_order(IMAGES[13:14], order).nats for order in ORDERS]).mean()
    found = prior.random_order_nll(IMAGES[13:14].repeat(6_000, 1), draws=Draws.seeded(0), budget=3)
    assert found.kind == "bound_continuous"
    assert abs(found.nats.mean() - every) < 4 * found.nats.std() / 6_000**0.5


def test_averaging_over_random_orders_estimates_the_same_mean_and_its_own_error(prior):
    every = torch.stack([prior.nll_in_order(IMAGES, order).nats for order in ORDERS]).mean(0)
    found = chain_rule.average_over_orders(prior.nll_in_order, IMAGES, num_orders=100, draws=Draws.seeded(0))
    error = (found.nats - every) / found.monte_carlo_variance.sqrt()
    assert found.network_evaluations == 100 * N and error.abs().max() < 4


def test_an_autoregressive_prior_has_the_likelihood_of_its_own_walk_alone():
    walk = grid_order("column", (2, 2))
    prior = Autoregressive(grid=(2, 2), codebook_size=K, options=AutoregressiveOptions(order="column", **TINY)).eval()
    tokens = Draws.seeded(0).integers(0, K, 5, 4)
    assert torch.equal(prior.nll_in_order(tokens, walk).nats, prior.nll(tokens, draws=Draws.seeded(0)).nats)
    for refused in (lambda: prior.nll_in_order(tokens, torch.arange(4)),
                    lambda: prior.random_order_nll(tokens, draws=Draws.seeded(0), budget=8)):
        with pytest.raises(Unsupported, match="in its own order, column, alone"):
            refused()


def test_priors_that_take_tokens_in_order_are_known_by_the_protocol():
    sizes = dict(grid=(1, N), codebook_size=K)
    assert isinstance(AnyOrder(options=AnyOrderOptions(**TINY), **sizes), chain_rule.InOrder)
    assert isinstance(AbsorbingDiffusion(options=AbsorbingOptions(**TINY), **sizes), chain_rule.InOrder)
    assert not isinstance(VQDiffusion(options=VQDiffusion.Options(timesteps=3, **TINY), **sizes), chain_rule.InOrder)


def test_a_token_outside_the_codebook_and_a_wrong_order_are_errors(prior):
    with pytest.raises(ValueError, match=r"\[0, 3\]: expected \[0, 3\)"):
        prior.nll_in_order(torch.tensor([[0, 1, 3]]), ORDERS[0])
    with pytest.raises(ValueError, match="holds a position twice"):
        prior.nll_in_order(IMAGES, torch.tensor([0, 1, 1]))
