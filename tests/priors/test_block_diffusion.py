"""Block diffusion between its two ends: blocks of one token are autoregressive, one block is absorbing diffusion."""

import itertools
import math

import pytest
import torch
from scipy.stats import chisquare
from torch import nn

from priors import samplers
from priors.absorbing import AbsorbingDiffusion
from priors.base import UNKNOWN, Draws, Unsupported
from priors.block_diffusion import BlockDiffusion, two_streams
from priors.block_options import BlockDiffusionOptions, BlockDiffusionSampler
from priors.options import AbsorbingOptions, AbsorbingSampler
from priors.samplers import Adjust

SIZES = dict(width=16, num_layers=2, num_heads=2)


def make_prior(block_size, grid=(3, 4), codebook_size=5):
    torch.manual_seed(0)
    prior = BlockDiffusion(grid=grid, codebook_size=codebook_size,
                           options=BlockDiffusionOptions(block_size=block_size, **SIZES)).eval()
    for parameter in prior.parameters():
        nn.init.normal_(parameter, std=0.3)
    return prior.requires_grad_(False)


def as_absorbing(prior):
    """Absorbing diffusion of the same weights."""
    other = AbsorbingDiffusion(grid=prior.grid, codebook_size=prior.codebook_size,
                               options=AbsorbingOptions(objective="elbo", **SIZES)).eval()
    other.net.load_state_dict(prior.net.state_dict())
    return other.requires_grad_(False)


def images_of(prior):
    return torch.tensor(list(itertools.product(range(prior.codebook_size), repeat=prior.num_tokens)))


def some_tokens(num=6):
    return Draws.seeded("tokens").integers(0, 5, num, 12)


def by_hand(prior, clean, noisy, b):
    """Logits of block b: its noisy tokens behind the clean blocks before it, by explicit softmax attention."""
    net, size = prior.net, prior.block
    end = (b + 1) * size
    x = net.tok_emb(torch.cat([clean[:, : b * size], noisy[:, b * size : end]], 1)) + net.pos_emb[:, :end]
    blocked = torch.arange(end).unsqueeze(0) // size > torch.arange(end).unsqueeze(1) // size
    for layer in net.layers:
        q, k, v = (layer.heads(part) for part in layer.qkv(layer.ln1(x)).chunk(3, -1))
        scores = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).masked_fill(blocked, -torch.inf)
        x = x + layer.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        x = x + layer.mlp(layer.ln2(x))
    return net.head(net.ln_f(x))[:, b * size :]


@pytest.mark.parametrize("block_size", [1, 2, 4, 6, 12])
def test_one_pass_gives_every_block_what_it_would_get_alone(block_size):
    prior, clean = make_prior(block_size), some_tokens()
    noisy = clean.masked_fill(Draws.seeded(1).uniform(6, 12) < 0.6, 5)
    found = prior._predict(noisy, clean).split(block_size, 1)
    assert all(torch.allclose(found[b], by_hand(prior, clean, noisy, b), atol=1e-5) for b in range(prior.num_blocks))


def test_who_sees_whom_for_two_blocks_of_two():
    """Clean 0 1, then noisy 0 1 2 3."""
    assert two_streams(4, 2).int().tolist() == [[1, 1, 0, 0, 0, 0]] * 2 + [[0, 0, 1, 1, 0, 0]] * 2 + \
        [[1, 1, 0, 0, 1, 1]] * 2


def test_one_block_is_absorbing_diffusion_bit_by_bit():
    prior, tokens = make_prior(12), some_tokens()
    other = as_absorbing(prior)
    assert torch.equal(prior.logits(tokens), other.logits(tokens))
    ours, theirs = (p.training_loss(tokens, draws=Draws.seeded(7)) for p in (prior, other))
    assert torch.equal(ours, theirs)
    for budget in (None, 5, 12, 40):
        ours, theirs = (p.nll(tokens, draws=Draws.seeded(7), budget=budget) for p in (prior, other))
        assert torch.equal(ours.nats, theirs.nats) and ours.kind == theirs.kind
        assert torch.equal(ours.monte_carlo_variance, theirs.monte_carlo_variance)


