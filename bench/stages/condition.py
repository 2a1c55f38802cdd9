"""What a run's prior is told of the images; of captions their features, an artefact of its own.

    given_of(run)                     # torch-free: None without a condition
    conditions_of(run)                # as tensors, by rows; builds the features of captions where they are missing
    condition_of_held_out(run)        # indices of held-out images -> a priors.conditions.Condition
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.data.arrays import spread_indices
from bench.data.conditions import Given, resolve, sampled_images
from bench.progress import Bar
from bench.stages.base import Run, Stage, Work, once
from bench.store.store import Recipe

if TYPE_CHECKING:
    from bench.training.conditioned import Conditions
    from priors.conditions import Condition


COMPARES_CAPTIONS = "caption_agreement"   # the one metric that looks at features of captions


@once
def given_of(run: Run) -> Given | None:
    """The condition of the run.  Raises InputError where its data set has none."""
    return resolve(run.spec.condition, run.splits, run.spec.dataset.name)


class TextFeatures(Stage):
    """Features of captions: of captions, encoder and length alone, so all priors and tokenizers share them."""

    name = "condition"
    version = 1
    resources = "features"

    def applies(self, run: Run) -> bool:
        """For priors; and for the rows beside them where these are judged by captions."""
        judged = run.role != "source" and COMPARES_CAPTIONS in run.spec.metrics.names
        return run.spec.condition.name == "text" and (run.role == "prior" or judged)

    def recipe(self, run: Run) -> Recipe:
        given = given_of(run)
        assert given is not None
        return features_recipe(given)

    def label(self, run: Run) -> str:
        return "features of captions"

    def work(self, run: Run) -> Work:
        return Work(len(_texts(run)), "texts")

    def build(self, run: Run, out: Path, work: Path) -> None:
        from bench.training.conditioned import encode_captions

        given = given_of(run)
        assert given is not None
        with Bar(self.label(run), len(_texts(run)), unit="text") as bar:
            encode_captions(given, out, device=run.device, progress=bar.advance)


CONDITION = TextFeatures()


def features_recipe(given: Given) -> Recipe:
    """Of the features of captions: addressed by captions, encoder and length."""
    return Recipe(TextFeatures.name, dict(given.key), (), TextFeatures.version)


@once
def _texts(run: Run) -> set[str]:
    """The different captions of both splits."""
    given = given_of(run)
    assert given is not None and given.captions is not None
    return {*given.captions.train, *given.captions.validation}


@once
def conditions_of(run: Run) -> Conditions | None:
    """The conditions of all images; None without a condition."""
    from bench.training import conditioned

    if (given := given_of(run)) is None:
        return None
    return conditioned.conditions_of(given, run.obtain(CONDITION).path if given.captions is not None else None)


def condition_of_held_out(run: Run) -> Callable[[np.ndarray], Condition] | None:
    """(n,) indices of held-out images -> their conditions, on the CPU; None without a condition."""
    conditions = conditions_of(run)
    return None if conditions is None else lambda images: conditions.of(conditions.rows("validation", images))


def caption_means_of(run: Run) -> Callable[[str, np.ndarray], np.ndarray] | None:
    """A split and indices (n,) of its images -> (n, D) float32, means of their captions' features; None without.

    Features that are missing are built when first asked for.
    """
    from bench.training.conditioned import TextConditions

    given = given_of(run)

    def means(split: str, images: np.ndarray) -> np.ndarray:
        conditions = conditions_of(run)
        assert isinstance(conditions, TextConditions)
        return conditions.means(conditions.rows(split, images))

    return means if given is not None and given.captions is not None else None


def judged_as(run: Run, num: int | None = None) -> np.ndarray | None:
    """(num,) int64: of each judged image, the held-out image whose condition it has; None for foreign samples.

    num: as many as are judged, or, of a prior, any number that are drawn.
    """
    num, held_out = run.num_fake if num is None else num, len(run.splits.validation)
    if given_of(run) is None or run.role == "source":
        return None
    if run.role == "prior":
        return sampled_images(held_out, num, seed=run.spec.sampler["seed"])
    return spread_indices(held_out, num)   # as the samples stage takes them


def protocol_of_condition(run: Run) -> dict[str, Any]:
    """What a condition adds to a protocol's details: nothing where there is none."""
    given = given_of(run)
    return {} if given is None else {"condition": given.protocol}
