"""Guidance: l_u + s (l_c - l_u) of every prior, equal in all its fast paths, its evaluations counted."""

import itertools
from functools import partial

import pytest
import torch
from scipy.stats import chisquare
from torch import nn

from priors.absorbing import AbsorbingDiffusion, given_share
from priors.any_order import AnyOrder
from priors.autoregressive import Autoregressive
from priors.base import UNKNOWN, Draws, Sample, Unsupported
from priors.canvas import CanvasSampler, mixture, sample_canvas, strided_windows
from priors.conditions import NO_LABEL, Condition
from priors.guidance import Guidance, Predictor, combine, guided
from priors.options import (
    AbsorbingOptions,
    AbsorbingSampler,
    AnyOrderOptions,
    AnyOrderSampler,
    AutoregressiveOptions,
    AutoregressiveSampler,
    UnigramOptions,
    UnigramSampler,
)
from priors.reference import naive_absorbing_sample, naive_autoregressive_sample, textbook_logits
from priors.samplers import Adjust, by_events
from priors.transition_options import UniformOptions, UniformSampler, VQDiffusionOptions, VQDiffusionSampler
from priors.uniform import UniformDiffusion
from priors.unigram import Unigram
from priors.vq_diffusion import VQDiffusion

CLOSE = dict(rtol=1e-5, atol=1e-5)
LABELS = Condition(labels=torch.tensor([0, 1, 2, 0, NO_LABEL, 1]))
CASES = {
    "any_order": (AnyOrder, AnyOrderOptions(width=16, num_layers=2, num_heads=2, num_labels=3), AnyOrderSampler),
    "autoregressive": (Autoregressive, AutoregressiveOptions(
        width=16, num_layers=2, num_heads=2, num_labels=3), AutoregressiveSampler),
    "absorbing": (AbsorbingDiffusion, AbsorbingOptions(
        width=16, num_layers=2, num_heads=2, num_labels=3), AbsorbingSampler),
    "vq_diffusion": (VQDiffusion, VQDiffusionOptions(
        width=16, num_layers=2, num_heads=2, num_labels=3, timesteps=8), VQDiffusionSampler),
    "uniform": (UniformDiffusion, UniformOptions(
        width=16, num_layers=2, num_heads=2, num_labels=3, timesteps=8), UniformSampler),
    "udlm": (UniformDiffusion, UniformOptions(
        width=16, num_layers=2, num_heads=2, num_labels=3, form="udlm"), UniformSampler),
    "perturbation": (UniformDiffusion, UniformOptions(
        width=16, num_layers=2, num_heads=2, num_labels=3, form="perturbation"), UniformSampler),
    "unigram": (Unigram, UnigramOptions(num_labels=3), UnigramSampler),
}
every_prior = pytest.mark.parametrize("name", CASES)
with_schedule = pytest.mark.parametrize("name", [name for name in CASES if name not in ("perturbation", "unigram")])


def make(name, grid=(2, 3), codebook_size=5):
    cls, options, sampler = CASES[name]
    torch.manual_seed(0)
    prior = cls(grid=grid, codebook_size=codebook_size, options=options).eval()
    for place, parameter in prior.named_parameters():   # so that the condition matters, and no code is certain
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.5 if "head" in place else 0.1 if "time" in place else 1.0)
    if name == "unigram":
        codes = torch.arange(6 * 6).view(6, 6) % 5 * (torch.arange(6).view(6, 1) % 3) % 5
        prior.fit([codes], [LABELS])
    return prior.requires_grad_(False), sampler


def draw(prior, sampler, condition=LABELS, known=None, seed=0):
    return prior.sample(6, sampler=sampler, condition=condition, known=known, draws=Draws.seeded("guidance", seed))


