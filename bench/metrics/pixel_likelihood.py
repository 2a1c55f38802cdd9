"""Negative log-likelihood of validation images in bits per dimension (Bond-Taylor et al. 2022, section 4.2).

    -log2 p(x) <= (-log2 p(x | z) - log2 p(z)) / (C H W),   z = encode(x)

x is an image of `metrics.pixel_bits` a channel, p(z) the prior and p(x | z) the decoder's Gaussian, integrated over
each value's bin: probabilities of discrete images, so this is a true upper bound even where the prior's part is exact
(other tokens could give the same image). The paper's 2.72 takes the density at the value times the bin's width instead,
which is no probability where the Gaussian is narrower than a bin; that number stands beside ours in the record.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from torch import Tensor

from bench.errors import BenchError
from bench.metrics.base import Evidence
from bench.metrics.columns import columns, pixel_column
from bench.metrics.likelihood import evaluate, measurement, scored_on
from bench.progress import LINE_EVERY_SECONDS
from bench.records import Measurement
from priors.base import Likelihood, Unsupported


class PixelNegativeLogLikelihood:
    """Registry name "pixel_nll": over all validation images that score likelihoods (bench.selection)."""

    name = "pixel_nll"
    columns = columns(*(pixel_column(bits) for bits in range(1, 9)))
    depends_on = ("metrics.nll", "metrics.pixel_bits")
    ignores_samples = True

    def applies(self, evidence: Evidence) -> bool:
        return evidence.prior is not None

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        column = pixel_column(evidence.settings.pixel_bits)
        unit = self.columns[column].unit

        def hole(reason: object) -> list[Measurement]:
            return [Measurement(column, None, evidence.protocol_id, unit=unit, better=self.columns[column].better,
                                note=str(reason))]

        if evidence.likelihood is None:
            return hole("the tokenizer has no pixel likelihood: build it with vq.likelihood_head=true")
        images = _scored(evidence)
        tokens, mass, density = _decoder_part(images, evidence)
        try:
            prior = evaluate(tokens, evidence, images=images)
        except Unsupported as reason:
            return hole(reason)
        num_dims = 3 * evidence.likelihood.resolution**2
        whole = Likelihood(prior.nats - mass, prior.monte_carlo_variance, prior.kind, prior.network_evaluations)
        return [measurement(column, whole, num_dims, evidence.protocol_id, unit=unit, bound="upper",
                            extra=_details(prior, mass, density, num_dims, evidence))]


def _scored(evidence: Evidence) -> np.ndarray:
    """(M,) the validation images that score."""
    return np.arange(len(evidence.images("validation"))) if evidence.scored is None else evidence.scored


def _decoder_part(scored: np.ndarray, evidence: Evidence) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (M, N), log mass (M,) and log density (M,) of these (M,) validation images, in nats."""
    images, size = evidence.images("validation"), evidence.settings.nll.batch_size
    parts, last_line = [], time.monotonic()
    for start in range(0, len(scored), size):
        if time.monotonic() - last_line >= LINE_EVERY_SECONDS:
            last_line = time.monotonic()
            evidence.progress(f"pixel likelihood: image {start} of {len(scored)}")
        batch = torch.from_numpy(images.images(scored[start:start + size]))
        with torch.inference_mode():
            found = evidence.likelihood.log_likelihood(batch.to(evidence.device), bits=evidence.settings.pixel_bits)
        parts.append((found.tokens.cpu(), found.mass.double().cpu(), found.density.double().cpu()))
    tokens, mass, density = (torch.cat(column) for column in zip(*parts, strict=True))
    if not mass.le(0).all():
        raise BenchError(f"log p(image | tokens) is NaN or above 0 for {int((~mass.le(0)).sum())} of {len(mass)} "
                         "images. Did the fine-tuning diverge? Lower vq.likelihood.learning_rate.")
    return tokens, mass, density


def _details(prior: Likelihood, mass: Tensor, density: Tensor, num_dims: int, evidence: Evidence) -> dict[str, object]:
    """The parts of the number. The ceiling is that of uniform noise."""
    to_bits = 1 / (num_dims * math.log(2))
    prior_bits, decoder_bits, density_bits = (float(nats.mean()) * to_bits for nats in (prior.nats, -mass, -density))
    return {"kind": prior.kind, "pixel_bits": evidence.settings.pixel_bits, "ceiling": evidence.settings.pixel_bits,
            "prior_bits_per_dim": prior_bits, "decoder_bits_per_dim": decoder_bits,
            "bits_per_dim_by_density": prior_bits + density_bits,
            "budget": evidence.settings.nll.budget if prior.kind != "exact" else None,
            "network_evaluations": prior.network_evaluations, **scored_on(evidence)}
