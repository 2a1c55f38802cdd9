"""The textbook VQGAN, step by step the same as ours: tokens, images, and the weights after a training step."""

import pytest
import torch

from priors.base import Draws
from vq.options import VQGANOptions
from vq.reference import naive_decode, naive_encode, naive_training_step, textbook_copy
from vq.training import VQGANTraining
from vq.vqgan import VQGAN

SMALL = dict(channels=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(8,), norm_groups=4,
             embedding_dim=4, codebook_size=16, disc_channels=4, disc_layers=2, disc_start_step=0)


def build(**options):
    torch.manual_seed(0)
    model = VQGAN(options=VQGANOptions(**{**SMALL, **options}), resolution=16).eval()
    torch.nn.init.normal_(model.quantizer.embedding.weight)
    return model


def images():
    return torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def squared_difference(x, y):
    return (x - y).square().mean((1, 2, 3))


def optimize(loss, optimizer):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@pytest.mark.parametrize("input_range", ["unit", "signed"])
def test_tokens_and_images_are_those_of_the_textbook(input_range):
    model = build(input_range=input_range)
    textbook, tokens = textbook_copy(model), model.encode(images())
    assert torch.equal(naive_encode(textbook, images()), tokens) and len(tokens.unique()) > 2
    assert (naive_decode(textbook, tokens).int() - model.decode(tokens).int()).abs().max() <= 1


@pytest.mark.parametrize("options", [{}, {"beta_on": "commitment", "input_range": "signed", "diffaug": False}])
def test_a_training_step_has_the_textbook_s_gradients(options):
    model = build(**options).train()
    textbook = textbook_copy(model)
    training = VQGANTraining(model, perceptual=squared_difference, learning_rate=1e-3)
    training.update(images(), 0, Draws.seeded(0), optimize)
    naive_training_step(textbook, perceptual=squared_difference, learning_rate=1e-3)(images(), Draws.seeded(0))
    theirs = dict(textbook.named_parameters())
    for key, value in model.named_parameters():
        if value.grad is not None:
            torch.testing.assert_close(value.grad, theirs[key].grad, atol=1e-6, rtol=1e-3, msg=key)


def test_options_it_does_not_cover_are_refused():
    with pytest.raises(ValueError, match="lookup=euclidean"):
        textbook_copy(build(lookup="cosine"))
