"""How many samples show the class they were drawn for, as a small classifier sees it (cf. Ravuri & Vinyals 2019).

The classifier is trained here, on real training images alone, and kept. Its accuracy on held-out images and on their
reconstructions stands beside that on samples: a sample cannot be asked for more. It is a check of the condition, not of
quality: guidance raises it at the cost of diversity.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor, nn

from bench.data.arrays import spread_indices
from bench.data.base import ImageData
from bench.data.labels import Labels
from bench.metrics.base import Evidence
from bench.metrics.columns import columns
from bench.metrics.copy_search import ReconstructedImages
from bench.metrics.intervals import wilson_interval
from bench.provenance import content_id
from bench.records import Measurement
from bench.store import files
from priors.base import Draws

VERSION = 1   # raise when the trained classifier changes
SIDE = 32   # pixels; larger images are averaged down to it
MOST_TRAINED, MOST_HELD_OUT = 50_000, 2_000   # images
BATCH, EPOCHS, STEPS = 128, 20, (200, 2_000)   # as many steps as the epochs take, within these


class ClassAccuracy:
    """Registry name "class_accuracy": of samples of a run with condition=class, of reconstructions and real images."""

    name = "class_accuracy"
    columns = columns("class_accuracy")
    depends_on = ("protocol",)

    def applies(self, evidence: Evidence) -> bool:
        return evidence.labels is not None and evidence.judged_as is not None

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        labels, judged_as = evidence.labels, evidence.judged_as
        assert labels is not None and judged_as is not None
        classifier = trained_classifier(labels, evidence)
        fake = evidence.images("fake")
        right = _right(classifier, fake, np.arange(len(fake)), labels.validation[judged_as], evidence.device)
        mean, error = float(right.mean()), float(right.std() / len(right) ** 0.5)
        low, high = wilson_interval(mean, len(right))
        column = self.columns["class_accuracy"]
        return [Measurement("class_accuracy", mean, evidence.protocol_id, n=len(right), standard_error=error,
                            ci_low=low, ci_high=high, unit=column.unit, better=column.better,
                            extra=_beside(classifier, labels, evidence))]


def trained_classifier(labels: Labels, evidence: Evidence) -> nn.Module:
    """The classifier of these images and labels, from the cache or trained."""
    images = evidence.images("train")
    key = content_id([VERSION, evidence.fingerprints["train"], labels.digest])
    path, model = evidence.caches / "classifiers" / f"{key}.safetensors", _untrained(len(labels.names))
    if (weights := files.read(path, load_file)) is not None:
        model.load_state_dict(weights)
        return model.to(evidence.device).eval()
    evidence.progress("training the classifier of class_accuracy")
    chosen = spread_indices(len(images), MOST_TRAINED)
    _train(model.to(evidence.device), _small(images, chosen), torch.from_numpy(labels.train[chosen]), evidence.device)
    _keep(model, path)
    return model


def _beside(classifier: nn.Module, labels: Labels, evidence: Evidence) -> dict[str, object]:
    """What the classifier makes of held-out images and, behind a prior, of their reconstructions; and mere chance."""
    held_out, device = evidence.images("validation"), evidence.device
    chosen = spread_indices(len(held_out), MOST_HELD_OUT)
    truth = labels.validation[chosen]
    beside: dict[str, object] = {"held_out_accuracy": float(_right(classifier, held_out, chosen, truth, device).mean()),
              "chance": float(np.bincount(truth).max() / len(truth)), "num_held_out": len(chosen)}
    if evidence.role == "prior":
        reconstructed = ReconstructedImages(held_out, evidence.tokenizer, device)
        right = _right(classifier, reconstructed, chosen, truth, device)
        beside["reconstruction_accuracy"] = float(right.mean())
    return beside


def _untrained(num_classes: int) -> nn.Sequential:
    """Three convolutions with seeded weights. GroupNorm, so that an answer does not depend on its batch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for before, width in ((3, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.GroupNorm(8, width), nn.ReLU(),
                       nn.MaxPool2d(2, ceil_mode=True)]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, num_classes))


def _train(model: nn.Module, images: Tensor, labels: Tensor, device: str) -> None:
    """images: (n, 3, h, w) uint8; labels: (n,)."""
    steps = min(max(EPOCHS * len(images) // BATCH, STEPS[0]), STEPS[1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    draws = Draws.seeded("classifier")
    model.train()
    for _ in range(steps):
        batch = draws.integers(0, len(images), BATCH)
        loss = F.cross_entropy(model(_scaled(images[batch].to(device))), labels[batch].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()


def _right(model: nn.Module, images: ImageData, indices: np.ndarray, truth: np.ndarray, device: str) -> np.ndarray:
    """(n,) float64: 1 where the classifier says the true class."""
    found = []
    for start in range(0, len(indices), BATCH):
        batch = _small(images, indices[start : start + BATCH]).to(device)
        with torch.inference_mode():
            found.append(model(_scaled(batch)).argmax(1).cpu().numpy())
    return (np.concatenate(found) == truth).astype(np.float64)


def _small(images: ImageData, indices: np.ndarray) -> Tensor:
    """(n, 3, h, w) uint8 of at most SIDE pixels a side."""
    parts = []
    for start in range(0, len(indices), 500):
        batch = torch.from_numpy(images.images(indices[start : start + 500]))
        if batch.shape[-1] > SIDE:
            batch = F.adaptive_avg_pool2d(batch.float(), SIDE).round().to(torch.uint8)
        parts.append(batch)
    return torch.cat(parts)


def _scaled(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1


def _keep(model: nn.Module, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.keeping(path) as stream:
        stream.write(save({name: value.cpu().contiguous() for name, value in model.state_dict().items()}))