@pytest.mark.parametrize("options", [{}, {"steps": 4}, {"steps": 5, "temperature": 0.8, "top_k": 3}])
def test_one_block_draws_the_samples_of_absorbing_diffusion(options):
    prior, known = make_prior(12), torch.full((5, 12), UNKNOWN)
    known[0, 3], known[1], known[2, ::2] = 1, 2, 4
    for given in (None, known):
        ours = prior.sample(5, sampler=BlockDiffusionSampler(**options), known=given, draws=Draws.seeded(2))
        theirs = as_absorbing(prior).sample(5, sampler=AbsorbingSampler(**options), known=given, draws=Draws.seeded(2))
        assert torch.equal(ours.tokens, theirs.tokens)
        assert torch.equal(ours.network_evaluations, theirs.network_evaluations)
        assert torch.equal(ours.token_forwards, theirs.token_forwards)


def test_blocks_of_one_token_are_an_autoregressive_model():
    """Its likelihood is exact and sums to one, its loss is that likelihood whatever the draws."""
    prior = make_prior(1, grid=(1, 3), codebook_size=3)
    likelihood = prior.nll(images_of(prior), draws=Draws.seeded(0), budget=1)
    assert likelihood.kind == "exact" and likelihood.network_evaluations == 1
    assert float((-likelihood.nats).exp().sum()) == pytest.approx(1, abs=1e-6)
    tokens = images_of(prior)
    losses = [float(prior.training_loss(tokens, draws=Draws.seeded(seed))) for seed in (0, 1)]
    assert losses[0] == losses[1] == pytest.approx(float(likelihood.nats.mean()) / 3 / math.log(2), rel=1e-5)


def test_blocks_of_one_token_are_sampled_as_by_the_autoregressive_loop():
    prior = make_prior(1)
    sample = prior.sample(8, sampler=BlockDiffusionSampler(), draws=Draws.seeded(3))
    draws = Draws.seeded(3)
    uniforms = [draws.uniform(8, 12) for _ in range(2)][1]

    class Given(Draws):
        """The uniforms of the tokens, in their order."""

        left = list(uniforms.T)

        def uniform(self, *shape):
            return self.left.pop(0)

    fed = []

    def extend(tokens, start):
        fed.extend([] if tokens is None else [tokens])
        behind = torch.cat([*fed, torch.full((8, 12 - len(fed)), 5)], 1)
        return prior.logits(behind)[:, len(fed)]

    loop = samplers.autoregressive(extend, torch.full((8, 12), UNKNOWN), adjust=Adjust(), draws=Given(draws.generator))
    assert torch.equal(sample.tokens, loop) and (sample.network_evaluations == 12).all()


def enumerated(prior):
    """Law of the images under one diffusion step a token, over all steps at which tokens of a block may be revealed."""
    images, size, p = images_of(prior), prior.block, 1.0
    for b in range(prior.num_blocks):
        here, factor = slice(b * size, (b + 1) * size), torch.zeros(len(images), dtype=torch.float64)
        for steps in itertools.product(range(1, size + 1), repeat=size):
            steps, chance = torch.tensor(steps), torch.full((len(images),), float(size) ** -size, dtype=torch.float64)
            for t in steps.unique():
                noisy = images.clone()
                noisy[:, here] = images[:, here].masked_fill(steps <= t, prior.mask)
                chosen = prior._predict(noisy, images).double().softmax(-1).gather(-1, images.unsqueeze(-1)).squeeze(-1)
                chance *= chosen[:, here][:, steps == t].prod(1)
            factor += chance
        p = p * factor
    return p


