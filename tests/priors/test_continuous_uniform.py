"""Uniform diffusion in continuous time against everything enumerated: three tokens of three codes, a random network."""

import itertools
import math

import numpy as np
import pytest
import torch

from priors.base import Draws
from priors.continuous import LAST, Noise, level_nats
from priors.transition_options import UniformOptions, UniformSampler
from priors.transitions import kl_divergence
from priors.uniform import UniformDiffusion

N, K = 3, 3
STATES = torch.tensor(list(itertools.product(range(K), repeat=N)))   # (27, N)
IMAGES = [(0, 0, 0), (2, 0, 1)]


def make(schedule="linear"):
    options = UniformOptions(form="udlm", noise_schedule=schedule, width=8, num_layers=1, num_heads=1)
    torch.manual_seed(0)
    prior = UniformDiffusion(grid=(1, N), codebook_size=K, options=options).double().eval()
    for name, parameter in prior.named_parameters():   # so that every token and the time matter
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.02 if "time" in name else 1.0)
    return prior.requires_grad_(False)


both_schedules = pytest.mark.parametrize("schedule", ["linear", "cosine"])


def chances(noise, x_0, t):
    """q(x_t | x_0) of every state: (T,) -> (T, 27)."""
    level = noise.level(t)[:, None, None]
    return torch.where(STATES == torch.tensor(x_0), 1 - level + level / K, level / K).prod(-1)


def start_nats(noise, x_0):
    """KL(q(x_1 | x_0) || uniform) by its definition."""
    last = chances(noise, x_0, torch.ones(1, dtype=torch.float64))
    return float((last * (last * K**N).log()).sum())


def at_all(prior, times):
    """Every state at every time: x (T 27, N), t (T 27,)."""
    return STATES.repeat(len(times), 1), times.repeat_interleave(len(STATES))


def enumerated_bound(prior, x_0, points=400):
    """The integral over times by Gauss and Legendre, all states summed."""
    node, weight = (torch.tensor(values) for values in np.polynomial.legendre.leggauss(points))
    v, weight = (node + 1) / 2, weight / 2
    t, weight = v**3, weight * 3 * v**2   # the integrand grows as log t towards 0
    x, times = at_all(prior, t)
    image = torch.tensor([x_0]).expand(len(x), -1)
    nats = level_nats(prior.predict(x, times), prior.noise, image, x, times).view(len(t), -1)
    rate = (chances(prior.noise, x_0, t) * nats).sum(1) * prior.noise.slope(t)
    return float((weight * rate).sum()) + start_nats(prior.noise, x_0)


def bound_of_steps(prior, x_0, steps):
    """The discrete bound of the prior's chain of so many steps, all states summed."""
    denoise, corruption = prior.chain(steps)
    x, i = at_all(prior, torch.arange(1, steps + 1))
    image = torch.tensor([x_0]).expand(len(x), -1)
    log_p = corruption.log_posterior(denoise(x, i).log_softmax(-1), x, s=i - 1, t=i)
    log_q = corruption.log_true_posterior(image, x, s=i - 1, t=i, dtype=torch.float64)
    nats = kl_divergence(log_q, log_p).sum(-1).view(steps, -1)
    t = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    return float((chances(prior.noise, x_0, t) * nats).sum()) + start_nats(prior.noise, x_0)


def law_of_steps(prior, steps):
    """(27,) p(x_0) of the ancestral sampler of so many steps."""
    denoise, corruption = prior.chain(steps)
    x, i = at_all(prior, torch.arange(1, steps + 1))
    log_p = corruption.log_posterior(denoise(x, i).log_softmax(-1), x, s=i - 1, t=i)[..., :K].view(steps, -1, N, K)
    law = torch.full((K**N,), K**-N, dtype=torch.float64)
    for step in range(steps - 1, -1, -1):
        rows = log_p[step].exp()   # (27, N, K)
        law = law @ torch.einsum("sa,sb,sc->sabc", *rows.unbind(1)).flatten(1)
    return law


@both_schedules
@pytest.mark.parametrize("x_0", IMAGES, ids=str)
def test_the_bound_is_the_limit_of_the_bound_of_many_steps(schedule, x_0):
    """That of T steps is off by c / T, which two of them extrapolate."""
    prior = make(schedule)
    few, many, limit = bound_of_steps(prior, x_0, 400), bound_of_steps(prior, x_0, 800), enumerated_bound(prior, x_0)
    assert abs(many - limit) < abs(few - limit) < 0.02 * limit
    assert 2 * many - few == pytest.approx(limit, rel=1e-4)


