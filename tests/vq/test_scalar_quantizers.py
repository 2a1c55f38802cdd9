"""FSQ and LFQ: ids and codes are one-to-one, against brute force and enumeration."""

import itertools
import math

import pytest
import torch

from priors.base import Draws
from vq.options import VQGANOptions
from vq.scalar_quantize import BinaryQuantizer, ScalarQuantizer, entropy_loss
from vq.training import VQGANTraining
from vq.vqgan import VQGAN

SMALL = dict(channels=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(), norm_groups=4,
             disc_channels=4, disc_layers=2, perceptual_weight=0.0, disc_start_step=None)


def fsq(*levels, **options):
    return ScalarQuantizer(VQGANOptions(quantizer="fsq", levels=levels, codebook_size=math.prod(levels),
                                        embedding_dim=len(levels), **options))


def lfq(dim, **options):
    return BinaryQuantizer(VQGANOptions(quantizer="lfq", codebook_size=2**dim, embedding_dim=dim, **options))


def latents(dim, num=200, scale=1.5):
    h = scale * torch.randn(1, dim, 1, num, generator=torch.Generator().manual_seed(0))
    return h.requires_grad_()


# --- FSQ --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (8, 6, 5), (2, 3), (7,)])
def test_ids_become_codes_and_the_same_ids_again(levels):
    """Where the encoder says exactly a code, that code is chosen: tanh(h + shift) is undone by hand."""
    quantizer, size = fsq(*levels), math.prod(levels)
    ids = torch.arange(size).view(1, 1, size)
    codes = quantizer.lookup(ids)
    assert len(codes[0, :, 0].t().unique(dim=0)) == size and codes.abs().max() <= 1
    h = torch.empty_like(codes)
    for channel, level in enumerate(levels):
        half, offset = (level - 1) * 1.001 / 2, 0.5 if level % 2 == 0 else 0.0
        integers = (codes[:, channel] * (level // 2)).double()
        h[:, channel] = torch.atanh((integers + offset) / half) - math.atanh(offset / half)
    assert torch.equal(quantizer.indices(h), ids.flatten(1))


def test_the_first_number_changes_fastest():
    codes = fsq(3, 5).lookup(torch.arange(15).view(1, 1, 15))[0, :, 0].t()
    expected = [(first - 1, (second - 2) / 2) for second, first in itertools.product(range(5), range(3))]
    torch.testing.assert_close(codes, torch.tensor(expected, dtype=torch.float32))


def test_the_latents_are_the_codes_of_the_indices():
    quantizer, h = fsq(8, 5, 5), latents(3)
    found, indices, loss = quantizer(h)
    torch.testing.assert_close(found, quantizer.lookup(indices.view(1, 1, -1)))
    assert loss == 0 and loss.shape == ()


@pytest.mark.parametrize("level", range(2, 10))
def test_every_level_is_reached_and_zero_is_a_level(level):
    quantizer = fsq(level)
    indices = quantizer.indices(torch.linspace(-9, 9, 2001).view(1, 1, 1, -1))
    assert indices.unique().tolist() == list(range(level)) and (indices.diff() >= 0).all()
    assert quantizer.lookup(quantizer.indices(torch.zeros(1, 1, 1, 1)).view(1, 1, 1)).item() == 0


def test_the_gradient_is_that_of_the_bound_as_if_nothing_were_rounded():
    quantizer, h = fsq(8, 5), latents(2)
    weights = torch.randn(1, 2, 1, 200, generator=torch.Generator().manual_seed(1))
    (quantizer(h)[0] * weights).sum().backward()
    smooth = h.detach().double().requires_grad_()
    bounded = [torch.tanh(smooth[:, i] + math.atanh(offset / half)) * half / width
               for i, (half, offset, width) in enumerate([(3.5035, 0.5, 4), (2.002, 0.0, 2)])]
    (torch.stack(bounded, 1) * weights).sum().backward()
    torch.testing.assert_close(h.grad, smooth.grad.float(), atol=1e-5, rtol=1e-4)


# --- LFQ --------------------------------------------------------------------------------------------------------------

def test_signs_become_ids_and_the_same_signs_again():
    quantizer, ids = lfq(6), torch.arange(64).view(1, 1, 64)
    codes = quantizer.lookup(ids)
    assert codes.unique().tolist() == [-1, 1] and len(codes[0, :, 0].t().unique(dim=0)) == 64
    assert torch.equal(quantizer.indices(codes * 0.3), ids.flatten(1))


def test_the_chosen_signs_are_the_nearest_code_of_all():
    quantizer, h = lfq(5), latents(5)
    codes = quantizer.lookup(torch.arange(32).view(1, 1, 32))[0, :, 0].t()
    assert torch.equal(quantizer.indices(h)[0], torch.cdist(h[0, :, 0].t(), codes).argmin(1))


def test_lfq_s_gradient_of_the_latents_goes_straight_through():
    h, weights = latents(4), torch.randn(1, 4, 1, 200)
    (lfq(4)(h)[0] * weights).sum().backward()
    torch.testing.assert_close(h.grad, weights)


@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_the_entropy_loss_is_that_of_all_codes_enumerated(temperature):
    h = latents(4)
    codes = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4)))
    q = (-torch.cdist(h[0, :, 0].t(), codes).square() / temperature).softmax(1)   # (P, 16)
    entropy = lambda p: -(p * p.clamp(min=1e-38).log()).sum(-1)   # noqa: E731
    expected = entropy(q).mean() - entropy(q.mean(0))
    torch.testing.assert_close(entropy_loss(h, temperature=temperature), expected)


