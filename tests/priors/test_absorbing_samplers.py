"""Samplers of absorbing diffusion: equal under coupled draws, right in distribution, honest about cost."""

import itertools

import pytest
import torch
from scipy.stats import chisquare
from torch import nn

from priors.absorbing import AbsorbingDiffusion
from priors.base import UNKNOWN, Draws, Unsupported, inverse_cdf
from priors.options import AbsorbingOptions, AbsorbingSampler, AutoregressiveSampler
from priors.reference import naive_absorbing_sample
from priors.samplers import Adjust, by_events, plan_events
from priors.schedules import masked_counts

SAMPLERS = [
    AbsorbingSampler(),
    AbsorbingSampler(steps=3),
    AbsorbingSampler(steps=4, schedule="cosine"),
    AbsorbingSampler(steps=4, schedule="optimal"),
    AbsorbingSampler(steps=4, counts="exact", top_k=3),
    AbsorbingSampler(steps=4, order="halton", top_p=0.9),
    AbsorbingSampler(steps=4, order="confidence", temperature=0.8),
    AbsorbingSampler(steps=5, method="remask"),
    AbsorbingSampler(steps=5, method="remdm", remasking="rescale", remasking_strength=0.5, temperature=0.9),
    AbsorbingSampler(steps=5, method="remdm", remasking="confidence", schedule="cosine"),
    AbsorbingSampler(steps=3, method="predictor_corrector", corrector_steps=2, top_p=0.9),
]


def make_prior(grid=(3, 4), codebook_size=5):
    torch.manual_seed(0)
    options = AbsorbingOptions(width=16, num_layers=2, num_heads=2)
    prior = AbsorbingDiffusion(grid=grid, codebook_size=codebook_size, options=options).eval()
    for parameter in prior.parameters():
        nn.init.normal_(parameter, std=0.3)
    prior.nats_by_masked.copy_(torch.linspace(0, 2, prior.num_tokens + 1).sqrt())
    return prior.requires_grad_(False)


class RecordingDraws(Draws):
    """Keeps every uniform it hands out."""

    def uniform(self, *shape):
        value = super().uniform(*shape)
        self.log = [*getattr(self, "log", []), value]
        return value


@pytest.mark.parametrize("steps", [1, 4, 12, 40])
def test_the_event_sampler_equals_the_plain_loop_token_by_token(steps):
    prior, draws = make_prior(), RecordingDraws.seeded("loop", steps)
    empty = torch.full((6, 12), UNKNOWN)
    plain = naive_absorbing_sample(prior.logits, empty, mask=5, steps=steps, adjust=Adjust(0.9), draws=draws)
    times, values = torch.stack(draws.log[0::2]), torch.stack(draws.log[1::2])   # (T', B, N) each
    first = (times < 1 / torch.arange(steps, 0, -1).view(-1, 1, 1)).int().argmax(0)   # (B, N)
    uniforms = values.gather(0, first.unsqueeze(0))[0]
    events = by_events(prior.logits_at, empty, steps - first, uniforms, mask=5, adjust=Adjust(0.9))
    assert torch.equal(events.tokens, plain)


def distribution(table, timesteps):
    """Probability of each of the 27 images under the T-step sampler of a tabular denoiser."""
    images = torch.tensor(list(itertools.product(range(3), repeat=3)))
    total = torch.zeros(27, dtype=torch.float64)
    for steps in itertools.product(range(1, timesteps + 1), repeat=3):
        steps, probability = torch.tensor(steps), torch.full((27,), timesteps**-3.0, dtype=torch.float64)
        for t in steps.unique():
            p = table(images.masked_fill(steps <= t, 3)).double().softmax(-1)
            chosen = p.gather(-1, images.unsqueeze(-1)).squeeze(-1)
            probability *= chosen[:, steps == t].prod(1)
        total += probability
    return total


@pytest.mark.parametrize("sampler", [AbsorbingSampler(steps=2), AbsorbingSampler(steps=2, method="loop"),
                                     AbsorbingSampler(steps=5)])
