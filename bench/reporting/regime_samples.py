"""What samples are worth along a training: likelihood, FID, KID and copying side by side, at its best and at its last.

    table = samples_of_regimes(group)       # None where no record tells how many images its prior saw and how often

With few images a better FID can be copying, so none of these columns stands alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.metrics.columns import order_column
from bench.reporting.rows import Group, Row
from bench.reporting.tables import Table, TableRow, measured_column, with_counts

METRICS = ("bits_per_token", order_column("raster"), order_column("best"), "fid", "kid", "precision", "recall",
           "memorised_share")
TOLD = ("prior.training.images", "prior.training.select")
"""Options that section and label tell in words."""
CAPTION = ("Samples of the weights that were best on the selection half of the held-out images, and of the last ones "
           "of the same training. Raster, best order: exact likelihoods of tokens one at a time, which absorbing "
           "diffusion has at one evaluation a token, beside its bound; the best order is chosen on half of the images.")


def samples_of_regimes(group: Group) -> Table | None:
    """By images, then prior; rows without samples are left out."""
    rows = sorted((row for row in group.rows if _images(row) and "kid" in row.cells),
                  key=lambda row: (_images(row), row.name, row.variant, _is_last(row)))
    if not rows:
        return None
    columns = tuple(measured_column(metric, [row.cells[metric] for row in rows if metric in row.cells])
                    for metric in METRICS if any(metric in row.cells for row in rows))
    table = with_counts(columns, [TableRow(_label(row), {m: row.cells[m] for m in METRICS if m in row.cells},
                                           section=f"{_images(row):,} images", source=row) for row in rows])
    return Table(f"regime-samples-{group.slug}", f"Samples in each regime, {group.title}", "prior, its weights",
                 columns, table, CAPTION, has_best_in_each_section=True)


def _images(row: Row) -> int:
    """Training images the prior saw, where they were chosen to be few; 0 elsewhere."""
    return int((row.spec.get("prior") or {}).get("training", {}).get("images") or 0)


def _is_last(row: Row) -> bool:
    return bool(row.spec["prior"]["training"].get("select") == "latest")


def _label(row: Row) -> str:
    """"absorbing, best weights (129 passes)", the mean over trainings; what else differs stands behind."""
    more = [part for part in row.variant.split(", ") if part and part.split("=")[0] not in TOLD]
    which, key = ("last", "passes") if _is_last(row) else ("best", "best_passes")
    passes = _told([record.provenance.get("regime") or {} for record in row.records], key)
    return (f"{row.name}, {which} weights" + (f" ({passes:.0f} passes)" if passes else "")
            + (f", {', '.join(more)}" if more else ""))


def _told(regimes: Sequence[dict[str, float]], key: str) -> float | None:
    found = [regime[key] for regime in regimes if regime.get(key)]
    return float(np.mean(found)) if found else None