def test_logits_are_combined_as_written():
    c, u = torch.randn(2, 4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p = c.softmax(-1) ** 3 * u.softmax(-1) ** -2
    torch.testing.assert_close(combine(c, u, 3.0).exp(), p / p.sum(-1, keepdim=True))
    torch.testing.assert_close(combine(c, u, 1.0).exp(), c.softmax(-1))
    torch.testing.assert_close(combine(c, u, 0.0).exp(), u.softmax(-1))
    scales = torch.tensor([0.0, 1.0, 2.5, 3.0], dtype=torch.float64)
    rows = torch.stack([combine(c[i], u[i], float(scales[i])) for i in range(4)])
    torch.testing.assert_close(combine(c, u, scales), rows)


def test_what_is_impossible_stays_impossible():
    impossible = torch.tensor([[0.0, -torch.inf, 1.0]])
    for pair in ((impossible, torch.zeros(1, 3)), (torch.zeros(1, 3), impossible), (impossible, impossible)):
        assert combine(*pair, 3.0).exp()[0, 1] == 0 and combine(*pair, 3.0).exp().sum() == pytest.approx(1)


@every_prior
def test_guidance_of_one_is_the_conditional_model_token_by_token(name):
    prior, sampler = make(name)
    plain, one = draw(prior, sampler()), draw(prior, sampler(guidance=1.0))
    assert torch.equal(plain.tokens, one.tokens) and torch.equal(plain.token_forwards, one.token_forwards)
    assert not torch.equal(plain.tokens, draw(prior, sampler(), LABELS.null()).tokens)


@every_prior
def test_guidance_that_comes_close_to_one_draws_the_same_tokens_from_both_models(name):
    """The combination itself, not the way around it."""
    prior, sampler = make(name)
    plain, near = draw(prior, sampler()), draw(prior, sampler(guidance=1 + 1e-7))
    assert torch.equal(plain.tokens, near.tokens) and torch.equal(2 * plain.token_forwards, near.token_forwards)


@every_prior
def test_no_guidance_is_the_unconditional_model_token_by_token(name):
    prior, sampler = make(name)
    without = draw(prior, sampler(), None)
    assert torch.equal(draw(prior, sampler(guidance=0.0)).tokens, without.tokens)
    assert torch.equal(draw(prior, sampler(guidance=1e-7)).tokens, without.tokens)


@every_prior
def test_an_image_without_a_label_is_not_moved_by_guidance(name):
    prior, sampler = make(name)
    assert torch.equal(draw(prior, sampler(guidance=4.0)).tokens[4], draw(prior, sampler()).tokens[4])


@every_prior
def test_both_evaluations_are_counted_and_so_are_the_positions_of_the_condition(name):
    prior, sampler = make(name)
    plain, twice = draw(prior, sampler()), draw(prior, sampler(guidance=3.0))
    if name == "absorbing":   # the number of events is drawn, and the draws are the same
        assert (plain.token_forwards == 7 * plain.network_evaluations).all()
    assert torch.equal(twice.network_evaluations, 2 * plain.network_evaluations)
    assert torch.equal(twice.token_forwards, 2 * plain.token_forwards)


def test_a_cached_condition_is_counted_once_and_an_uncached_one_every_time():
    prior, sampler = make("autoregressive")
    assert draw(prior, sampler()).token_forwards.unique().tolist() == [7]
    assert draw(prior, sampler(cache=False)).token_forwards.unique().tolist() == [2 + 3 + 4 + 5 + 6 + 7]
    assert draw(prior, sampler(cache=False, guidance=2.0)).token_forwards.unique().tolist() == [54]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_guided_cached_sampling_equals_uncached_and_the_naive_loop(schedule):
    prior, sampler = make("autoregressive")
    options = dict(guidance=2.5, guidance_schedule=schedule, temperature=0.9)
    cached, uncached = (draw(prior, sampler(cache=cache, **options)).tokens for cache in (True, False))
    assert torch.equal(cached, uncached)

    def slow(tokens):
        p = (tokens.shape[1] - 1) / 6
        share = {"constant": 1, "linear": p, "cosine": (1 - torch.cos(torch.tensor(torch.pi * p))) / 2}[schedule]
        c, u = (textbook_logits(prior.net, tokens, given) for given in (LABELS, None))
        return u + (1 + 1.5 * share) * (c - u)

    draws = Draws.seeded("guidance", 0)
    assert torch.equal(cached, naive_autoregressive_sample(slow, 6, 6, adjust=Adjust(0.9), draws=draws))


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("order", ["raster", "halton", "random"])
def test_guided_cached_sampling_in_any_order_equals_uncached(schedule, order):
    prior, sampler = make("any_order")
    known = torch.full((6, 6), UNKNOWN)
    known[:, 4] = torch.arange(6) % 5
    known[:2, 1] = 3
    options = dict(guidance=6.0, guidance_schedule=schedule, order=order)
    cached, uncached = (draw(prior, sampler(cache=cache, **options), known=known) for cache in (True, False))
    assert torch.equal(cached.tokens, uncached.tokens)
    assert not torch.equal(cached.tokens, draw(prior, sampler(order=order), known=known).tokens)
    assert cached.network_evaluations.unique().tolist() == [10] and cached.token_forwards.unique().tolist() == [14]


class RecordingDraws(Draws):
    def uniform(self, *shape):
        self.log = [*getattr(self, "log", []), super().uniform(*shape)]
        return self.log[-1]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("steps", [3, 6, 20])
def test_the_guided_event_sampler_equals_the_plain_loop_token_by_token(steps, schedule):
    prior, _ = make("absorbing")
    draws, empty = RecordingDraws.seeded("loop", steps), torch.full((6, 6), UNKNOWN)

    def slow(tokens):
        p = (tokens != 5).float().mean(1).view(-1, 1, 1)
        share = {"constant": torch.ones_like(p), "linear": p, "cosine": (1 - torch.cos(torch.pi * p)) / 2}[schedule]
        c, u = (textbook_logits(prior.net, tokens, given) for given in (LABELS, None))
        return u + (1 + 1.5 * share) * (c - u)

    plain = naive_absorbing_sample(slow, empty, mask=5, steps=steps, adjust=Adjust(0.9), draws=draws)
    times, values = torch.stack(draws.log[0::2]), torch.stack(draws.log[1::2])
    first = (times < 1 / torch.arange(steps, 0, -1).view(-1, 1, 1)).int().argmax(0)
    share = partial(given_share, mask=prior.mask)
    predict = guided(prior.logits_at, LABELS, Guidance(2.5, schedule), progress=share, num_prefix=1)
    uniforms = values.gather(0, first.unsqueeze(0))[0]
    events = by_events(predict, empty, steps - first, uniforms, mask=5, adjust=Adjust(0.9))
    assert torch.equal(events.tokens, plain)


@pytest.mark.parametrize("sampler", [
    AbsorbingSampler(steps=4), AbsorbingSampler(steps=4, order="confidence"), AbsorbingSampler(steps=4, order="halton"),
    AbsorbingSampler(steps=4, method="loop"), AbsorbingSampler(steps=4, method="remask")], ids=str)
def test_guidance_changes_what_tokens_become_and_never_when(sampler):
    """The mask's mass at every step is that of no guidance: as many evaluations, no mask left."""
    prior, _ = make("absorbing")
    strong = type(sampler)(**{**vars(sampler), "guidance": 5.0})
    plain, guided_ = draw(prior, sampler), draw(prior, strong)
    assert torch.equal(guided_.network_evaluations, 2 * plain.network_evaluations) or sampler.order == "confidence"
    assert guided_.tokens.min() >= 0 and guided_.tokens.max() < 5 and not torch.equal(guided_.tokens, plain.tokens)


def test_guiding_x_0_leaves_the_masks_of_vq_diffusion_alone():
    prior, _ = make("vq_diffusion")
    x_t, t = torch.full((6, 6), 5), torch.full((6,), 6)
    predict = guided(prior.denoise, LABELS, Guidance(4.0))
    masses = [prior.corruption.log_posterior(logits.log_softmax(-1), x_t, s=t - 2, t=t)[..., 5].exp()
              for logits in (predict(x_t, t), prior.denoise(x_t, t))]
    torch.testing.assert_close(*masses)


@every_prior
def test_a_class_and_known_tokens_together(name):
    prior, sampler = make(name)
    known = torch.full((6, 6), UNKNOWN)
    known[:, :2] = torch.arange(12).view(6, 2) % 5
    known[3:, 1] = UNKNOWN   # so that images end at different steps
    if name in ("uniform", "udlm"):
        with pytest.raises(Unsupported, match="cannot keep known tokens"):
            draw(prior, sampler(guidance=2.0), known=known)
        return
    sample = draw(prior, sampler(guidance=2.0), known=known)
    assert torch.equal(sample.tokens[known != UNKNOWN], known[known != UNKNOWN])
    assert not torch.equal(sample.tokens, draw(prior, sampler(), None, known=known).tokens)


@pytest.mark.parametrize("name", ["absorbing", "any_order", "autoregressive"])
def test_what_is_filled_in_has_the_guided_distribution_given_class_and_known_tokens(name):
    prior, sampler = make(name, grid=(1, 3), codebook_size=3)
    known = torch.tensor([[2, 0, UNKNOWN]]).repeat(4_000, 1)
    labels = Condition(labels=torch.arange(4_000) % 3)
    sampler = sampler(guidance=2.0)
    tokens = prior.sample(4_000, sampler=sampler, condition=labels, known=known, draws=Draws.seeded(0)).tokens
    seen = torch.tensor([[2, 0, 3 if name == "absorbing" else 0]])
    for label in range(3):
        one = Condition(labels=torch.tensor([label]))
        expected = combine(prior.logits(seen, condition=one), prior.logits(seen), 2.0)[0, 2].double().softmax(-1)
        counts = torch.bincount(tokens[label::3, 2], minlength=3)
        assert chisquare(counts, expected * counts.sum()).pvalue > 1e-3


@with_schedule
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_schedule_starts_at_the_conditional_model(name, schedule):
    guidance = Guidance(3.0, schedule)
    assert guidance.at(torch.tensor([0.0, 1.0])).tolist() == pytest.approx([1.0, 3.0])
    assert (guidance.at(torch.linspace(0, 1, 9)).diff() > 0).all()
    prior, sampler = make(name)
    tokens = draw(prior, sampler(guidance=3.0, guidance_schedule=schedule)).tokens
    assert tokens.min() >= 0 and tokens.max() < 5


def test_a_sampler_that_cannot_tell_how_far_it_is_refuses_a_schedule():
    prior, sampler = make("perturbation")
    with pytest.raises(Unsupported, match="no notion of progress"):
        draw(prior, sampler(guidance=2.0, guidance_schedule="linear"))
    with pytest.raises(Unsupported, match="has no posterior"):
        draw(prior, sampler(guidance=2.0, guidance_of="posterior"))


@every_prior
def test_guidance_without_a_condition_is_unsupported(name):
    prior, sampler = make(name)
    with pytest.raises(Unsupported, match="nothing to guide towards"):
        draw(prior, sampler(guidance=2.0), None)


def uniform_step(prior, form, label, s, t):
    """p(x_s | x_t) of the guided chain on three tokens of three codes, enumerated from its definition: (27, 27)."""
    states = torch.tensor(list(itertools.product(range(3), repeat=3)))
    times = torch.full((27,), t)
    given = Condition(labels=torch.full((27,), label))
    denoise, corruption = prior.chain(2)   # of d3pm the one there is
    logs = [denoise(states, times, condition=c).double().log_softmax(-1) for c in (given, None)]
    if form == "x_0":
        logs = [(logs[1] + 2.5 * (logs[0] - logs[1])).log_softmax(-1)]
    keep, total = (corruption.keep_bar[i] for i in (s, t))
    one = torch.eye(3, dtype=torch.float64)
    before, step, whole = (a * one + (1 - a) / 3 for a in (keep, total / keep, total))   # K x K, by name
    # q(x_s | x_t, x_0) as (x_t, x_0, x_s)
    posterior = before.unsqueeze(0) * step.T.unsqueeze(1) / whole.T.unsqueeze(-1)
    steps = [torch.einsum("sno,snox->snx", log.exp(), posterior[states]) for log in logs]   # (27, N, 3)
    if form == "posterior":
        product = steps[0] ** 2.5 * steps[1] ** -1.5
        steps = [product / product.sum(-1, keepdim=True)]
    return torch.einsum("sa,sb,sc->sabc", *steps[0].unbind(1)).flatten(1)


@pytest.mark.parametrize(("name", "times"), [("uniform", (8, 4)), ("udlm", (2, 1))])
@pytest.mark.parametrize("form", ["posterior", "x_0"])
def test_guided_uniform_diffusion_is_the_enumerated_product(form, name, times):
    """Of the step's posterior of both models, or of their x_0; times are those at which two steps begin."""
    prior, _ = make(name, grid=(1, 3), codebook_size=3)
    sampler = UniformSampler(steps=2, guidance=2.5, guidance_of=form)
    expected = {}
    for label in range(2):
        p = torch.full((1, 27), 1 / 27, dtype=torch.float64)
        for t, s in zip(times, (times[1], 0), strict=True):
            p = p @ uniform_step(prior, form, label, s, t)
        expected[label] = p[0]
    labels = torch.arange(12_000) % 2
    sample = prior.sample(12_000, sampler=sampler, condition=Condition(labels=labels), draws=Draws.seeded(1))
    assert sample.network_evaluations.unique().tolist() == [4]
    codes = (sample.tokens * torch.tensor([9, 3, 1])).sum(1)
    for label, p in expected.items():
        counts = torch.bincount(codes[labels == label], minlength=27).double()
        assert chisquare(counts, p / p.sum() * counts.sum()).pvalue > 1e-3
    other = torch.stack([uniform_step(prior, f, 0, *times[::-1]) for f in ("posterior", "x_0")])
    assert (other[0] - other[1]).abs().max() > 0.01   # the two are different models


def test_a_guided_canvas_mixes_guided_windows_of_its_own_class():
    prior, _ = make("absorbing")
    labels = Condition(labels=torch.tensor([0, 1]))
    sampler, draws = CanvasSampler(guidance=2.0, guidance_schedule="linear"), Draws.seeded(0)
    windows = strided_windows((4, 5), (2, 3))
    sample = sample_canvas(prior, 2, windows=windows, sampler=sampler, condition=labels, draws=draws)
    assert sample.token_forwards.tolist() == (7 * sample.network_evaluations).tolist()
    state, cells = torch.full((2, 20), UNKNOWN), torch.tensor([7, 7])
    predict = guided(prior.logits_at, labels, Guidance(2.0))
    found, _ = mixture(predict, state, torch.tensor([0, 1]), cells, windows)
    empty = torch.full((1, 6), UNKNOWN)
    for label in range(2):
        one = combine(prior.logits(empty, condition=labels[torch.tensor([label])]), prior.logits(empty), 2.0)
        inside = windows.inside[7].nonzero().squeeze(1)   # the windows that hold cell 7
        expected = one[0, windows.position(cells[:1].expand(len(inside)), inside)].exp().mean(0).log()
        torch.testing.assert_close(found[label], expected, **CLOSE)


def test_a_predictor_that_was_not_told_which_images_refuses_instead_of_mixing_them_up():
    prior, _ = make("absorbing")
    predict = guided(prior.logits_at, LABELS, Guidance(2.0))
    tokens, at = torch.full((2, 6), 5), torch.zeros(2, 1, dtype=torch.int64)
    with pytest.raises(ValueError, match="a condition of 12 images for 4 images"):
        predict(tokens, at)
    some = predict.of(torch.tensor([1, 5]))
    torch.testing.assert_close(some(tokens, at)[0], some(tokens, at)[1])   # both of class 1


def test_counting_needs_no_network():
    sample = Sample(torch.zeros(2, 3, dtype=torch.int64), torch.tensor([4, 5]), torch.tensor([12, 15]))
    counted = Predictor(lambda: None, LABELS, Guidance(2.0), num_prefix=2).counted(sample)
    assert counted.network_evaluations.tolist() == [8, 10] and counted.token_forwards.tolist() == [40, 50]
