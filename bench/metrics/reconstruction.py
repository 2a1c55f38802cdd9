"""How faithful the shared tokenizer is, image by image, and how much of its codebook it uses.

PSNR (decibels), SSIM (Wang et al. 2004) and LPIPS between held-out images and their reconstructions; usage, perplexity
and dead codes over the tokens of the same images. The row's FID beside them is that of a prior which models these
tokens exactly; guided and truncated samples can go below it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bench.assets.weights import lpips_model
from bench.config import RunSpec
from bench.data.arrays import spread_indices
from bench.metrics.base import Evidence
from bench.metrics.columns import columns
from bench.metrics.intervals import normal_interval
from bench.metrics.lpips_embedding import LpipsEmbedding
from bench.records import Measurement
from vq import health

BATCH = 100
SHOWN = 8


class ReconstructionQuality:
    """Registry name "reconstruction"."""

    name = "reconstruction"
    columns = columns("psnr", "ssim", "lpips", "codebook_usage", "codebook_perplexity", "dead_codes")
    depends_on = ("protocol",)

    def applies(self, evidence: Evidence) -> bool:
        return evidence.role == "reconstruction"

    def assets(self, spec: RunSpec) -> set[str]:
        return {f"lpips-{spec.protocol.neighbours_net}"} if spec.source == "reconstruction" else set()

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        reconstructed, held_out = evidence.images("fake"), evidence.images("validation")
        matching = spread_indices(len(held_out), len(reconstructed))   # as the reconstruction source took them
        embedding = LpipsEmbedding(lpips_model(evidence.protocol.neighbours_net), device=evidence.device,
                                   resolution=evidence.protocol.neighbours_resolution)
        counts = torch.zeros(evidence.tokenizer.codebook_size, dtype=torch.int64)
        values: dict[str, list[Tensor]] = {"psnr": [], "ssim": [], "lpips": []}
        for start in range(0, len(reconstructed), BATCH):
            rows = np.arange(start, min(start + BATCH, len(reconstructed)))
            x = torch.from_numpy(held_out.images(matching[rows]))
            y = torch.from_numpy(reconstructed.images(rows))
            counts += health.count_codes(evidence.tokenizer.encode(x.to(evidence.device)).cpu(), len(counts))
            for name, value in _compare(x, y, embedding).items():
                values[name].append(value)
            if start == 0:
                _show(evidence, x, y)
        measured = [self._mean(name, torch.cat(parts), evidence) for name, parts in values.items() if parts]
        return measured + self._codebook(counts, len(reconstructed), evidence)

    def _mean(self, name: str, values: Tensor, evidence: Evidence) -> Measurement:
        mean, error = float(values.mean()), float(values.std() / len(values) ** 0.5) if len(values) > 1 else None
        low, high = normal_interval(mean, error) if error is not None else (None, None)
        column = self.columns[name]
        return Measurement(name, mean, evidence.protocol_id, n=len(values), ci_low=low, ci_high=high,
                           standard_error=error, unit=column.unit, better=column.better)

    def _codebook(self, counts: Tensor, n: int, evidence: Evidence) -> list[Measurement]:
        found = health.health_of_counts(counts)
        values = {"codebook_usage": found.usage, "codebook_perplexity": found.perplexity,
                  "dead_codes": float(found.dead_codes)}
        return [Measurement(name, value, evidence.protocol_id, n=n, unit=self.columns[name].unit,
                            better=self.columns[name].better, note="a property of these images, not an estimate",
                            extra={"codebook_size": len(counts)}) for name, value in values.items()]


def _compare(x: Tensor, y: Tensor, embedding: LpipsEmbedding) -> dict[str, Tensor]:
    """Per-image values, (n,) float64; SSIM only where its 11-pixel window fits."""
    values = {"psnr": health.psnr(x, y),
              "lpips": embedding.distances(embedding.features(x), embedding.features(y)).double().cpu()}
    if min(x.shape[-2:]) >= health.SSIM_WINDOW:
        values["ssim"] = health.ssim(x, y)
    return values


def _show(evidence: Evidence, x: Tensor, y: Tensor) -> None:
    """Originals above their reconstructions, in pairs of rows."""
    columns = min(SHOWN, len(x))
    groups = max(1, min(4, len(x) // columns))
    rows = [part[g * columns:(g + 1) * columns] for g in range(groups) for part in (x, y)]
    evidence.picture("reconstruction", torch.cat(rows).numpy(), 2 * groups, columns,
                     ("original", "reconstruction") * groups)
