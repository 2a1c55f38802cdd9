"""How many samples show the class they were drawn for, as a small classifier sees it (cf. Ravuri & Vinyals 2019).

The classifier is trained here, on real training images alone, and kept. Its accuracy on held-out images and on their
reconstructions stands beside that on samples: samples drawn like real images reach it, and guided ones go beyond, at
the cost of diversity. It is a check of the condition, not of quality.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import nn

from bench.data.arrays import spread_indices
from bench.data.labels import Labels
from bench.metrics.base import Evidence
from bench.metrics.classifier import right, small, train, untrained
from bench.metrics.columns import columns
from bench.metrics.copy_search import ReconstructedImages
from bench.metrics.intervals import wilson_interval
from bench.provenance import content_id
from bench.records import Measurement
from bench.store import files
from priors.base import Draws

VERSION = 1   # raise when the trained classifier changes
MOST_TRAINED, MOST_HELD_OUT = 50_000, 2_000   # images


class ClassAccuracy:
    """Registry name "class_accuracy": of samples of a run with condition=class, of reconstructions and real images."""

    name = "class_accuracy"
    columns = columns("class_accuracy")
    conditions = ("class",)
    depends_on = ("protocol",)

    def applies(self, evidence: Evidence) -> bool:
        return evidence.labels is not None and evidence.judged_as is not None

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        labels, judged_as = evidence.labels, evidence.judged_as
        assert labels is not None and judged_as is not None
        classifier = trained_classifier(labels, evidence)
        fake = evidence.images("fake")
        hits = right(classifier, fake, np.arange(len(fake)), labels.validation[judged_as], evidence.device)
        mean, error = float(hits.mean()), float(hits.std() / len(hits) ** 0.5)
        low, high = wilson_interval(mean, len(hits))
        column = self.columns["class_accuracy"]
        return [Measurement("class_accuracy", mean, evidence.protocol_id, n=len(hits), standard_error=error,
                            ci_low=low, ci_high=high, unit=column.unit, better=column.better,
                            extra=_beside(classifier, labels, evidence))]


def trained_classifier(labels: Labels, evidence: Evidence) -> nn.Module:
    """The classifier of these images and labels, from the cache or trained."""
    images = evidence.images("train")
    key = content_id([VERSION, evidence.fingerprints["train"], labels.digest])
    path, model = evidence.caches / "classifiers" / f"{key}.safetensors", untrained(len(labels.names))
    if (weights := files.read(path, load_file)) is not None:
        model.load_state_dict(weights)
        return model.to(evidence.device).eval()
    evidence.progress("training the classifier of class_accuracy")
    chosen = spread_indices(len(images), MOST_TRAINED)
    train(model.to(evidence.device), small(images, chosen), torch.from_numpy(labels.train[chosen]), evidence.device,
          draws=Draws.seeded("classifier"))
    _keep(model, path)
    return model


def _beside(classifier: nn.Module, labels: Labels, evidence: Evidence) -> dict[str, object]:
    """What the classifier makes of held-out images and, behind a prior, of their reconstructions; and mere chance."""
    held_out, device = evidence.images("validation"), evidence.device
    chosen = spread_indices(len(held_out), MOST_HELD_OUT)
    truth = labels.validation[chosen]
    beside: dict[str, object] = {"held_out_accuracy": float(right(classifier, held_out, chosen, truth, device).mean()),
              "chance": float(np.bincount(truth).max() / len(truth)), "num_held_out": len(chosen)}
    if evidence.role == "prior":
        reconstructed = ReconstructedImages(held_out, evidence.tokenizer, device)
        hits = right(classifier, reconstructed, chosen, truth, device)
        beside["reconstruction_accuracy"] = float(hits.mean())
    return beside


def _keep(model: nn.Module, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.keeping(path) as stream:
        stream.write(save({name: value.cpu().contiguous() for name, value in model.state_dict().items()}))
