"""Features of images under the protocol's extractor: two stages, of the judged and of the protocol's real images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench.data.arrays import ArrayImages, SubsetImages
from bench.data.base import ImageData
from bench.progress import Bar
from bench.stages.base import Run, Stage, Work
from bench.stages.completions import COMPLETIONS
from bench.stages.identity import extractor_of
from bench.stages.samples import SAMPLES, shards_of
from bench.store.store import Artefact, Recipe

FEATURE_CHUNK = 250   # images whose features are saved together: the unit of resuming and of sharding


@dataclass(frozen=True)
class Features(Stage):
    """side: "fake" for the judged images (samples or completions), "real" for the protocol's.

    Opens as (n, D) float32, a memory map."""

    side: Literal["fake", "real"] = "fake"
    name = "features"
    resources = "features"

    @property
    def title(self) -> str:
        return f"features of {self.side}"

    def inputs(self, run: Run) -> tuple[Stage, ...]:
        return (judged_stage(run),) if self.side == "fake" else ()

    def recipe(self, run: Run) -> Recipe:
        if self.side == "fake":
            judged = judged_stage(run)
            source: dict[str, Any] = {judged.name: run.recipe(judged).key}
        else:
            source = {"split": run.spec.protocol.real_split, "num": len(run.real_indices),
                      "fingerprint": run.splits.fingerprint}
        return Recipe(self.name, {"extractor": extractor_of(run), **source}, (), self.version)

    def label(self, run: Run) -> str:
        return f"features of {self.work(run).amount:,}{' real' if self.side == 'real' else ''} images"

    def work(self, run: Run) -> Work:
        num = run.num_fake if self.side == "fake" else len(run.real_indices)
        return Work(num, "images", shards=shards_of(run, num, FEATURE_CHUNK))

    def build(self, run: Run, out: Path, work: Path) -> None:
        from bench.metrics.features import load_features

        self._extract(run, work)
        np.save(out / "features.npy", load_features(work))

    def fill(self, run: Run, work: Path, shard: int) -> None:
        self._extract(run, work, shard)

    def open(self, run: Run, artefact: Artefact) -> np.ndarray:
        return np.load(artefact.path / "features.npy", mmap_mode="r")

    def _extract(self, run: Run, work: Path, shard: int | None = None) -> None:
        """Features of all images (of one job's share) in shards under `work`."""
        from bench.metrics.features import extract_to, resolve_extractor

        images = judged_images(run) if self.side == "fake" else real_images(run)
        num_jobs = run.spec.sampling.shards
        total = len(images) if shard is None else -(-len(images) // num_jobs)
        with Bar(self.label(run), total, unit="image") as bar:
            extract_to(work, images, resolve_extractor(run.spec.protocol.extractor, device=run.device),
                       fingerprint=run.recipe(self).key, shard_size=FEATURE_CHUNK,
                       batch_size=run.spec.metrics.feature_batch_size, job=shard or 0,
                       num_jobs=1 if shard is None else num_jobs, progress=bar.advance)


JUDGED_FEATURES, REAL_FEATURES = Features(side="fake"), Features(side="real")


def judged_stage(run: Run) -> Stage:
    """What makes the images to be judged."""
    return COMPLETIONS if run.is_edit else SAMPLES


def judged_images(run: Run) -> ImageData:
    if run.is_edit:
        return ArrayImages(run.open(COMPLETIONS)["images"])
    return ArrayImages(np.load(run.obtain(SAMPLES).path / "images.npy", mmap_mode="r"))


def real_images(run: Run) -> ImageData:
    """The protocol's real images."""
    return SubsetImages(getattr(run.splits, run.spec.protocol.real_split), run.real_indices)