@pytest.mark.parametrize("cache", [True, False])
def test_sampled_frequencies_match_the_enumerated_law(cache):
    prior, num = make_prior(2, grid=(2, 2), codebook_size=2), 6_000
    expected = enumerated(prior)
    assert float(expected.sum()) == pytest.approx(1, abs=1e-6)
    tokens = prior.sample(num, sampler=BlockDiffusionSampler(cache=cache), draws=Draws.seeded(1)).tokens
    counts = torch.bincount((tokens * torch.tensor([8, 4, 2, 1])).sum(1), minlength=16)
    assert chisquare(counts, expected / expected.sum() * num).pvalue > 0.001


def enumerated_bound(prior):
    """Nats of every image: for each block sum_t 1/t of the expected nats of tokens masked with probability t/T."""
    images, size, total = images_of(prior), prior.block, 0.0
    for b, mask in itertools.product(range(prior.num_blocks), itertools.product([False, True], repeat=prior.block)):
        masked = torch.zeros(prior.num_tokens, dtype=torch.bool)
        masked[b * size : (b + 1) * size] = torch.tensor(mask)
        log_p = prior._predict(images.masked_fill(masked, prior.mask), images).double().log_softmax(-1)
        nats = -log_p.gather(-1, images.unsqueeze(-1)).squeeze(-1)[:, masked].sum(1)
        hidden, times = sum(mask), range(1, size + 1)
        total += nats * sum((t / size) ** hidden * (1 - t / size) ** (size - hidden) / t for t in times)
    return total


def test_the_likelihood_estimates_the_enumerated_bound_which_exceeds_the_samplers_own():
    prior = make_prior(2, grid=(2, 2), codebook_size=2)
    exact = enumerated_bound(prior)
    assert (exact >= -enumerated(prior).log()).all() and float((-exact).exp().sum()) < 1
    for budget in (None, 5):
        found = prior.nll(images_of(prior).repeat(400, 1), draws=Draws.seeded(0), budget=budget).nats.view(400, -1)
        assert ((found.mean(0) - exact).abs() < 5 * found.std(0) / 20 + 1e-6).all()


@pytest.mark.parametrize("block_size", [2, 4])
def test_loss_and_both_estimates_are_of_one_bound(block_size):
    prior = make_prior(block_size)
    tokens = some_tokens(1).repeat(1_000, 1)
    sums, low = (prior.nll(tokens, draws=Draws.seeded(4), budget=budget) for budget in (None, block_size + 2))
    assert sums.network_evaluations == block_size and low.network_evaluations <= block_size + 2
    mean = float(low.nats.mean())
    assert float(sums.nats.mean()) == pytest.approx(mean, abs=4 * float(sums.nats.std()) / 1_000**0.5)
    assert float(low.nats.var()) < float(sums.nats.var())
    bits = float(prior.training_loss(tokens, draws=Draws.seeded(5)))
    assert bits * 12 * math.log(2) == pytest.approx(mean, rel=0.08)


@pytest.mark.parametrize("block_size", [1, 2, 4, 6])
def test_finished_blocks_kept_change_no_token_and_save_work(block_size):
    prior = make_prior(block_size)
    kept, anew = (prior.sample(7, sampler=BlockDiffusionSampler(cache=cache), draws=Draws.seeded(6))
                  for cache in (True, False))
    assert torch.equal(kept.tokens, anew.tokens)
    assert torch.equal(kept.network_evaluations, anew.network_evaluations)
    assert (kept.token_forwards < anew.token_forwards).all()
    most = block_size * kept.network_evaluations + 12 - block_size   # every finished block is pushed once more
    assert torch.equal(kept.token_forwards, most)


def test_costs_are_those_the_network_saw():
    prior, seen = make_prior(4), []
    prior.net.ln_f.register_forward_hook(lambda layer, args, output: seen.append(len(output)))
    sample = prior.sample(5, sampler=BlockDiffusionSampler(steps=6), draws=Draws.seeded(0))
    assert int(sample.network_evaluations.sum()) == sum(seen)