def test_the_entropy_loss_is_lowest_where_sure_codes_are_used_alike():
    codes = lfq(3).lookup(torch.arange(8).view(1, 1, 8))
    assert entropy_loss(codes, temperature=0.01).item() == pytest.approx(-math.log(8), abs=1e-5)
    assert entropy_loss(codes[..., :1], temperature=0.01).item() == pytest.approx(0, abs=1e-5)
    assert entropy_loss(0 * codes, temperature=0.01).item() == pytest.approx(0, abs=1e-5)


def test_beyond_ten_numbers_groups_of_ten_are_summed():
    h = latents(12)
    parts = entropy_loss(h[:, :10], temperature=1.0) + entropy_loss(h[:, 10:], temperature=1.0)
    torch.testing.assert_close(entropy_loss(h, temperature=1.0), parts)


def test_lfq_s_loss_is_the_commitment_and_the_entropies():
    h = latents(4)
    loss = lfq(4, beta=0.3, entropy_weight=0.7, entropy_temperature=2.0)(h)[2]
    expected = 0.3 * (h - h.sign()).square().mean() + 0.7 * entropy_loss(h, temperature=2.0)
    torch.testing.assert_close(loss, expected)


# --- the model and its options ----------------------------------------------------------------------------------------

UNLEARNT = {"fsq": dict(quantizer="fsq", levels=(5, 3), codebook_size=15, embedding_dim=2),
            "lfq": dict(quantizer="lfq", codebook_size=16, embedding_dim=4)}


@pytest.mark.parametrize("more", [{}, {"quant_convs": "separate", "z_channels": 6}], ids=["plain", "quant convs"])
@pytest.mark.parametrize("kind", UNLEARNT)
def test_a_model_trains_through_it(kind, more):
    torch.manual_seed(0)
    model = VQGAN(options=VQGANOptions(**SMALL | UNLEARNT[kind] | more), resolution=8)
    task = VQGANTraining(model, perceptual=lambda a, b: a.new_zeros(()), learning_rate=2e-3)
    images = torch.randint(0, 256, (8, 3, 2, 2), dtype=torch.uint8).repeat_interleave(4, 2).repeat_interleave(4, 3)

    def optimize(loss, optimizer):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    losses = [task.update(images, step, Draws.seeded(0), optimize)["loss"].item() for step in range(40)]
    assert losses[-1] < 0.7 * losses[0]
    tokens = model.eval().encode(images)
    assert tokens.shape == (8, 16) and int(tokens.max()) < model.codebook_size and len(tokens.unique()) > 1


@pytest.mark.parametrize(("wrong", "message"), [
    ({"quantizer": "fsq"}, r"levels=\[\]: expected two or more"),
    ({"quantizer": "fsq", "levels": (8, 1)}, r"levels=\[8, 1\]: expected two or more"),
    ({"quantizer": "fsq", "levels": (8, 5, 5, 5)}, "codebook_size=1024: expected 1000, the product of levels"),
    ({"quantizer": "fsq", "levels": (8, 5), "codebook_size": 40}, "embedding_dim=256: expected 2, one for each"),
    ({"levels": (8, 5)}, r"levels=\[8, 5\]: expected none with quantizer=nearest"),
    ({"quantizer": "lfq", "embedding_dim": 9}, r"codebook_size=1024: expected 512 = 2\^embedding_dim"),
    ({"quantizer": "lfq", "embedding_dim": 10, "codebook_init": "data"}, "codebook_init='data': expected 'uniform'"),
    ({"entropy_temperature": 0.0}, "entropy_temperature=0.0: expected a positive"),
])
def test_sizes_that_contradict_each_other_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        VQGANOptions(**wrong)


def test_what_was_given_implies_the_sizes_over_a_preset_s():
    preset = {"codebook_size": 256, "embedding_dim": 32, "codebook_init": "data"}
    implied = VQGANOptions.implied({"quantizer": "fsq", "levels": [8, 5, 5, 5]}, preset)
    assert (implied["codebook_size"], implied["embedding_dim"], implied["codebook_init"]) == (1000, 4, "uniform")
    assert VQGANOptions.implied({"quantizer": "lfq"}, preset)["embedding_dim"] == 8
    assert VQGANOptions.implied({}, preset) == {}
