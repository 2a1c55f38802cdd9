"""The order of the stages: the only list of them. Torch-free.

    for step in planned(Run(spec)): print(step.label, store.state(step.recipe))
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.stages.base import Run, Stage, Work
from bench.stages.completions import COMPLETIONS
from bench.stages.condition import CONDITION
from bench.stages.features import JUDGED_FEATURES, REAL_FEATURES
from bench.stages.likelihood import LIKELIHOOD
from bench.stages.prior import PRIOR
from bench.stages.samples import SAMPLES
from bench.stages.tokenizer import TOKENIZER
from bench.stages.tokens import TOKENS
from bench.store.store import Recipe

CHAIN: tuple[Stage, ...] = (TOKENIZER, TOKENS, CONDITION, PRIOR, LIKELIHOOD, SAMPLES, COMPLETIONS, REAL_FEATURES,
                            JUDGED_FEATURES)
METRICS = "metrics"   # what `rebuild=` calls all that is measured
NAMES = (*dict.fromkeys(stage.name for stage in CHAIN), METRICS)


@dataclass(frozen=True)
class Planned:
    """A stage of one run: what it is called in the store, what it is made of, and how much work it is."""

    stage: Stage
    recipe: Recipe
    inputs: tuple[Recipe, ...]
    label: str
    work: Work

    @property
    def name(self) -> str:
        return self.stage.name

    @property
    def key(self) -> str:
        return self.recipe.key


def planned(run: Run) -> list[Planned]:
    """Every stage before the metrics, in the order they are built."""
    return [plan_of(run, stage) for stage in CHAIN if stage.applies(run)]


def plan_of(run: Run, stage: Stage) -> Planned:
    return Planned(stage, run.recipe(stage), tuple(run.recipe(needed) for needed in stage.inputs(run)),
                   stage.label(run), stage.work(run))


def stage_of(name: str) -> Stage:
    """A stage by its title ("prior", "features of real"). Raises StopIteration for a name that none has."""
    return next(stage for stage in CHAIN if stage.title == name)
