"""A stage of one's own: how often the training images use each code.

In bench/stages/ this would be one file, and one more name in CHAIN of bench/stages/chain.py.
"""
from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.stages.base import Run, Stage, Work
from bench.stages.tokens import TOKENS
from bench.store.store import Artefact, Recipe


class CodeCounts(Stage):
    name, version, resources = "code counts", 1, "features"

    def applies(self, run: Run) -> bool:
        return TOKENS.applies(run)

    def inputs(self, run: Run) -> tuple[Stage, ...]:
        return (TOKENS,)

    def recipe(self, run: Run) -> Recipe:   # what determines the content, and so the key; torch-free
        return Recipe(self.name, {}, (run.recipe(TOKENS).key,), self.version)

    def label(self, run: Run) -> str:
        return "code counts"

    def work(self, run: Run) -> Work:
        return Work(len(run.splits.train), "images")

    def build(self, run: Run, out: Path, work: Path) -> None:   # everything expensive is imported and done here
        train, _ = run.open(TOKENS)
        np.save(out / "counts.npy", np.bincount(np.asarray(train[range(len(train))]).ravel()))

    def open(self, run: Run, artefact: Artefact) -> np.ndarray:   # (highest code + 1,) int64
        return np.load(artefact.path / "counts.npy")


CODE_COUNTS = CodeCounts()
