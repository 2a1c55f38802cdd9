"""VQ-Diffusion's contract: options, importance-sampled times, cost of sampling, known tokens."""

import math

import pytest
import torch

from priors.base import UNKNOWN, Draws, Unsupported
from priors.denoising import SampledTime
from priors.transition_options import VQDiffusionOptions, VQDiffusionSampler
from priors.vq_diffusion import VQDiffusion

TINY = dict(width=8, num_layers=1, num_heads=1)


def make(grid=(2, 3), codebook_size=5, **options):
    torch.manual_seed(0)
    return VQDiffusion(grid=grid, codebook_size=codebook_size, options=VQDiffusionOptions(**TINY, **options))


def tokens(num=8, seed=0):
    return torch.randint(0, 5, (num, 6), generator=torch.Generator().manual_seed(seed))


def sample(prior, num=50, known=None, seed=0, **sampler):
    return prior.eval().sample(num, sampler=VQDiffusionSampler(**sampler), known=known, draws=Draws.seeded(seed))


@pytest.mark.parametrize("sampler", [{}, {"steps": 7}, {"steps": 1}, {"method": "purity", "steps": 3},
                                     {"top_p": 0.8, "temperature": 0.7}], ids=str)
def test_sampling_never_emits_the_mask_token(sampler):
    drawn = sample(make(timesteps=20), num=500, **sampler).tokens
    assert drawn.shape == (500, 6) and drawn.min() >= 0 and drawn.max() < 5


def test_a_step_asked_for_is_one_network_evaluation_of_every_token():
    drawn = sample(make(), steps=25)
    assert (drawn.network_evaluations == 25).all() and (drawn.token_forwards == 25 * 6).all()


def test_all_timesteps_are_visited_without_steps():
    assert (sample(make(timesteps=12)).network_evaluations == 12).all()


def test_purity_sampling_costs_at_most_one_evaluation_a_token():
    assert (sample(make(), method="purity").network_evaluations <= 6).all()


@pytest.mark.parametrize("method", ["posterior", "purity"])
def test_known_tokens_come_back_unchanged(method):
    known = torch.where(torch.rand(50, 6, generator=torch.Generator().manual_seed(1)) < 0.5, UNKNOWN, tokens(50))
    drawn = sample(make(), known=known, method=method, steps=9).tokens
    assert (drawn[known != UNKNOWN] == known[known != UNKNOWN]).all() and (drawn >= 0).all()


def test_a_fully_known_image_costs_nothing():
    drawn = sample(make(), num=8, known=tokens())
    assert (drawn.tokens == tokens()).all() and (drawn.network_evaluations == 0).all()


def test_more_steps_than_timesteps_are_refused_with_the_way_out():
    with pytest.raises(Unsupported, match="at most the 20 timesteps"):
        sample(make(timesteps=20), steps=21)


def test_a_token_outside_the_codebook_has_no_likelihood():
    with pytest.raises(ValueError, match=r"expected \[0, 5\)"):
        make().nll(torch.full((1, 6), 5), draws=Draws.seeded(0))


@pytest.mark.parametrize(("budget", "spent"), [(None, 20), (1, 1), (7, 6), (39, 38), (40, 40), (70, 60)])
def test_the_bound_stays_within_its_budget(budget, spent):
    bound = make(timesteps=20).nll(tokens(), draws=Draws.seeded(0), budget=budget)
    assert bound.network_evaluations == spent and bound.kind == "bound_T" and bound.nats.dtype == torch.float64


def test_a_bound_of_one_evaluation_says_that_its_variance_is_unknown():
    assert make().nll(tokens(), draws=Draws.seeded(0), budget=1).monte_carlo_variance.isnan().all()


def test_without_the_auxiliary_term_the_training_loss_estimates_the_bound_in_bits_per_token():
    prior = make(auxiliary_weight=0.0, timesteps=10).eval()
    x_0 = tokens(1)
    bound = prior.nll(x_0.expand(500, -1), draws=Draws.seeded(1)).nats.mean()
    start = 6 * prior.corruption.start_kl()   # has nothing to train
    with torch.no_grad():
        losses = torch.stack([prior.training_loss(x_0.expand(500, -1), draws=Draws.seeded(2, i)) for i in range(40)])
    error = float(losses.std()) / math.sqrt(40)
    assert abs(float(losses.mean()) - float(bound - start) / (6 * math.log(2))) < 4 * error + 0.02


