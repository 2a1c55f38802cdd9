"""The any-order prior: one distribution for every order, by enumeration; cached equal to uncached; editing; cost."""

import dataclasses
import itertools
import math

import pytest
import torch
from scipy.stats import chisquare
from torch import nn

from priors.any_order import AnyOrder
from priors.autoregressive import Autoregressive
from priors.base import UNKNOWN, Draws, Unsupported
from priors.options import AnyOrderOptions, AnyOrderSampler, AutoregressiveOptions, AutoregressiveSampler

IMAGES = torch.tensor(list(itertools.product(range(3), repeat=3)))   # (27, 3)
ORDERS = [torch.tensor(order) for order in itertools.permutations(range(3))]
TINY = dict(width=16, num_layers=2, num_heads=2)


def make_prior(grid=(3, 4), codebook_size=5, order="random"):
    torch.manual_seed(0)
    prior = AnyOrder(grid=grid, codebook_size=codebook_size, options=AnyOrderOptions(order=order, **TINY)).eval()
    for parameter in prior.parameters():
        nn.init.normal_(parameter, std=0.5)
    return prior.requires_grad_(False)


@pytest.fixture(scope="module")
def small():
    return make_prior(grid=(1, 3), codebook_size=3)


def law(prior, order):
    """(27,) probabilities of all images, taken in this order."""
    return (-prior.nll_in_order(IMAGES, order).nats).exp()


def frequencies_fit(tokens, expected):
    counts = torch.bincount((tokens * torch.tensor([9, 3, 1])).sum(1), minlength=27)
    kept = expected > 0
    assert not counts[~kept].any()
    return chisquare(counts[kept], (expected / expected.sum() * len(tokens))[kept]).pvalue > 0.001


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_probabilities_of_all_images_sum_to_one_in_every_order(small, order):
    assert float(law(small, order).sum()) == pytest.approx(1, abs=1e-6)


def test_two_orders_are_two_laws(small):
    assert (law(small, ORDERS[0]) - law(small, ORDERS[1])).abs().max() > 0.01


def test_the_likelihood_is_exact_and_of_raster_order(small):
    found = small.nll(IMAGES, draws=Draws.seeded(0))
    assert torch.equal(found.nats, small.nll_in_order(IMAGES, ORDERS[0]).nats)
    assert (found.kind, found.network_evaluations) == ("exact", 1) and not found.monte_carlo_variance.any()


def test_each_image_may_have_an_order_of_its_own(small):
    several = torch.stack([ORDERS[i % 6] for i in range(27)])
    expected = torch.stack([small.nll_in_order(IMAGES[i:i + 1], several[i]).nats[0] for i in range(27)])
    assert torch.allclose(small.nll_in_order(IMAGES, several).nats, expected, atol=1e-6)


def test_the_average_over_random_orders_is_an_upper_bound_estimated_without_bias(small):
    every = torch.stack([small.nll_in_order(IMAGES, order).nats for order in ORDERS])   # (6, 27)
    found = small.random_order_nll(IMAGES, draws=Draws.seeded(0), budget=200)
    error = (found.nats - every.mean(0)) / found.monte_carlo_variance.sqrt()
    assert (found.kind, found.network_evaluations) == ("bound_continuous", 200)
    assert error.abs().max() < 4 and error.square().mean() == pytest.approx(1, abs=0.7)
    assert (every.mean(0) >= -torch.log((-every).exp().mean(0))).all()


def test_one_order_says_nothing_of_its_error(small):
    assert small.random_order_nll(IMAGES, draws=Draws.seeded(0), budget=1).monte_carlo_variance.isnan().all()


def test_sampled_frequencies_match_the_likelihood(small):
    tokens = small.sample(20_000, sampler=AnyOrderSampler(), draws=Draws.seeded(0)).tokens
    assert frequencies_fit(tokens, law(small, ORDERS[0]))


def test_frequencies_of_random_orders_are_the_mean_of_the_laws(small):
    tokens = small.sample(20_000, sampler=AnyOrderSampler(order="random"), draws=Draws.seeded(1)).tokens
    assert frequencies_fit(tokens, sum(law(small, order) for order in ORDERS) / 6)


