"""The frozen tokenizer: trained on the run's images, the user's checkpoint, or as its class makes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.stages.base import Run, Stage, Work
from bench.stages.models import identity_of, imported, is_frozen, loaded, new_tokenizer, perceptual_net, save_model
from bench.stages.trainings import train_on_images
from bench.store.store import Artefact, Recipe


class Tokenizer(Stage):
    name = "tokenizer"
    trains = True

    def applies(self, run: Run) -> bool:
        return run.uses_tokenizer

    def recipe(self, run: Run) -> Recipe:
        config = identity_of(run, "tokenizers", run.spec.vq, seed=run.spec.seed, resolution=run.spec.dataset.resolution,
                             flip=run.spec.dataset.flip)
        return Recipe(self.name, config, (run.splits.fingerprint,), self.version)

    def label(self, run: Run) -> str:
        return f"tokenizer {run.spec.vq.entry}"

    def work(self, run: Run) -> Work:
        return Work(0 if run.spec.vq.path or is_frozen(run.spec.vq) else run.spec.vq.training.steps, "steps")

    def build(self, run: Run, out: Path, work: Path) -> None:
        from bench.assets.weights import lpips_model

        model, config = new_tokenizer(run), run.spec.vq
        if config.path:
            return save_model(imported(model, config, section="vq"), out)
        if is_frozen(config):
            return save_model(model, out)
        net = perceptual_net(config)
        perceptual = lpips_model(net).to(run.device) if net else None
        task = model.trainable(perceptual=perceptual, learning_rate=config.training.learning_rate,
                               betas=tuple(config.training.betas))
        train_on_images(run, self, task, config.training, out, work)

    def open(self, run: Run, artefact: Artefact) -> Any:
        """The tokenizer."""
        return loaded(new_tokenizer(run), artefact, run.device)


TOKENIZER = Tokenizer()
