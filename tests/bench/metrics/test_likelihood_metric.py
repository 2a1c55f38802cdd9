"""Bits per token: closed forms, errors told apart, holes with reasons."""

import math
from pathlib import Path

import pytest
import torch

from bench.config import MetricsConfig, NllConfig, ProtocolConfig, SpeedConfig
from bench.errors import BenchError, InputError
from bench.metrics.base import Evidence
from bench.metrics.likelihood import NegativeLogLikelihood, summarise
from priors.base import Likelihood, Unsupported

TABLE = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)


class Tabular:
    """Independent tokens of known probabilities."""

    codebook_size, num_tokens = 4, 3

    def nll(self, tokens, *, draws, budget=None):
        nats = -TABLE.log()[tokens].sum(1)
        return Likelihood(nats, torch.zeros_like(nats), "exact", 1)


class Noisy(Tabular):
    """Adds Monte Carlo noise of a known variance and calls the result a bound."""

    def nll(self, tokens, *, draws, budget=None):
        exact = super().nll(tokens, draws=draws).nats
        return Likelihood(exact + 0.1 * draws.normal(len(tokens)).double(), torch.full_like(exact, 0.01),
                          "bound_continuous", budget)


class Refusing(Tabular):
    def nll(self, tokens, *, draws, budget=None):
        raise Unsupported("has no likelihood")


class Fixed(Tabular):
    def __init__(self, nats, kinds=("exact",)):
        self.value, self.kinds = nats, list(kinds)

    def nll(self, tokens, *, draws, budget=None):
        kind = self.kinds.pop(0) if len(self.kinds) > 1 else self.kinds[0]
        return Likelihood(torch.full((len(tokens),), self.value), torch.zeros(len(tokens)), kind, 1)


def measure(prior, tokens, *, images=None, batch_size=100, budget=7, seed=0):
    settings = MetricsConfig(nll=NllConfig(budget=budget, batch_size=batch_size))
    evidence = Evidence(role="prior", protocol=ProtocolConfig(nll_images=images), protocol_id="p", settings=settings,
                        speed=SpeedConfig(), images=lambda side: pytest.fail("needs no images"),
                        features=lambda side: pytest.fail("needs no features"), validation_tokens=lambda: tokens,
                        workspace=Path(), caches=Path(), prior=prior, seed=seed)
    metric = NegativeLogLikelihood()
    assert metric.applies(evidence)
    return metric(evidence)[0]


def random_tokens(num, seed=0):
    return torch.randint(4, (num, 3), generator=torch.Generator().manual_seed(seed))


def test_every_grid_once_weighted_by_its_probability_gives_the_entropy():
    grids = torch.cartesian_prod(*[torch.arange(4)] * 3)
    repeats = (TABLE[grids].prod(1) * 512).round().long()
    result = measure(Tabular(), grids.repeat_interleave(repeats, 0))
    assert result.value == pytest.approx(1.75) and result.bound == ""


def test_one_image_has_its_closed_form_and_no_interval():
    result = measure(Tabular(), torch.tensor([[0, 1, 2]]))
    assert result.value == pytest.approx((1 + 2 + 3) / 3)
    assert result.ci_low is None and "one image" in result.note


def test_an_exact_likelihood_has_no_monte_carlo_error():
    result = measure(Tabular(), random_tokens(50))
    assert result.extra["monte_carlo_se"] == 0 and result.extra["images_se"] == pytest.approx(result.standard_error)
    assert result.extra["budget"] is None and result.extra["ceiling"] == 2


def test_a_bound_says_so_and_tells_its_budget():
    result = measure(Noisy(), random_tokens(50))
    assert result.bound == "upper" and result.extra["kind"] == "bound_continuous" and result.extra["budget"] == 7


def test_monte_carlo_and_image_errors_add_up_in_squares():
    extra = measure(Noisy(), random_tokens(200)).extra
    error = measure(Noisy(), random_tokens(200)).standard_error
    assert extra["monte_carlo_se"] ** 2 + extra["images_se"] ** 2 == pytest.approx(error**2)


def test_the_monte_carlo_error_is_that_of_repeated_estimates():
    tokens = random_tokens(40)
    values = torch.tensor([measure(Noisy(), tokens, seed=seed).value for seed in range(200)])
    expected = measure(Noisy(), tokens).extra["monte_carlo_se"]
    assert float(values.std()) == pytest.approx(expected, rel=0.15)


def test_intervals_cover_the_entropy():
    covered = 0
    for seed in range(200):
        tokens = torch.multinomial(TABLE, 3 * 60, replacement=True,
                                   generator=torch.Generator().manual_seed(seed)).view(60, 3)
        result = measure(Noisy(), tokens, seed=seed)
        covered += result.ci_low <= 1.75 <= result.ci_high
    assert 0.90 <= covered / 200 <= 0.99


def test_batches_do_not_change_an_exact_likelihood():
    whole, split = (measure(Tabular(), random_tokens(50), batch_size=size).value for size in (50, 7))
    assert whole == pytest.approx(split, rel=1e-12)


def test_the_same_seed_gives_the_same_bound():
    assert measure(Noisy(), random_tokens(30)).value == measure(Noisy(), random_tokens(30)).value


def test_only_the_protocol_s_images_are_used():
    assert measure(Tabular(), random_tokens(50), images=20).n == 20


def test_the_images_are_spread_over_the_split_so_that_no_class_of_a_sorted_one_is_missed():
    tokens = torch.arange(4).repeat_interleave(10).unsqueeze(1).expand(40, 3)   # four classes, one after the other
    bits = measure(Tabular(), tokens, images=8).value
    assert bits == pytest.approx((1 + 2 + 3 + 3) / 4)


def test_a_prior_without_likelihood_leaves_a_hole_with_its_reason():
    result = measure(Refusing(), random_tokens(5))
    assert result.value is None and result.note == "has no likelihood"


def test_impossible_images_leave_a_hole_that_counts_them():
    result = measure(Fixed(math.inf), random_tokens(5))
    assert result.value is None and "5 of 5 images have probability 0" in result.note


def test_nan_is_an_error():
    with pytest.raises(BenchError, match="NaN for 5 of 5"):
        measure(Fixed(math.nan), random_tokens(5))


def test_two_kinds_in_one_evaluation_are_an_error():
    with pytest.raises(BenchError, match="bound_T"):
        measure(Fixed(1.0, ["exact", "bound_T"]), random_tokens(4), batch_size=2)


def test_tokens_of_another_grid_are_an_error():
    with pytest.raises(InputError, match=r"\(M, 3\)"):
        measure(Tabular(), torch.zeros(2, 5, dtype=torch.int64))


def test_no_tokens_are_an_error():
    with pytest.raises(InputError, match="no validation tokens"):
        measure(Tabular(), torch.zeros(0, 3, dtype=torch.int64))


def test_an_unknown_monte_carlo_variance_is_not_passed_off_as_zero():
    bits = summarise(torch.tensor([1.0, 2.0]), torch.tensor([math.nan, 0.0]), 3)
    assert bits.monte_carlo_se is None and bits.images_se is None and bits.standard_error > 0
