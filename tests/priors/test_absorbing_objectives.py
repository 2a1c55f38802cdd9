"""Training objectives of absorbing diffusion that other papers use: by hand from the logits, and their mask shares."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from priors.absorbing import AbsorbingDiffusion
from priors.base import Draws
from priors.options import AbsorbingOptions
from priors.schedules import cosine_times

N, K = 6, 4


def make_prior(**options):
    torch.manual_seed(0)
    prior = AbsorbingDiffusion(grid=(2, 3), codebook_size=K,
                               options=AbsorbingOptions(width=8, num_layers=1, num_heads=1, **options)).eval()
    for parameter in prior.parameters():
        nn.init.normal_(parameter, std=0.5)
    return prior.requires_grad_(False)


@pytest.mark.parametrize(("objective", "weight"), [("cross_entropy", lambda t, masked: 1 / (N * math.log(2))),
                                                   ("mlm", lambda t, masked: 1 / masked)])
def test_the_loss_is_the_weighted_sum_over_masked_tokens(objective, weight):
    prior, draws = make_prior(objective=objective), Draws.seeded(0)
    tokens, masked, t = draws.integers(0, K, 5, N), draws.uniform(5, N) < 0.6, torch.tensor([1, 2, 3, 4, 6])
    nats = F.cross_entropy(prior.logits(tokens.masked_fill(masked, K)).transpose(1, 2), tokens, reduction="none")
    by_hand = [float((nats[i] * masked[i]).sum()) * weight(int(t[i]), int(masked[i].sum())) for i in range(5)]
    assert float(prior.masked_loss(tokens, masked, t)) == pytest.approx(sum(by_hand) / 5, rel=1e-5)


def test_cosine_shares_are_those_of_maskgit():
    """The share of even angles that mask at most m tokens is 1 - (2 / pi) arccos(m / N), up to one time of T."""
    times = cosine_times(torch.arange(1, 257), 256)
    assert int(times.min()) >= 1 and int(times.max()) == 256
    for most in (16, 64, 128, 240):
        expected = 1 - 2 / math.pi * math.acos(most / 256)
        assert float((times <= most).double().mean()) == pytest.approx(expected, abs=1 / 256 + 1e-9)


@pytest.mark.parametrize(("ratio", "mean"), [("even", 21 / 6), ("cosine", 28 / 6)])
def test_training_masks_as_many_tokens_as_the_ratio_says(ratio, mean):
    """Of six tokens: 1..6 equally often, or 6, 6, 6, 5, 3 and 2 (the cosines of 0 to 75 degrees, rounded up)."""
    prior = make_prior(objective="mlm", mask_schedule="fixed", mask_ratio=ratio)
    counted = []
    prior.masked_loss = lambda tokens, masked, t, condition: counted.append(masked.sum(1).double()) or torch.zeros(())
    prior.training_loss(torch.zeros(6000, N, dtype=torch.int64), draws=Draws.seeded(0))
    assert float(counted[0].mean()) == pytest.approx(mean, abs=0.08)


def test_a_ratio_of_masks_belongs_to_the_masked_language_model():
    with pytest.raises(ValueError, match="mask_ratio='cosine'.*objective='elbo'.*leave mask_ratio out"):
        AbsorbingOptions(objective="elbo", mask_ratio="cosine")
