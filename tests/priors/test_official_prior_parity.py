"""The official implementation at a tiny size, reproduced: logits, losses, bound and samples under its draws."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from priors.absorbing import fixed_mask
from priors.base import UNKNOWN
from priors.checkpoints import load_official
from priors.options import AbsorbingSampler, AutoregressiveSampler
from priors.replay import ReplayedDraws
from priors.samplers import Adjust, by_events

SIZES = dict(width=48, num_layers=3, num_heads=4, grid=(8, 8), codebook_size=32)
TOLERANCE = dict(rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def record():
    tensors = load_file(Path(__file__).parent / "official_small_priors.safetensors")
    return {name: value if value.is_floating_point() else value.long() for name, value in tensors.items()}


def state_of(record, kind):
    prefix = f"{kind}.state."
    return {name.removeprefix(prefix): value for name, value in record.items() if name.startswith(prefix)}


@pytest.fixture
def absorbing(record):
    return load_official(state_of(record, "absorbing"), kind="absorbing", **SIZES)


@pytest.fixture
def autoregressive(record):
    return load_official(state_of(record, "autoregressive"), kind="autoregressive", **SIZES)


class MultinomialDraws(ReplayedDraws):
    """Chooses as torch.multinomial does, by the recorded exponential noise: probabilities / noise, the largest wins."""

    def categorical(self, logits):
        name, exponentials = self.record.pop(0)
        assert name == "exponential"
        return (logits.softmax(-1) / exponentials).argmax(-1)


def test_absorbing_logits_equal_the_official_ones(absorbing, record):
    torch.testing.assert_close(absorbing.logits(record["absorbing.xt"]), record["absorbing.logits"], **TOLERANCE)


def test_the_number_of_diffusion_steps_is_read_from_the_checkpoint(absorbing):
    assert absorbing.timesteps == 64


@pytest.mark.parametrize("objective", ["elbo", "reweighted_elbo", "mlm"])
def test_losses_with_random_masks_equal_the_official_ones(absorbing, record, objective):
    absorbing.options = replace(absorbing.options, objective=objective)
    draws = ReplayedDraws([("randint", record["losses.random.t"]), ("rand_like", record["losses.random.draws"])])
    loss = absorbing.training_loss(record["absorbing.x0"], draws=draws)
    torch.testing.assert_close(loss, record[f"losses.{objective}.random.loss"], **TOLERANCE)
    assert not draws.record


@pytest.mark.parametrize("objective", ["elbo", "reweighted_elbo", "mlm"])
def test_losses_with_fixed_numbers_of_masks_equal_the_official_ones(absorbing, record, objective):
    absorbing.options = replace(absorbing.options, objective=objective, mask_schedule="fixed")
    t = record["losses.fixed.t"]
    loss = absorbing.masked_loss(record["absorbing.x0"], fixed_mask(record["losses.fixed.draws"], t, 64), t)
    torch.testing.assert_close(loss, record[f"losses.{objective}.fixed.loss"], **TOLERANCE)


def test_the_gradient_of_the_head_equals_the_official_one(absorbing, record):
    absorbing.options = replace(absorbing.options, objective="mlm")
    draws = ReplayedDraws([("randint", record["losses.random.t"]), ("rand_like", record["losses.random.draws"])])
    absorbing.training_loss(record["absorbing.x0"], draws=draws).backward()
    torch.testing.assert_close(absorbing.net.head.weight.grad, record["losses.mlm.random.head_grad"], **TOLERANCE)


def test_the_bound_equals_the_official_one_under_its_draws(absorbing, record):
    draws = ReplayedDraws([("rand_like", uniforms) for uniforms in record["elbo.draws"]])
    likelihood = absorbing.nll(record["absorbing.x0"], draws=draws)
    assert likelihood.kind == "bound_T" and likelihood.network_evaluations == 64
    torch.testing.assert_close(likelihood.nats.float(), record["elbo.nats"], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.9])
@pytest.mark.parametrize("steps", [64, 16])
def test_the_loop_fed_the_official_draws_returns_its_tokens(absorbing, record, steps, temperature):
    chosen = record[f"sample.{steps}.{temperature}.chosen"]
    pairs = zip(record[f"sample.{steps}.uniforms"], chosen, strict=True)
    draws = ReplayedDraws([draw for u, x in pairs for draw in (("rand", u), ("categorical", x))])
    sampler = AbsorbingSampler(steps=steps, temperature=temperature, method="loop")
    sample = absorbing.sample(3, sampler=sampler, draws=draws)
    assert torch.equal(sample.tokens, record[f"sample.{steps}.{temperature}.tokens"])
    assert sample.network_evaluations.tolist() == [steps] * 3


@pytest.mark.parametrize("temperature", [1.0, 0.9])
def test_the_loop_makes_the_official_choices_itself_under_the_same_noise(absorbing, record, temperature):
    pairs = zip(record["sample.16.uniforms"], record["sample.16.exponentials"], strict=True)
    draws = MultinomialDraws([draw for u, e in pairs for draw in (("rand", u), ("exponential", e))])
    sampler = AbsorbingSampler(steps=16, temperature=temperature, method="loop")
    sample = absorbing.sample(3, sampler=sampler, draws=draws)
    assert torch.equal(sample.tokens, record[f"sample.16.{temperature}.tokens"])


def test_the_event_sampler_under_the_official_draws_returns_the_official_tokens(absorbing, record, monkeypatch):
    """The step of each token follows from the recorded uniforms; its choice from the noise of that step."""
    steps = torch.arange(16, 0, -1)
    revealed = record["sample.16.uniforms"] < (1 / steps).view(16, 1, 1)
    reveal = steps[revealed.int().argmax(0)]   # (3, 64) the first step at which it happens
    noise = record["sample.16.exponentials"].gather(0, (16 - reveal)[None, ..., None].expand(1, -1, -1, 32))[0]

    def choose(logits, which):
        return (logits.softmax(-1) / noise.flatten(0, 1)[which.long()]).argmax(-1)

    monkeypatch.setattr("priors.samplers.inverse_cdf", choose)
    with torch.no_grad():
        sample = by_events(
            absorbing.logits_at,
            torch.full((3, 64), UNKNOWN),
            reveal,
            torch.arange(192.0).view(3, 64),
            mask=32,
            adjust=Adjust(),
        )
    assert torch.equal(sample.tokens, record["sample.16.1.0.tokens"])
    assert sample.network_evaluations.tolist() == [len(row.unique()) for row in reveal]


def test_remasking_fed_the_official_draws_returns_its_tokens(absorbing, record):
    pairs = zip(record["sample_mlm.uniforms"], record["sample_mlm.chosen"], strict=True)
    draws = ReplayedDraws([draw for u, x in pairs for draw in (("rand_like", u), ("categorical", x))])
    sample = absorbing.sample(3, sampler=AbsorbingSampler(steps=16, method="remask"), draws=draws)
    assert torch.equal(sample.tokens, record["sample_mlm.tokens"])


def test_autoregressive_logits_and_loss_equal_the_official_ones(autoregressive, record):
    tokens = record["autoregressive.x0"]
    torch.testing.assert_close(autoregressive.logits(tokens), record["autoregressive.logits"], **TOLERANCE)
    loss = autoregressive.training_loss(tokens, draws=ReplayedDraws([]))
    torch.testing.assert_close(loss, record["autoregressive.loss_bits"], **TOLERANCE)


@pytest.mark.parametrize("cache", [True, False])
def test_the_autoregressive_sampler_makes_the_official_choices_itself(autoregressive, record, cache):
    draws = MultinomialDraws([("exponential", e) for e in record["autoregressive.sample.exponentials"]])
    sample = autoregressive.sample(3, sampler=AutoregressiveSampler(cache=cache), draws=draws)
    assert torch.equal(sample.tokens, record["autoregressive.sample.tokens"])


