"""Conditional likelihoods of every prior against enumeration: three tokens of three codes, two classes and none."""

import itertools
import math

import pytest
import torch
from scipy.stats import chisquare
from torch import nn

from priors.absorbing import AbsorbingDiffusion
from priors.any_order import AnyOrder
from priors.autoregressive import Autoregressive
from priors.base import Draws
from priors.conditions import NO_LABEL, Condition
from priors.options import (
    AbsorbingOptions,
    AbsorbingSampler,
    AnyOrderOptions,
    AutoregressiveOptions,
    UnigramOptions,
    UnigramSampler,
)
from priors.reference import textbook_logits
from priors.transition_options import UniformOptions, UniformSampler, VQDiffusionOptions, VQDiffusionSampler
from priors.uniform import UniformDiffusion
from priors.unigram import Unigram
from priors.vq_diffusion import VQDiffusion

N, K, T = 3, 3, 3
LABELS = (0, 1, NO_LABEL)
IMAGES = torch.tensor(list(itertools.product(range(K), repeat=N)))   # (27, 3)
every_label = pytest.mark.parametrize("label", LABELS)


def of(label, num=K**N):
    return Condition(labels=torch.full((num,), label))


def make(cls, options, **more):
    torch.manual_seed(1)
    prior = cls(grid=(1, N), codebook_size=K, options=options(width=8, num_layers=2, num_heads=2, num_labels=2, **more))
    for parameter in prior.parameters():
        nn.init.normal_(parameter, std=0.6)
    return prior.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def absorbing():
    return make(AbsorbingDiffusion, AbsorbingOptions, timesteps=T)


def masked_nats(prior, mask, label):
    """(27, 3) nats of the true tokens under this mask, 0 where known."""
    logits = prior.logits(IMAGES.masked_fill(mask, K), condition=of(label)).double().log_softmax(-1)
    return -logits.gather(-1, IMAGES.unsqueeze(-1)).squeeze(-1) * mask


def absorbing_bound(prior, label):
    total = torch.zeros(len(IMAGES), dtype=torch.float64)
    for mask in map(torch.tensor, itertools.product([False, True], repeat=N)):
        hidden, nats = int(mask.sum()), masked_nats(prior, mask, label).sum(1)
        for t in range(1, T + 1):
            total += (t / T) ** hidden * (1 - t / T) ** (N - hidden) * nats / t
    return total


def absorbing_samples(prior, label):
    """p(x), (27,), of the T-step sampler, over all assignments of tokens to the steps that reveal them."""
    total = torch.zeros(len(IMAGES), dtype=torch.float64)
    for steps in map(torch.tensor, itertools.product(range(1, T + 1), repeat=N)):
        nats = sum(masked_nats(prior, steps <= t, label)[:, steps == t].sum(1) for t in steps.unique())
        total += (-nats).exp() / T**N
    return total


@every_label
def test_autoregressive_probabilities_sum_to_one_for_each_class(label):
    prior = make(Autoregressive, AutoregressiveOptions)
    nats = prior.nll(IMAGES, condition=of(label), draws=Draws.seeded(0)).nats
    assert float((-nats).exp().sum()) == pytest.approx(1, abs=1e-6)
    logits = textbook_logits(prior.net, IMAGES, of(label)).double().log_softmax(-1)   # in the slow way
    expected = -logits.gather(-1, IMAGES.unsqueeze(-1)).sum((1, 2))
    torch.testing.assert_close(nats, expected, rtol=1e-5, atol=1e-5)


