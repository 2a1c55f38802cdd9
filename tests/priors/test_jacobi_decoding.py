"""Jacobi decoding: token for token the sequential sample, the model's own law, and a cost that is counted."""

import itertools

import pytest
import torch
from scipy.stats import chisquare, kstest
from torch import nn

from bench.compose import expand
from priors.autoregressive import Autoregressive
from priors.base import UNKNOWN, Draws, Unsupported
from priors.conditions import Condition
from priors.jacobi import evaluator, gumbel_noise, jacobi
from priors.options import AutoregressiveOptions, AutoregressiveSampler
from priors.reference import textbook_logits
from priors.samplers import Adjust

IMAGES = torch.tensor(list(itertools.product(range(3), repeat=3)))   # (27, 3)


def make_prior(grid=(3, 4), codebook_size=5, **more):
    torch.manual_seed(0)
    options = AutoregressiveOptions(width=16, num_layers=2, num_heads=2, **more)
    prior = Autoregressive(grid=grid, codebook_size=codebook_size, options=options).eval()
    for parameter in prior.parameters():
        nn.init.normal_(parameter, std=0.3)
    return prior.requires_grad_(False)


def sequential(net, noise, adjust):
    """One token at a time from the same noise, by the network as the textbook has it."""
    state = torch.zeros(noise.shape[:2], dtype=torch.int64)
    for i in range(noise.shape[1]):
        state[:, i] = (adjust(textbook_logits(net, state[:, : i + 1])[:, -1]) + noise[:, i]).argmax(-1)
    return state


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("window", [None, 1, 3])
@pytest.mark.parametrize("adjust", [Adjust(), Adjust(0.7, top_k=3), Adjust(top_p=0.8)], ids=str)
def test_it_returns_the_tokens_of_the_sequential_sampler(window, cached, adjust):
    net, noise = make_prior().net, gumbel_noise(Draws.seeded(1), 16, 12, 5)
    empty = torch.full((16, 12), UNKNOWN)
    tokens, calls, _ = jacobi(evaluator(net, 16, cached=cached), empty, noise, window=window, adjust=adjust)
    assert torch.equal(tokens, sequential(net, noise, adjust))
    assert calls.min() == 12 if window == 1 else calls.max() <= 12


@pytest.mark.parametrize("sampler", [AutoregressiveSampler(method="jacobi"),
                                     AutoregressiveSampler(method="jacobi", jacobi_window=2, cache=False)])
def test_sampled_frequencies_match_the_likelihood(sampler):
    prior, num = make_prior(grid=(1, 3), codebook_size=3), 8_000
    tokens = prior.sample(num, sampler=sampler, draws=Draws.seeded(0)).tokens
    counts = torch.bincount((tokens * torch.tensor([9, 3, 1])).sum(1), minlength=27)
    expected = (-prior.nll(IMAGES, draws=Draws.seeded(0)).nats).exp()
    assert chisquare(counts, expected / expected.sum() * num).pvalue > 0.001


@pytest.mark.parametrize("order", ["raster", "spiral"])
def test_neither_cache_nor_window_nor_batch_changes_the_tokens(order):
    prior = make_prior(order=order)
    samplers = [AutoregressiveSampler(method="jacobi", cache=cache, jacobi_window=window)
                for cache, window in [(True, None), (False, None), (True, 4), (False, 1)]]
    tokens = [prior.sample(6, sampler=sampler, draws=Draws.seeded(3)).tokens for sampler in samplers]
    assert all(torch.equal(tokens[0], other) for other in tokens[1:])
    net, noise = prior.net, gumbel_noise(Draws.seeded(3), 6, 12, 5)
    alone = [jacobi(evaluator(net, 1, cached=True), torch.full((1, 12), UNKNOWN), noise[i : i + 1], window=None,
                    adjust=Adjust()) for i in range(6)]
    together = prior.sample(6, sampler=samplers[0], draws=Draws.seeded(3))
    assert torch.equal(torch.cat([found[0] for found in alone])[:, prior.rank], tokens[0])
    assert torch.equal(torch.cat([found[1] for found in alone]), together.network_evaluations)


def test_what_the_memory_of_the_cache_held_before_never_enters():
    """Images differ in how far they are: keys of positions that only others have reached are seen by no one."""
    net, noise = make_prior().net, gumbel_noise(Draws.seeded(1), 16, 12, 5)
    fresh = type(net).new_cache
    net.new_cache = lambda batch: [room.fill_(torch.nan) for room in fresh(net, batch)]
    tokens, *_ = jacobi(evaluator(net, 16, cached=True), torch.full((16, 12), UNKNOWN), noise, window=3,
                        adjust=Adjust())
    assert torch.equal(tokens, sequential(net, noise, Adjust()))


def test_tokens_that_do_not_depend_on_each_other_take_two_calls():
    """The first call finds them all, the second that they are as guessed; one when the guess was right at once."""
    table = Draws.seeded(0).normal(12, 5)
    tokens, calls, pushed = jacobi(lambda images, tokens, positions: table[positions], torch.full((50, 12), UNKNOWN),
                                   gumbel_noise(Draws.seeded(1), 50, 12, 5), window=None, adjust=Adjust())
    assert set(calls.tolist()) <= {1, 2} and (pushed <= 24).all()


