"""The prior: trained on the tokens, fitted to them, or the user's checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import selection
from bench.data.arrays import spread_indices
from bench.errors import InputError
from bench.schema import schema_of
from bench.stages.base import Run, Stage, Work, once, ranges
from bench.stages.condition import CONDITION, condition_of_held_out, conditions_of, given_of
from bench.stages.models import (
    WEIGHTS,
    identity_of,
    imported,
    is_foreign,
    loaded,
    new_prior,
    num_parameters,
    prior_seed,
    save_model,
)
from bench.stages.tokenizer import TOKENIZER
from bench.stages.tokens import TOKENS, check_imported
from bench.stages.trainings import Batches, probe, train_stage
from bench.store.store import Artefact, Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from bench.data.tokens import TokenArray

CALIBRATION_IMAGES = 128
NESTED_SEED = 20260
"""Of the one draw behind every subset of training images."""


class Prior(Stage):
    name = "prior"
    trains = True

    def applies(self, run: Run) -> bool:
        return run.role == "prior"

    def inputs(self, run: Run) -> tuple[Stage, ...]:
        return (TOKENS, CONDITION) if CONDITION.applies(run) else (TOKENS,)

    def recipe(self, run: Run) -> Recipe:
        images, whole = run.spec.prior.training.images, len(run.splits.train)
        if images is not None and images > whole:
            raise InputError(f"prior.training.images={images}: {run.spec.dataset.name} has {whole} training images. "
                             "Give at most that many, or null for all.")
        training, options = run.spec.prior.training, schema_of(run.spec.prior, "priors")[0]
        selection.parts(training, len(run.splits.validation))   # raises before anything is trained
        more = selection.in_key(training, options, is_trained=not run.spec.prior.path)
        config = identity_of(run, "priors", run.spec.prior, seed=prior_seed(run), **more)
        if given := given_of(run):
            config |= {"options": config["options"] | given.options, "condition": given.key}
        return Recipe(self.name, config, tuple(run.recipe(stage).key for stage in self.inputs(run)), self.version)

    def label(self, run: Run) -> str:
        told = run.spec.condition.name
        return f"prior {run.spec.prior.title}" + (f", {told}" if told != "none" else "")

    def work(self, run: Run) -> Work:
        return Work(0 if run.spec.prior.path else run.spec.prior.training.steps, "steps")

    def build(self, run: Run, out: Path, work: Path) -> None:
        from bench.training.processes import process_rank
        from priors.base import Fitted

        train_tokens, held_out = run.open(TOKENS)
        model, config = new_prior(run, run.open(TOKENIZER)), run.spec.prior
        if config.path:
            save_model(imported(model, config, section="prior"), out)
            return _calibrate(run, model, out)
        seen, read_train, read_held_out = seen_images(run), _reader(run, "train"), _reader(run, "validation")
        is_fitted = isinstance(model, Fitted)
        if is_fitted:
            _fit(run, model, train_tokens, seen)
            return save_model(model, out)
        if not num_parameters(model):
            raise InputError(f"prior={config.entry} has nothing to train. Give its weights: prior.path=<file or "
                             "folder>, and prior.layout=<name> where another code base wrote them.")
        chooses = held_out_parts(run)[0]
        probes = {"validation": probe(lambda i: read_held_out(chooses[i]), len(chooses), config.training),
                  "train": probe(lambda i: read_train(seen[i]), len(seen), config.training)}
        train_stage(run, self, _task(run, model), lambda i: read_train(seen[i]), config.training, num_items=len(seen),
                    validation=probes, out=out, work=work, measured=_measured(run, seen))
        if process_rank() == 0:
            _calibrate(run, model, out)

    def open(self, run: Run, artefact: Artefact) -> Any:
        """The prior."""
        return loaded(new_prior(run, run.open(TOKENIZER)), artefact, run.device)


PRIOR = Prior()


@once
def held_out_parts(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the validation images that choose the prior's weights, and of those that score it."""
    return selection.parts(run.spec.prior.training, len(run.splits.validation))


def held_out_use(run: Run) -> dict[str, Any]:
    """How the validation images were used, for the record; {} where no likelihood is scored."""
    if run.role != "prior":
        return {}
    chooses, scores = held_out_parts(run)
    return {"selection": run.spec.prior.training.selection, "choosing": len(chooses), "scoring": len(scores)}


@once
def seen_images(run: Run) -> np.ndarray:
    """Which training images' grids the prior sees."""
    return nested_indices(len(run.splits.train), run.spec.prior.training.images)


def nested_indices(total: int, num: int | None) -> np.ndarray:
    """`num` of 0..total-1 in ascending order, drawn evenly (all for None); of two numbers the smaller's lie inside.

    The draw is always the same: a training seed changes what is made of the images, not which they are.
    """
    if num is None or num >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(NESTED_SEED).permutation(total)[:num])