@pytest.mark.parametrize("order", ["raster", "column", "spiral", "halton", "random"])
def test_cached_sampling_equals_uncached_token_by_token(order):
    cached, uncached = (
        make_prior().sample(8, sampler=AnyOrderSampler(order=order, cache=cache, top_k=4), draws=Draws.seeded(3))
        for cache in (True, False)
    )
    assert torch.equal(cached.tokens, uncached.tokens)


def test_cached_editing_equals_uncached_token_by_token():
    known = torch.where(Draws.seeded(5).uniform(8, 12) < 0.4, Draws.seeded(6).integers(0, 5, 8, 12), UNKNOWN)
    known[0], known[1] = UNKNOWN, 2   # nothing and everything
    cached, uncached = (
        make_prior().sample(8, sampler=AnyOrderSampler(order="spiral", cache=cache), known=known, draws=Draws.seeded(3))
        for cache in (True, False)
    )
    assert torch.equal(cached.tokens, uncached.tokens)
    assert torch.equal(cached.tokens[known != UNKNOWN], known[known != UNKNOWN])


@pytest.mark.parametrize("hidden", [[0], [1], [0, 1], [0, 2]], ids=str)
def test_editing_follows_the_enumerated_conditional(small, hidden):
    """The law of all images whose order begins with the known tokens, restricted to those that have them."""
    known = torch.tensor([2, 0, 1])
    known[hidden] = UNKNOWN
    given = [i for i in range(3) if i not in hidden]
    tokens = small.sample(
        20_000, sampler=AnyOrderSampler(), known=known.repeat(20_000, 1), draws=Draws.seeded(0)
    ).tokens
    fits = (IMAGES[:, given] == known[given]).all(1)
    assert frequencies_fit(tokens, law(small, torch.tensor([*given, *hidden])) * fits)


def test_images_with_different_known_tokens_share_a_batch(small):
    known = torch.tensor([[UNKNOWN, 1, UNKNOWN], [UNKNOWN, UNKNOWN, 2]]).repeat(10_000, 1)
    tokens = small.sample(20_000, sampler=AnyOrderSampler(), known=known, draws=Draws.seeded(0)).tokens
    for first, column in ((0, 1), (1, 2)):
        order = torch.tensor([column, *(i for i in range(3) if i != column)])
        fits = IMAGES[:, column] == first + 1
        assert frequencies_fit(tokens[first::2], law(small, order) * fits)


def test_costs_are_those_of_an_autoregressive_prior_and_known_tokens_are_free():
    known = torch.full((2, 12), UNKNOWN)
    known[0, 5:], known[1, 3:] = 1, 1   # 7 and 9 of 12 known
    costs = [make_prior().sample(2, sampler=AnyOrderSampler(cache=cache), known=some, draws=Draws.seeded(0))
             for cache, some in ((True, None), (False, None), (True, known))]
    assert [sample.network_evaluations.tolist() for sample in costs] == [[12, 12], [12, 12], [5, 5]]
    assert [sample.token_forwards.tolist() for sample in costs] == [[12, 12], [78, 78], [12, 12]]


def as_autoregressive(prior):
    """The plain prior that it is in raster order, if told no positions to predict."""
    plain = Autoregressive(grid=prior.grid, codebook_size=prior.codebook_size, options=AutoregressiveOptions(**TINY))
    plain.load_state_dict({f"net.{name}": value for name, value in prior.net.state_dict().items()})
    own = prior.net.pos_emb[0]   # the plain one gives element i the position of the token to come
    plain.net.pos_emb.data = torch.cat([torch.zeros_like(own[:1]), own[:-1]]).unsqueeze(0)
    return plain.eval().requires_grad_(False)


@pytest.fixture
def untold():
    prior = make_prior(order="raster")
    for table in prior.target.parameters():
        table.zero_()
    return prior


