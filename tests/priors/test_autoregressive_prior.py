"""The autoregressive prior: a distribution by enumeration, cached equal to uncached, prefixes, walks, cost."""

import itertools

import pytest
import torch
from scipy.stats import chisquare
from torch import nn

from priors.autoregressive import Autoregressive
from priors.base import UNKNOWN, Draws, Unsupported
from priors.options import AutoregressiveOptions, AutoregressiveSampler
from priors.reference import naive_autoregressive_sample, textbook_logits
from priors.samplers import Adjust

IMAGES = torch.tensor(list(itertools.product(range(3), repeat=3)))   # (27, 3)


def make_prior(grid=(3, 4), codebook_size=5, order="raster"):
    torch.manual_seed(0)
    options = AutoregressiveOptions(width=16, num_layers=2, num_heads=2, order=order)
    prior = Autoregressive(grid=grid, codebook_size=codebook_size, options=options).eval()
    for parameter in prior.parameters():
        nn.init.normal_(parameter, std=0.3)
    return prior.requires_grad_(False)


def test_probabilities_of_all_images_sum_to_one():
    likelihood = make_prior(grid=(1, 3), codebook_size=3).nll(IMAGES, draws=Draws.seeded(0))
    assert float((-likelihood.nats).exp().sum()) == pytest.approx(1, abs=1e-6)
    assert likelihood.kind == "exact" and not likelihood.monte_carlo_variance.any()


def test_sampled_frequencies_match_the_likelihood():
    prior = make_prior(grid=(1, 3), codebook_size=3)
    tokens = prior.sample(20_000, sampler=AutoregressiveSampler(), draws=Draws.seeded(0)).tokens
    counts = torch.bincount((tokens * torch.tensor([9, 3, 1])).sum(1), minlength=27)
    expected = (-prior.nll(IMAGES, draws=Draws.seeded(0)).nats).exp()
    assert chisquare(counts, expected / expected.sum() * 20_000).pvalue > 0.001


@pytest.mark.parametrize("order", ["raster", "column", "spiral", "halton"])
def test_cached_sampling_equals_uncached_token_by_token(order):
    prior = make_prior(order=order)
    cached, uncached = (
        prior.sample(8, sampler=AutoregressiveSampler(cache=cache, temperature=0.9), draws=Draws.seeded(3))
        for cache in (True, False)
    )
    assert torch.equal(cached.tokens, uncached.tokens)


def test_cached_sampling_equals_the_naive_loop():
    prior = make_prior()
    naive = naive_autoregressive_sample(
        lambda tokens: textbook_logits(prior.net, tokens), 8, 12, adjust=Adjust(), draws=Draws.seeded(3)
    )
    assert torch.equal(prior.sample(8, sampler=AutoregressiveSampler(), draws=Draws.seeded(3)).tokens, naive)


def test_token_forwards_count_what_the_cache_saves():
    samplers = [AutoregressiveSampler(cache=cache) for cache in (True, False)]
    costs = [make_prior().sample(2, sampler=sampler, draws=Draws.seeded(0)) for sampler in samplers]
    assert [sample.network_evaluations.tolist() for sample in costs] == [[12, 12]] * 2
    assert [sample.token_forwards.tolist() for sample in costs] == [[12, 12], [78, 78]]   # 78 = 1 + 2 + ... + 12


@pytest.mark.parametrize("cache", [True, False])
def test_a_prefix_is_kept_and_conditions_the_rest(cache):
    """Sampling after a prefix has the conditional distribution of the enumerated joint."""
    prior = make_prior(grid=(1, 3), codebook_size=3)
    known = torch.tensor([[2, 0, UNKNOWN]]).repeat(10_000, 1)
    sample = prior.sample(10_000, sampler=AutoregressiveSampler(cache=cache), known=known, draws=Draws.seeded(0))
    assert (sample.tokens[:, :2] == torch.tensor([2, 0])).all() and int(sample.network_evaluations[0]) == 1
    joint = (-prior.nll(IMAGES, draws=Draws.seeded(0)).nats).exp()[18:21]   # 2 0 x
    counts = torch.bincount(sample.tokens[:, 2], minlength=3)
    assert chisquare(counts, joint / joint.sum() * 10_000).pvalue > 0.001


def test_prefixes_of_different_lengths_share_a_batch():
    prior, known = make_prior(), torch.full((3, 12), UNKNOWN)
    known[0, :2], known[1, :7], known[2] = 1, 3, 4
    sample = prior.sample(3, sampler=AutoregressiveSampler(), known=known, draws=Draws.seeded(0))
    assert torch.equal(sample.tokens[known != UNKNOWN], known[known != UNKNOWN]) and sample.tokens.min() >= 0
    assert sample.network_evaluations.tolist() == [10] * 3 and sample.token_forwards.tolist() == [12] * 3


def test_a_known_token_after_an_unknown_one_is_unsupported():
    known = torch.full((1, 12), UNKNOWN)
    known[0, 5] = 1
    with pytest.raises(Unsupported, match="after an unknown one"):
        make_prior().sample(1, sampler=AutoregressiveSampler(), known=known, draws=Draws.seeded(0))


def test_a_column_walk_accepts_a_known_first_column():
    known = torch.full((1, 12), UNKNOWN)
    known[0, [0, 4, 8]] = torch.tensor([1, 2, 3])
    prior = make_prior(order="column")
    tokens = prior.sample(1, sampler=AutoregressiveSampler(), known=known, draws=Draws.seeded(0)).tokens
    assert tokens[0, [0, 4, 8]].tolist() == [1, 2, 3]


@pytest.mark.parametrize("order", ["raster", "column", "spiral", "halton"])
def test_logits_depend_only_on_tokens_earlier_in_the_walk(order):
    prior, tokens = make_prior(order=order), torch.arange(12).view(1, 12) % 5
    changed = tokens.clone()
    changed[0, prior.order[6]] = (changed[0, prior.order[6]] + 1) % 5
    moved = (prior.logits(changed) - prior.logits(tokens)).abs().amax((0, 2))[prior.order] > 1e-6
    assert moved.tolist() == [False] * 7 + [True] * 5


def test_the_training_loss_is_the_likelihood_in_bits_a_token():
    prior, tokens = make_prior(), Draws.seeded(0).integers(0, 5, 6, 12)
    nats = prior.nll(tokens, draws=Draws.seeded(0)).nats.mean()
    loss = prior.training_loss(tokens, draws=Draws.seeded(0))
    assert float(loss) == pytest.approx(float(nats) / 12 / torch.log(torch.tensor(2.0)).item(), rel=1e-6)


def test_top_k_one_ignores_the_draws():
    prior = make_prior()
    one, other = (prior.sample(2, sampler=AutoregressiveSampler(top_k=1), draws=Draws.seeded(s)).tokens for s in (0, 1))
    assert torch.equal(one, other)