@pytest.mark.parametrize("cache", [True, False])
def test_known_beginnings_of_different_lengths_are_kept_and_condition_the_rest(cache):
    prior, known = make_prior(4), torch.full((4, 12), UNKNOWN)
    known[0, :5], known[1, :8], known[2], known[3, [1, 3]] = 1, 3, 4, 2
    known[0, 7] = 0   # anywhere in the first block that is not whole
    sample = prior.sample(4, sampler=BlockDiffusionSampler(cache=cache), known=known, draws=Draws.seeded(0))
    assert torch.equal(sample.tokens[known != UNKNOWN], known[known != UNKNOWN]) and sample.tokens.min() >= 0
    assert sample.tokens.max() < 5 and int(sample.network_evaluations[2]) == 0
    sampler = BlockDiffusionSampler(top_k=1, cache=cache)
    alone = prior.sample(1, sampler=sampler, known=known[1:2], draws=Draws.seeded(1))
    likeliest = by_hand(prior, known[1:2], torch.full((1, 12), 5), 2)
    assert int(alone.tokens[0, 8:].eq(likeliest[0].argmax(-1)).sum()) >= 1   # the first one revealed at least


def test_a_known_token_in_a_block_after_one_that_is_not_whole_is_unsupported():
    known = torch.full((1, 12), UNKNOWN)
    known[0, 5] = 1
    with pytest.raises(Unsupported, match="in a block after one with unknown tokens"):
        make_prior(4).sample(1, sampler=BlockDiffusionSampler(), known=known, draws=Draws.seeded(0))


def test_fewer_steps_than_blocks_are_unsupported():
    with pytest.raises(Unsupported, match="steps=2: each of the 3 blocks takes one at least; use 3 or more"):
        make_prior(4).sample(1, sampler=BlockDiffusionSampler(steps=2), draws=Draws.seeded(0))
    sample = make_prior(4).sample(2, sampler=BlockDiffusionSampler(steps=3), draws=Draws.seeded(0))
    assert sample.network_evaluations.tolist() == [3, 3]


@pytest.mark.parametrize(("block_size", "steps"), [(4, 4), (4, 5), (4, 8), (4, 13), (2, 8), (2, 15), (1, 20)])
def test_blocks_take_as_many_steps_together_as_were_asked_for(block_size, steps):
    prior, sampler = make_prior(block_size), BlockDiffusionSampler(steps=steps)
    each = prior._num_steps(torch.ones(1, 12, dtype=torch.bool), sampler)[0, ::block_size]
    assert int(each.sum()) == steps and int(each.max() - each.min()) <= 1 and int(each.min()) >= 1


@pytest.mark.parametrize("num_known", [1, 4, 5, 7, 8, 11])
def test_an_image_that_is_partly_known_takes_its_share_of_the_steps_and_one_a_block(num_known):
    prior, unknown = make_prior(4), torch.arange(12).unsqueeze(0) >= num_known
    for steps in (3, 5, 8, 12):
        each = prior._num_steps(unknown, BlockDiffusionSampler(steps=steps))[0, ::4]
        blocks = int(unknown.view(3, 4).any(1).sum())
        assert int(each.sum()) == max(blocks, round(steps * (12 - num_known) / 12))
        assert ((each > 0) == unknown.view(3, 4).any(1)).all()


def test_a_block_is_one_row_unless_it_says_otherwise():
    assert make_prior(None).block == 4


@pytest.mark.parametrize(("make", "message"), [
    (lambda: make_prior(5), "block_size=5: expected a divisor of the 12 tokens of a 3x4 grid, such as 4"),
    (lambda: BlockDiffusionOptions(block_size=0), "block_size=0: expected an integer of at least 1"),
    (lambda: BlockDiffusionSampler(cache=1), "cache=1: expected true or false"),
    (lambda: BlockDiffusionSampler(steps=0), "steps=0")])
def test_a_wrong_value_is_an_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()
