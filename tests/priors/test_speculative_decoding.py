"""Any order from fewer calls: token for token the sequential sample, the model's own law, and a cost that is counted.

Speculative decoding, and Jacobi decoding by the same evaluations.
"""

import itertools

import pytest
import torch
from scipy.stats import chisquare
from torch import nn

from bench.compose import compose, expand
from bench.errors import InputError
from priors.any_order import AnyOrder, known_first
from priors.base import UNKNOWN, Draws, Unsupported
from priors.chain_rule import random_orders
from priors.conditions import Condition
from priors.guidance import Guidance, guided
from priors.jacobi import gumbel_noise
from priors.options import AnyOrderOptions, AnyOrderSampler
from priors.samplers import Adjust
from priors.speculative import Evaluator, speculative

IMAGES = torch.tensor(list(itertools.product(range(3), repeat=3)))   # (27, 3)
SPECULATIVE, JACOBI = dict(method="speculative"), dict(method="jacobi")


def make_prior(grid=(3, 4), codebook_size=5, **more):
    torch.manual_seed(0)
    options = AnyOrderOptions(width=16, num_layers=2, num_heads=2, **more)
    prior = AnyOrder(grid=grid, codebook_size=codebook_size, options=options).eval()
    for parameter in prior.parameters():
        nn.init.normal_(parameter, std=0.4)
    return prior.requires_grad_(False)


def some_known(num=16):
    """None of the first image, all of the second, of the others each token with probability 0.3, anywhere."""
    known = torch.where(Draws.seeded(5).uniform(num, 12) < 0.3, Draws.seeded(6).integers(0, 5, num, 12), UNKNOWN)
    known[0], known[1] = UNKNOWN, 2
    return known


def sequential(predict, order, known, noise, adjust):
    """One token at a time from the same noise, each from the whole prefix; order, known, noise: in order of drawing."""
    state = known.clone()
    for i in range(known.shape[1]):
        values = (adjust(predict(state[:, :i], order[:, : i + 1])) + noise[:, i]).argmax(-1)
        state[:, i] = torch.where(known[:, i] == UNKNOWN, values, known[:, i])
    return state


def in_raster_order(drawn, order):
    return torch.empty_like(drawn).scatter(1, order, drawn)


def expected_sample(prior, sampler, num, known=None, condition=None):
    """What `sample` gives with Draws.seeded(3), by `sequential`."""
    draws, known = Draws.seeded(3), torch.full((num, 12), UNKNOWN) if known is None else known
    order = known_first(prior._walk(num, sampler, draws), known)
    predict = guided(prior._next_logits, condition, Guidance.of(sampler),
                     progress=lambda fed, order: torch.full((len(fed),), fed.shape[1] / 12))
    drawn = sequential(predict, order, known.gather(1, order), gumbel_noise(draws, num, 12, 5),
                       Adjust(sampler.temperature, sampler.top_k, sampler.top_p))
    return in_raster_order(drawn, order)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("window", [None, *range(1, 13)])
@pytest.mark.parametrize("adjust", [Adjust(), Adjust(0.7, top_k=3), Adjust(top_p=0.8)], ids=str)
def test_it_returns_the_tokens_of_the_sequential_sampler(window, cached, adjust):
    prior, noise = make_prior(), gumbel_noise(Draws.seeded(1), 16, 12, 5)
    order = known_first(random_orders(16, 12, draws=Draws.seeded(2)), some_known())
    known, predict = some_known().gather(1, order), guided(prior._next_logits, None, Guidance())
    tokens, calls, _ = speculative(Evaluator(prior.net, prior.target, order, predict, cached=cached), known, noise,
                                   window=window, adjust=adjust, cached=cached)
    assert torch.equal(tokens, sequential(predict, order, known, noise, adjust))
    num_unknown = (known == UNKNOWN).sum(1)
    assert torch.equal(calls, num_unknown) if window == 1 else (calls <= num_unknown).all()


@pytest.mark.parametrize("order", ["raster", "column", "spiral", "halton", "random"])
@pytest.mark.parametrize("known", [None, some_known()], ids=["empty", "known"])
@pytest.mark.parametrize("more", [
    SPECULATIVE, SPECULATIVE | dict(cache=False), SPECULATIVE | dict(speculative_window=3, temperature=0.8),
    JACOBI, JACOBI | dict(cache=False), JACOBI | dict(jacobi_window=3, top_k=3)], ids=str)