def test_in_raster_order_without_target_positions_it_is_the_plain_autoregressive_prior(untold):
    plain, tokens = as_autoregressive(untold), Draws.seeded(0).integers(0, 5, 6, 12)
    assert torch.allclose(untold.logits(tokens), plain.logits(tokens), atol=1e-5)
    losses = [float(prior.training_loss(tokens, draws=Draws.seeded(0))) for prior in (untold, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    samples = [prior.sample(8, sampler=sampler, draws=Draws.seeded(1)).tokens for prior, sampler in (
        (untold, AnyOrderSampler(temperature=0.9)), (plain, AutoregressiveSampler(temperature=0.9)))]
    assert torch.equal(*samples)


def test_a_prior_trained_in_raster_order_takes_no_other(untold):
    known = torch.full((1, 12), UNKNOWN)
    known[0, 5] = 1
    with pytest.raises(Unsupported, match="trained in raster order alone"):
        untold.sample(1, sampler=AnyOrderSampler(), known=known, draws=Draws.seeded(0))
    with pytest.raises(Unsupported, match="trained in raster order alone"):
        untold.nll_in_order(torch.zeros(1, 12, dtype=torch.int64), untold.raster.flip(0))
    known[0, :5] = 2   # the beginning is what raster order begins with
    assert untold.sample(1, sampler=AnyOrderSampler(), known=known, draws=Draws.seeded(0)).tokens[0, 5] == 1


def test_logits_depend_only_on_tokens_earlier_in_raster_order():
    prior, tokens = make_prior(), torch.arange(12).view(1, 12) % 5
    changed = tokens.clone()
    changed[0, 6] = (changed[0, 6] + 1) % 5
    moved = (prior.logits(changed) - prior.logits(tokens)).abs().amax((0, 2)) > 1e-6
    assert moved.tolist() == [False] * 7 + [True] * 5


def test_the_training_loss_estimates_the_mean_over_orders_in_bits_a_token(small):
    every = torch.stack([small.nll_in_order(IMAGES[:1], order).nats for order in ORDERS]).mean()
    loss = small.training_loss(IMAGES[:1].repeat(6_000, 1), draws=Draws.seeded(0))
    assert float(loss) == pytest.approx(float(every) / 3 / math.log(2), rel=0.01)


def test_positions_to_predict_are_told_apart_before_training():
    torch.manual_seed(0)
    prior = AnyOrder(grid=(4, 4), codebook_size=3, options=AnyOrderOptions(**TINY)).requires_grad_(False)
    scales, offsets = prior.target.positions[:, ::2], prior.target.positions[:, 1::2]
    assert not scales.any() and float(offsets.std()) == pytest.approx(1, abs=0.1)
    tokens = torch.zeros(1, 16, dtype=torch.int64)
    assert prior.logits(tokens)[0].std(0).min() > 1e-3   # equal tokens everywhere, other positions to predict


@pytest.mark.parametrize(("tokens", "width", "layers"), [(12, 16, 2), (256, 64, 3)])
def test_it_has_the_stated_number_of_parameters_more_than_the_autoregressive_prior(tokens, width, layers):
    sizes = dict(width=width, num_layers=layers, num_heads=2)
    ours, plain = (cls(grid=(1, tokens), codebook_size=5, options=cls.Options(**sizes))
                   for cls in (AnyOrder, Autoregressive))
    counts = [sum(p.numel() for p in prior.parameters()) for prior in (ours, plain)]
    assert counts[0] - counts[1] == 4 * tokens * width + 4 * layers * width + 2 * width


@pytest.mark.parametrize(("order", "complaint"), [
    (torch.tensor([0, 1]), "expected int64 of shape"), (torch.tensor([0, 1, 1]), "holds a position twice"),
    (torch.tensor([0, 1, 3]), "every one of 0..2 once"), (torch.zeros(2, 3, dtype=torch.int64), "one a row for each")])
def test_what_is_no_order_is_an_error(small, order, complaint):
    with pytest.raises(ValueError, match=complaint):
        small.nll_in_order(IMAGES, order)


def test_neither_causal_prior_takes_the_sampler_of_the_other(small):
    """Each has fields that the other would ignore: a method of decoding, an order."""
    plain = Autoregressive(grid=(1, 3), codebook_size=3, options=AutoregressiveOptions(**TINY))
    for prior, sampler in ((small, AutoregressiveSampler()), (plain, AnyOrderSampler())):
        with pytest.raises(TypeError, match=f"expected a {prior.Sampler.__name__}"):
            prior.sample(1, sampler=sampler, draws=Draws.seeded(0))
    fields = [field.name for field in dataclasses.fields(AnyOrderSampler)]
    assert fields == ["guidance", "guidance_schedule", "temperature", "top_k", "top_p", "cache", "order", "method",
                      "jacobi_window", "speculative_window"]


def test_what_a_token_costs_is_told_by_how_many_are_unknown_in_the_order(small):
    tokens, order = IMAGES[5:6], torch.tensor([2, 0, 1])
    likelihood = small.nll_in_order(tokens, order)
    assert torch.allclose(likelihood.by_unknown.nats.sum(1), likelihood.nats)
    assert (likelihood.by_unknown.times == 1).all() and likelihood.by_unknown.step_weights is None
    same_beginning = (IMAGES[:, [2, 0]] == tokens[:, [2, 0]]).all(1)
    last = (law(small, order)[5] / law(small, order)[same_beginning].sum()).log()   # given all others
    assert float(likelihood.by_unknown.nats[0, 0]) == pytest.approx(-float(last), abs=1e-5)


@pytest.mark.parametrize(("cls", "values", "complaint"), [
    (AnyOrderOptions, {"order": "column"}, "order='column': expected one of 'random', 'raster', 'annealed'"),
    (AnyOrderSampler, {"order": "rastr"}, "did you mean 'raster'"),
    (AnyOrderSampler, {"temperature": 0}, "temperature"), (AnyOrderSampler, {"cache": 1}, "cache=1")])
def test_wrong_options_are_named(cls, values, complaint):
    with pytest.raises(ValueError, match=complaint):
        cls(**values)


def annealed(steps=4, **more):
    torch.manual_seed(0)
    options = AnyOrderOptions(order="annealed", annealed_over=steps, **TINY, **more)
    return AnyOrder(grid=(2, 2), codebook_size=3, options=options)


def test_annealed_orders_go_from_random_to_raster_with_the_steps_of_training():
    """Yu et al. 2024: the share of images in random order falls linearly to 0."""
    prior, seen = annealed(), []
    for step in range(6):
        order = prior._order_of_training(4000, Draws.seeded("orders", step))
        seen.append(float((order != prior.raster).any(1).float().mean()))
    other_than_raster = 1 - 1 / math.factorial(4)
    assert seen == pytest.approx([share * other_than_raster for share in (1, 0.75, 0.5, 0.25, 0, 0)], abs=0.03)


def test_an_annealed_prior_counts_its_own_steps_alone_and_keeps_the_count():
    prior = annealed()
    tokens = torch.randint(0, 3, (5, 4))
    for step in range(2):
        prior.training_loss(tokens, draws=Draws.seeded(step))
    prior.eval().training_loss(tokens, draws=Draws.seeded(9))
    again = annealed()
    again.load_state_dict(prior.state_dict())
    assert int(again.steps_trained) == 2
    exact = prior.nll(tokens, draws=Draws.seeded(0)).nats.mean() / 4 / math.log(2)
    assert float(prior.training_loss(tokens, draws=Draws.seeded(1)).detach()) == pytest.approx(float(exact), abs=1e-5)


def test_what_does_not_end_in_random_orders_takes_no_other():
    with pytest.raises(Unsupported, match="annealed to raster"):
        annealed().nll_in_order(torch.zeros(1, 4, dtype=torch.long), torch.tensor([3, 2, 1, 0]))


@pytest.mark.parametrize("options", [{"order": "annealed"}, {"order": "annealed", "annealed_over": 0},
                                     {"annealed_over": 5}, {"order": "raster", "annealed_over": 5}])
def test_an_annealing_without_its_length_and_a_length_without_annealing_are_refused(options):
    with pytest.raises(ValueError, match="annealed_over"):
        AnyOrderOptions(**options, **TINY)