def test_the_auxiliary_term_is_weighted_cross_entropy():
    without, with_it = (make(auxiliary_weight=w, adaptive_auxiliary=False, timesteps=2) for w in (0.0, 0.5))
    loss = [float(prior.training_loss(tokens(), draws=Draws.seeded(0)).detach()) for prior in (without, with_it)]
    cross_entropy_bits = (loss[1] - loss[0]) / 0.5 / 2   # the weight, and 1 / p(t) = 2
    assert cross_entropy_bits == pytest.approx(math.log2(5), abs=0.2)   # an untrained network knows nothing


def test_training_lowers_the_bound():
    prior, data = make(timesteps=10), tokens(2).repeat(16, 1)
    optimizer = torch.optim.Adam(prior.parameters(), lr=3e-2)
    before = prior.nll(data, draws=Draws.seeded(0)).nats.mean()
    for step in range(60):
        optimizer.zero_grad()
        prior.training_loss(data, draws=Draws.seeded("step", step)).backward()
        optimizer.step()
    assert prior.nll(data, draws=Draws.seeded(0)).nats.mean() < 0.5 * before


def test_times_are_uniform_until_each_was_seen_more_than_ten_times():
    time = SampledTime(4, importance=True)
    nats = torch.tensor([8.0, 4.0, 2.0, 1.0])
    for _ in range(10):
        time.record(torch.arange(1, 5), nats)
    torch.testing.assert_close(time.probabilities(), torch.full((4,), 0.25, dtype=torch.float64))
    time.record(torch.arange(1, 5), nats)
    expected = 0.9 * nats.double() / nats.sum() + 0.1 / 4
    torch.testing.assert_close(time.probabilities(), expected, rtol=1e-3, atol=0)


def test_several_terms_of_one_time_count_as_their_mean():
    one, several = SampledTime(3, importance=True), SampledTime(3, importance=True)
    one.record(torch.tensor([2]), torch.tensor([math.sqrt(5.0)]))
    several.record(torch.tensor([2, 2]), torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(several.mean_square, one.mean_square)


def test_drawn_times_follow_their_probabilities():
    time = SampledTime(3, importance=True)
    time.mean_square.copy_(torch.tensor([9.0, 1.0, 0.0]))
    time.times_seen.fill_(11)
    t, probability = time.draw(20_000, draws=Draws.seeded(0))
    frequencies = torch.bincount(t, minlength=4)[1:] / 20_000
    torch.testing.assert_close(frequencies.double(), time.probabilities(), rtol=0, atol=0.02)
    torch.testing.assert_close(probability, time.probabilities()[t - 1])


def test_resuming_from_a_checkpoint_goes_on_with_the_same_losses():
    prior = make(timesteps=3)
    for step in range(30):
        prior.training_loss(tokens(), draws=Draws.seeded("step", step))
    resumed = make(timesteps=3)
    resumed.load_state_dict(prior.state_dict())
    assert (prior.time.probabilities() != 1 / 3).any()
    for step in range(30, 33):
        expected = prior.training_loss(tokens(), draws=Draws.seeded("step", step))
        assert torch.equal(resumed.training_loss(tokens(), draws=Draws.seeded("step", step)), expected)


def test_validation_does_not_touch_the_estimates_behind_the_times():
    prior = make().eval()
    prior.training_loss(tokens(), draws=Draws.seeded(0))
    assert prior.time.times_seen.sum() == 0


def test_logits_take_the_time_that_matches_the_share_of_masks():
    prior = make()
    x = tokens(4)
    x[0], x[1, :3], x[2, 0] = UNKNOWN, UNKNOWN, UNKNOWN
    assert prior.matching_time(x == UNKNOWN).tolist() == [100, 51, 18, 0]
    torch.testing.assert_close(prior.logits(x)[0], prior.denoise(torch.full((1, 6), 5), torch.tensor([100]))[0])


@pytest.mark.parametrize("wrong", [{"timesteps": 1}, {"final_mask": 1.0}, {"auxiliary_weight": -1.0},
                                   {"importance_sampling": 1}], ids=str)
def test_a_wrong_option_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        VQDiffusionOptions(**wrong)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"top_p": 0.0}, {"method": "puritty"}, {"purity_weight": 1.0}],
                         ids=str)
def test_a_wrong_sampler_option_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        VQDiffusionSampler(**wrong)
