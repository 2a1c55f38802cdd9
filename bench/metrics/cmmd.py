"""CMMD: maximum mean discrepancy of CLIP embeddings under a Gaussian kernel (Jayasumana et al. 2024, arXiv 2401.09603).

    cmmd(fake, real)                # 1000 (mean k(x, x') + mean k(y, y') - 2 mean k(x, y)), k = exp(-|x - y|^2 / 200)

As published: sigma 10, scale 1,000, means over all pairs, those of an image with itself included (the minimum-variance
estimator, biased upwards by about 1/n; KID is the unbiased one).
"""

from __future__ import annotations

import numpy as np

from bench.config import RunSpec
from bench.metrics.base import Evidence
from bench.metrics.checks import check_features
from bench.metrics.columns import columns
from bench.records import Measurement

SIGMA, SCALE = 10.0, 1000.0
BLOCK = 2048


class ClipDiscrepancy:
    """Registry name "cmmd": of runs whose protocol.extractor is a CLIP model."""

    name = "cmmd"
    columns = columns("cmmd")
    depends_on = ("protocol",)

    def applies(self, evidence: Evidence) -> bool:
        return evidence.protocol.extractor.startswith("clip:")

    def assets(self, spec: RunSpec) -> set[str]:
        return set()

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        fake, real = evidence.features("fake"), evidence.features("real")
        return [Measurement("cmmd", cmmd(fake, real), evidence.protocol_id, n=len(fake),
                            better=self.columns["cmmd"].better, extra={"num_real": len(real)},
                            note="no interval: none is shown to cover this biased estimator")]


def cmmd(fake: np.ndarray, real: np.ndarray, *, sigma: float = SIGMA, scale: float = SCALE) -> float:
    """Of (n, D) fake against (m, D) real features, in blocks.  Raises InputError as every distance does."""
    check_features(fake, real, least=2)
    within = _mean_kernel(fake, fake, sigma) + _mean_kernel(real, real, sigma)
    return float(scale * (within - 2 * _mean_kernel(fake, real, sigma)))


def _mean_kernel(x: np.ndarray, y: np.ndarray, sigma: float) -> float:
    total = 0.0
    for i in range(0, len(x), BLOCK):
        left = x[i:i + BLOCK].astype(np.float64)
        for j in range(0, len(y), BLOCK):
            right = y[j:j + BLOCK].astype(np.float64)
            squares = np.square(left).sum(1)[:, None] + np.square(right).sum(1) - 2 * left @ right.T
            total += np.exp(-np.maximum(squares, 0) / (2 * sigma**2)).sum()
    return total / (len(x) * len(y))