def test_sampled_frequencies_match_the_enumerated_distribution(sampler):
    prior = make_prior(grid=(1, 3), codebook_size=3)
    tokens = prior.sample(8_000, sampler=sampler, draws=Draws.seeded(5)).tokens
    counts = torch.bincount((tokens * torch.tensor([9, 3, 1])).sum(1), minlength=27)
    expected = distribution(prior.logits, sampler.steps)
    assert expected.sum() == pytest.approx(1)
    assert chisquare(counts, expected / expected.sum() * 8_000).pvalue > 0.001


def test_a_table_of_probabilities_samples_as_well_as_a_network():
    table = torch.tensor([0.5, 0.3, 0.2]).log()
    empty = torch.full((5_000, 4), UNKNOWN)
    draws = Draws.seeded(0)
    reveal = draws.integers(1, 5, 5_000, 4)
    sample = by_events(
        lambda tokens, at: table.expand(*at.shape, 3), empty, reveal, draws.uniform(5_000, 4), mask=3, adjust=Adjust()
    )
    counts = torch.bincount(sample.tokens.flatten(), minlength=3)
    assert chisquare(counts, torch.tensor([0.5, 0.3, 0.2]).double() * 20_000).pvalue > 0.001


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_tokens_are_codes_and_never_the_mask(sampler):
    tokens = make_prior().sample(7, sampler=sampler, draws=Draws.seeded(0)).tokens
    assert tokens.shape == (7, 12) and tokens.dtype == torch.int64 and tokens.min() >= 0 and tokens.max() < 5


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_the_same_draws_give_the_same_sample(sampler):
    one, other = (make_prior().sample(4, sampler=sampler, draws=Draws.seeded(9)).tokens for _ in range(2))
    assert torch.equal(one, other)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_known_tokens_are_kept_and_the_rest_is_filled(sampler):
    known = torch.full((4, 12), UNKNOWN)
    known[0, 3], known[1], known[2, ::2] = 1, 2, 4
    tokens = make_prior().sample(4, sampler=sampler, known=known, draws=Draws.seeded(0)).tokens
    assert torch.equal(tokens[known != UNKNOWN], known[known != UNKNOWN]) and tokens.min() >= 0 and tokens.max() < 5


@pytest.mark.parametrize("sampler", [s for s in SAMPLERS if s.method != "remask"], ids=str)
def test_reported_evaluations_are_those_the_network_saw(sampler):
    prior, seen = make_prior(), []
    prior.net.register_forward_hook(lambda net, args, output: seen.append(len(args[0])))
    sample = prior.sample(6, sampler=sampler, draws=Draws.seeded(0))
    assert int(sample.network_evaluations.sum()) == sum(seen)
    assert torch.equal(sample.token_forwards, sample.network_evaluations * 12)


def test_the_expected_number_of_evaluations_is_that_of_distinct_reveal_steps():
    sample = make_prior().sample(3_000, sampler=AbsorbingSampler(), draws=Draws.seeded(0))
    assert float(sample.network_evaluations.double().mean()) == pytest.approx(12 * (1 - (1 - 1 / 12) ** 12), rel=0.02)


def test_every_call_but_the_last_ones_holds_all_images():
    reveal = Draws.seeded(0).integers(1, 65, 16, 64)
    events = list(plan_events(reveal, torch.ones(16, 64, dtype=torch.bool)))
    assert len(events) == max(len(row.unique()) for row in reveal)
    assert all(event.images is None for event in events[:30])


def test_a_fully_known_image_costs_nothing():
    known = torch.zeros(2, 12, dtype=torch.int64)
    sample = make_prior().sample(2, sampler=AbsorbingSampler(), known=known, draws=Draws.seeded(0))
    assert torch.equal(sample.tokens, known) and sample.network_evaluations.tolist() == [0, 0]


@pytest.mark.parametrize("unknown", [4, 9])
def test_a_partly_known_image_enters_the_loop_part_way(unknown):
    """As in the paper's inpainting, t starts at the number of masked tokens, so a step reveals one on average."""
    known = torch.zeros(2_000, 12, dtype=torch.int64)
    known[:, :unknown] = UNKNOWN
    evaluations = make_prior().sample(2_000, sampler=AbsorbingSampler(), known=known, draws=Draws.seeded(0))
    expected = unknown * (1 - (1 - 1 / unknown) ** unknown)
    assert float(evaluations.network_evaluations.double().mean()) == pytest.approx(expected, rel=0.03)


