"""Captions of the training images that samples look like: planted copies get 1, shuffled ones what chance gives."""

import numpy as np
import pytest
import torch

from bench.config import MetricsConfig, ProtocolConfig, SpeedConfig
from bench.data.arrays import ArrayImages
from bench.data.labels import Captions
from bench.metrics import copy_search
from bench.metrics.base import Evidence
from bench.metrics.caption_agreement import CaptionAgreement, chance
from bench.metrics.copy_search import copy_candidates, nearest_candidates
from bench.testing import check_metric
from tests.tiny_lpips import TinyLpips

WORDS = ("red", "green", "blue", "grey")
SHADES = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220), "grey": (120, 120, 120)}


def pictures(words, seed):
    noise = np.random.default_rng(seed).integers(-15, 16, (len(words), 3, 4, 4))
    shades = np.array([SHADES[word] for word in words])[:, :, None, None]
    return ArrayImages((shades + noise).astype(np.uint8))


def words(num, seed):
    return tuple(np.random.default_rng(seed).choice(WORDS, num).tolist())


TRAIN, HELD_OUT = words(60, 0), words(40, 1)


@pytest.fixture
def evidence(tmp_path, monkeypatch):
    """Makes evidence of samples that look like these words, drawn for the held-out captions in their order."""
    monkeypatch.setattr(copy_search, "lpips_model", lambda net: TinyLpips())

    def make(look=None, train=TRAIN, held_out=HELD_OUT):
        captions = Captions(train, held_out)

        def means(split, images):
            of_split = getattr(captions, split)
            return np.array([np.arange(1, 5) * [word == of_split[i] for word in WORDS] for i in images], np.float32)

        sides = {"train": pictures([word or "grey" for word in train], 2),
                 "validation": pictures([word or "grey" for word in held_out], 3),
                 "fake": pictures(look or [word or "grey" for word in held_out], 4)}
        return Evidence(
            role="prior", protocol=ProtocolConfig(neighbours_resolution=4), protocol_id="p", settings=MetricsConfig(),
            speed=SpeedConfig(), images=sides.__getitem__, features=None, validation_tokens=None, workspace=tmp_path,
            caches=tmp_path, captions=captions, caption_means=means, judged_as=np.arange(len(held_out)))

    return make


def test_a_copier_of_its_captions_images_gets_1(evidence):
    found, = CaptionAgreement()(evidence())
    assert (found.value, found.n, found.extra["held_out"]) == (pytest.approx(1), 40, pytest.approx(1))
    assert (found.ci_low, found.ci_high) == (pytest.approx(1), pytest.approx(1))


def test_samples_that_mind_no_caption_get_what_chance_gives(evidence):
    """Features of different words are orthogonal, so the mean cosine is the share of like words."""
    look = words(40, 5)
    found, = CaptionAgreement()(evidence(look=look))
    assert found.value == pytest.approx(np.mean([a == b for a, b in zip(HELD_OUT, look, strict=True)]))
    pairs = [HELD_OUT[i] == look[j] for i in range(40) for j in range(40) if i != j]
    assert found.extra["chance"] == pytest.approx(np.mean(pairs))
    assert found.ci_low < found.extra["chance"] < found.ci_high
    assert found.extra["held_out"] == pytest.approx(1)


def test_samples_all_alike_get_no_more_than_their_own_chance(evidence):
    found, = CaptionAgreement()(evidence(look=["red"] * 40))
    assert found.value == pytest.approx(found.extra["chance"]) == np.mean([word == "red" for word in HELD_OUT])


def test_samples_without_a_caption_are_not_judged_and_images_without_one_agree_with_nothing(evidence):
    held_out = ("", "red", "grey", "red")
    found, = CaptionAgreement()(evidence(train=("red", "", "blue"), held_out=held_out))   # the second looks grey
    assert found.n == 3 and found.value == pytest.approx(2 / 3)
    none, = CaptionAgreement()(evidence(held_out=("", "red", "")))
    assert none.value is None and none.note == "1 of the judged images have a caption: 2 are needed"


def test_a_tokenizers_blur_is_that_of_all_images(evidence):
    """Samples of a tokenizer that shows every image inverted are compared with inverted training images."""
    class Inverting:
        def encode(self, images):
            return images

        def decode(self, images):
            return 255 - images

    plain, inverted = evidence(), evidence()
    inverted.tokenizer, images = Inverting(), inverted.images
    inverted.images = lambda side: ArrayImages(255 - images(side).array) if side == "fake" else images(side)
    assert CaptionAgreement()(inverted)[0].value == CaptionAgreement()(plain)[0].value
    assert CaptionAgreement()(inverted)[0].extra["held_out_images"] == "reconstructed"


def test_the_nearest_candidate_is_that_of_full_matrices_and_the_first_of_equals(evidence):
    made = evidence()
    train = ArrayImages(np.concatenate([made.images("train").array] * 6))   # 360: more than a block
    candidates = copy_candidates(made, train)
    found = nearest_candidates(made.images("fake"), candidates)
    rows, queries = (candidates.embedding.embed(side.array) for side in (made.images("train"), made.images("fake")))
    assert np.array_equal(found, torch.cdist(queries.double(), rows.double()).argmin(1).numpy())


def test_chance_is_the_mean_of_all_other_pairs():
    rng = np.random.default_rng(0)
    own, found = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in rng.standard_normal((2, 7, 3)))
    cosines = own @ found.T
    assert chance(own, found) == pytest.approx(cosines[~np.eye(7, dtype=bool)].mean())


def test_it_is_of_captions_alone_and_keeps_the_contract(evidence):
    made = evidence()
    assert check_metric(CaptionAgreement, evidence=made).faults == ()
    made.captions = None
    assert not CaptionAgreement().applies(made) and check_metric("caption_agreement").faults == ()
