"""Which held-out images choose weights, and which ones score them. Torch-free.

    selection, scoring = parts(spec.prior.training, len(splits.validation))

Chosen and scored on the same images, a likelihood is too good by what choosing gains; so the validation split is dealt
in turn to two halves, as a trajectory's images are. The selection half chooses the best weights and calibrates step
schedules; the likelihoods of a record are of the scoring half. Metrics of pictures look at neither.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.config.models import PriorTrainingConfig
from bench.errors import InputError

SCORED = "scoring half"
"""What a likelihood's measurement says of its images."""
BUDGET_APART = 16
BUDGET_SHARED = 4
"""Network evaluations an image by which weights are chosen, for priors whose likelihood is a sum."""


def is_apart(training: PriorTrainingConfig) -> bool:
    return training.selection == "apart"


def parts(training: PriorTrainingConfig, total: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions in the validation split: those that choose, those that score; all of them twice where shared.

    Raises InputError if there are too few to deal.
    """
    everything = np.arange(total)
    if not is_apart(training):
        return everything, everything
    if total < 2:
        raise InputError(f"{total} validation image(s): expected at least 2, one to choose weights and one to score "
                         "them. Give more, as by dataset.validation_fraction, or set prior.training.selection=shared.")
    return everything[::2], everything[1::2]


def budget(training: PriorTrainingConfig) -> int:
    """Network evaluations an image when weights are chosen."""
    return BUDGET_APART if is_apart(training) else BUDGET_SHARED


def in_key(training: PriorTrainingConfig, options: type, *, is_trained: bool) -> dict[str, Any]:
    """What the prior's key says of selection: nothing where no held-out image has a say in the weights.

    options: the prior's; `is_fitted` and `calibrates` on it tell whether it has no steps to choose from, and whether
    its `calibrate` looks at held-out images. One that does not tell, a plug-in's, is taken to do so.
    """
    chooses = is_trained and not getattr(options, "is_fitted", False) and (
        training.select == "best" or training.measure_at != "none")
    if is_apart(training) and (chooses or getattr(options, "calibrates", True)):
        return {"selection": training.selection}
    return {}
