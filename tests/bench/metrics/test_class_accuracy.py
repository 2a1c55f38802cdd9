"""The share of samples that a classifier takes for their class, with the interval of a share."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bench.data.arrays import ArrayImages
from bench.data.labels import labels_from
from bench.metrics import class_accuracy
from bench.metrics.class_accuracy import ClassAccuracy
from bench.metrics.intervals import wilson_interval

NUM = 40


@pytest.fixture
def evidence(monkeypatch):
    """Makes evidence of a model so many of whose samples are bright, as the class asks for."""
    monkeypatch.setattr(class_accuracy, "trained_classifier", lambda labels, evidence: Brightness())

    def make(bright):
        fake, rest = np.zeros((NUM, 3, 2, 2), np.uint8), np.full((4, 3, 2, 2), 255, np.uint8)
        fake[:bright] = 255
        return SimpleNamespace(
            role="source", device="cpu", protocol_id="demo-1", judged_as=np.zeros(NUM, np.int64),
            labels=labels_from(["bright", "dark"] * 2, ["bright"] * 4),
            images=lambda side: ArrayImages(fake if side == "fake" else rest))

    return make


class Brightness(torch.nn.Module):
    def forward(self, x):
        mean = x.mean((1, 2, 3))
        return torch.stack([mean, -mean], dim=1)


@pytest.mark.parametrize("bright", [0, 13, NUM])
def test_its_interval_is_that_of_a_share(evidence, bright):
    found, = ClassAccuracy()(evidence(bright))
    assert found.value == bright / NUM
    assert (found.ci_low, found.ci_high) == wilson_interval(bright / NUM, NUM)
