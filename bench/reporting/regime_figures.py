"""Figures of regimes: bits against passes for each number of images, and a map of who leads where."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from bench.reporting.crossover import mean_best
from bench.reporting.figures import COLOURS, INK, PAGE_WIDTH, Drawing, Skipped, log_ticks
from bench.reporting.regime_map import ANNEALED, ANY_ORDER, AUTOREGRESSIVE, DIFFUSION, Regimes, regimes_of
from bench.reporting.regime_table import CAPTION
from bench.reporting.rows import Group

COLOUR = {DIFFUSION: COLOURS[0], AUTOREGRESSIVE: COLOURS[1], ANY_ORDER: COLOURS[2],
          ANNEALED: COLOURS[3]}


def figures_of(group: Group, results_dir: Path) -> list[Drawing | Skipped]:
    """Both figures; nothing where no record holds a trajectory."""
    regimes = [regime for regime in regimes_of(group, results_dir) if regime.crossing]
    if not regimes:
        return []
    return [bits_against_passes(regimes, group), map_of_regimes(regimes, group)]


def bits_against_passes(regimes: list[Regimes], group: Group) -> Drawing:
    """One panel for each number of images: scoring bits and, thin, those of training images; the best is marked."""
    def draw() -> Figure:
        figure, axes = plt.subplots(1, len(regimes), figsize=(PAGE_WIDTH, 2.8), sharey=True, squeeze=False,
                                    layout="constrained")
        for panel, regime in zip(axes[0], regimes, strict=True):
            for name in (name for name in COLOUR if name in regime.sides):
                for number, training in enumerate(regime.sides[name]):
                    held_out, best = training.trajectory.mean("scoring"), training.trajectory.best()
                    panel.plot(training.passes, held_out, color=COLOUR[name], linestyle=("-", "--", ":")[number % 3],
                               label=None if number else name)
                    panel.plot(training.passes, training.trajectory.mean("train"), color=COLOUR[name], linewidth=0.6,
                               alpha=0.6, label=None if number or name != AUTOREGRESSIVE else "training images (thin)")
                    panel.plot(training.passes[best], held_out[best], "o", color=COLOUR[name])
            found = regime.crossing
            if found and np.isfinite(found.passes):
                panel.axvline(found.passes, color=INK, alpha=0.4, linewidth=0.8)
                panel.axvspan(found.low, min(found.high, found.end), color=INK, alpha=0.08, linewidth=0)
            panel.set_xscale("log")
            log_ticks(panel, round_passes(np.concatenate([t.passes for side in regime.sides.values() for t in side])))
            panel.set_title(f"{regime.images:,} images")
            panel.set_xlabel("passes over the images")
        scoring = [t.trajectory.mean("scoring") for r in regimes for side in r.sides.values() for t in side]
        low, first = min(values.min() for values in scoring), max(values[0] for values in scoring)
        axes[0][0].set_ylim(low - 1.2 * (first - low), first + 0.8 * (first - low))
        axes[0][0].set_ylabel("bits a token, held out")
        axes[0][0].legend()
        return figure
    return Drawing(f"regimes-{group.slug}", "Bits against passes over the images",
                   "Thick: held-out images; thin: training images; dots: best. Grey: where absorbing diffusion "
                   "overtakes for good, with its interval. " + CAPTION, draw)


def map_of_regimes(regimes: list[Regimes], group: Group) -> Drawing:
    """The difference of the two priors' best so far, over images and passes; the crossover and its band drawn in."""
    def draw() -> Figure:
        figure, axes = plt.subplots(figsize=(PAGE_WIDTH * 0.7, 2.8), layout="constrained")
        limit = 0.5
        for at, regime in enumerate(regimes):
            passes, difference = differences(regime)
            drawn = axes.scatter(passes, [at] * len(passes), c=np.clip(difference, -limit, limit), cmap="RdBu_r",
                                 vmin=-limit, vmax=limit, marker="s", s=60)
            if regime.crossing and np.isfinite(regime.crossing.passes):
                found = regime.crossing
                axes.errorbar(found.passes, at + 0.3, xerr=[[found.passes - found.low],
                                                           [min(found.high, found.end) - found.passes]],
                              fmt="v", color=INK, capsize=2)
        axes.set_xscale("log")
        axes.set_yticks(range(len(regimes)), [f"{regime.images:,}" for regime in regimes])
        axes.set_ylim(-0.6, len(regimes) - 0.4)
        log_ticks(axes, round_passes(np.concatenate([differences(regime)[0] for regime in regimes])))
        axes.set_xlabel("passes over the images")
        axes.set_ylabel("images")
        axes.grid(False)
        bar = figure.colorbar(drawn, ax=axes)
        bar.set_label("absorbing − autoregressive, bits a token")
        return figure
    return Drawing(f"regime-map-{group.slug}", "Who leads where",
                   "Red: the autoregressive prior's best so far has lower bits, blue: more than the bound of absorbing "
                   "diffusion's. Triangles: the crossover and its interval. " + CAPTION, draw)


def round_passes(passes: np.ndarray) -> list[float]:
    """1, 2, 5, 10, ... within the range of `passes`, for an axis."""
    every = [float(leading * 10 ** power) for power in range(-2, 7) for leading in (1, 2, 5)]
    return [value for value in every if passes.min() <= value <= passes.max()]


def differences(regime: Regimes) -> tuple[np.ndarray, np.ndarray]:
    """Passes of the first absorbing training, and there absorbing minus autoregressive, both at their best so far."""
    passes = regime.sides[DIFFUSION][0].passes
    passes = passes[passes >= max(t.passes[0] for side in regime.sides.values() for t in side) * (1 - 1e-9)]
    return passes, mean_best(regime.sides[DIFFUSION], passes) - mean_best(regime.sides[AUTOREGRESSIVE], passes)
