"""The regimes of a group: what each prior reaches with how many images after how many passes, and who leads where.

    regimes = regimes_of(group, results_dir)     # one Regimes for each number of images, both priors trained
    table = frame(regimes); drawing = bits_against_passes(regimes, group)

Trajectories come from records whose training had `measure_at=log`; trainings of other settings are never pooled.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.reporting.attachments import trajectory as trajectory_of
from bench.reporting.crossover import Crossover, Training, crossover, measured_alike
from bench.reporting.data_equivalence import Equivalence, equivalence
from bench.reporting.identity import seeds_of
from bench.reporting.rows import Group

DIFFUSION, AUTOREGRESSIVE, ANY_ORDER = "absorbing", "autoregressive", "any_order"
ANNEALED = f"{ANY_ORDER}, annealed"
SHARED_OPTIONS = ("width", "num_layers", "num_heads")
SHARED_TRAINING = ("batch_size", "warmup_steps", "schedule", "betas", "ema_decay", "ema_every", "measure_images",
                   "measure_order")
CONTROLS = {"learning_rate": 0.0, "weight_decay": 0.0, "dropout": 0.0, "position_init": "zeros", "input_mask": 0.0}
"""What may be tuned for a prior, and what it is in records that lack it."""


@dataclass(frozen=True)
class Best:
    """Where the trainings of one prior are best: means over them.

    bits: a token, of the scoring half.  error: standard error over its images.  passes: over the data.
    """

    bits: float
    error: float
    passes: float


@dataclass(frozen=True)
class Tuned:
    """The autoregressive prior under those controls that suit its selection half best, and where it is overtaken."""

    controls: str
    trainings: list[Training]
    crossing: Crossover


@dataclass(frozen=True)
class Regimes:
    """The priors' trainings on so many images, and where the diffusion overtakes the autoregressive one.

    sides: prior's name -> its trainings, seeds ascending; shared: what they have in common besides, as one text.
    controls: of all sides, where other trainings of the same have others; "" for the usual ones.
    equivalence: images the autoregressive prior needs for what the diffusion has learned, over `images`.
    """

    images: int
    tokens_per_parameter: float
    shared: str
    controls: str
    sides: dict[str, list[Training]]
    crossing: Crossover | None
    tuned: Tuned | None = None
    equivalence: Equivalence | None = None

    def best(self, name: str) -> Best:
        """The best point of each training, chosen on the selection half, averaged."""
        return best_of(self.sides[name])


def best_of(trainings: list[Training]) -> Best:
    found = [(t, t.trajectory.best()) for t in trainings]
    bits = [float(t.trajectory.mean("scoring")[at]) for t, at in found]
    rows = np.mean([t.trajectory.bits["scoring"][at] for t, at in found], 0)
    return Best(float(np.mean(bits)), float(rows.std(ddof=1) / len(rows) ** 0.5),
                float(np.mean([t.passes[at] for t, at in found])))


def regimes_of(group: Group, results_dir: Path) -> list[Regimes]:
    """By images, ascending; of one number of images those of each setting apart."""
    found: dict[tuple[int, str], dict[str, dict[str, dict[int, Training]]]] = {}
    controls: dict[str, dict[str, Any]] = {}
    tokens: dict[tuple[tuple[int, str], str], float] = {}
    for record in (record for row in group.rows for record in row.records):
        regime, trajectory = record.provenance.get("regime") or {}, trajectory_of(results_dir, record)
        name = name_of(record.spec)
        if name not in (DIFFUSION, AUTOREGRESSIVE, ANY_ORDER, ANNEALED) or not regime.get("images") or not trajectory:
            continue
        images, batch = int(regime["images"]), int(record.spec["prior"]["training"]["batch_size"])
        training = Training(trajectory, np.array(trajectory.steps) * batch / images)
        tried = controls_of(record.spec)
        key, own = (images, _shared(record.spec)), json.dumps(tried)
        found.setdefault(key, {}).setdefault(own, defaultdict(dict))[name][seeds_of(record.spec)[0]] = training
        controls[own] = tried
        tokens[key, own] = max(tokens.get((key, own), 0.0), float(regime["tokens_per_parameter"]))
    names = _names(controls, found)
    regimes = [_regimes(key, own, tokens[key, own], found[key], names) for key in sorted(found)
               for own in sorted(found[key], key=lambda own: (names[own], own))]
    return [replace(regime, equivalence=_equivalence(regime, regimes)) for regime in regimes]


def name_of(spec: dict[str, Any]) -> str:
    """The prior's name, with the order of an any-order prior that is not trained on random ones."""
    prior = spec.get("prior") or {}
    order = (prior.get("options") or {}).get("order", "random") if prior.get("name") == ANY_ORDER else "random"
    return str(prior.get("name", "")) + ("" if order == "random" else f", {order}")


