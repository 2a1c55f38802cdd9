"""Quantisers against brute force and closed forms."""

import math

import pytest
import torch
import torch.nn.functional as F

from priors.base import Draws
from vq.options import VQGANOptions
from vq.quantize import GumbelQuantizer, NearestQuantizer, kl_from_uniform


def nearest(**options):
    torch.manual_seed(0)
    quantizer = NearestQuantizer(VQGANOptions(codebook_size=7, embedding_dim=5, **options))
    torch.nn.init.normal_(quantizer.embedding.weight)
    return quantizer


@pytest.fixture
def h():
    torch.manual_seed(1)
    return torch.randn(3, 5, 2, 4, requires_grad=True)


def test_the_chosen_code_is_the_nearest_of_all(h):
    quantizer = nearest()
    distances = torch.cdist(h.permute(0, 2, 3, 1).reshape(-1, 5), quantizer.embedding.weight)
    assert torch.equal(quantizer(h)[1].flatten(), distances.argmin(1))


def test_latents_are_the_codes_of_the_indices(h):
    quantizer = nearest()
    latents, indices, _ = quantizer(h)
    torch.testing.assert_close(latents, quantizer.lookup(indices.view(3, 2, 4)))


def test_the_gradient_of_the_latents_goes_straight_through_to_the_encoder(h):
    weights = torch.randn(3, 5, 2, 4)
    (nearest()(h)[0] * weights).sum().backward()
    torch.testing.assert_close(h.grad, weights)


def test_cosine_lookup_ignores_the_length_of_vectors_and_codes(h):
    quantizer = nearest(lookup="cosine")
    before = quantizer(h)
    with torch.no_grad():
        quantizer.embedding.weight *= torch.rand(7, 1) + 0.5
    after = quantizer(3.7 * h)
    assert torch.equal(before[1], after[1])
    torch.testing.assert_close(before[0], after[0])


@pytest.mark.parametrize(("beta_on", "on_codebook", "on_encoder"), [("codebook", 0.25, 1.0), ("commitment", 1.0, 0.25)])
def test_beta_scales_the_gradient_of_the_term_it_is_placed_on(h, beta_on, on_codebook, on_encoder):
    quantizer = nearest(beta=0.25, beta_on=beta_on)
    _, indices, loss = quantizer(h)
    loss.backward()
    codes = quantizer.lookup(indices.view(3, 2, 4)).detach()
    difference = 2 * (h.detach() - codes) / h.numel()
    torch.testing.assert_close(h.grad, on_encoder * difference)
    one_hot = F.one_hot(indices.flatten(), 7).float()
    pulled = -on_codebook * one_hot.t() @ difference.permute(0, 2, 3, 1).reshape(-1, 5)
    torch.testing.assert_close(quantizer.embedding.weight.grad, pulled)


def test_codes_start_uniform_within_one_over_k():
    weight = NearestQuantizer(VQGANOptions(codebook_size=64, embedding_dim=32)).embedding.weight
    assert weight.abs().max() <= 1 / 64
    assert weight.std().item() == pytest.approx(1 / 64 / math.sqrt(3), rel=0.05)


def test_codes_taken_from_data_are_distinct_vectors_of_the_batch(h):
    quantizer = nearest(codebook_init="data")
    quantizer.start_from(h, Draws.seeded(0))
    vectors = h.detach().permute(0, 2, 3, 1).reshape(-1, 5)
    matches = (quantizer.embedding.weight[:, None] == vectors).all(-1)
    assert (matches.sum(1) == 1).all() and matches.any(0).sum() == 7 and quantizer.started


def test_only_dead_codes_are_restarted(h):
    quantizer = nearest(restart_dead_codes_every=5)
    quantizer.uses += torch.tensor([3, 0, 1, 1, 0, 9, 2])
    before = quantizer.embedding.weight.clone()
    assert quantizer.restart_dead_codes(h, Draws.seeded(0)) == 2
    changed = (quantizer.embedding.weight != before).any(1)
    assert changed.tolist() == [False, True, False, False, True, False, False]
    assert not quantizer.uses.any()


def test_too_few_vectors_to_start_from_is_an_error():
    with pytest.raises(ValueError, match="a batch of 4 latent vectors cannot give codebook_size=7"):
        nearest(codebook_init="data").start_from(torch.randn(1, 5, 2, 2), Draws.seeded(0))


def gumbel(**options):
    torch.manual_seed(0)
    return GumbelQuantizer(VQGANOptions(codebook_size=7, embedding_dim=5, quantizer="gumbel", **options))


def test_gumbel_temperature_falls_to_its_floor():
    quantizer = gumbel()
    assert [quantizer.temperature(step) for step in (0, 80_000, 160_000, 10**9)] == [1, 0.5, 1 / 16, 1 / 16]


def test_gumbel_choices_follow_the_softmax():
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0]).expand(40_000, 4)
    soft = gumbel().relax(logits, uniforms=Draws.seeded(0).uniform(40_000, 4), step=0)
    frequencies = torch.bincount(soft.argmax(-1), minlength=4) / 40_000
    torch.testing.assert_close(frequencies, logits[0].softmax(0), atol=0.01, rtol=0)


def test_gumbel_evaluation_is_hard_and_free_of_noise(h):
    quantizer = gumbel()
    latents, indices, _ = quantizer(h)
    assert torch.equal(indices, quantizer.proj(h).argmax(1).flatten(1))
    torch.testing.assert_close(latents, quantizer.embedding(indices).view(3, 2, 4, 5).permute(0, 3, 1, 2))


def test_gumbel_training_passes_gradients_to_codes_and_logits(h):
    quantizer = gumbel(gumbel_straight_through=True)
    latents, indices, _ = quantizer(h, step=0, draws=Draws.seeded(0))
    torch.testing.assert_close(latents, quantizer.lookup(indices.view(3, 2, 4)))   # one-hot forwards
    latents.sum().backward()
    assert quantizer.proj.weight.grad.abs().sum() > 0 and h.grad.abs().sum() > 0


def test_the_gumbel_loss_is_the_divergence_from_uniform():
    logits = torch.randn(6, 7)
    p = logits.softmax(-1)
    torch.testing.assert_close(kl_from_uniform(logits), (p * (p * 7).log()).sum(-1))
    torch.testing.assert_close(kl_from_uniform(torch.zeros(7)), torch.tensor(0.0), atol=1e-6, rtol=0)
