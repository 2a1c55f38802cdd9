"""Negative log-likelihood of the validation tokens, in bits per latent token (Table 4 of Bond-Taylor et al. 2022).

The ceiling is log2 K. Autoregressive priors give it exactly, diffusions an upper bound estimated by Monte Carlo; the
error of that estimate and the error over images are printed apart.

    summarise(nats, monte_carlo_variance, num_tokens).mean
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from bench.data.arrays import spread_indices
from bench.errors import BenchError, InputError
from bench.metrics.base import Evidence
from bench.metrics.columns import COLUMNS, columns
from bench.metrics.intervals import normal_interval
from bench.progress import LINE_EVERY_SECONDS
from bench.records import Measurement
from bench.selection import SCORED
from priors.base import Draws, Likelihood, Unsupported


@dataclass(frozen=True)
class Bits:
    """All in bits per token, or per whatever else an image was divided into.

    standard_error: of `mean` over images, as drawn (its spread holds the Monte Carlo error as well); None for one.
    monte_carlo_se: of the estimate alone; None where the prior cannot tell.
    images_se: what remains of standard_error without monte_carlo_se; None where either is.
    """

    mean: float
    standard_error: float | None
    images_se: float | None
    monte_carlo_se: float | None


class NegativeLogLikelihood:
    """Registry name "nll": of `protocol.nll_images` images evenly spread over those that score (bench.selection)."""

    name = "nll"
    columns = columns("bits_per_token")
    depends_on = ("protocol", "metrics.nll")
    ignores_samples = True

    def applies(self, evidence: Evidence) -> bool:
        return evidence.prior is not None

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        unit = self.columns["bits_per_token"].unit
        every = evidence.validation_tokens()
        if len(every) == 0:
            raise InputError("there are no validation tokens. Check the data set's validation split.")
        tokens = every[spread_indices(len(every), evidence.protocol.nll_images)]
        try:
            likelihood = evaluate(tokens, evidence)
        except Unsupported as reason:
            return [Measurement("bits_per_token", None, evidence.protocol_id, unit=unit,
                                better=self.columns["bits_per_token"].better, note=str(reason))]
        return [self._measurement(likelihood, tokens, evidence)]

    def _measurement(self, likelihood: Likelihood, tokens: Tensor, evidence: Evidence) -> Measurement:
        budget = evidence.settings.nll.budget if likelihood.kind != "exact" else None
        extra = {"kind": likelihood.kind, "budget": budget, "network_evaluations": likelihood.network_evaluations,
                 "ceiling": math.log2(evidence.prior.codebook_size), **scored_on(evidence)}
        return measurement("bits_per_token", likelihood, tokens.shape[1], evidence.protocol_id,
                           unit=self.columns["bits_per_token"].unit,
                           bound="" if likelihood.kind == "exact" else "upper", extra=extra)


def scored_on(evidence: Evidence) -> dict[str, str]:
    """What a measurement says of its images where they are not all of the split; it competes with its like alone."""
    return {} if evidence.scored is None else {"images": SCORED}


def measurement(metric: str, likelihood: Likelihood, num_parts: int, protocol_id: str, *, unit: str,
                bound: Literal["", "upper"], extra: dict[str, Any]) -> Measurement:
    """Mean bits of the `num_parts` parts of an image, with both errors; a hole where images have probability 0."""
    better = COLUMNS[metric].better
    count, impossible = len(likelihood.nats), int(likelihood.nats.isinf().sum())
    if impossible:
        return Measurement(metric, None, protocol_id, n=count, unit=unit, better=better, bound=bound, extra=extra,
                           note=f"infinite: {impossible} of {count} images have probability 0")
    bits = summarise(likelihood.nats, likelihood.monte_carlo_variance, num_parts)
    error = bits.standard_error
    low, high = (None, None) if error is None else normal_interval(bits.mean, error)
    return Measurement(
        metric, bits.mean, protocol_id, n=count, standard_error=error, ci_low=low, ci_high=high, unit=unit,
        better=better, bound=bound, note="one image: no interval" if error is None else "",
        extra=extra | {"monte_carlo_se": bits.monte_carlo_se, "images_se": bits.images_se})


def evaluate(tokens: Tensor, evidence: Evidence) -> Likelihood:
    """The prior's `nll` over (M, N) tokens, batch by batch; a batch's draws depend on its own number alone.

    Raises Unsupported as the prior does, InputError on tokens of another shape, BenchError on a wrong answer.
    """
    prior, settings = evidence.prior, evidence.settings.nll
    if tokens.ndim != 2 or tokens.shape[1] != prior.num_tokens:
        raise InputError(f"validation tokens are {tuple(tokens.shape)}; the prior expects (M, {prior.num_tokens}). "
                         "Prior and tokenizer belong to different runs.")
    parts = []
    last_line = time.monotonic()
    for number, batch in enumerate(tokens.split(settings.batch_size)):
        if time.monotonic() - last_line >= LINE_EVERY_SECONDS:
            last_line = time.monotonic()
            evidence.progress(f"likelihood: image {number * settings.batch_size} of {len(tokens)}")
        draws = Draws.seeded("nll", evidence.seed, number, device=evidence.device)
        with torch.inference_mode():
            parts.append(prior.nll(batch.to(evidence.device), draws=draws, budget=settings.budget))
    return _joined(parts)


def summarise(nats: Tensor, monte_carlo_variance: Tensor, num_parts: int) -> Bits:
    """Mean and errors of (M,) nats an image, whose Monte Carlo errors are independent between images.

    num_parts: of an image: its tokens for bits per token, its channel values for bits per dimension.
    """
    to_bits, count = 1 / (num_parts * math.log(2)), len(nats)
    known = not monte_carlo_variance.isnan().any()
    monte_carlo = float(monte_carlo_variance.double().sum()) / count**2 if known else None
    total = float(nats.double().var()) / count if count > 1 else None
    return Bits(
        float(nats.double().mean()) * to_bits,
        None if total is None else math.sqrt(total) * to_bits,
        None if total is None or monte_carlo is None else math.sqrt(max(0.0, total - monte_carlo)) * to_bits,
        None if monte_carlo is None else math.sqrt(monte_carlo) * to_bits)


def _joined(parts: Iterable[Likelihood]) -> Likelihood:
    parts = list(parts)
    kinds = {part.kind for part in parts}
    if len(kinds) != 1:
        raise BenchError(f"the prior's nll gave {sorted(kinds)} in one evaluation: expected one kind. Mend the prior.")
    nats = torch.cat([part.nats.detach().double().cpu() for part in parts])
    variance = torch.cat([part.monte_carlo_variance.detach().double().cpu() for part in parts])
    if nats.isnan().any():
        raise BenchError(f"the prior's nll is NaN for {int(nats.isnan().sum())} of {len(nats)} images. "
                         "Did its training diverge?")
    return Likelihood(nats, variance, kinds.pop(), max(part.network_evaluations for part in parts))
