"""VQ-Diffusion and d3pm-uniform with a tabular denoiser, against everything enumerated: N = 2, K = 3, T = 4."""

import itertools
import math

import pytest
import torch
from torch import nn

from priors.base import Draws
from priors.denoising import spread_time
from priors.transition_options import UniformOptions, VQDiffusionOptions
from priors.uniform import UniformDiffusion
from priors.vq_diffusion import VQDiffusion

N, K, T = 2, 3, 4
TINY = dict(width=4, num_layers=1, num_heads=1, timesteps=T)


class Table(nn.Module):
    """A network that is a table: logits of x_0 for every time and every x_t, each position seeing both tokens."""

    def __init__(self, vocabulary):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.vocabulary = vocabulary
        self.values = nn.Parameter(2 * torch.randn(T + 1, vocabulary, vocabulary, N, K, generator=generator))

    def forward(self, x_t, t):
        return self.values[t, x_t[:, 0], x_t[:, 1]]


def make(kind):
    if kind == "uniform":
        prior = UniformDiffusion(grid=(1, N), codebook_size=K, options=UniformOptions(**TINY))
    else:
        final_mask = {"published": 0.99999, "paper": 0.9}[kind]
        prior = VQDiffusion(grid=(1, N), codebook_size=K, options=VQDiffusionOptions(final_mask=final_mask, **TINY))
    prior.net = Table(K + (kind != "uniform"))
    return prior.eval()


every_prior = pytest.mark.parametrize("kind", ["published", "paper", "uniform"])


def matrices(corruption):
    """Q_1..Q_T of (K + 1) states, written down step by step."""
    result = []
    for t in range(1, T + 1):
        alpha = corruption.keep_bar[t] / corruption.keep_bar[t - 1]
        gamma = 1 - (1 - corruption.mask_bar[t]) / (1 - corruption.mask_bar[t - 1])
        matrix = torch.zeros(K + 1, K + 1, dtype=torch.float64)
        matrix[:K, :K] = (1 - alpha - gamma) / K + alpha * torch.eye(K, dtype=torch.float64)
        matrix[:K, K], matrix[K, K] = gamma, 1
        result.append(matrix)
    return result


def chain(corruption, s, t):
    product = torch.eye(K + 1, dtype=torch.float64)
    for matrix in matrices(corruption)[s:t]:
        product = product @ matrix
    return product


def reachable(prior):
    return K + (prior.corruption.mask_bar[-1] > 0).long().item()


@torch.no_grad()
def model_step(prior, s, t):
    """p(x_s | x_t) as (states^N, (K+1)^N), rows and columns in the order of itertools.product."""
    before, step, total = (chain(prior.corruption, *pair) for pair in ((0, s), (s, t), (0, t)))
    rows = []
    for x_t in itertools.product(range(reachable(prior)), repeat=N):
        predicted = prior.denoise(torch.tensor([x_t]), torch.tensor([t])).double().softmax(-1)[0]   # (N, K)
        per_position = [sum(predicted[n, x_0] * before[x_0] * step[:, x_t[n]] / total[x_0, x_t[n]] for x_0 in range(K))
                        for n in range(N)]
        rows.append(torch.outer(*per_position).flatten())
    return torch.stack(rows)


def on_reachable(prior, joint):
    """Of (..., (K+1)^N) the columns of states that can occur."""
    return joint.unflatten(-1, (K + 1, K + 1))[..., :reachable(prior), :reachable(prior)].flatten(-2)


def enumerated_samples(prior, times):
    """p(x_0), (K, K), of the ancestral sampler that visits these times, T first and 0 last."""
    start = prior.corruption.start_logits().exp()
    joint = on_reachable(prior, torch.outer(start, start).flatten())
    for t, s in itertools.pairwise(times):
        joint = on_reachable(prior, joint @ model_step(prior, s, t))
    states = reachable(prior)
    joint = joint.reshape(states, states)
    assert joint[K:].sum() == 0 and joint[:, K:].sum() == 0
    return joint[:K, :K]


@torch.no_grad()
def enumerated_bound(prior, x_0):
    """KL at T plus the expected KL of every step, summed over all x_t, in nats."""
    start = prior.corruption.start_logits().exp()
    last = chain(prior.corruption, 0, T)
    nats = sum(torch.special.xlogy(last[v], last[v] / start).nansum() for v in x_0)
    for t in range(1, T + 1):
        before, step, total = (chain(prior.corruption, *pair) for pair in ((0, t - 1), (t - 1, t), (0, t)))
        model = model_step(prior, t - 1, t)
        for row, x_t in enumerate(itertools.product(range(reachable(prior)), repeat=N)):
            weight = math.prod(float(total[x_0[n], x_t[n]]) for n in range(N))
            true = torch.outer(*[before[x_0[n]] * step[:, x_t[n]] / total[x_0[n], x_t[n]] for n in range(N)]).flatten()
            seen = true > 0
            nats += weight * (true[seen] * (true[seen] / model[row][seen]).log()).sum()
    return float(nats)


def images():
    return torch.tensor(list(itertools.product(range(K), repeat=N)))


@every_prior
@pytest.mark.parametrize("budget", [None, 4, 6, 13], ids=["all-times", "strata", "more-strata", "repeated-times"])
def test_the_bound_is_an_unbiased_estimate_of_its_own_enumeration(kind, budget):
    prior, num = make(kind), 4000
    for x_0 in ((0, 0), (2, 1)):
        found = prior.nll(torch.tensor([x_0]).expand(num, -1), draws=Draws.seeded(*x_0), budget=budget).nats
        error = float(found.std()) / math.sqrt(num)
        assert abs(float(found.mean()) - enumerated_bound(prior, x_0)) < 4 * error


