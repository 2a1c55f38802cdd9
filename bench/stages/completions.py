"""Held-out images with a part hidden, completed by the prior chunk by chunk, so that jobs can share them.

    run.open(COMPLETIONS)["images"]          # (n, 3, H, W) uint8
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.data.arrays import SubsetImages, spread_indices
from bench.errors import BenchError
from bench.labels import label_of
from bench.progress import Bar
from bench.stages.base import Run, Stage, Work
from bench.stages.prior import PRIOR
from bench.stages.samples import shards_of
from bench.stages.tokenizer import TOKENIZER
from bench.store.chunks import chunk_path, missing_chunks, save_chunk
from bench.store.store import Artefact, Recipe

if TYPE_CHECKING:
    from bench.stages.editor import Editor


class Completions(Stage):
    """Under the run's mask; of a run whose role is a reconstruction, the images are that. Opens as arrays by name:

    images (n, 3, H, W) uint8; seconds_per_image, network_evaluations and token_forwards (n,), of a prior's.
    """

    name = "edits"
    resources = "sampling"

    @property
    def title(self) -> str:
        return "completions"

    def applies(self, run: Run) -> bool:
        return run.is_edit

    def inputs(self, run: Run) -> tuple[Stage, ...]:
        return (PRIOR, TOKENIZER) if run.role == "prior" else (TOKENIZER,)

    def recipe(self, run: Run) -> Recipe:
        config: dict[str, Any] = {"mask": run.spec.edit.mask, "num": run.num_fake, "role": run.record_role}
        inputs: tuple[str, ...] = (run.recipe(TOKENIZER).key, run.splits.fingerprint)
        if run.role == "prior":
            config |= {"sampler": run.spec.sampler, "chunk": run.spec.sampling.chunk}
            inputs = (run.recipe(PRIOR).key, *inputs)
        return Recipe(self.name, config, inputs, self.version)

    def label(self, run: Run) -> str:
        return f"completions of {run.num_fake:,} images ({label_of(run.spec)}, {run.spec.edit.mask})"

    def work(self, run: Run) -> Work:
        return Work(run.num_fake, "images", shards=shards_of(run, run.num_fake, run.spec.sampling.chunk))

    def build(self, run: Run, out: Path, work: Path) -> None:
        starts = _starts(run)
        self._fill(run, work, starts)
        chunks = [dict(np.load(chunk_path(work, start), allow_pickle=False)) for start in starts]
        np.savez(out / "edits.npz", **{name: np.concatenate([chunk[name] for chunk in chunks])   # type: ignore[arg-type]
                                       for name in chunks[0]})

    def fill(self, run: Run, work: Path, shard: int) -> None:
        self._fill(run, work, _starts(run)[shard::run.spec.sampling.shards])

    def open(self, run: Run, artefact: Artefact) -> dict[str, np.ndarray]:
        with np.load(artefact.path / "edits.npz", allow_pickle=False) as arrays:
            return dict(arrays)

    def _fill(self, run: Run, work: Path, starts: range) -> None:
        from bench.stages.editor import Editor

        editor = Editor(run)
        with Bar(self.label(run), len(starts), unit="chunk") as bar:
            missing = set(missing_chunks(work, starts))
            for start in starts:
                if start in missing:
                    rows = np.arange(start, min(start + run.spec.sampling.chunk, run.num_fake))
                    save_chunk(chunk_path(work, start), _completed(run, editor, rows))
                bar.advance()


COMPLETIONS = Completions()


def hidden_of(run: Run) -> SubsetImages:
    """The held-out images of which a part is hidden, spread over the split."""
    return SubsetImages(run.splits.validation, spread_indices(len(run.splits.validation), run.num_fake))


def hidden_tokens(mask: str, grid: tuple[int, int], num: int) -> np.ndarray:
    """(num, N) bool, true where a token is hidden; the same for every prior."""
    import torch

    from priors import editing
    from priors.base import Draws

    if mask == "random":
        return torch.stack([editing.random_half(grid, draws=Draws.seeded("edit mask", index))
                            for index in range(num)]).numpy()
    return {"centre": editing.centre_box, "lower": editing.lower_half}[mask](grid).expand(num, -1).numpy()


def _starts(run: Run) -> range:
    return range(0, run.num_fake, run.spec.sampling.chunk)


def _completed(run: Run, editor: Editor, rows: np.ndarray) -> dict[str, np.ndarray]:
    """One chunk."""
    import torch

    from bench.metrics.speed import synchronise

    originals, mask, grid = hidden_of(run), run.spec.edit.mask, tuple(editor.tokenizer.grid)
    tokens = editor.encode(torch.from_numpy(originals.images(rows)))
    if run.role == "reconstruction":
        return {"images": editor.decode(tokens, grid).cpu().numpy()}
    hidden = torch.from_numpy(hidden_tokens(mask, grid, len(originals))[rows])
    known = tokens.masked_fill(hidden.to(tokens.device), -1)
    synchronise(run.device)
    began = time.perf_counter()
    sample = editor.complete(known, condition=editor.condition_of(originals.indices[rows]),
                             draws=editor.draws(mask, int(rows[0])))
    synchronise(run.device)
    seconds = time.perf_counter() - began
    kept = ~hidden
    if not torch.equal(sample.tokens.cpu()[kept], tokens.cpu()[kept]):
        raise BenchError(f"{label_of(run.spec)} changed known tokens: its `sample` breaks the contract of `known`.")
    return {"images": editor.decode(sample.tokens, grid).cpu().numpy(),
            "seconds_per_image": np.full(len(rows), seconds / len(rows)),
            "network_evaluations": sample.network_evaluations.cpu().numpy(),
            "token_forwards": sample.token_forwards.cpu().numpy()}
