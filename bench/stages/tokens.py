"""Token grids of the training and of the validation images: encoded, or the user's own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import InputError
from bench.progress import Bar
from bench.provenance import content_id, sha256_of
from bench.stages.base import Run, Stage, Work
from bench.stages.tokenizer import TOKENIZER
from bench.store.store import Artefact, Recipe

if TYPE_CHECKING:
    import numpy as np

    from bench.data.base import ImageData
    from bench.data.tokens import TokenArray

SPLITS = ("train", "validation")


class Tokens(Stage):
    name = "tokens"
    resources = "features"

    def applies(self, run: Run) -> bool:
        return run.role == "prior"

    def inputs(self, run: Run) -> tuple[Stage, ...]:
        return (TOKENIZER,)

    def recipe(self, run: Run) -> Recipe:
        config = {}
        if folder := run.spec.vq.tokens:
            files = [Path(folder) / f"{split}.npy" for split in SPLITS]
            if absent := [str(file) for file in files if not file.is_file()]:
                raise InputError(f"vq.tokens={folder}: {' and '.join(absent)} missing; expected train.npy and "
                                 "validation.npy of (images, tokens) integers.")
            config = {"imported": [sha256_of(file) for file in files]}
        return Recipe(self.name, config, (run.recipe(TOKENIZER).key, run.splits.fingerprint), self.version)

    def label(self, run: Run) -> str:
        return f"tokens of {self.work(run).amount:,} images"

    def work(self, run: Run) -> Work:
        return Work(len(run.splits.train) + len(run.splits.validation), "images")

    def build(self, run: Run, out: Path, work: Path) -> None:
        from bench.data.tokens import encode_split, import_tokens

        check_imported(run)
        tokenizer = run.open(TOKENIZER)
        for split in SPLITS:
            data: ImageData = getattr(run.splits, split)
            if run.spec.vq.tokens:
                height, width = tokenizer.grid
                import_tokens(Path(run.spec.vq.tokens) / f"{split}.npy", out / split, num_images=len(data),
                              num_tokens=height * width, codebook_size=tokenizer.codebook_size)
                continue
            with Bar(f"tokens of {split}", len(data), unit="image") as bar:
                encode_split(lambda images: _encoded(run, tokenizer, images), data, work / split,
                             codebook_size=tokenizer.codebook_size, progress=bar.advance)
            shutil.copytree(work / split, out / split, ignore=shutil.ignore_patterns(".*", "*.sha256"))

    def open(self, run: Run, artefact: Artefact) -> tuple[TokenArray, TokenArray]:
        """The two splits' grids."""
        from bench.data.tokens import TokenArray

        train, validation = (TokenArray(artefact.path / split) for split in SPLITS)
        return train, validation


def tokenizer_id(run: Run) -> str:
    """What tells a tokenizer from any other; a trained one depends on the images it has seen, others do not."""
    recipe = run.recipe(TOKENIZER)
    return recipe.key if "training" in recipe.config else content_id(
        {name: value for name, value in recipe.config.items() if name != "flip"})


def check_imported(run: Run) -> None:
    """Raise InputError, before anything is built, if `vq.tokens` does not belong to this data set and tokenizer."""
    from bench.data.token_files import check_tokens

    if run.role == "prior" and run.spec.vq.tokens and not run.store.find(run.recipe(TOKENS)):
        check_tokens(Path(run.spec.vq.tokens), {split: getattr(run.splits, split) for split in SPLITS},
                     tokenizer=tokenizer_id(run))


def _encoded(run: Run, tokenizer: Any, images: np.ndarray) -> np.ndarray:
    import torch

    with torch.inference_mode():
        return tokenizer.encode(torch.from_numpy(images).to(run.device)).cpu().numpy()


TOKENS = Tokens()