@every_prior
def test_the_bound_is_unbiased_when_times_are_drawn_by_importance(kind):
    prior, num = make(kind), 4000
    prior.time.mean_square.copy_(torch.tensor([4.0, 1.0, 0.25, 9.0]))
    prior.time.times_seen.fill_(100)
    found = prior.nll(torch.tensor([[2, 1]]).expand(num, -1), draws=Draws.seeded(0), budget=4).nats
    error = float(found.std()) / math.sqrt(num)
    assert abs(float(found.mean()) - enumerated_bound(prior, (2, 1))) < 4 * error


@every_prior
def test_the_bound_lies_above_the_exact_likelihood_of_the_ancestral_sampler(kind):
    prior = make(kind)
    exact = -enumerated_samples(prior, range(T, -1, -1)).log()
    for x_0 in images().tolist():
        assert enumerated_bound(prior, x_0) >= float(exact[tuple(x_0)]) - 1e-9


@every_prior
@pytest.mark.parametrize("budget", [4, 13], ids=["strata", "repeated-times"])
def test_the_reported_variance_is_the_variance_of_the_estimate(kind, budget):
    found = make(kind).nll(torch.tensor([[0, 1]]).expand(20_000, -1), draws=Draws.seeded(0), budget=budget)
    assert float(found.monte_carlo_variance.mean()) == pytest.approx(float(found.nats.var()), rel=0.1)


@every_prior
def test_the_variance_of_the_sum_over_all_times_errs_upwards(kind):
    found = make(kind).nll(torch.tensor([[0, 1]]).expand(20_000, -1), draws=Draws.seeded(0))
    assert float(found.monte_carlo_variance.mean()) >= 0.95 * float(found.nats.var())


def chi_square(counts, probabilities):
    expected = counts.sum() * probabilities
    return float(((counts - expected) ** 2 / expected).sum())


def image_counts(tokens):
    return torch.bincount(tokens[:, 0] * K + tokens[:, 1], minlength=K * K).double()


@every_prior
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_sample_frequencies_match_the_enumerated_strided_chain(kind, steps):
    prior = make(kind)
    times = [int(spread_time(torch.tensor(T), step, steps)) for step in range(steps, -1, -1)]
    tokens = prior.sample(20_000, sampler=prior.Sampler(steps=steps), draws=Draws.seeded(steps)).tokens
    assert chi_square(image_counts(tokens), enumerated_samples(prior, times).flatten()) < 26.1   # 8 degrees, p = .001


def test_a_perfect_denoiser_samples_the_data_distribution():
    prior, data = make("paper"), torch.tensor([[0.30, 0.05, 0.05], [0.05, 0.25, 0.05], [0.05, 0.05, 0.15]]).double()
    with torch.no_grad():
        for t, a, b in itertools.product(range(1, T + 1), range(K + 1), range(K + 1)):
            total = chain(prior.corruption, 0, t)
            joint = data * torch.outer(total[:K, a], total[:K, b])
            prior.net.values[t, a, b] = torch.stack([joint.sum(1), joint.sum(0)]).log().float()
    bound = [enumerated_bound(prior, x_0) for x_0 in images().tolist()]
    entropy = -(data * data.log()).sum()
    gap = float((data.flatten() * torch.tensor(bound)).sum() - entropy)
    assert 0 <= gap < 0.35   # what is left is the price of T = 4 steps that draw the tokens independently


def test_known_tokens_condition_the_others_on_them():
    """Where every step reveals by the data's own conditionals, the unknown token follows p(x_1 | x_0 = known)."""
    prior = make("published")
    conditional = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4]])
    with torch.no_grad():
        for known in range(K):
            prior.net.values[:, known, K, 1] = conditional[known].log()
            prior.net.values[:, known, torch.arange(K), 1] = 40 * torch.eye(K)   # a visible token is the token
    known = torch.tensor([[1, -1]]).expand(10_000, -1)
    tokens = prior.sample(10_000, sampler=prior.Sampler(), known=known, draws=Draws.seeded(0)).tokens
    counts = torch.bincount(tokens[:, 1], minlength=K).double()
    assert (tokens[:, 0] == 1).all() and chi_square(counts, conditional[1].double()) < 13.8   # 2 degrees, p = .001


def test_purity_sampling_reveals_surer_positions_first():
    prior = make("published")
    with torch.no_grad():
        prior.net.values.zero_()
        prior.net.values[..., 1, 0] = 50.0   # position 1 is sure of token 0, position 0 of nothing
    seen = []
    prior.net.register_forward_hook(lambda module, arguments, output: seen.append(arguments[0].clone()))
    prior.sample(2000, sampler=prior.Sampler(method="purity", steps=2), draws=Draws.seeded(0))
    second = seen[1]
    share = float((second[:, 1] == 0).float().mean())
    assert share == pytest.approx(3 / 4, abs=0.04)   # weights 1 and 1/3


def test_a_truncated_prediction_never_yields_an_unlikely_token():
    prior = make("published")
    with torch.no_grad():
        prior.net.values.copy_(torch.tensor([0.6, 0.3, 0.1]).log().expand_as(prior.net.values))
    tokens = prior.sample(2000, sampler=prior.Sampler(top_p=0.8), draws=Draws.seeded(0)).tokens
    assert set(tokens.unique().tolist()) == {0, 1}