@both_schedules
def test_the_bound_lies_above_the_exact_likelihood_of_the_sampler_of_many_steps(schedule):
    prior = make(schedule)
    law = law_of_steps(prior, 400)
    assert float(law.sum()) == pytest.approx(1)
    for x_0, exact in zip(STATES.tolist(), (-law.log()).tolist(), strict=True):
        assert enumerated_bound(prior, x_0, points=100) > exact


@both_schedules
@pytest.mark.parametrize("budget", [1, 2, 9])
def test_the_likelihood_is_an_unbiased_estimate_of_the_integral(schedule, budget):
    prior, num = make(schedule), 20_000
    found = prior.nll(torch.tensor([IMAGES[1]]).expand(num, -1), draws=Draws.seeded(budget), budget=budget)
    assert found.kind == "bound_continuous" and found.network_evaluations == min(budget, 8)
    error = float(found.nats.std()) / math.sqrt(num)
    assert abs(float(found.nats.mean()) - enumerated_bound(prior, IMAGES[1])) < 4 * error
    if budget == 1:
        assert found.monte_carlo_variance.isnan().all()
    else:
        assert float(found.monte_carlo_variance.mean()) == pytest.approx(float(found.nats.var()), rel=0.15)


@both_schedules
def test_the_loss_is_the_bound_but_for_its_earliest_times(schedule):
    prior, batch = make(schedule), torch.tensor([IMAGES[1]]).expand(500, -1)
    losses = torch.stack([prior.training_loss(batch, draws=Draws.seeded(i)) for i in range(100)])
    bits = enumerated_bound(prior, IMAGES[1]) / (N * math.log(2))
    error = float(losses.std()) / math.sqrt(len(losses))
    assert abs(float(losses.mean()) - bits) < 4 * error + 0.01


def chi_square(tokens, law):
    counts = torch.bincount(tokens @ torch.tensor([K * K, K, 1]), minlength=len(law)).double()
    expected = counts.sum() * law
    return float(((counts - expected) ** 2 / expected).sum())


@both_schedules
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_samples_follow_the_enumerated_chain(schedule, steps):
    prior = make(schedule)
    sample = prior.sample(30_000, sampler=UniformSampler(steps=steps), draws=Draws.seeded(steps))
    assert (sample.network_evaluations == steps).all()
    assert chi_square(sample.tokens, law_of_steps(prior, steps)) < 54.1   # 26 degrees, p = .001


def test_a_perfect_network_is_what_the_others_say_and_its_bound_the_entropy():
    """x_theta = p(x_0 of a token | x_t of the others) makes the reverse process exact, whatever the data."""
    prior = make()
    data = torch.rand(K**N, generator=torch.Generator().manual_seed(1), dtype=torch.float64).square()
    data = data / data.sum()

    def perfect(x_t, t):
        level = prior.noise.level(t)[:, None, None]
        q = torch.where(STATES == x_t.unsqueeze(1), 1 - level + level / K, level / K)   # (B, 27, N)
        codes = torch.nn.functional.one_hot(STATES, K).double()   # (27, N, K)
        others = torch.stack([q[..., [j for j in range(N) if j != i]].prod(-1) for i in range(N)], -1)
        return torch.einsum("s,bsn,snk->bnk", data, others, codes).log()

    prior.predict = perfect
    bounds = torch.tensor([enumerated_bound(prior, x_0, points=60) for x_0 in STATES.tolist()])
    assert float((data * bounds).sum()) == pytest.approx(float(-(data * data.log()).sum()), abs=1e-4)


@both_schedules
def test_neither_end_of_time_blows_up(schedule):
    noise, t = Noise(schedule, K), torch.tensor([1.0, 1 - 1e-9, 1e-9], dtype=torch.float64)
    image = torch.tensor([IMAGES[1]]).expand(3, -1)
    for dtype in (torch.float32, torch.float64):
        logits = torch.randn(1, N, K, generator=torch.Generator().manual_seed(0)).to(dtype).expand(3, -1, -1)
        nats = level_nats(logits, noise, image, image, t)
        assert nats.isfinite().all() and (nats[:2].abs() < 1e-3).all()


@both_schedules
def test_a_level_has_its_time_and_its_slope(schedule):
    noise, t = Noise(schedule, K), torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    torch.testing.assert_close(noise.time(noise.level(t)), t)
    slope = (noise.level(t + 1e-6) - noise.level(t - 1e-6)) / 2e-6
    torch.testing.assert_close(noise.slope(t), slope, rtol=1e-6, atol=1e-6)
    ends = noise.level(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([0, 1 - LAST], abs=1e-15)
