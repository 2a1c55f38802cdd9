"""The networks against what the official implementation computed (weights, inputs and outputs of a tiny VQGAN).

The fixture (5.2 MB of float32) holds every weight the official model uses; nothing in it comes from this code.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vq.checkpoints import load_official
from vq.diffaug import diffaug
from vq.health import perplexity
from vq.losses import gaussian_log_density

FIXTURE = Path(__file__).parent / "fixtures" / "official_vqgan_small.safetensors"


@pytest.fixture(scope="module")
def official():
    return load_file(FIXTURE)


@pytest.fixture(scope="module")
def model(official):
    weights = {key.removeprefix("weights."): value for key, value in official.items() if key.startswith("weights.")}
    return load_official(weights, channels=32, channel_multipliers=(1, 2, 2), num_res_blocks=2,
                         attention_resolutions=(8,), embedding_dim=16, codebook_size=32, resolution=32)


class Recorded:
    """Replays recorded draws in order, and insists on their kind and shape."""

    def __init__(self, draws):
        self.draws = list(draws)

    def uniform(self, *shape):
        return self._next("rand", shape)

    def integers(self, low, high, *shape):
        drawn = self._next("randint", shape)
        assert drawn.min() >= low and drawn.max() < high
        return drawn

    def _next(self, kind, shape):
        name, tensor = self.draws.pop(0)
        assert (name, tensor.shape) == (kind, shape)
        return tensor


@torch.no_grad()
def test_the_encoder_gives_the_official_latents(model, official):
    torch.testing.assert_close(model.encoder(official["x"]), official["h"], atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_quantizer_chooses_the_official_codes_at_the_official_loss(model, official):
    latents, indices, loss = model.quantizer(official["h"])
    assert torch.equal(indices.flatten(), official["idx"].flatten())
    torch.testing.assert_close(latents, official["zq"], atol=1e-5, rtol=0)
    torch.testing.assert_close(loss, official["codebook_loss"], atol=1e-5, rtol=0)


@torch.no_grad()
def test_encoding_from_the_image_gives_the_official_codes(model, official):
    assert torch.equal(model.quantizer.indices(model.encoder(official["x"])).flatten(), official["idx"].flatten())


@torch.no_grad()
def test_the_perplexity_is_the_official_one(official):
    torch.testing.assert_close(perplexity(official["idx"], 32).float(), official["perplexity"], atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_decoder_gives_the_official_reconstruction(model, official):
    torch.testing.assert_close(model.decoder(official["zq"]), official["recon"], atol=1e-5, rtol=0)


@torch.no_grad()
def test_mean_and_logsigma_are_the_official_ones(model, official):
    mean, logsigma = model.decoder.gaussian(official["zq"])
    torch.testing.assert_close(mean, official["recon"], atol=1e-5, rtol=0)
    torch.testing.assert_close(logsigma, official["logsigma"], atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_pixel_density_is_the_official_one(model, official):
    mean, logsigma = model.decoder.gaussian(official["zq"])
    nats = -gaussian_log_density(official["x"], mean, logsigma).flatten(1).sum(1)
    torch.testing.assert_close(nats, official["nll_raw"], rtol=1e-5, atol=0)


@torch.no_grad()
def test_the_discriminator_gives_the_official_scores(model, official):
    torch.testing.assert_close(model.discriminator(official["x"]), official["disc_eval"], atol=1e-5, rtol=0)


def test_diffaug_with_the_recorded_draws_gives_the_official_images(official):
    names = sorted(key for key in official if key.startswith("diffaug.draws."))
    draws = Recorded((name.split(".")[-1], official[name]) for name in names)
    augmented = diffaug(official["diffaug.x"], draws)
    torch.testing.assert_close(augmented, official["diffaug.y"], atol=1e-6, rtol=0)
    assert not draws.draws
