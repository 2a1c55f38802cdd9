"""Regimes as a table: one row a number of images, with what it needs to be read alone.

    table = frame(regimes_of(group, results_dir))
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from bench.reporting.crossover import Crossover, Training
from bench.reporting.regime_map import ANNEALED, ANY_ORDER, AUTOREGRESSIVE, DIFFUSION, Regimes, best_of


def compared(regimes: list[Regimes]) -> list[Regimes]:
    """Without those that only hold controls of the autoregressive prior, which stand in the rows of others."""
    own = {(regime.images, regime.shared) for regime in regimes if regime.crossing}
    return [regime for regime in regimes if regime.crossing or set(regime.sides) != {AUTOREGRESSIVE}
            or (regime.images, regime.shared) not in own]


def frame(regimes: list[Regimes]) -> pd.DataFrame:
    """One row a number of images, as printed; numbers with their intervals are texts."""
    rows = []
    for regime in compared(regimes):
        row: dict[str, Any] = {"images": f"{regime.images:,}",
                               "tokens a parameter": f"{regime.tokens_per_parameter:.2f}"}
        if any(other.controls for other in compared(regimes)):
            row["with"] = regime.controls
        for name in (AUTOREGRESSIVE, DIFFUSION):
            row[f"{name}, best bits a token"] = _best_text(regime.sides.get(name))
        if (found := regime.crossing) is not None:
            row["absorbing minus autoregressive, bits"] = _difference_text(found)
            row["absorbing overtakes at"] = found.text
            row["trainings"] = f"{found.trainings[0]} + {found.trainings[1]}"
        if regime.tuned is not None:
            row["autoregressive, tuned"] = f"{_best_text(regime.tuned.trainings)} ({regime.tuned.controls})"
            row["absorbing minus tuned, bits"] = _difference_text(regime.tuned.crossing)
            row["absorbing overtakes tuned at"] = regime.tuned.crossing.text
        row |= {f"{name}, best bits a token": _best_text(trainings) for name, trainings in regime.sides.items()
                if name in (ANY_ORDER, ANNEALED)}
        if regime.equivalence is not None:
            row["images autoregressive needs, times"] = regime.equivalence.text
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


def _best_text(trainings: list[Training] | None) -> str:
    if not trainings:
        return "not run"
    best, sign = best_of(trainings), "" if all(t.trajectory.kind == "exact" for t in trainings) else "≤ "
    return f"{sign}{best.bits:.3f} ± {1.96 * best.error:.3f} at {best.passes:.0f} passes"


def _difference_text(found: Crossover) -> str:
    return f"{found.difference:+.3f} [{found.difference_low:+.3f}, {found.difference_high:+.3f}]"


def markdown(regimes: list[Regimes]) -> str:
    """The table with what it needs to be read alone."""
    table = frame(regimes)
    lines = ["| " + " | ".join(table.columns) + " |", "|" + "--:|" * len(table.columns),
             *("| " + " | ".join(map(str, row)) + " |" for row in table.itertuples(index=False))]
    return "\n".join(lines) + "\n\n" + CAPTION + "\n"


CAPTION = ("Held-out images are halved: the best point of a training is chosen on one half and its bits are those "
           "of the other, ± 1.96 standard errors over images. Absorbing diffusion has an upper bound on its bits, "
           "the autoregressive prior the exact value, so a negative difference holds a fortiori. All priors share "
           "backbone, tokens and optimiser; tuned: of all rates and regularisers that were tried for the "
           "autoregressive prior, those best on its selection half. Intervals in brackets: 95%, bootstrap over "
           "trainings, images and Monte-Carlo error; with so few trainings a side they tell little of how trainings "
           "differ. '> P passes': not within the P passes of the run. 'images autoregressive needs': times as many "
           "as the diffusion had, for the diffusion's best bits; by interpolation between the numbers of images "
           "trained.")