def test_no_guess_helps_where_a_token_is_the_last_one_plus_one():
    """Logits that shift by one with every token: each call settles one token, or as many as noise guessed."""
    def shifted(images, tokens, positions):
        before = tokens.gather(1, (positions - 1).clamp(min=0))
        return 1e4 * nn.functional.one_hot((before + 1) * (positions > 0) % 5, 5).float()

    tokens, calls, _ = jacobi(shifted, torch.full((400, 12), UNKNOWN), gumbel_noise(Draws.seeded(1), 400, 12, 5),
                              window=1, adjust=Adjust())
    assert (tokens == torch.arange(12) % 5).all() and (calls == 12).all()


@pytest.mark.parametrize("cache", [True, False])
def test_calls_are_those_the_network_saw(cache):
    prior, seen = make_prior(), []
    prior.net.head.register_forward_hook(lambda head, args, output: seen.append(args[0].shape[0]))
    sample = prior.sample(7, sampler=AutoregressiveSampler(method="jacobi", cache=cache), draws=Draws.seeded(0))
    assert int(sample.network_evaluations.sum()) == sum(seen)
    assert (sample.network_evaluations < 12).any() and (sample.network_evaluations <= 12).all()


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("window", [None, 1, 3])
def test_positions_are_those_the_network_saw_of_an_image_alone(cache, window):
    """Together with others it is padded to the longest, which is no work of its own."""
    prior, seen = make_prior(), []
    prior.net.layers[0].ln1.register_forward_hook(lambda norm, args, output: seen.append(args[0].shape[1]))
    sampler = AutoregressiveSampler(method="jacobi", cache=cache, jacobi_window=window)
    known = torch.tensor([[3, 1] + [UNKNOWN] * 10])
    for given in (None, known):
        seen.clear()
        sample = prior.sample(1, sampler=sampler, known=given, draws=Draws.seeded(0))
        assert sample.token_forwards.tolist() == [sum(seen)] and sample.network_evaluations.tolist() == [len(seen)]


@pytest.mark.parametrize("condition", [None, Condition(labels=torch.tensor([0, 1]))])
def test_a_prior_with_a_condition_is_unsupported_even_where_none_is_given(condition):
    """Its network was trained with the null before the tokens, which this decoding does not put there."""
    with pytest.raises(Unsupported, match="use method='sequential'"):
        make_prior(num_labels=2).sample(2, sampler=AutoregressiveSampler(method="jacobi"), condition=condition,
                                        draws=Draws.seeded(0))


@pytest.mark.parametrize(("guidance", "condition", "reason"), [
    (2.0, None, "nothing to guide towards"), (1.0, Condition(labels=torch.tensor([0, 1])), "made without a condition")])
def test_guidance_and_conditions_of_a_prior_without_one_are_unsupported(guidance, condition, reason):
    sampler = AutoregressiveSampler(method="jacobi", guidance=guidance)
    with pytest.raises(Unsupported, match=reason):
        make_prior().sample(2, sampler=sampler, condition=condition, draws=Draws.seeded(0))


def test_in_a_sweep_over_conditions_it_is_a_hole():
    sweep = ["preset=smoke", "dataset=digits", "prior=autoregressive", "sampler.method=sequential,jacobi",
             "condition=none,class"]
    reasons = {(run.spec.sampler.get("method", "sequential"), run.spec.condition.name): run.unsupported
               for run in expand(sweep)}
    refused = reasons.pop(("jacobi", "class"))
    assert "sampler.method=jacobi guesses without a condition" in refused and set(reasons.values()) == {""}


def test_positions_pushed_fall_to_the_window():
    prior = make_prior()
    wide, narrow = (prior.sample(8, sampler=AutoregressiveSampler(method="jacobi", jacobi_window=w),
                                 draws=Draws.seeded(0)) for w in (None, 2))
    assert (narrow.network_evaluations >= wide.network_evaluations).all()
    assert (narrow.token_forwards <= 2 * narrow.network_evaluations).all()
    assert float(narrow.token_forwards.double().mean()) < float(wide.token_forwards.double().mean())


@pytest.mark.parametrize("sampler", [AutoregressiveSampler(method="jacobi", jacobi_window=w, cache=c)
                                     for w, c in [(None, True), (3, True), (None, False)]])
def test_prefixes_of_different_lengths_are_kept_and_condition_the_rest(sampler):
    prior, known = make_prior(), torch.full((5, 12), UNKNOWN)
    known[0, :2], known[1, :7], known[2] = 1, 3, 4
    sample = prior.sample(5, sampler=sampler, known=known, draws=Draws.seeded(0))
    assert torch.equal(sample.tokens[known != UNKNOWN], known[known != UNKNOWN])
    noise, state = gumbel_noise(Draws.seeded(0), 5, 12, 5), known.clone()
    for i in range(12):
        values = (textbook_logits(prior.net, state[:, : i + 1].clamp(min=0))[:, -1] + noise[:, i]).argmax(-1)
        state[:, i] = torch.where(known[:, i] == UNKNOWN, values, known[:, i])
    assert torch.equal(sample.tokens, state) and int(sample.network_evaluations[2]) == 0


def test_the_noise_is_gumbel_and_reaches_beyond_what_float32_uniforms_can():
    noise = gumbel_noise(Draws.seeded(0), 100, 20, 100)
    assert kstest(noise.flatten()[::20].double().numpy(), "gumbel_r").pvalue > 0.001

    class Ones(Draws):
        def uniform(self, *shape):
            return torch.full(shape, 1.0) - 2**-24   # the largest float32 below 1

    class Zeros(Draws):
        def uniform(self, *shape):
            return torch.zeros(shape)

    assert float(gumbel_noise(Zeros(torch.Generator()), 1, 1, 1)) > 33 > 17
    assert gumbel_noise(Ones(torch.Generator()), 1, 1, 1).isfinite()
