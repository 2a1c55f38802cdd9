"""KID within each class: its mean, its error, the classes of the real images, and when there is none."""

from types import SimpleNamespace

import numpy as np
import pytest

from bench.data.labels import Labels
from bench.metrics.kernel import kid
from bench.metrics.kid_per_class import LEAST_FOR_INTERVAL, KernelDistancePerClass

D = 16


def evidence_of(fake_classes, real_classes, *, seed=0, shift=0.0, real_split="validation"):
    """Features that differ from class to class; samples' are shifted."""
    rng = np.random.default_rng(seed)
    held_out = np.asarray(fake_classes if real_split == "train" else real_classes)
    labels = Labels(("a", "b", "c"), np.asarray(real_classes), held_out)
    judged_as = np.array([np.flatnonzero(held_out == c)[0] for c in fake_classes], dtype=np.int64)

    def drawn(classes):
        return (rng.standard_normal((len(classes), D)) + 3 * np.asarray(classes)[:, None]).astype(np.float32)

    sides = {"fake": drawn(fake_classes) + np.float32(shift), "real": drawn(real_classes)}
    protocol = SimpleNamespace(reference=None, real_split=real_split)
    return SimpleNamespace(labels=labels, judged_as=judged_as, protocol=protocol, protocol_id="demo-1",
                           real_indices=np.arange(len(real_classes)), features=sides.__getitem__)


BALANCED, UNEVEN = np.arange(60) % 3, np.array([0] * 30 + [1] * 20 + [2] * 12)


@pytest.mark.parametrize("real_split", ["validation", "train"])
def test_it_is_the_mean_of_the_classes_own_distances(real_split):
    evidence = evidence_of(BALANCED, UNEVEN, shift=0.5, real_split=real_split)
    found, = KernelDistancePerClass()(evidence)
    fake, real = evidence.features("fake"), evidence.features("real")
    own = [kid(fake[BALANCED == c], real[UNEVEN == c]) for c in range(3)]
    assert found.value == pytest.approx(np.mean([result.value for result in own]))
    assert found.standard_error == pytest.approx(np.linalg.norm([result.standard_error for result in own]) / 3)
    assert found.extra["classes"]["b"] == [own[1].value, own[1].standard_error] and found.ci_low < found.value


def test_samples_of_the_wrong_class_are_far_though_all_together_they_are_not():
    evidence = evidence_of(BALANCED, UNEVEN)
    fake = evidence.features("fake")
    evidence.features = {"fake": np.roll(fake, 1, axis=0), "real": evidence.features("real")}.__getitem__
    swapped, = KernelDistancePerClass()(evidence)
    assert swapped.value > 100 * abs(KernelDistancePerClass()(evidence_of(BALANCED, UNEVEN))[0].value)


def test_a_class_with_too_few_images_is_a_hole_that_names_it():
    found, = KernelDistancePerClass()(evidence_of([0] * 9 + [1] * 9 + [2] * 2, BALANCED))
    assert found.value is None
    assert found.note.startswith("class 'c' has 2 judged and 20 real images: expected at least 3 of each class")


def test_with_few_images_of_a_class_there_is_no_interval_and_it_says_why():
    found, = KernelDistancePerClass()(evidence_of([0] * 20 + [1] * 20 + [2] * 5, BALANCED))
    assert found.value is not None and found.ci_low is None
    assert found.note == "class 'c' has 5 judged and 20 real images: below 10 no interval is sound"


def test_statistics_of_a_file_have_no_classes():
    evidence = evidence_of(BALANCED, BALANCED)
    evidence.protocol.reference = "statistics.npz"
    found, = KernelDistancePerClass()(evidence)
    assert found.value is None and "do not tell one class from another" in found.note


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
def test_its_intervals_contain_the_truth(shift):
    """In 90% of 200 draws or more, with as few images of a class as have an interval."""
    classes = np.repeat(np.arange(3), LEAST_FOR_INTERVAL)
    truth = np.mean([KernelDistancePerClass()(evidence_of(classes, classes, seed=10_000 + seed, shift=shift))[0].value
                     for seed in range(1_000)])
    found = [KernelDistancePerClass()(evidence_of(classes, classes, seed=seed, shift=shift))[0] for seed in range(200)]
    share = np.mean([m.ci_low <= truth <= m.ci_high for m in found])
    print(f"coverage, shift {shift}: KID per class {truth:.4f} inside {share:.3f} of 200 intervals")
    assert share >= 0.90