def test_exact_counts_take_exactly_the_steps_asked_for():
    sample = make_prior().sample(5, sampler=AbsorbingSampler(steps=4, counts="exact"), draws=Draws.seeded(0))
    assert sample.network_evaluations.tolist() == [4] * 5


def test_confidence_order_without_noise_reveals_the_likeliest_token_first():
    """Two positions of a table: the sure one is filled first, and the other one then sees it."""
    from priors.samplers import by_confidence

    def predict(tokens, at):
        sure = torch.tensor([0.0, 9.0, 0.0])
        unsure = torch.where((tokens == 1).any(1, keepdim=True), torch.tensor([0.0, 0.0, 8.0]), torch.zeros(3))
        return torch.where((at == 1).unsqueeze(-1), sure, unsure.unsqueeze(1))

    empty = torch.full((50, 2), UNKNOWN)
    sample = by_confidence(
        predict, empty, torch.tensor([2, 1, 0]).expand(50, -1), torch.full((50,), 2), mask=3, adjust=Adjust(top_k=1),
        noise=0.0, draws=Draws.seeded(0),
    )
    assert sample.tokens.tolist() == [[2, 1]] * 50


@pytest.mark.parametrize("schedule", ["even", "cosine"])
def test_confidence_order_equals_maskgits_published_loop(schedule):
    """One image at a time, noise times (1 - step / steps), with the uniforms that the sampler drew."""
    prior, draws, steps, num, noise = make_prior(), RecordingDraws.seeded("maskgit"), 5, 8, 4.5
    sampler = AbsorbingSampler(steps=steps, order="confidence", schedule=schedule)
    tokens = prior.sample(num, sampler=sampler, draws=draws).tokens
    counts = masked_counts(schedule, 12, steps).tolist()
    for image in range(num):
        state = torch.full((12,), 5)
        for step in range(1, steps + 1):
            uniforms, gumbels = (draws.log[2 * (step - 1) + i][image] for i in (0, 1))
            logits = prior.logits(state.unsqueeze(0))[0]
            values = inverse_cdf(logits, uniforms)
            sure = logits.log_softmax(-1).gather(1, values.unsqueeze(1))[:, 0]
            sure = sure + noise * (1 - step / steps) * -(-gumbels.log()).log()
            kept = sure.masked_fill(state != 5, -torch.inf).topk(counts[step - 1] - counts[step]).indices
            state[kept] = values[kept]
        assert torch.equal(state, tokens[image])


def test_top_k_one_is_greedy_whatever_the_draws():
    prior = make_prior(grid=(1, 3), codebook_size=3)
    known = torch.tensor([[UNKNOWN, 1, 2]]).repeat(40, 1)
    tokens = prior.sample(40, sampler=AbsorbingSampler(top_k=1), known=known, draws=Draws.seeded(0)).tokens
    assert torch.equal(tokens[:, 0], prior.logits(known)[:, 0].argmax(-1))


def test_top_p_keeps_the_smallest_set_that_holds_the_probability():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert Adjust(top_p=0.7)(logits).isfinite().tolist() == [True, True, False, False]
    assert Adjust(top_p=0.85)(logits).isfinite().tolist() == [True, True, True, False]


def test_the_optimal_schedule_needs_calibration():
    prior = make_prior()
    prior.nats_by_masked.fill_(torch.nan)
    with pytest.raises(Unsupported, match="calibrate"):
        prior.sample(1, sampler=AbsorbingSampler(schedule="optimal", steps=3), draws=Draws.seeded(0))


def test_the_sampler_of_another_prior_is_refused():
    with pytest.raises(TypeError, match="expected a AbsorbingSampler"):
        make_prior().sample(1, sampler=AutoregressiveSampler(), draws=Draws.seeded(0))
