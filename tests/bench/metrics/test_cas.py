"""Classification accuracy score: what is learnt from samples and the classes asked for holds on real images, or not."""

from types import SimpleNamespace

import numpy as np
import pytest

from bench.data.arrays import ArrayImages
from bench.data.labels import Labels
from bench.metrics import classifier
from bench.metrics.cas import SEEDS, ClassificationAccuracyScore, taught
from bench.metrics.intervals import student_interval

TRAIN, HELD_OUT, FAKE = 60, 40, 24


def images_of(classes, seed):
    """Class 0 is dark, class 1 bright, with noise: (n, 3, 4, 4)."""
    noise = np.random.default_rng(seed).integers(0, 60, (len(classes), 3, 4, 4))
    return (np.asarray(classes)[:, None, None, None] * 150 + noise).astype(np.uint8)


@pytest.fixture
def evidence(monkeypatch):
    monkeypatch.setattr(classifier, "STEPS", (30, 30))
    labels = Labels(("dark", "bright"), np.arange(TRAIN) % 2, np.arange(HELD_OUT) % 2)
    judged_as = np.arange(FAKE)

    def make(role="prior", shown=None):
        """shown: the class that each sample shows, as asked for if not given."""
        asked = labels.validation[judged_as]
        sides = {"train": images_of(labels.train, 0), "validation": images_of(labels.validation, 1),
                 "fake": images_of(asked if shown is None else shown(asked), 2)}
        if role in ("real", "reconstruction"):
            sides["fake"] = sides["validation"][:FAKE]
        darker = SimpleNamespace(encode=lambda images: images, decode=lambda tokens: tokens // 2)
        return SimpleNamespace(role=role, device="cpu", protocol_id="demo-1", judged_as=judged_as, labels=labels,
                               protocol=SimpleNamespace(num_fake=FAKE), images=lambda side: ArrayImages(sides[side]),
                               tokenizer=darker, progress=lambda text: None)

    return make


def test_samples_of_the_classes_asked_for_teach_them_and_swapped_ones_teach_the_opposite(evidence):
    obedient, = ClassificationAccuracyScore()(evidence())
    swapped, = ClassificationAccuracyScore()(evidence(shown=lambda asked: 1 - asked))
    assert obedient.value == 1 and swapped.value == 0 and obedient.n == FAKE


def test_samples_that_are_all_alike_teach_nothing(evidence):
    alike, = ClassificationAccuracyScore()(evidence(shown=np.zeros_like))
    assert alike.value == pytest.approx(0.5, abs=0.25)


def test_real_images_teach_in_equal_number_and_never_those_that_test(evidence):
    real, classes = taught(evidence("real"))
    chosen = np.linspace(0, TRAIN - 1, FAKE).round().astype(int)
    assert np.array_equal(real.images(range(FAKE)), images_of(np.arange(TRAIN) % 2, 0)[chosen])
    assert np.array_equal(classes, chosen % 2)


def test_reconstructions_teach_as_the_tokenizer_gives_the_same_images_back(evidence):
    (real, _), (reconstructed, classes) = taught(evidence("real")), taught(evidence("reconstruction"))
    assert np.array_equal(reconstructed.images(range(FAKE)), real.images(range(FAKE)) // 2)
    assert len(classes) == len(reconstructed) == FAKE


def test_its_interval_is_that_of_the_classifiers_seeds_and_says_so(evidence, monkeypatch):
    scores = iter([0.5, 0.6, 0.85])
    monkeypatch.setattr("bench.metrics.cas._score", lambda *arguments: next(scores))
    found, = ClassificationAccuracyScore()(evidence())
    error = np.std([0.5, 0.6, 0.85], ddof=1) / SEEDS ** 0.5
    low, high = student_interval(0.65, error, degrees=2)
    assert (found.value, found.ci_low, found.ci_high) == pytest.approx((0.65, max(0, low), min(1, high)))
    assert "seeds alone" in found.note and found.extra["seeds"] == [0.5, 0.6, 0.85]


def test_without_classes_or_for_images_from_elsewhere_there_is_none(evidence):
    metric = ClassificationAccuracyScore()
    told, untold, foreign = evidence(), evidence(), evidence("source")
    untold.labels, foreign.judged_as = None, None
    assert metric.applies(told) and not metric.applies(untold) and not metric.applies(foreign)
