"""The regimes of a group: what each prior reaches with how many images after how many passes, and who leads where.

    regimes = regimes_of(group, results_dir)     # one Regimes for each number of images, both priors trained
    table = regime_table.frame(regimes); drawing = bits_against_passes(regimes, group)

Trajectories come from records whose training had `measure_at=log`; trainings of other settings are never pooled.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.reporting.attachments import trajectory as trajectory_of
from bench.reporting.crossover import Crossover, Training, crossover, measured_alike
from bench.reporting.data_equivalence import Equivalence, equivalence
from bench.reporting.identity import LATER, seeds_of
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
    held_out = prior["training"].get("selection") or LATER["prior.training.selection"]   # which images are measured
    return json.dumps([spec["vq"], spec["dataset"], {name: prior["options"].get(name) for name in SHARED_OPTIONS},
                       {name: prior["training"].get(name) for name in SHARED_TRAINING}, held_out],
                      sort_keys=True, default=str)


def _names(controls: dict[str, dict[str, Any]], found: dict[Any, dict[str, Any]]) -> dict[str, str]:
    """Controls in words: what differs from those that both priors were trained with most often, "" for those."""
    both = [own for tried in found.values() for own, sides in tried.items()
            if {DIFFUSION, AUTOREGRESSIVE} <= set(sides)]
    times = Counter(both or list(controls))
    usual = controls[max(sorted(times), key=lambda own: times[own])] if times else {}
    return {own: ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in tried.items() if value != usual[name])
            for own, tried in controls.items()}


def _regimes(key: tuple[int, str], own: str, tokens: float, tried: dict[str, dict[str, dict[int, Training]]],
             names: dict[str, str]) -> Regimes:
    sides = {other: {name: [by_seed[seed] for seed in sorted(by_seed)] for name, by_seed in sorted(found.items())}
             for other, found in tried.items()}
    mine = sides[own]
    if not {DIFFUSION, AUTOREGRESSIVE} <= set(mine):
        return Regimes(key[0], tokens, key[1], names[own], mine, None)
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
