"""What a condition tells a prior about an image, in bits: -log2 p(x) of its learned null less -log2 p(x | c).

Its mean over images estimates the mutual information of condition and tokens, as far as the prior models both; of
classes it is at most their entropy, for a prior whose two likelihoods are those of one joint distribution. Both sides
are the same weights, and of a bound the same masks or noise: the pair is compared image by image.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from bench.metrics.base import Evidence
from bench.metrics.columns import columns
from bench.metrics.likelihood import evaluate, held_out, held_out_images, measurement, scored_on
from bench.records import Measurement
from priors.base import Likelihood, Unsupported

COLUMN = "condition_information"


class ConditionInformation:
    """Registry name "condition_information": of the images of "nll", for a prior with a condition."""

    name = "condition_information"
    columns = columns(COLUMN)
    conditions = ("class", "text")
    depends_on = ("protocol", "metrics.nll")
    ignores_samples = True

    def applies(self, evidence: Evidence) -> bool:
        return evidence.prior is not None and evidence.condition is not None

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        column = self.columns[COLUMN]
        try:
            _check_null(evidence.prior)
            tokens = held_out(evidence)
            told, untold = evaluate(tokens, evidence, images=held_out_images(evidence)), evaluate(tokens, evidence)
        except Unsupported as reason:
            return [Measurement(COLUMN, None, evidence.protocol_id, unit=column.unit, better=column.better,
                                note=str(reason))]
        found = measurement(COLUMN, _difference(untold, told), 1, evidence.protocol_id, unit=column.unit, bound="",
                            extra=_details(evidence, told, untold))
        note = "" if told.kind == "exact" else "difference of two upper bounds: itself no bound"
        return [replace(found, note="; ".join(filter(None, [found.note, note])))]


def _check_null(prior: Any) -> None:
    """Raise Unsupported where training never showed the null, so that nothing was learned without a condition."""
    if getattr(getattr(prior, "options", None), "dropped_conditions", None) == 0:
        raise Unsupported("prior.condition_dropout=0: training never hid the condition, so this prior has no "
                          "unconditional likelihood")


def _difference(untold: Likelihood, told: Likelihood) -> Likelihood:
    """Image by image; impossible images stay infinite. The two Monte Carlo errors go together, so neither is known."""
    nats = (untold.nats - told.nats).nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    error = torch.full_like(nats, 0.0 if told.kind == "exact" else torch.nan)
    return Likelihood(nats, error, told.kind, untold.network_evaluations + told.network_evaluations)


def _details(evidence: Evidence, told: Likelihood, untold: Likelihood) -> dict[str, object]:
    """Both sides in bits an image, and of classes their entropy in these images."""
    details: dict[str, object] = {
        "kind": told.kind, "conditional_bits_per_image": float(told.nats.mean() / np.log(2)),
        "unconditional_bits_per_image": float(untold.nats.mean() / np.log(2)),
        "network_evaluations": told.network_evaluations + untold.network_evaluations, **scored_on(evidence)}
    if evidence.labels is not None:
        labels = evidence.labels.validation[held_out_images(evidence)]
        shares = np.unique(labels, return_counts=True)[1] / len(labels)
        details["ceiling"] = float(-(shares * np.log2(shares)).sum())
    return details