def test_samples_in_every_order_are_the_sequential_ones_and_keep_what_is_known(order, known, more):
    prior, sampler = make_prior(), AnyOrderSampler(order=order, **more)
    sample = prior.sample(16, sampler=sampler, known=known, draws=Draws.seeded(3))
    num_unknown = 12 if known is None else (known == UNKNOWN).sum(1)
    assert (sample.network_evaluations <= num_unknown).all()
    assert torch.equal(sample.tokens, expected_sample(prior, sampler, 16, known))
    assert known is None or (torch.equal(sample.tokens[known != UNKNOWN], known[known != UNKNOWN])
                             and int(sample.network_evaluations[1]) == int(sample.token_forwards[1]) == 0)


@pytest.mark.parametrize("more", [SPECULATIVE, SPECULATIVE | dict(speculative_window=2), JACOBI], ids=str)
def test_sampled_frequencies_match_the_likelihood(more):
    prior, num = make_prior(grid=(1, 3), codebook_size=3), 20_000
    tokens = prior.sample(num, sampler=AnyOrderSampler(**more), draws=Draws.seeded(0)).tokens
    counts = torch.bincount((tokens * torch.tensor([9, 3, 1])).sum(1), minlength=27)
    expected = (-prior.nll(IMAGES, draws=Draws.seeded(0)).nats).exp()
    assert chisquare(counts, expected / expected.sum() * num).pvalue > 0.001


def test_a_draft_is_the_prediction_in_an_order_in_which_that_position_is_next():
    prior, tokens = make_prior(), Draws.seeded(0).integers(0, 5, 1, 12)
    order = random_orders(1, 12, draws=Draws.seeded(2))
    predict = guided(prior._next_logits, None, Guidance())
    evaluate = Evaluator(prior.net, prior.target, order, predict, cached=False)
    drafts = evaluate(torch.tensor([0]), tokens, torch.arange(4, 12).unsqueeze(0), torch.full((1, 8), 4))
    for j in range(4, 12):
        other = torch.cat([order[:, :4], order[:, j : j + 1]], 1)
        assert torch.allclose(drafts[:, j - 4], predict(tokens[:, :4], other), atol=1e-5)


def table_of(draws, *shape):
    """An evaluation that looks no token up: of tokens that do not depend on each other."""
    table = draws.normal(*shape)
    return lambda images, tokens, indices, given: table[indices]


def test_tokens_that_do_not_depend_on_each_other_take_two_calls():
    tokens, calls, pushed = speculative(table_of(Draws.seeded(0), 12, 5), torch.full((50, 12), UNKNOWN),
                                        gumbel_noise(Draws.seeded(1), 50, 12, 5), window=None, adjust=Adjust())
    assert (calls == 2).all() and (pushed == 12 + 11).all()   # what was drafted first is exact
    tokens, calls, pushed = speculative(table_of(Draws.seeded(0), 12, 5), torch.full((50, 12), UNKNOWN),
                                        gumbel_noise(Draws.seeded(1), 50, 12, 5), window=3, adjust=Adjust())
    assert (calls == 6).all() and (pushed == 3 * 6).all()   # four tokens a round: three drafted, one after them


def test_where_no_draft_is_right_a_round_settles_two_tokens():
    """A token is that before it plus one, and is drafted from another one."""
    def shifted(images, tokens, indices, given):
        before = tokens.gather(1, (given - 1).clamp(min=0))
        return 1e4 * nn.functional.one_hot((before + 1) * (given > 0) % 5, 5).float()

    noise = gumbel_noise(Draws.seeded(1), 40, 12, 5)
    tokens, calls, pushed = speculative(shifted, torch.full((40, 12), UNKNOWN), noise, window=3, adjust=Adjust())
    assert (tokens == torch.arange(12) % 5).all() and (calls == 12).all()
    assert (pushed == 5 * (3 + 3) + 2 + 1).all()


def test_neither_cache_nor_batch_changes_tokens_or_calls():
    prior, sampler = make_prior(), AnyOrderSampler(order="spiral", **SPECULATIVE)
    together = prior.sample(6, sampler=sampler, draws=Draws.seeded(3))
    uncached = prior.sample(6, sampler=AnyOrderSampler(order="spiral", cache=False, **SPECULATIVE),
                            draws=Draws.seeded(3))
    noise, order = gumbel_noise(Draws.seeded(3), 6, 12, 5), prior._walk(1, sampler, Draws.seeded(3))
    predict = guided(prior._next_logits, None, Guidance())
    alone = [speculative(Evaluator(prior.net, prior.target, order, predict, cached=True), torch.full((1, 12), UNKNOWN),
                         noise[i : i + 1], window=None, adjust=Adjust()) for i in range(6)]
    drawn, calls, pushed = (torch.cat(parts) for parts in zip(*alone, strict=True))
    assert torch.equal(in_raster_order(drawn, order.expand_as(drawn)), together.tokens)
    assert torch.equal(uncached.tokens, together.tokens)
    assert torch.equal(calls, together.network_evaluations) and torch.equal(calls, uncached.network_evaluations)
    assert torch.equal(pushed, together.token_forwards)


