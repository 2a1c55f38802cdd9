"""The tokenizer's pixel likelihood, fine-tuned; tokens, priors and samples do not depend on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.stages.base import Run, Stage, Work
from bench.stages.models import loaded, training_of
from bench.stages.tokenizer import TOKENIZER
from bench.stages.trainings import train_on_images
from bench.store.store import Artefact, Recipe

PIXEL_METRIC = "pixel_nll"   # the one metric that needs it


class Likelihood(Stage):
    name = "likelihood"
    trains = True

    def applies(self, run: Run) -> bool:
        """Whether a metric asks for the pixel likelihood of a tokenizer that has one."""
        return (run.role == "prior" and not run.is_edit and PIXEL_METRIC in run.spec.metrics.names
                and bool(run.spec.vq.options.get("likelihood_head")))

    def inputs(self, run: Run) -> tuple[Stage, ...]:
        return (TOKENIZER,)

    def recipe(self, run: Run) -> Recipe:
        config = {"bits": run.spec.metrics.pixel_bits, "training": training_of(run.spec.vq.likelihood),
                  "seed": run.spec.seed}
        return Recipe(self.name, config, (run.recipe(TOKENIZER).key, run.splits.fingerprint), self.version)

    def label(self, run: Run) -> str:
        return "pixel likelihood"

    def work(self, run: Run) -> Work:
        return Work(run.spec.vq.likelihood.steps, "steps")

    def build(self, run: Run, out: Path, work: Path) -> None:
        config = run.spec.vq.likelihood
        task = run.open(TOKENIZER).trainable_likelihood(bits=run.spec.metrics.pixel_bits, betas=tuple(config.betas),
                                                        learning_rate=config.learning_rate)
        train_on_images(run, self, task, config, out, work)

    def open(self, run: Run, artefact: Artefact) -> Any:
        """The tokenizer with its likelihood; it encodes and decodes as before."""
        loaded(run.open(TOKENIZER).likelihood_head, artefact, run.device)
        return run.open(TOKENIZER)


LIKELIHOOD = Likelihood()
