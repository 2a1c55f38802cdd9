"""The regimes of a group: what each prior reaches with how many images after how many passes, and who leads where.

    regimes = regimes_of(group, results_dir)     # one Regimes for each number of images, both priors trained
    table = frame(regimes); drawing = bits_against_passes(regimes, group)

Trajectories come from records whose training had `measure_at=log`; trainings of other settings are never pooled.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.reporting.attachments import trajectory
from bench.reporting.crossover import Crossover, Training, crossover
from bench.reporting.identity import seeds_of
from bench.reporting.rows import Group

DIFFUSION, AUTOREGRESSIVE = "absorbing", "autoregressive"
KINDS = {"exact": "exact", "bound_T": "bound of T steps", "bound_continuous": "bound"}


@dataclass(frozen=True)
class Best:
    """Where the trainings of one prior are best: means over them.

    bits: a token, of the scoring half.  error: standard error over its images.  passes: over the data.
    """

    bits: float
    error: float
    passes: float


@dataclass(frozen=True)
class Regimes:
    """Both priors' trainings on so many images, and where the diffusion overtakes.

    sides: prior's name -> its trainings, seeds ascending; settings: what besides the prior and the seed they share.
    """

    images: int
    tokens_per_parameter: float
    settings: str
    sides: dict[str, list[Training]]
    crossing: Crossover | None

    def best(self, name: str) -> Best:
        """The best point of each training, chosen on the selection half, averaged."""
        found = [(t, t.trajectory.best()) for t in self.sides[name]]
        bits = [float(t.trajectory.mean("scoring")[at]) for t, at in found]
        rows = np.mean([t.trajectory.bits["scoring"][at] for t, at in found], 0)
        return Best(float(np.mean(bits)), float(rows.std(ddof=1) / len(rows) ** 0.5),
                    float(np.mean([t.passes[at] for t, at in found])))


def regimes_of(group: Group, results_dir: Path) -> list[Regimes]:
    """By images, ascending; of one number of images those of each setting apart."""
    found: dict[tuple[int, str], dict[str, dict[int, Training]]] = defaultdict(lambda: defaultdict(dict))
    tokens: dict[tuple[int, str], float] = {}
    for record in (record for row in group.rows for record in row.records):
        regime, found_there = record.provenance.get("regime") or {}, trajectory(results_dir, record)
        if row_name(record.spec) not in (DIFFUSION, AUTOREGRESSIVE) or not regime.get("images") or not found_there:
            continue
        images, batch = int(regime["images"]), int(record.spec["prior"]["training"]["batch_size"])
        passes = np.array(found_there.steps) * batch / images
        key = images, _settings(record.spec)
        found[key][row_name(record.spec)][seeds_of(record.spec)[0]] = Training(found_there, passes)
        tokens[key] = float(regime["tokens_per_parameter"])
    regimes = []
    for key in sorted(found):
        sides = {name: [by_seed[seed] for seed in sorted(by_seed)] for name, by_seed in sorted(found[key].items())}
        both = {DIFFUSION, AUTOREGRESSIVE} <= set(sides)
        crossing = crossover(sides[DIFFUSION], sides[AUTOREGRESSIVE]) if both else None
        regimes.append(Regimes(key[0], tokens[key], key[1], sides, crossing))
    return regimes


def row_name(spec: dict[str, Any]) -> str:
    return str((spec.get("prior") or {}).get("name", ""))


def _settings(spec: dict[str, Any]) -> str:
    """What must be equal in both priors' trainings, as one text."""
    prior, training = spec["prior"], spec["prior"]["training"]
    options = {name: prior["options"].get(name) for name in ("width", "num_layers", "num_heads", "dropout",
                                                           "position_init", "input_mask")}
    shared = {name: training.get(name) for name in ("batch_size", "learning_rate", "warmup_steps", "schedule",
                                                    "weight_decay", "betas", "ema_decay", "ema_every",
                                                    "measure_images", "measure_order")}
    return json.dumps([spec["vq"], spec["dataset"], options, shared], sort_keys=True, default=str)


def frame(regimes: list[Regimes]) -> pd.DataFrame:
    """One row a number of images, as printed; numbers with their intervals are texts."""
    rows = []
    for regime in regimes:
        row: dict[str, Any] = {"images": f"{regime.images:,}",
                               "tokens a parameter": f"{regime.tokens_per_parameter:.2f}"}
        for name in (AUTOREGRESSIVE, DIFFUSION):
            if name not in regime.sides:
                row[f"{name}, best bits a token"] = "not run"
                continue
            best, exact = regime.best(name), all(t.trajectory.kind == "exact" for t in regime.sides[name])
            sign = "" if exact else "≤ "
            row[f"{name}, best bits a token"] = (f"{sign}{best.bits:.3f} ± {1.96 * best.error:.3f} at "
                                                 f"{best.passes:.0f} passes")
        if (found := regime.crossing) is not None:
            row["absorbing minus autoregressive, bits"] = (
                f"{found.difference:+.3f} [{found.difference_low:+.3f}, {found.difference_high:+.3f}]")
            row["absorbing overtakes at"] = found.text
            row["trainings"] = f"{found.trainings[0]} + {found.trainings[1]}"
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


def markdown(regimes: list[Regimes]) -> str:
    """The table with what it needs to be read alone."""
    table = frame(regimes)
    lines = ["| " + " | ".join(table.columns) + " |", "|" + "--:|" * len(table.columns),
             *("| " + " | ".join(map(str, row)) + " |" for row in table.itertuples(index=False))]
    return "\n".join(lines) + "\n\n" + CAPTION + "\n"


CAPTION = ("Held-out images are halved: the best point of a training is chosen on one half and its bits are those "
           "of the other, ± 1.96 standard errors over images. Absorbing diffusion has an upper bound on its bits, "
           "the autoregressive prior the exact value, so a negative difference holds a fortiori. Both priors share "
           "backbone, tokens, optimiser and rate, without regularisation. Intervals in brackets: 95%, bootstrap "
           "over trainings, images and Monte-Carlo error; with so few trainings a side they tell little of how "
           "trainings differ. '> P passes': not within the P passes of the run.")
