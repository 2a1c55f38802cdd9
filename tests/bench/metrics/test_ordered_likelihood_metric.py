"""ordered_nll: exact likelihoods in orders of one's choice, the best of them chosen on half of the images."""

import math
from pathlib import Path

import pytest
import torch

from bench.compose import compose, expand
from bench.config import MetricsConfig, NllConfig, ProtocolConfig, SpeedConfig
from bench.errors import InputError
from bench.metrics.base import Evidence
from bench.metrics.likelihood import NegativeLogLikelihood, OrderedNegativeLogLikelihood
from bench.stages.base import Run
from bench.stages.identity import run_key
from bench.stages.measurements import recipe_of
from bench.stages.prior import PRIOR
from bench.testing import check_metric
from priors.absorbing import AbsorbingDiffusion
from priors.any_order import AnyOrder
from priors.autoregressive import Autoregressive
from priors.base import Draws, Likelihood
from priors.schedules import grid_order
from priors.unigram import Unigram

EVERY = ["raster", "column", "spiral", "halton", "random"]
SIZES = dict(width=8, num_layers=1, num_heads=2)
SMOKE = ["preset=smoke", "dataset=digits", "prior=absorbing"]
TOKENS = torch.randint(3, (41, 6), generator=torch.Generator().manual_seed(0))


def made(cls, **options):
    torch.manual_seed(0)
    prior = cls(grid=(2, 3), codebook_size=3, options=cls.Options(**SIZES, **options)).eval().requires_grad_(False)
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return prior


def evidence(prior, orders, tokens=TOKENS, budget=7):
    settings = MetricsConfig(names=["ordered_nll"], orders=orders, nll=NllConfig(budget=budget, batch_size=10))
    return Evidence(role="prior", protocol=ProtocolConfig(nll_images=None), protocol_id="p", settings=settings,
                    speed=SpeedConfig(), images=lambda side: pytest.fail("needs no images"),
                    features=lambda side: pytest.fail("needs no features"), validation_tokens=lambda: tokens,
                    workspace=Path(), caches=Path(), prior=prior)


def measure(prior, orders, **more):
    found = OrderedNegativeLogLikelihood()(evidence(prior, orders, **more))
    return {m.metric.removeprefix("bits_per_token_").removesuffix("_order"): m for m in found}


def bits(prior, order, tokens=TOKENS):
    nats = prior.nll_in_order(tokens, grid_order(order, prior.grid)).nats
    return float(nats.mean()) / 6 / math.log(2)


@pytest.mark.parametrize("cls", [AbsorbingDiffusion, AnyOrder])
def test_each_order_has_its_exact_likelihood(cls):
    prior, orders = made(cls), EVERY[:4]
    found = measure(prior, orders)
    for order in orders:
        assert found[order].value == pytest.approx(bits(prior, order)) and found[order].bound == ""
        assert found[order].extra["kind"] == "exact" and found[order].extra["monte_carlo_se"] == 0
    assert found["raster"].extra["network_evaluations"] == (6 if cls is AbsorbingDiffusion else 1)


@pytest.mark.parametrize("cls", [AbsorbingDiffusion, AnyOrder])
def test_a_random_order_is_an_upper_bound_of_stated_error(cls):
    found = measure(made(cls), ["random"], budget=5)["random"]
    assert found.bound == "upper" and found.extra["kind"] == "bound_continuous"
    assert 0 < found.extra["monte_carlo_se"] < found.standard_error and found.extra["network_evaluations"] <= 5


def test_of_an_absorbing_prior_it_is_the_bound_that_nll_measures():
    settings = evidence(made(AbsorbingDiffusion, timesteps=100), ["random"])
    random, plain = OrderedNegativeLogLikelihood()(settings)[0], NegativeLogLikelihood()(settings)[0]
    assert plain.extra["kind"] == "bound_continuous" and random.value == plain.value


def test_without_a_budget_a_random_order_is_averaged_over_as_many_as_there_are_tokens():
    assert measure(made(AnyOrder), ["random"], budget=None)["random"].extra["network_evaluations"] == 6


