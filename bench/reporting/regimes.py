"""In which regime a model was trained: how often it saw how many images. A verdict holds there and nowhere else.

    regime = regime_of(row, "prior")
    regime.text       # "6 passes over 50,000 images, 5,000 steps (0.25% of the paper's)"
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from bench.reporting.rows import Row

Stage = Literal["prior", "vq"]
STAGE_BATCH = {"prior": 20, "vq": 4}
"""The paper's batch sizes."""
PAPER_STEPS = {"prior": 2_000_000, "vq": 500_000}
"""Of the priors on Churches, and on FFHQ at most; of the tokenizers of Table 5."""
PAPER_IMAGES = {"ffhq": 66_500, "churches": 126_227}
PAPER = ("The paper's priors: 2,000,000 steps of 20, which is up to 600 passes over FFHQ's 66,500 images (0.22 tokens "
         "a parameter) and 317 over those of Churches (0.42). Its Table 5: 500,000 steps of 4, 30 and 16 passes.")
PUBLISHED_IMAGES = {"cifar10": 50_000, "fashion_mnist": 60_000}
"""Training images of data sets whose published test split validates."""
SAME = 0.1
"""Regimes whose passes and images differ by no more than this share are one."""


@dataclass(frozen=True)
class Regime:
    """One training. images: distinct ones, None where no record tells; steps_share: of the paper's number of steps."""

    steps: int
    presentations: int
    images: int | None
    steps_share: float
    is_papers: bool
    tokens_per_parameter: float | None = None

    @property
    def passes(self) -> float | None:
        return self.presentations / self.images if self.images else None

    @property
    def budget(self) -> str:
        """Complements "not": "at 6 passes over the data"."""
        if self.passes is None:
            return f"after {self.steps:,} steps"
        return f"at {_passes(self.passes)} over the data"

    @property
    def text(self) -> str:
        seen = f"{self.presentations:,} images shown" if self.passes is None else \
            f"{_passes(self.passes)} over {self.images:,} images"
        tokens = f", {self.tokens_per_parameter:.2g} tokens a parameter" if self.tokens_per_parameter else ""
        return f"{seen}, {self.steps:,} steps ({self.steps_share:.2g}% of the paper's){tokens}"


def regime_of(row: Row, stage: Stage) -> Regime | None:
    """As the record tells it, else from steps, batch and training images; None of a model that came from elsewhere."""
    training = (row.spec.get(stage) or {}).get("training") or {}
    steps, batch = training.get("steps"), training.get("batch_size")
    if not steps or not batch or (row.spec.get(stage) or {}).get("path"):
        return None
    told: dict[str, Any] = next((found for record in row.records if (found := record.provenance.get("regime"))), {}) \
        if stage == "prior" else {}
    presentations = int(told.get("presentations") or steps * batch)
    images = told.get("images") or _images(row.spec, stage)
    dataset = (row.spec.get("dataset") or {}).get("name")
    return Regime(int(steps), presentations, int(images) if images else None, 100 * steps / PAPER_STEPS[stage],
                  _is_papers(dataset, stage, presentations, images), told.get("tokens_per_parameter"))


def _images(spec: dict[str, Any], stage: Stage) -> int | None:
    """Distinct training images, where the configuration and the data set's published size tell."""
    dataset = spec.get("dataset") or {}
    if dataset.get("path"):
        return None
    limits = [PUBLISHED_IMAGES.get(str(dataset.get("name"))), dataset.get("max_train")]
    subset = spec[stage]["training"].get("images") if stage == "prior" else None
    known = [int(limit) for limit in (*limits, subset) if limit]
    return min(known, default=None)


def _is_papers(dataset: str | None, stage: Stage, presentations: int, images: float | None) -> bool:
    published = PAPER_IMAGES.get(str(dataset))
    if published is None or not images:
        return False
    passes = PAPER_STEPS[stage] * STAGE_BATCH[stage] / published
    return math.isclose(images, published, rel_tol=SAME) and math.isclose(presentations / images, passes, rel_tol=SAME)


def _passes(passes: float) -> str:
    number = f"{passes:.0f}" if passes >= 1 else f"{passes:.2g}"
    return f"{number} pass{'' if number == '1' else 'es'}"