@every_label
def test_any_order_probabilities_sum_to_one_for_each_class_in_every_order(label):
    prior = make(AnyOrder, AnyOrderOptions)
    for parameter in prior.target.parameters():   # so that the order matters
        nn.init.normal_(parameter, std=0.5)
    found = [prior.nll_in_order(IMAGES, torch.tensor(order), condition=of(label)).nats
             for order in itertools.permutations(range(N))]
    for nats in found:
        assert float((-nats).exp().sum()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(prior.nll(IMAGES, condition=of(label), draws=None).nats, found[0])
    logits = prior.logits(IMAGES, condition=of(label)).double().log_softmax(-1)
    torch.testing.assert_close(found[0], -logits.gather(-1, IMAGES.unsqueeze(-1)).sum((1, 2)), rtol=1e-4, atol=1e-5)


@every_label
def test_in_an_order_of_ones_choice_a_class_of_absorbing_diffusion_sums_to_one(absorbing, label):
    nats = absorbing.nll_in_order(IMAGES, torch.tensor([2, 0, 1]), condition=of(label)).nats
    assert float((-nats).exp().sum()) == pytest.approx(1, abs=1e-5)
    bound = absorbing.random_order_nll(IMAGES, condition=of(label), draws=Draws.seeded(0), budget=9).nats
    assert bound.shape == (27,) and (bound > 0).all()


@pytest.mark.parametrize("prior", [make(Autoregressive, AutoregressiveOptions)])
def test_classes_and_no_class_are_different_distributions(prior):
    nats = [prior.nll(IMAGES, condition=of(label), draws=Draws.seeded(0)).nats for label in LABELS]
    assert all((one - other).abs().max() > 0.1 for one, other in itertools.combinations(nats, 2))
    assert torch.allclose(nats[2], prior.nll(IMAGES, draws=Draws.seeded(0)).nats, atol=1e-6)


@every_label
@pytest.mark.parametrize("budget", [None, 9])
def test_the_absorbing_bound_of_a_class_is_the_enumerated_one(absorbing, label, budget):
    copies = 200
    many = IMAGES.repeat(copies, 1)
    nats = absorbing.nll(many, condition=of(label, len(many)), draws=Draws.seeded(label), budget=budget).nats
    nats = nats.view(copies, -1)
    error = nats.std(0) / copies**0.5
    assert ((nats.mean(0) - absorbing_bound(absorbing, label)).abs() < 5 * error + 1e-6).all()


@every_label
def test_the_absorbing_bound_of_a_class_is_no_smaller_than_the_truth(absorbing, label):
    probabilities = absorbing_samples(absorbing, label)
    assert float(probabilities.sum()) == pytest.approx(1, abs=1e-6)
    assert (absorbing_bound(absorbing, label) >= -probabilities.log() - 1e-9).all()


DIFFUSIONS = {
    "vq_diffusion": lambda: make(VQDiffusion, VQDiffusionOptions, timesteps=T, final_mask=0.9),
    "uniform": lambda: make(UniformDiffusion, UniformOptions, timesteps=T),
}
every_diffusion = pytest.mark.parametrize("prior", [make() for make in DIFFUSIONS.values()], ids=DIFFUSIONS)


def states_of(prior):
    """(S, N) every x_t that can occur, and how many values a token has."""
    num = K + (isinstance(prior, VQDiffusion))
    return torch.tensor(list(itertools.product(range(num), repeat=N))), num


def joint(log_p, num):
    """Log-probabilities of each token (S, N, K + 1) as probabilities of all states, (S, num^N)."""
    p = log_p.double().exp()[..., :num]
    return torch.einsum("sa,sb,sc->sabc", *p.unbind(1)).flatten(1)


def model_step(prior, label, t):
    """p(x_{t-1} | x_t): (S, S)."""
    states, num = states_of(prior)
    times = torch.full((len(states),), t)
    log_x_0 = prior.denoise(states, times, condition=of(label, len(states))).double().log_softmax(-1)
    return joint(prior.corruption.log_posterior(log_x_0, states, s=times - 1, t=times), num)


def diffusion_samples(prior, label):
    """p(x_0), (27,), of ancestral sampling with every step."""
    states, num = states_of(prior)
    start = prior.corruption.start_logits()[:num].expand(1, N, -1)
    p = joint(torch.nn.functional.pad(start, (0, K + 1 - num)), num)
    for t in range(T, 0, -1):
        p = p @ model_step(prior, label, t)
    return p[0, (states < K).all(1)]


def diffusion_bound(prior, label):
    """(27,) KL at T and the expected KL of every step over all x_t, in nats."""
    states, num = states_of(prior)
    total = torch.full((len(IMAGES),), N * float(prior.corruption.start_kl()), dtype=torch.float64)
    for t in range(1, T + 1):
        model = model_step(prior, label, t)
        times = torch.full((len(states),), t)
        q = prior.corruption.cumulative(times[:1])
        for i, x_0 in enumerate(IMAGES.expand(1, -1, -1)[0]):
            each = torch.where(states == x_0, q.keep + q.replace, torch.where(states == K, q.mask, q.replace))
            true = joint(prior.corruption.log_true_posterior(
                x_0.expand(len(states), -1), states, s=times - 1, t=times, dtype=torch.float64), num)
            terms = torch.where(true > 0, true * (true.clamp(min=1e-300) / model.clamp(min=1e-300)).log(), 0.0).sum(1)
            total[i] += (each.prod(1) * terms).sum()
    return total


@every_diffusion
@every_label
def test_the_diffusion_bound_of_a_class_is_the_enumerated_one_and_no_smaller_than_the_truth(prior, label):
    copies, bound, probabilities = 200, diffusion_bound(prior, label), diffusion_samples(prior, label)
    assert float(probabilities.sum()) == pytest.approx(1, abs=1e-6)
    assert (bound >= -probabilities.log() - 1e-6).all()
    many = IMAGES.repeat(copies, 1)
    nats = prior.nll(many, condition=of(label, len(many)), draws=Draws.seeded(label)).nats.view(copies, -1)
    assert ((nats.mean(0) - bound).abs() < 5 * nats.std(0) / copies**0.5 + 1e-6).all()


def frequencies(tokens):
    return torch.bincount((tokens * torch.tensor([9, 3, 1])).sum(1), minlength=len(IMAGES)).double()


def assert_drawn_from(tokens, probabilities):
    expected = probabilities.double() / probabilities.sum() * len(tokens)
    assert chisquare(frequencies(tokens), expected).pvalue > 1e-4


@pytest.mark.parametrize("label", [1])
def test_every_prior_samples_the_class_it_is_asked_for(absorbing, label):
    """The images of a batch have different classes, so that a mix-up of rows would show."""
    vq, uniform = (make() for make in DIFFUSIONS.values())
    autoregressive = make(Autoregressive, AutoregressiveOptions)
    exact = (-autoregressive.nll(IMAGES, condition=of(label), draws=Draws.seeded(0)).nats).exp()
    labels = torch.arange(4_000) % 2
    cases = [(autoregressive, autoregressive.Sampler(), exact),
             (autoregressive, autoregressive.Sampler(cache=False), exact),
             (absorbing, AbsorbingSampler(), absorbing_samples(absorbing, label)),
             (absorbing, AbsorbingSampler(method="loop"), absorbing_samples(absorbing, label)),
             (vq, VQDiffusionSampler(), diffusion_samples(vq, label)),
             (uniform, UniformSampler(), diffusion_samples(uniform, label))]
    for prior, sampler, probabilities in cases:
        drawn = prior.sample(4_000, sampler=sampler, condition=Condition(labels=labels), draws=Draws.seeded("f", label))
        assert_drawn_from(drawn.tokens[labels == label], probabilities)


def test_a_unigram_has_the_frequencies_of_each_class():
    prior = Unigram(grid=(1, N), codebook_size=K, options=UnigramOptions(smoothing=1.0, num_labels=2))
    tokens = torch.tensor([[0, 0, 1], [2, 2, 2], [1, 1, 1]])
    prior.fit([tokens[:2], tokens[2:]], [Condition(labels=torch.tensor([0, 1])), Condition(labels=torch.tensor([-1]))])
    expected = {0: [3 / 6, 2 / 6, 1 / 6], 1: [1 / 6, 1 / 6, 4 / 6], NO_LABEL: [3 / 12, 5 / 12, 4 / 12]}
    for label, shares in expected.items():
        nats = prior.nll(IMAGES, condition=of(label), draws=Draws.seeded(0)).nats
        torch.testing.assert_close(nats, -torch.tensor(shares, dtype=torch.float64).log()[IMAGES].sum(1))
        assert float((-nats).exp().sum()) == pytest.approx(1)
    drawn = prior.sample(3_000, sampler=UnigramSampler(), condition=of(1, 3_000), draws=Draws.seeded(0)).tokens
    assert (drawn == 2).double().mean() == pytest.approx(4 / 6, abs=0.02)


def test_a_unigram_of_classes_needs_labels_to_count():
    prior = Unigram(grid=(1, N), codebook_size=K, options=UnigramOptions(num_labels=2))
    with pytest.raises(ValueError, match="expected the labels of each batch"):
        prior.fit([IMAGES])


def test_a_unigram_gains_one_bit_a_token_where_each_class_has_a_code_of_its_own():

    prior = Unigram(grid=(1, N), codebook_size=K, options=UnigramOptions(smoothing=1e-9, num_labels=2))
    tokens = torch.tensor([[0, 0, 0], [1, 1, 1]])
    labels = Condition(labels=torch.tensor([0, 1]))
    prior.fit([tokens], [labels])
    gain = prior.nll(tokens, draws=None).nats - prior.nll(tokens, condition=labels, draws=None).nats
    torch.testing.assert_close(gain, torch.full((2,), N * math.log(2), dtype=torch.float64))