def check_imports(run: Run) -> None:
    """Read checkpoints of the user's into untrained models: a wrong one is an InputError before any work.

    So is a tokenizer, imported or of somebody else's class, that does not suit the data set, and so are tokens that
    are not of its images.
    """
    from bench.stages.tokenizer_fit import check_fit, constructed

    check_imported(run)
    spec, tokenizer = run.spec, constructed(run)
    if not run.store.find(run.recipe(TOKENIZER)):
        if spec.vq.path:
            imported(tokenizer, spec.vq, section="vq")
        if spec.vq.path or is_foreign(spec.vq):
            check_fit(tokenizer, spec.vq.entry, resolution=spec.dataset.resolution)
    if spec.prior.path and run.role == "prior" and not run.store.find(run.recipe(PRIOR)):
        imported(new_prior(run, tokenizer), spec.prior, section="prior")


def regime(run: Run) -> dict[str, float]:
    """How often the prior saw how many images, which is what a verdict holds for; {} if not trained in steps."""
    from bench.training.tasks import flops_of_training
    from bench.training.trajectories import Trajectory
    from priors.base import Fitted

    if run.role != "prior" or run.spec.prior.path or isinstance(run.open(PRIOR), Fitted):
        return {}
    training, images, prior = run.spec.prior.training, len(seen_images(run)), run.open(PRIOR)
    path = run.obtain(PRIOR).path / "trajectory.npz"
    trajectory = Trajectory.load(path) if path.is_file() else None
    steps = trajectory.steps[-1] if trajectory else training.steps   # patience may have ended it early
    presentations = steps * training.batch_size
    tokens = images * float(np.prod(run.open(TOKENIZER).grid))
    found = {"images": images, "presentations": presentations, "passes": presentations / images,
             "training_flops": presentations * flops_of_training(prior),
             "tokens_per_parameter": tokens / num_parameters(prior)}
    if trajectory:
        found["best_step"] = trajectory.steps[trajectory.best()]
        found["best_passes"] = found["best_step"] * training.batch_size / images
    return found


def _reader(run: Run, split: str) -> Callable[[np.ndarray], Tensor]:
    """(n,) indices of a split -> the tokens of these images, (n, N), with their rows where there is a condition."""
    import torch

    from bench.training.conditioned import with_rows

    tokens, conditions = run.open(TOKENS)[("train", "validation").index(split)], conditions_of(run)

    def read(indices: np.ndarray) -> Tensor:
        plain = torch.from_numpy(tokens[indices])
        return plain if conditions is None else with_rows(plain, conditions.rows(split, indices))
    return read


def _task(run: Run, model: Any) -> Any:
    from bench.training.conditioned import ConditionedTask
    from bench.training.tasks import PriorTask

    training, conditions = run.spec.prior.training, conditions_of(run)
    return PriorTask(model, training) if conditions is None else ConditionedTask(model, training, conditions)


def _fit(run: Run, model: Any, tokens: TokenArray, seen: np.ndarray) -> None:
    import torch

    conditions, chunks = conditions_of(run), ranges(len(seen), 4096)
    told = {} if conditions is None else {
        "conditions": (conditions.of(conditions.rows("train", seen[chunk])) for chunk in chunks)}
    model.fit((torch.from_numpy(tokens[seen[chunk]]) for chunk in chunks), **told)


def _measured(run: Run, seen: np.ndarray) -> dict[str, Batches] | None:
    """The parts of a trajectory: training images, and held-out ones dealt to the two halves in turn."""
    training = run.spec.prior.training
    if training.measure_at == "none":
        return None
    chooses, scores = _measured_indices(run, len(run.splits.validation), training.measure_images)
    parts = {"train": ("train", seen[spread_indices(len(seen), training.measure_images // 2)]),
             "selection": ("validation", chooses), "scoring": ("validation", scores)}

    def batches(split: str, indices: np.ndarray) -> Batches:
        read = _reader(run, split)

        def each() -> Iterator[Tensor]:
            return (read(indices[chunk]) for chunk in ranges(len(indices), 100))
        return each
    return {part: batches(*found) for part, found in parts.items()}


def _measured_indices(run: Run, total: int, num: int) -> tuple[np.ndarray, np.ndarray]:
    """The held-out images of a trajectory's two halves, from those that choose and those that score."""
    if not selection.is_apart(run.spec.prior.training):
        chosen = spread_indices(total, num)
        return chosen[::2], chosen[1::2]
    chooses, scores = held_out_parts(run)
    return chooses[spread_indices(len(chooses), (num + 1) // 2)], scores[spread_indices(len(scores), num // 2)]


def _calibrate(run: Run, model: Any, out: Path) -> None:
    """Let a prior that can be calibrated do so on held-out tokens; the outcome is saved with its weights."""
    import torch
    from safetensors.torch import load_file

    from priors.base import Calibrated, Draws

    is_calibrated = isinstance(model, Calibrated)
    if not is_calibrated:
        return

    model.load_state_dict(load_file(out / WEIGHTS, device=run.device))
    chooses, condition = held_out_parts(run)[0], condition_of_held_out(run)
    chosen = chooses[spread_indices(len(chooses), CALIBRATION_IMAGES)]
    told = {} if condition is None else {"condition": condition(chosen)}
    tokens = torch.from_numpy(run.open(TOKENS)[1][chosen]).to(run.device)
    model.eval().calibrate(tokens, **told, draws=Draws.seeded("calibration", prior_seed(run), device=run.device))
    save_model(model, out)
