"""How stages use the one training loop: batches of the run's data, and shorter trainings that a longer one continues.

    train_stage(run, PRIOR, task, fetch, config, num_items=..., validation=..., out=out, work=work)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.config.models import TrainingConfig
from bench.data.arrays import spread_indices
from bench.stages.base import Run, Stage
from bench.tracking import Tracked

if TYPE_CHECKING:
    from torch import Tensor

Batches = Callable[[], "Iterator[Tensor]"]


def train_stage(run: Run, stage: Stage, task: Any, fetch: Callable[[np.ndarray], Any], config: TrainingConfig, *,
                num_items: int, validation: dict[str, Batches], out: Path, work: Path,
                measured: dict[str, Batches] | None = None) -> None:
    """Train the task for a stage, from the longest training of its series that is there."""
    import torch

    from bench.training.loop import train
    from bench.training.processes import make_fabric

    if (of_the_first := config.ema_decay ** (config.steps // config.ema_every)) > 0.2:
        run.announce(f"note: {of_the_first:.0%} of the averaged weights will be those of the first steps "
                     f"(ema_decay={config.ema_decay}, ema_every={config.ema_every}, steps={config.steps}); for "
                     "results, lower ema_decay or train longer")
    recipe = run.recipe(stage)
    with Tracked(run.spec, stage.label(run), f"{stage.name}-{recipe.key}", recipe.config, run.announce) as tracked:
        train(task, lambda indices: torch.as_tensor(fetch(indices)), config, num_items=num_items, validation=validation,
              seed=recipe.config["seed"], work=work, out=out, label=stage.label(run),
              fabric=make_fabric(config.precision, device=run.device), measured=measured,
              resume_from=_shorter(run, stage, config), track=tracked.scalars)


def train_on_images(run: Run, stage: Stage, task: Any, config: TrainingConfig, out: Path, work: Path) -> None:
    """The same, on the run's training images, mirrored if the data set says so."""
    splits, flip = run.splits, run.spec.dataset.flip
    held_out = probe(splits.validation.images, len(splits.validation), config)
    train_stage(run, stage, task, lambda indices: _flipped(splits.train.images(indices), indices, flip), config,
                num_items=len(splits.train), validation={"validation": held_out}, out=out, work=work)


def probe(read: Callable[[np.ndarray], Any], total: int, config: TrainingConfig) -> Batches:
    """The same few batches every time, spread over the split."""
    import torch

    def batches() -> Iterator[Tensor]:
        chosen = spread_indices(total, config.batch_size * config.validation_batches)
        for start in range(0, len(chosen), config.batch_size):
            yield torch.as_tensor(read(chosen[start:start + config.batch_size]))
    return batches


def _shorter(run: Run, stage: Stage, config: TrainingConfig) -> Path | None:
    """The state of the longest finished training of the same series: fewer steps, or as many and another `select`.

    A state keeps the best weights so far, so that where these are published (select "best") only a state will do that
    chose them on the same held-out images.
    """
    recipe = run.recipe(stage)
    if config.schedule != "constant" or run.store.is_asked_anew(recipe):
        return None   # a cosine depends on where it ends; anew is from the start
    series = _without_steps(recipe.config)
    found = [(a.manifest["config"]["training"]["steps"], a) for a in run.store.artefacts()
             if a.manifest["stage"] == recipe.stage and tuple(a.manifest["inputs"]) == recipe.inputs
             and "training" in a.manifest["config"] and _without_steps(a.manifest["config"]) == series
             and _chose_alike(config, a.manifest["config"])]
    for steps, artefact in sorted(found, key=lambda pair: -pair[0]):
        if steps <= config.steps and (artefact.path / "state.pt").is_file() and run.store.is_sound(artefact):
            return artefact.path / "state.pt"
    return None


def _chose_alike(config: TrainingConfig, found: dict[str, Any]) -> bool:
    """Whether the best weights in a state of the same series were chosen on the images this training chooses on.

    A prior's key tells which those were only where they had a say in what was published.
    """
    return (config.select != "best" or not hasattr(config, "selection") or "selection" in found
            or found["training"].get("select") == "best")


def _without_steps(config: dict[str, Any]) -> dict[str, Any]:
    plain = json.loads(json.dumps(config))
    for name in ("steps", "select"):
        plain.get("training", {}).pop(name, None)
    return plain


def _flipped(images: np.ndarray, indices: np.ndarray, flip: bool) -> np.ndarray:
    """Every other image of a batch mirrored, which ones changing with the batch."""
    if not flip:
        return images
    mirrored = (np.random.default_rng(int(indices.sum())).random(len(images)) < 0.5)[:, None, None, None]
    return np.where(mirrored, images[..., ::-1], images)
