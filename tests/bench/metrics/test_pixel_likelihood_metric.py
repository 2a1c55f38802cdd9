"""Bits per dimension: closed forms of a toy decoder, a sum over all tiny images, holes with reasons."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.config import MetricsConfig, NllConfig, ProtocolConfig, SpeedConfig
from bench.data.arrays import ArrayImages
from bench.errors import BenchError
from bench.metrics.base import Evidence
from bench.metrics.pixel_likelihood import PixelNegativeLogLikelihood
from priors.base import Likelihood, Unsupported
from priors.conditions import Condition
from vq.base import PixelLikelihood
from vq.losses import discretised_gaussian_log_mass, gaussian_log_density
from vq.model import bin_centres, reduce_bits

TABLE = torch.tensor([0.7, 0.3], dtype=torch.float64)
SIGMA = 0.2


class Unigram:
    """One token an image: dark or bright."""

    codebook_size, num_tokens, kind, noise = 2, 1, "exact", 0.0

    def nll(self, tokens, *, draws, budget=None):
        nats = -TABLE.log()[tokens].sum(1)
        noisy = nats + self.noise * draws.normal(len(tokens)).double()
        return Likelihood(noisy, torch.full_like(nats, self.noise**2), self.kind, 1)


class Noisy(Unigram):
    kind, noise = "bound_continuous", 0.1


class Refusing(Unigram):
    def nll(self, tokens, *, draws, budget=None):
        raise Unsupported("has no likelihood")


class Brightness:
    """Its token says whether an image is bright; its decoder a Gaussian of known mean and sigma for every value."""

    resolution, sigma = 1, SIGMA

    def encode(self, images):
        return (images.double().mean((1, 2, 3)) >= 128).long()[:, None]

    def log_likelihood(self, images, *, bits):
        reduced = reduce_bits(images, bits)
        tokens, values = self.encode(reduced), bin_centres(reduced, bits)
        mean = (0.25 + 0.5 * tokens.double())[:, :, None, None].expand_as(values)
        logsigma = torch.full_like(values, math.log(self.sigma))
        mass = discretised_gaussian_log_mass(values, mean, logsigma, width=2.0**-bits)
        density = gaussian_log_density(values, mean, logsigma) - bits * math.log(2)
        return PixelLikelihood(tokens, mass.flatten(1).sum(1), density.flatten(1).sum(1))


class Told(Unigram):
    """Asks for the label that it is told of every image."""

    def __init__(self):
        self.labels = []

    def nll(self, tokens, *, condition, draws, budget=None):
        self.labels += condition.labels.tolist()
        return super().nll(tokens, draws=draws)


class Diverged(Brightness):
    sigma = math.nan


def measure(images, *, prior=None, tokenizer=None, bits=8, batch_size=100, **told):
    settings = MetricsConfig(nll=NllConfig(budget=7, batch_size=batch_size), pixel_bits=bits)
    evidence = Evidence(role="prior", protocol=ProtocolConfig(), protocol_id="p", settings=settings,
                        speed=SpeedConfig(),
                        images=lambda side: ArrayImages(images), features=lambda side: pytest.fail("needs no features"),
                        validation_tokens=lambda: pytest.fail("encodes images of its own bit depth"),
                        workspace=Path(), caches=Path(), prior=prior or Unigram(), likelihood=tokenizer, **told)
    metric = PixelNegativeLogLikelihood()
    assert metric.applies(evidence)
    result, = metric(evidence)
    return result


def random_images(num):
    return np.random.default_rng(0).integers(0, 256, (num, 3, 1, 1), dtype=np.uint8)


def every_image(bits):
    levels = [k << (8 - bits) for k in range(2**bits)]
    return np.array(list(itertools.product(levels, repeat=3)), np.uint8)[:, :, None, None]


def normal_mass(low, high, mean):
    below = [0.5 * (1 + math.erf((x - mean) / (SIGMA * math.sqrt(2)))) for x in (low, high)]
    return below[1] - below[0]


def test_one_image_has_its_closed_form():
    """Levels 16, 112 and 64 of 256 are bins 1, 7 and 4 of 16: a dark image, mean 1/4."""
    image = np.array([16, 112, 64], np.uint8).reshape(1, 3, 1, 1)
    pixels = sum(-math.log2(normal_mass(k / 16, (k + 1) / 16, 0.25)) for k in (1, 7, 4))
    result = measure(image, tokenizer=Brightness(), bits=4)
    assert result.value == pytest.approx((pixels - math.log2(0.7)) / 3, rel=1e-9)


def test_the_parts_add_up():
    result = measure(random_images(20), tokenizer=Brightness())
    assert result.extra["prior_bits_per_dim"] + result.extra["decoder_bits_per_dim"] == pytest.approx(result.value)


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_probabilities_of_all_images_sum_to_no_more_than_one(bits):
    images = every_image(bits)
    total = sum(2.0 ** (-3 * measure(image[None], tokenizer=Brightness(), bits=bits).value) for image in images)
    assert 0 < total <= 1 + 1e-9


def test_the_published_kind_of_number_counts_the_density_at_the_bin_s_centre():
    image = np.full((1, 3, 1, 1), 72, np.uint8)
    value = (72 + 0.5) / 256
    density = math.exp(-0.5 * ((value - 0.25) / SIGMA) ** 2) / (SIGMA * math.sqrt(2 * math.pi))
    found = measure(image, tokenizer=Brightness()).extra["bits_per_dim_by_density"]
    assert found == pytest.approx(8 - math.log2(density) - math.log2(0.7) / 3, rel=1e-9)


def test_it_is_an_upper_bound_even_with_an_exact_prior():
    result = measure(random_images(9), tokenizer=Brightness())
    assert result.bound == "upper" and result.extra["kind"] == "exact" and result.extra["budget"] is None


def test_bit_depths_have_columns_of_their_own():
    names = [measure(random_images(9), tokenizer=Brightness(), bits=bits).metric for bits in (8, 5)]
    assert names == ["bits_per_dim", "bits_per_dim_5bit"]


def test_the_prior_s_monte_carlo_error_is_told_apart():
    extra = measure(random_images(50), prior=Noisy(), tokenizer=Brightness()).extra
    assert extra["monte_carlo_se"] == pytest.approx(0.1 / math.sqrt(50) / (3 * math.log(2))) and extra["budget"] == 7


def test_every_validation_image_counts_whatever_the_batches():
    whole, split = (measure(random_images(37), tokenizer=Brightness(), batch_size=size) for size in (100, 8))
    assert whole.n == split.n == 37 and whole.value == pytest.approx(split.value, rel=1e-12)


def test_a_tokenizer_without_likelihood_leaves_a_hole_that_says_how_to_get_one():
    result = measure(random_images(3))
    assert result.value is None and "vq.likelihood_head=true" in result.note


def test_a_prior_without_likelihood_leaves_its_reason():
    result = measure(random_images(3), prior=Refusing(), tokenizer=Brightness())
    assert result.value is None and result.note == "has no likelihood"


def test_a_head_that_diverged_is_an_error():
    with pytest.raises(BenchError, match="3 of 3 images.*learning_rate"):
        measure(random_images(3), tokenizer=Diverged())


def test_images_that_score_keep_their_own_conditions():
    prior, scored = Told(), np.array([1, 4, 5])
    result = measure(random_images(6), prior=prior, tokenizer=Brightness(), scored=scored, batch_size=2,
                     condition=lambda images: Condition(labels=torch.from_numpy(images)))
    assert result.n == 3 and prior.labels == scored.tolist()