class Told:
    """Likelihoods that say of every image how many nats it has in each order."""

    num_tokens, codebook_size, grid = 6, 3, (2, 3)

    def __init__(self, raster, column):
        self.known = {tuple(grid_order(name, self.grid).tolist()): torch.tensor(nats, dtype=torch.float64)
                      for name, nats in (("raster", raster), ("column", column))}

    def nll_in_order(self, tokens, order):
        return Likelihood(self.known[tuple(order.tolist())][tokens[:, 0]], torch.zeros(len(tokens)), "exact", 1)

    def random_order_nll(self, tokens, *, draws, budget):
        raise AssertionError("not asked for")


def test_the_best_order_is_chosen_on_one_half_and_measured_on_the_other():
    """Column order is better on the images that choose, and reported on those between them, where it is worse."""
    tokens = torch.zeros(8, 6, dtype=torch.int64)
    tokens[1::2] = 1
    found = measure(Told(raster=[6.0, 6.0], column=[3.0, 9.0]), ["raster", "column"], tokens=tokens)
    assert found["best"].value == pytest.approx(9 / 6 / math.log(2)) and found["best"].n == 4
    assert (found["best"].extra["order"], found["best"].extra["orders"]) == ("column", ["column", "raster"])
    assert found["raster"].n == found["column"].n == 8


def test_one_fixed_order_has_no_best():
    assert set(measure(made(AnyOrder), ["raster", "random"])) == {"raster", "random"}


def test_an_autoregressive_prior_has_its_own_walk_and_holes_with_reasons():
    prior = made(Autoregressive, order="raster")
    found = measure(prior, EVERY)
    exact = prior.nll(TOKENS, draws=Draws.seeded(0)).nats.mean() / 6 / math.log(2)
    assert found["raster"].value == pytest.approx(float(exact)) and "best" not in found
    assert all(found[order].value is None and "raster, alone" in found[order].note for order in EVERY[1:])


def test_a_prior_without_orders_is_a_hole_with_a_reason():
    prior = Unigram(grid=(2, 3), codebook_size=3, options=Unigram.Options())
    assert "Unigram has no likelihood in an order" in measure(prior, ["raster"])["raster"].note


def test_it_keeps_the_contract_of_a_metric():
    check_metric(OrderedNegativeLogLikelihood, evidence=evidence(made(AbsorbingDiffusion), EVERY))


def test_a_list_of_orders_enters_the_key_of_its_metric_alone():
    plain, asked, other = (Run(compose([*SMOKE, *more])) for more in (
        [], ["metrics.names=[nll,ordered_nll]"], ["metrics.names=[nll,ordered_nll]", "metrics.orders=[halton]"]))

    def key(run, metric):
        return recipe_of(run, metric.name, {}, metric.depends_on, {}, ignores_samples=True).key

    assert len({key(run, NegativeLogLikelihood) for run in (plain, asked, other)}) == 1
    assert key(asked, OrderedNegativeLogLikelihood) != key(other, OrderedNegativeLogLikelihood)
    assert run_key(asked) != run_key(other) and plain.recipe(PRIOR) == other.recipe(PRIOR)


@pytest.mark.parametrize(("argument", "complaint"), [
    ("metrics.orders=[]", "expected one order or several different ones"),
    ("metrics.orders=[halton,halton]", "expected one order or several different ones"),
    ("metrics.orders=[diagonal]", "expected a list of values, each one of raster, column, spiral, halton, random"),
    ("metrics.orders=halton", r"expected a list in brackets, metrics.orders=\[raster,halton\]")])
def test_wrong_orders_are_named(argument, complaint):
    with pytest.raises(InputError, match=complaint):
        expand([*SMOKE, "metrics.names=[ordered_nll]", argument])


def test_orders_that_no_metric_would_look_at_are_refused():
    with pytest.raises(InputError, match="used by the metric ordered_nll alone"):
        expand([*SMOKE, "metrics.names=[nll]", "metrics.orders=[halton]"])


def test_columns_of_orders_count_tokens_of_one_tokenizer():
    assert all(column.within_tokenizer for column in OrderedNegativeLogLikelihood.columns.values())
