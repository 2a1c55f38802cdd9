"""What a metric is: a name, its columns, and a function from evidence to measurements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor

from bench.config import MetricsConfig, ProtocolConfig, SpeedConfig
from bench.data.base import ImageData
from bench.data.labels import Captions, Labels
from bench.metrics.columns import Column
from bench.records import Measurement, Role
from priors.conditions import Condition

__all__ = ["Column", "Evidence", "FeatureSide", "Metric", "Side", "positions_seen"]
Side = Literal["fake", "real", "train", "validation"]
FeatureSide = Literal["fake", "real"]


@dataclass
class Evidence:
    """All a metric may look at, computed when asked for and cached by content.

    role: "prior", "reconstruction", "real" or "source" (images from elsewhere).
    protocol_id: stands in every measurement.
    images(side): the samples ("fake"), the protocol's real images ("real") or a split ("train", "validation"), read in
        pieces: `images("train").images(range(100))` is (100, 3, H, W) uint8, so no split need fit in memory.
    features(side): (n, D) float32 of the protocol's extractor for every sample ("fake") or real image of the protocol
        ("real"), possibly a memory map; InputError for the splits, which have none.
    validation_tokens: () -> (M, N) int64, those that score likelihoods: the scoring half, or all where none chose.
    scored: (M,) their positions in the validation split; None for all of them.
    prior, tokenizer, sampler: None where the row has none (real images have no prior).
    likelihood: the tokenizer with its pixel likelihood fine-tuned; None where it has none, or no metric asks for it.
    condition: of a run with one, indices of held-out images (n,) -> their conditions, a priors.conditions.Condition.
    judged_as: of such a run, the held-out image whose condition each judged image has, (n,) int64; None for images
        from elsewhere.
    labels: the classes of both splits, of a run with condition=class.
    captions: the captions of both splits, of a run with condition=text.
    caption_means: of such a run, a split and indices (n,) of its images -> (n, D) float32, the mean over its positions
        of each caption's features by the frozen encoder; 0 where there is no caption.
    real_indices: (n,) positions of the protocol's real images in the split they are of (`protocol.real_split`).
    seen: (n,) positions of the training images that the prior was trained on; None for all of them, and where the row
        has no prior or its training is not known.
    workspace: a folder of this measurement's own, kept until it is done: for resuming.
    caches: a folder shared by all runs, for content-keyed caches such as LPIPS embeddings of the training set.
    picture(name, tiles, rows, columns, labels): leaves a contact sheet of (rows*columns, 3, H, W) uint8 for the record.
    """

    role: Role
    protocol: ProtocolConfig
    protocol_id: str
    settings: MetricsConfig
    speed: SpeedConfig
    images: Callable[[Side], ImageData]
    features: Callable[[FeatureSide], np.ndarray]
    validation_tokens: Callable[[], Tensor]
    workspace: Path
    caches: Path
    prior: Any = None
    tokenizer: Any = None
    sampler: Any = None
    likelihood: Any = None
    scored: np.ndarray | None = None
    condition: Callable[[np.ndarray], Condition] | None = None
    judged_as: np.ndarray | None = None
    labels: Labels | None = None
    captions: Captions | None = None
    caption_means: Callable[[Literal["train", "validation"], np.ndarray], np.ndarray] | None = None
    real_indices: np.ndarray | None = None
    seen: np.ndarray | None = None
    device: str = "cpu"
    seed: int = 0
    fingerprints: dict[str, str] = field(default_factory=dict)
    picture: Callable[..., None] = lambda *args, **kwargs: None
    progress: Callable[[str], None] = lambda text: None


def positions_seen(evidence: Evidence) -> np.ndarray:
    """(n,) positions of the training images that samples may copy."""
    return np.arange(len(evidence.images("train"))) if evidence.seen is None else evidence.seen


class Metric(Protocol):
    """What the registry names; constructed without arguments.

    depends_on: the parts of the run's spec that change its output, such as ("protocol", "metrics.nll"); its cached
        measurements are reused while these, the samples and the versions of its columns stay the same.
    A metric that reads weights states `assets(spec)`, their names in the catalogue: had before anything is built.
    A metric with `is_machine_bound = True` is measured anew on other hardware. One with `ignores_samples = True` is of
    the prior and the seed alone, and is measured once for all samplers. One of conditional runs alone names
    their `conditions`, such as ("class",): asked of another prior's run, it is a hole that says so.
    """

    name: str
    columns: dict[str, Column]
    depends_on: tuple[str, ...]

    def applies(self, evidence: Evidence) -> bool:
        """False where the row cannot have this metric (a likelihood of real images without a prior)."""

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        """Measure. What cannot be had is a Measurement of value None whose note says why."""
