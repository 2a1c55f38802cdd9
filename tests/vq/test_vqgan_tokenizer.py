"""The tokenizer's borders: uint8 images, int64 tokens, canvases of other sizes, pixel likelihood."""

import math

import pytest
import torch

from vq.losses import discretised_gaussian_log_mass
from vq.model import reduce_bits
from vq.options import VQGANOptions
from vq.vqgan import VQGAN

SMALL = dict(channels=8, channel_multipliers=(1, 2, 2), num_res_blocks=1, attention_resolutions=(), norm_groups=4,
             embedding_dim=4, codebook_size=16, disc_channels=4, disc_layers=2)


def build(**options):
    torch.manual_seed(0)
    model = VQGAN(options=VQGANOptions(**{**SMALL, **options}), resolution=32)
    torch.nn.init.normal_(model.quantizer.embedding.weight)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_tokens_are_ids_of_an_8_by_8_grid(model, images):
    tokens = model.encode(images)
    assert model.grid == (8, 8) and tokens.shape == (3, 64) and tokens.dtype == torch.int64
    assert 0 <= tokens.min() and tokens.max() < 16


def test_decoding_gives_uint8_images_in_the_contiguous_format(model):
    decoded = model.decode(torch.zeros(2, 64, dtype=torch.int64))
    assert decoded.shape == (2, 3, 32, 32) and decoded.dtype == torch.uint8 and decoded.is_contiguous()


def test_encoding_does_not_depend_on_the_batch_an_image_is_in(model, images):
    assert torch.equal(model.encode(images), torch.cat([model.encode(image[None]) for image in images]))


def test_a_canvas_of_another_size_decodes_to_its_own_size(model):
    assert model.decode(torch.zeros(1, 5, 11, dtype=torch.int64)).shape == (1, 3, 20, 44)


def test_a_canvas_of_the_grid_decodes_as_its_tokens(model, images):
    tokens = model.encode(images)
    assert torch.equal(model.decode(tokens), model.decode(tokens.view(3, 8, 8)))


def test_a_token_outside_the_codebook_is_an_error(model):
    with pytest.raises(ValueError, match="tokens from 0 to 16: expected 0 to 15"):
        model.decode(torch.tensor([[16] + [0] * 63]))
    with pytest.raises(ValueError, match="tokens from -1 to 0"):
        model.decode(torch.tensor([[-1] + [0] * 63]))


def test_tokens_that_do_not_fill_the_grid_are_an_error(model):
    with pytest.raises(ValueError, match="60 tokens an image: expected 64"):
        model.decode(torch.zeros(1, 60, dtype=torch.int64))


def test_float_images_are_an_error(model):
    with pytest.raises(ValueError, match="torch.float32: expected .* uint8"):
        model.encode(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize("input_range", ["unit", "signed"])
def test_bytes_survive_the_way_into_the_networks_range_and_back(input_range):
    every_value = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    model = build(input_range=input_range)
    values = model.to_float(every_value)
    assert values.max() == 1 and values.min() == (-1 if input_range == "signed" else 0)
    assert torch.equal(model.to_uint8(values), every_value)


def test_weights_survive_saving(model, images):
    copy = VQGAN(options=model.options, resolution=32)
    copy.load_state_dict({key: value.contiguous() for key, value in model.state_dict().items()})
    assert torch.equal(copy.encode(images), model.encode(images))


@pytest.mark.parametrize("bits", [5, 8])
def test_densities_of_both_input_ranges_measure_the_same_unit(images, bits):
    """A decoder whose output is x in [0, 1] and one whose output is 2x - 1 are the same Gaussian."""
    unit, signed = build(), build(input_range="signed")
    signed.load_state_dict(unit.state_dict())
    last, head = signed.decoder.blocks[-1], signed.decoder.logsigma[-1]
    with torch.no_grad():
        first = signed.encoder.blocks[0]
        first.bias.zero_(), unit.encoder.blocks[0].bias.zero_()
        last.weight.mul_(2), last.bias.mul_(2).sub_(1), head.bias.add_(math.log(2))
    latents = unit.quantizer.lookup(torch.zeros(1, 8, 8, dtype=torch.int64))
    for ours, theirs in zip(unit.gaussian(latents), signed.gaussian(latents), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_log_likelihood_is_the_sum_over_pixels_of_the_gaussian(model, images):
    reduced = reduce_bits(images, 5)
    mean, logsigma = model.gaussian(model.quantizer.lookup(model.encode(reduced).view(-1, 8, 8)))
    values = ((images // 8).double() + 0.5) / 32
    log_density = -0.5 * ((values - mean) / logsigma.exp()) ** 2 - logsigma - 0.5 * math.log(2 * math.pi)
    expected = log_density.flatten(1).sum(1) - 3072 * math.log(32)
    torch.testing.assert_close(model.log_likelihood(images, bits=5).density, expected, rtol=1e-6, atol=0)


def test_the_probability_mass_never_exceeds_one(model, images):
    assert (model.log_likelihood(images, bits=5).mass <= 0).all()


def test_the_tokens_scored_are_those_of_the_reduced_image(model, images):
    assert torch.equal(model.log_likelihood(images, bits=3).tokens, model.encode(reduce_bits(images, 3)))


@pytest.mark.parametrize("bits", [1, 2])
def test_the_masses_of_all_values_of_one_pixel_sum_to_one(bits):
    """Images that share their tokens share mean and sigma: here every image, since one code is far nearer than all."""
    model = build()
    with torch.no_grad():
        model.quantizer.embedding.weight.fill_(1e6)[0] = 0
    levels = torch.arange(2**bits, dtype=torch.uint8) << (8 - bits)
    images = torch.zeros(2**bits, 3, 32, 32, dtype=torch.uint8)
    images[:, 1, 5, 7] = levels
    masses = model.log_likelihood(images, bits=bits).mass
    latents = model.quantizer.lookup(torch.zeros(1, 8, 8, dtype=torch.int64))
    mean, logsigma = (t[:1, 1, 5, 7].double() for t in model.gaussian(latents))
    centre = torch.tensor([0.5 * 2.0**-bits], dtype=torch.float64)
    rest = masses[0] - discretised_gaussian_log_mass(centre, mean, logsigma, width=2.0**-bits)
    assert float((masses - rest).exp().sum().detach()) == pytest.approx(1, abs=1e-6)


def test_reducing_bits_keeps_the_bin_and_is_idempotent():
    values = torch.arange(256, dtype=torch.uint8)
    reduced = reduce_bits(values, 5)
    assert torch.equal(reduced // 8, values // 8) and torch.equal(reduce_bits(reduced, 5), reduced)
    assert torch.equal(reduce_bits(values, 8), values)
    with pytest.raises(ValueError, match="bits=9"):
        reduce_bits(values, 9)


def test_a_model_without_the_head_says_how_to_get_one(images):
    with pytest.raises(ValueError, match="likelihood_head=False"):
        build(likelihood_head=False).log_likelihood(images)
