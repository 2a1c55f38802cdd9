"""Classification accuracy score (Ravuri & Vinyals 2019): can one learn the classes of real images from samples?

Classifiers are trained on a row's images with the classes asked for, and tested on real held-out images. The row of
real images trains on as many real training images, that of reconstructions on reconstructions of the same: held-out
images never teach. Unlike `class_accuracy` it falls where samples obey and are all alike, so guidance cannot buy it.
"""

from __future__ import annotations

import numpy as np
import torch

from bench.data.arrays import SubsetImages, spread_indices
from bench.data.base import ImageData
from bench.data.labels import Labels
from bench.metrics.base import Evidence
from bench.metrics.class_accuracy import MOST_HELD_OUT
from bench.metrics.classifier import right, small, train, untrained
from bench.metrics.columns import columns
from bench.metrics.copy_search import ReconstructedImages
from bench.metrics.intervals import clip_interval, mean_error, student_interval
from bench.records import Measurement
from priors.base import Draws

SEEDS = 3   # classifiers: other weights at first, other batches
NOTE = (f"mean of {SEEDS} classifiers; the interval is of their seeds alone, neither of the samples nor of the "
        "held-out images")


class ClassificationAccuracyScore:
    """Registry name "cas": of samples of a run with condition=class, of reconstructions and real images."""

    name = "cas"
    columns = columns("cas")
    conditions = ("class",)
    depends_on = ("protocol",)

    def applies(self, evidence: Evidence) -> bool:
        return evidence.labels is not None and evidence.judged_as is not None

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        images, classes = taught(evidence)
        assert evidence.labels is not None
        scores = np.array([_score(images, classes, evidence.labels, seed, evidence) for seed in range(SEEDS)])
        column, mean, error = self.columns["cas"], float(scores.mean()), mean_error(scores)
        low, high = clip_interval(student_interval(mean, error, degrees=SEEDS - 1), 0.0, 1.0)
        return [Measurement("cas", mean, evidence.protocol_id, n=len(images), standard_error=error, ci_low=low,
                            ci_high=high, unit=column.unit, better=column.better, note=NOTE,
                            extra={"seeds": scores.tolist(), "num_held_out": len(_held_out(evidence))})]


def taught(evidence: Evidence) -> tuple[ImageData, np.ndarray]:
    """What the classifiers learn from: images, and the class of each; as many for every row, if there are so many."""
    labels, judged_as = evidence.labels, evidence.judged_as
    assert labels is not None and judged_as is not None
    if evidence.role not in ("real", "reconstruction"):
        return evidence.images("fake"), labels.validation[judged_as]
    chosen = spread_indices(len(labels.train), evidence.protocol.num_fake)
    real: ImageData = SubsetImages(evidence.images("train"), chosen)
    if evidence.role == "reconstruction":
        real = ReconstructedImages(real, evidence.tokenizer, evidence.device)
    return real, labels.train[chosen]


def _score(images: ImageData, classes: np.ndarray, labels: Labels, seed: int, evidence: Evidence) -> float:
    """The accuracy on held-out images of the classifier of one seed."""
    evidence.progress(f"training classifier {seed + 1} of {SEEDS} of cas")
    model = untrained(len(labels.names), seed=seed).to(evidence.device)
    train(model, small(images, np.arange(len(images))), torch.from_numpy(classes), evidence.device,
          draws=Draws.seeded("cas", seed))
    chosen = _held_out(evidence)
    return float(right(model, evidence.images("validation"), chosen, labels.validation[chosen], evidence.device).mean())


def _held_out(evidence: Evidence) -> np.ndarray:
    return spread_indices(len(evidence.images("validation")), MOST_HELD_OUT)
