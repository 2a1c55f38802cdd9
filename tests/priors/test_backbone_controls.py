"""Controls of the one backbone: how positions start, and masked inputs of the autoregressive prior."""

import math

import pytest
import torch

from priors.absorbing import AbsorbingDiffusion
from priors.any_order import AnyOrder
from priors.autoregressive import Autoregressive
from priors.base import Draws
from priors.options import AutoregressiveOptions, BackboneOptions
from priors.positions import sincos2d
from priors.schedules import grid_order
from priors.uniform import UniformDiffusion
from priors.vq_diffusion import VQDiffusion

SIZES = dict(width=16, num_layers=1, num_heads=2)
PRIORS = [AbsorbingDiffusion, Autoregressive, AnyOrder, VQDiffusion, UniformDiffusion]
TOKENS = torch.randint(5, (64, 12), generator=torch.Generator().manual_seed(0))


def made(cls, **options):
    torch.manual_seed(0)
    return cls(grid=(3, 4), codebook_size=5, options=cls.Options(**SIZES, **options))


@pytest.mark.parametrize("cls", PRIORS)
def test_positions_start_at_zero_unless_asked_for_otherwise(cls):
    plain, normal, waves = (made(cls, **more) for more in (
        {}, {"position_init": "normal"}, {"position_init": "sincos2d"}))
    assert not plain.net.pos_emb.any() and plain.net.pos_emb.shape == (1, 12, 16)
    assert float(normal.net.pos_emb.detach().std()) == pytest.approx(0.02, rel=0.2)
    assert float(waves.net.pos_emb.detach().square().mean().sqrt()) == pytest.approx(0.02, rel=1e-5)
    assert all(prior.net.pos_emb.requires_grad for prior in (plain, normal, waves))


@pytest.mark.parametrize("cls", PRIORS)
def test_waves_change_no_other_weight_at_the_start(cls):
    plain, waves = made(cls).state_dict(), made(cls, position_init="sincos2d").state_dict()
    changed = [name for name in plain if not torch.equal(plain[name].nan_to_num(), waves[name].nan_to_num())]
    assert changed == ["net.pos_emb"]


def test_a_wave_is_the_closed_form_of_its_row_and_column():
    found = sincos2d((3, 5), 8)[2 * 5 + 4]   # row 2, column 4; frequencies 1 and 1/100
    expected = [wave(place * f) for place in (2, 4) for wave in (math.sin, math.cos) for f in (1, 0.01)]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_no_two_cells_share_a_wave():
    waves = sincos2d((16, 16), 16)
    assert float((torch.cdist(waves, waves) + 9 * torch.eye(256)).min()) > 0.1


def test_the_positions_of_a_walk_are_those_of_the_cells_it_visits():
    raster, spiral = (made(Autoregressive, order=order, position_init="sincos2d").net.pos_emb[0]
                      for order in ("raster", "spiral"))
    assert torch.equal(spiral, raster[grid_order("spiral", (3, 4))])


@pytest.mark.parametrize(("options", "values", "complaint"), [
    (BackboneOptions, {"position_init": "sincos"}, "position_init='sincos': expected one of .*did you mean 'sincos2d'"),
    (BackboneOptions, {"position_init": "sincos2d", "width": 18, "num_heads": 2}, "width=18 is no multiple of 4"),
    (AutoregressiveOptions, {"input_mask": 1.0}, "input_mask=1.0: expected a number of at least 0 and below 1"),
    (AutoregressiveOptions, {"input_mask": -0.1}, "input_mask=-0.1"),
    (AutoregressiveOptions, {"input_mask": True}, "input_mask=True")])
def test_nonsense_is_named(options, values, complaint):
    with pytest.raises(ValueError, match=complaint):
        options(**values)


def shown(prior, tokens, draws):
    """The tokens that the network was given."""
    seen = []
    handle = prior.net.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    prior.training_loss(tokens, draws=draws)
    handle.remove()
    return seen[0]


def test_training_masks_each_input_with_the_stated_probability():
    prior = made(Autoregressive, input_mask=0.3, order="spiral").train()
    tokens = TOKENS.repeat(50, 1)   # 38,400 tokens
    seen = shown(prior, tokens, Draws.seeded(0))
    masked = seen == prior.mask
    assert float(masked.float().mean()) == pytest.approx(0.3, abs=0.01)
    assert torch.equal(seen[~masked], tokens[:, prior.order][~masked])
    assert float(masked.float().mean(0).max() - masked.float().mean(0).min()) < 0.06   # wherever it stands


def test_every_token_is_predicted_from_the_masked_input():
    prior = made(Autoregressive, input_mask=0.5).train()
    loss = prior.training_loss(TOKENS, draws=Draws.seeded(0))
    masked = TOKENS.masked_fill(Draws.seeded(0).uniform(64, 12) < 0.5, 5)
    expected = torch.nn.functional.cross_entropy(prior.net(masked).flatten(0, 1), TOKENS.flatten()) / math.log(2)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)


def test_evaluation_and_sampling_see_every_token():
    prior = made(Autoregressive, input_mask=0.5).eval()
    torch.nn.init.normal_(prior.net.tok_emb.weight, std=1.0)
    other = made(Autoregressive, input_mask=0.5).eval()
    other.load_state_dict(prior.state_dict())
    other.net.tok_emb.weight.data[prior.mask] = 7.0   # a mask that is never looked at
    assert torch.equal(shown(prior, TOKENS, Draws.seeded(0)), TOKENS)
    assert torch.equal(prior.nll(TOKENS, draws=Draws.seeded(0)).nats, other.nll(TOKENS, draws=Draws.seeded(0)).nats)
    samples = [p.sample(4, sampler=p.Sampler(), draws=Draws.seeded(0)).tokens for p in (prior, other)]
    assert torch.equal(*samples) and int(samples[0].max()) < 5


def test_the_mask_learns():
    prior = made(Autoregressive, input_mask=0.5).train()
    prior.training_loss(TOKENS, draws=Draws.seeded(0)).backward()
    assert prior.net.tok_emb.weight.grad[prior.mask].abs().sum() > 0


def test_without_an_input_mask_nothing_is_drawn_and_nothing_is_added():
    plain, masked = made(Autoregressive), made(Autoregressive, input_mask=0.1)
    draws = Draws.seeded(0)
    plain.train().training_loss(TOKENS, draws=draws)
    assert torch.equal(draws.uniform(3), Draws.seeded(0).uniform(3))
    counts = [sum(p.numel() for p in prior.parameters()) for prior in (plain, masked)]
    assert counts[1] - counts[0] == 16


def test_official_weights_know_no_mask(tmp_path):
    prior = made(Autoregressive, input_mask=0.1)
    with pytest.raises(ValueError, match="input_mask=0.1: the official models know no mask"):
        prior.load_official(tmp_path / "any", layout="official")