def controls_of(spec: dict[str, Any]) -> dict[str, Any]:
    """Each of CONTROLS as this record's training had it."""
    prior = spec["prior"]
    given = prior["options"] | {name: prior["training"].get(name) for name in ("learning_rate", "weight_decay")}
    return {name: idle if given.get(name) is None else given[name] for name, idle in CONTROLS.items()}


def _shared(spec: dict[str, Any]) -> str:
    """What must be equal in trainings that are compared, whatever their controls, as one text."""
    prior = spec["prior"]
    return json.dumps([spec["vq"], spec["dataset"], {name: prior["options"].get(name) for name in SHARED_OPTIONS},
                       {name: prior["training"].get(name) for name in SHARED_TRAINING}], sort_keys=True, default=str)


def _names(controls: dict[str, dict[str, Any]], found: dict[Any, dict[str, Any]]) -> dict[str, str]:
    """Controls in words: what differs from the most frequent ones, "" for those."""
    times = Counter(own for tried in found.values() for own in tried)
    usual = controls[max(sorted(times), key=lambda own: times[own])] if times else {}
    return {own: ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in tried.items() if value != usual[name])
            for own, tried in controls.items()}


def _regimes(key: tuple[int, str], own: str, tokens: float, tried: dict[str, dict[str, dict[int, Training]]],
             names: dict[str, str]) -> Regimes:
    sides = {other: {name: [by_seed[seed] for seed in sorted(by_seed)] for name, by_seed in sorted(found.items())}
             for other, found in tried.items()}
    mine = sides[own]
    if not {DIFFUSION, AUTOREGRESSIVE} <= set(mine):
        return Regimes(*key[:1], tokens, key[1], names[own], mine, None)
    autoregressive = {other: found[AUTOREGRESSIVE] for other, found in sides.items()
                      if AUTOREGRESSIVE in found and measured_alike([*found[AUTOREGRESSIVE], *mine[DIFFUSION]])}
    best = min(sorted(autoregressive), key=lambda other: np.mean(
        [t.trajectory.mean("selection").min() for t in autoregressive[other]]))
    tuned = Tuned(names[best] or "as it is", autoregressive[best],
                  crossover(mine[DIFFUSION], autoregressive[best])) if len(autoregressive) > 1 else None
    return Regimes(key[0], tokens, key[1], names[own], mine, crossover(mine[DIFFUSION], mine[AUTOREGRESSIVE]), tuned)


def _equivalence(regime: Regimes, regimes: list[Regimes]) -> Equivalence | None:
    """None where the autoregressive prior was trained alike on no other number of images."""
    if regime.crossing is None:
        return None
    others = {other.images: other.sides[AUTOREGRESSIVE] for other in regimes
              if (other.shared, other.controls) == (regime.shared, regime.controls) and AUTOREGRESSIVE in other.sides
              and measured_alike([*other.sides[AUTOREGRESSIVE], *regime.sides[DIFFUSION]])}
    return equivalence(regime.sides[DIFFUSION], regime.images, others) if len(others) > 1 else None


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