def test_what_the_memory_of_the_cache_held_before_never_enters():
    """Images differ in how far they are: keys of positions that only others have reached are seen by no one."""
    prior, sampler = make_prior(), AnyOrderSampler(order="random", speculative_window=3, **SPECULATIVE)
    fresh = type(prior.net).new_cache
    prior.net.new_cache = lambda batch: [room.fill_(torch.nan) for room in fresh(prior.net, batch)]
    tokens = prior.sample(16, sampler=sampler, known=some_known(), draws=Draws.seeded(3)).tokens
    assert torch.equal(tokens, expected_sample(prior, sampler, 16, some_known()))


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("more", [SPECULATIVE, JACOBI, SPECULATIVE | dict(speculative_window=1),
                                  SPECULATIVE | dict(speculative_window=3), JACOBI | dict(jacobi_window=3)], ids=str)
@pytest.mark.parametrize("guidance", [None, 1.0, 3.0], ids=["unconditional", "conditional", "guided"])
def test_costs_are_what_the_network_saw_of_an_image_alone(cache, more, guidance):
    """Together with others it is padded to the longest, which is no work of its own. A guided call counts twice."""
    prior, seen = make_prior(num_labels=None if guidance is None else 2), []
    prior.net.layers[0].ln1.register_forward_hook(lambda norm, args, output: seen.append(args[0].shape[:2]))
    condition = None if guidance is None else Condition(labels=torch.tensor([1]))
    sampler = AnyOrderSampler(cache=cache, guidance=guidance or 1.0, **more)
    for known in (None, some_known(3)[2:]):
        seen.clear()
        sample = prior.sample(1, sampler=sampler, known=known, condition=condition, draws=Draws.seeded(0))
        assert sample.network_evaluations.tolist() == [sum(num for num, _ in seen)]
        assert sample.token_forwards.tolist() == [sum(num * length for num, length in seen)]


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("more", [
    SPECULATIVE, SPECULATIVE | dict(guidance=0.0), SPECULATIVE | dict(guidance=3.0),
    SPECULATIVE | dict(guidance=2.0, guidance_schedule="linear", speculative_window=3),
    JACOBI, JACOBI | dict(guidance=2.0, guidance_schedule="linear", jacobi_window=3)], ids=str)
@pytest.mark.parametrize("labels", [[0, 1, -1, 0, 1, 1], None], ids=["classes", "null"])
def test_conditions_and_guidance_are_those_of_the_sequential_sampler(cache, more, labels):
    prior, sampler = make_prior(num_labels=2), AnyOrderSampler(order="random", cache=cache, **more)
    condition = None if labels is None else Condition(labels=torch.tensor(labels))
    if condition is None and sampler.guidance != 1:
        with pytest.raises(Unsupported, match="nothing to guide towards"):
            prior.sample(6, sampler=sampler, draws=Draws.seeded(3))
        return
    for known in (None, some_known(6)):
        sample = prior.sample(6, sampler=sampler, known=known, condition=condition, draws=Draws.seeded(3))
        assert torch.equal(sample.tokens, expected_sample(prior, sampler, 6, known, condition))


def test_text_conditions_are_those_of_the_sequential_sampler():
    prior, sampler = make_prior(text_width=4, text_length=3), AnyOrderSampler(guidance=2.0, **SPECULATIVE)
    condition = Condition(features=Draws.seeded(7).normal(6, 3, 4), lengths=torch.tensor([3, 1, 0, 2, 3, 3]))
    sample = prior.sample(6, sampler=sampler, condition=condition, draws=Draws.seeded(3))
    assert torch.equal(sample.tokens, expected_sample(prior, sampler, 6, condition=condition))


def test_in_a_sweep_over_conditions_no_run_is_a_hole():
    sweep = ["preset=smoke", "dataset=digits", "prior=any_order", "sampler.method=sequential,jacobi,speculative",
             "condition=none,class"]
    assert [run.unsupported for run in expand(sweep)] == [""] * 6


def test_a_window_without_the_method_is_wrong_input_of_a_run():
    run = ["preset=smoke", "dataset=digits", "prior=any_order"]
    with pytest.raises(InputError, match="speculative_window=4: used by method='speculative' alone"):
        compose([*run, "sampler.speculative_window=4"])
    with pytest.raises(InputError, match="did you mean 'speculative'"):
        compose([*run, "sampler.method=speculate"])
    assert compose([*run, "sampler=speculative"]).sampler["method"] == "speculative"
