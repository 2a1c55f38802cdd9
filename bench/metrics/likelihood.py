"""Negative log-likelihood of the validation tokens, in bits per latent token (Table 4 of Bond-Taylor et al. 2022).

The ceiling is log2 K. Autoregressive priors give it exactly, diffusions an upper bound estimated by Monte Carlo; the
error of that estimate and the error over images are printed apart.

    summarise(nats, monte_carlo_variance, num_tokens).mean
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from bench.config import ORDERS
from bench.data.arrays import spread_indices
from bench.errors import BenchError, InputError
from bench.metrics.base import Evidence
from bench.metrics.by_unknown import bound_T, by_unknown, joined
from bench.metrics.columns import COLUMNS, columns, order_column
from bench.metrics.intervals import normal_interval
from bench.progress import LINE_EVERY_SECONDS
from bench.records import Measurement
from bench.selection import SCORED
from priors.base import Draws, Likelihood, Unsupported
from priors.chain_rule import InOrder
from priors.schedules import grid_order


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
        unit, tokens = self.columns["bits_per_token"].unit, held_out(evidence)
        try:
            likelihood = evaluate(tokens, evidence)
        except Unsupported as reason:
            return [Measurement("bits_per_token", None, evidence.protocol_id, unit=unit,
                                better=self.columns["bits_per_token"].better, note=str(reason))]
        return [self._measurement(likelihood, tokens, evidence)]

    def _measurement(self, likelihood: Likelihood, tokens: Tensor, evidence: Evidence) -> Measurement:
        budget = evidence.settings.nll.budget if likelihood.kind != "exact" else None
        extra = {"kind": likelihood.kind, "budget": budget, "network_evaluations": likelihood.network_evaluations,
                 "ceiling": math.log2(evidence.prior.codebook_size), **scored_on(evidence),
                 **_by_level(likelihood, evidence.prior)}
        return measurement("bits_per_token", likelihood, tokens.shape[1], evidence.protocol_id,
                           unit=self.columns["bits_per_token"].unit,
                           bound="" if likelihood.kind == "exact" else "upper", extra=extra)


def scored_on(evidence: Evidence) -> dict[str, str]:
    """What a measurement says of its images where they are not all of the split; it competes with its like alone."""
    return {} if evidence.scored is None else {"images": SCORED}


def _by_level(likelihood: Likelihood, prior: Any) -> dict[str, Any]:
    """What the same evaluations tell beside the likelihood; {} where the prior does not count them by level."""
    if likelihood.by_unknown is None or not likelihood.nats.isfinite().all():
        return {}
    of_steps = bound_T(likelihood)
    return by_unknown(likelihood.by_unknown, grid=prior.grid) | ({"bound_T": of_steps} if of_steps else {})


class OrderedNegativeLogLikelihood:
    """Registry name "ordered_nll": of the same images, exact in each of `metrics.orders` where the prior can tell.

    An absorbing diffusion spends one network evaluation a token and image on each order (priors.chain_rule).
    """

    name = "ordered_nll"
    columns = columns(*map(order_column, (*ORDERS, "best")))
    depends_on = ("protocol", "metrics.nll", "metrics.orders")
    ignores_samples = True

    def applies(self, evidence: Evidence) -> bool:
        return evidence.prior is not None

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        tokens, found, holes = held_out(evidence), {}, []
        for order in evidence.settings.orders:
            try:
                found[order] = self._likelihood(tokens, order, evidence)
            except Unsupported as reason:
                column = self.columns[order_column(order)]
                holes.append(Measurement(order_column(order), None, evidence.protocol_id, unit=column.unit,
                                         better=column.better, note=str(reason)))
        measured = [self._measurement(order, likelihood, tokens, evidence, {}) for order, likelihood in found.items()]
        return measured + holes + self._best(found, tokens, evidence)

    def _likelihood(self, tokens: Tensor, order: str, evidence: Evidence) -> Likelihood:
        prior, budget = evidence.prior, evidence.settings.nll.budget
        if not isinstance(prior, InOrder):
            raise Unsupported(f"{type(prior).__name__} has no likelihood in an order of one's choice")
        if order == "random":
            return evaluate(tokens, evidence, lambda batch, draws: prior.random_order_nll(
                batch, draws=draws, budget=budget or tokens.shape[1]))
        walk = grid_order(order, prior.grid).to(evidence.device)   # type: ignore[attr-defined]
        return evaluate(tokens, evidence, lambda batch, draws: prior.nll_in_order(batch, walk))

    def _best(self, found: dict[str, Likelihood], tokens: Tensor, evidence: Evidence) -> list[Measurement]:
        """Of several fixed orders the best of every other image, measured on the images between them."""
        fixed = {order: likelihood for order, likelihood in found.items() if order != "random"}
        if len(fixed) < 2 or len(tokens) < 2:
            return []
        order = min(fixed, key=lambda name: float(fixed[name].nats[::2].mean()))
        best = fixed[order]
        scored = replace(best, nats=best.nats[1::2], monte_carlo_variance=best.monte_carlo_variance[1::2])
        return [self._measurement("best", scored, tokens, evidence, {"order": order, "orders": sorted(fixed)})]

    def _measurement(self, order: str, likelihood: Likelihood, tokens: Tensor, evidence: Evidence,
                     extra: dict[str, Any]) -> Measurement:
        extra = {"kind": likelihood.kind, "network_evaluations": likelihood.network_evaluations, **scored_on(evidence),
                 **extra}
        return measurement(order_column(order), likelihood, tokens.shape[1], evidence.protocol_id,
                           unit=self.columns[order_column(order)].unit,
                           bound="" if likelihood.kind == "exact" else "upper", extra=extra)


def held_out(evidence: Evidence) -> Tensor:
    """(M, N) tokens of `protocol.nll_images` images evenly spread over the validation split."""
    every = evidence.validation_tokens()
    if len(every) == 0:
        raise InputError("there are no validation tokens. Check the data set's validation split.")
    return every[spread_indices(len(every), evidence.protocol.nll_images)]


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


def evaluate(tokens: Tensor, evidence: Evidence,
             nll: Callable[[Tensor, Draws], Likelihood] | None = None) -> Likelihood:
    """The prior's `nll`, or another one, over (M, N) tokens by batches; a batch's draws depend on its number alone.

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
            batch = batch.to(evidence.device)
            parts.append(nll(batch, draws) if nll else prior.nll(batch, draws=draws, budget=settings.budget))
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
    return Likelihood(nats, variance, kinds.pop(), max(part.network_evaluations for part in parts),
                      joined([part.by_unknown for part in parts]))
