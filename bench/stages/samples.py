"""The images to be judged, whatever their source: drawn chunk by chunk, so that jobs can share them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.data.arrays import SubsetImages, spread_indices
from bench.labels import label_of
from bench.progress import Bar
from bench.stages.base import Run, Stage, Work, ranges
from bench.stages.condition import condition_of_held_out, judged_as
from bench.stages.models import sampler_of
from bench.stages.prior import PRIOR
from bench.stages.tokenizer import TOKENIZER
from bench.store.chunks import chunk_path, concatenate, missing_chunks, save_chunk
from bench.store.store import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.stages.sources import Source
    from priors.conditions import Condition


class Samples(Stage):
    """Opens as the artefact itself: images.npy (n, 3, H, W) uint8, and tokens and costs where the source has them."""

    name = "samples"
    resources = "sampling"

    def applies(self, run: Run) -> bool:
        return not run.is_edit

    def inputs(self, run: Run) -> tuple[Stage, ...]:
        return {"prior": (PRIOR, TOKENIZER), "reconstruction": (TOKENIZER,)}.get(run.role, ())

    def recipe(self, run: Run) -> Recipe:
        spec = run.spec
        config: dict[str, Any] = {"source": run.role, "num": run.num_fake}
        inputs: tuple[str, ...]
        if run.role == "prior":
            config |= {"sampler": spec.sampler, "chunk": spec.sampling.chunk}
            inputs = (run.recipe(PRIOR).key, run.recipe(TOKENIZER).key)
        elif run.role == "reconstruction":
            inputs = (run.recipe(TOKENIZER).key, run.splits.fingerprint)
        elif run.role == "real":
            inputs = (run.splits.fingerprint,)
        else:
            config["of"] = run.foreign.total   # which of them are judged is spread over all
            inputs = (run.foreign.sha256, str(spec.dataset.resolution), spec.dataset.resize)
        return Recipe(self.name, config, inputs, self.version)

    def label(self, run: Run) -> str:
        of = f" of {run.foreign.total:,}" if run.role == "source" else ""
        return f"{run.num_fake:,}{of} images ({run.role})"

    def work(self, run: Run) -> Work:
        sampling = run.spec.sampling
        return Work(run.num_fake, "images", shards=shards_of(run, run.num_fake, sampling.chunk))

    def build(self, run: Run, out: Path, work: Path) -> None:
        chunks = _chunks(run)
        self._fill(run, work, range(len(chunks)))
        concatenate([chunk_path(work, index) for index in range(len(chunks))], run.num_fake, out)

    def fill(self, run: Run, work: Path, shard: int) -> None:
        self._fill(run, work, range(shard, len(_chunks(run)), run.spec.sampling.shards))

    def _fill(self, run: Run, work: Path, indices: range) -> None:
        chunks, missing = _chunks(run), missing_chunks(work, indices)
        source = _source(run) if missing else None
        with Bar(f"images ({label_of(run.spec)})", len(missing), unit="chunk") as bar:
            for index in missing:
                assert source is not None
                save_chunk(chunk_path(work, index), source.chunk(*chunks[index]))
                bar.advance()


SAMPLES = Samples()


def shards_of(run: Run, num_images: int, chunk: int) -> int:
    """The number of shards, at most one a chunk: a shard without work would still be a job."""
    return min(run.spec.sampling.shards, -(-num_images // chunk))


def sampling_cost(run: Run) -> dict[str, float]:
    """Tokens an image, and the means of what the judged samples cost, as they were counted when drawn."""
    folder = run.obtain(SAMPLES).path
    costs = {name: float(np.load(folder / f"{name}.npy").mean()) for name in ("network_evaluations", "token_forwards")
             if (folder / f"{name}.npy").is_file()}
    return costs | ({"num_tokens": float(np.prod(run.open(TOKENIZER).grid))} if run.uses_tokenizer else {})


def _chunks(run: Run) -> list[tuple[int, int]]:
    return [(int(c[0]), int(c[-1]) + 1) for c in ranges(run.num_fake, run.spec.sampling.chunk)]


def _condition(run: Run) -> Callable[[int, int], Condition] | None:
    """Of the samples from one number up to another; whole chunks are drawn, so there are some beyond the last."""
    if (condition := condition_of_held_out(run)) is None:
        return None
    chunk = run.spec.sampling.chunk
    images = judged_as(run, -(-run.num_fake // chunk) * chunk)
    assert images is not None
    return lambda start, stop: condition(images[start:stop])


def _source(run: Run) -> Source:
    from bench.stages.sources import ImageDataSource, PriorSource, ReconstructionSource

    if run.role == "prior":
        return PriorSource(run.open(PRIOR), run.open(TOKENIZER), sampler_of(run), seed=run.spec.sampler["seed"],
                           chunk=run.spec.sampling.chunk, device=run.device, condition=_condition(run))
    if run.role == "source":
        return ImageDataSource(run.foreign.images)
    held_out = SubsetImages(run.splits.validation, spread_indices(len(run.splits.validation), run.num_fake))
    if run.role == "reconstruction":
        return ReconstructionSource(held_out, run.open(TOKENIZER), device=run.device)
    return ImageDataSource(held_out)
