"""The curves of a report: quality against what sampling costs, likelihood while training, what temperature trades.

    for figure in curves_of(group, book.results_dir):
        write(figure, Path("report/figures"))
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.provenance import content_id
from bench.reporting.catalogue import metric_of
from bench.reporting.curves import read_curve
from bench.reporting.figures import (
    COLOURS,
    COLUMN_WIDTH,
    INK,
    MARKERS,
    MAX_SERIES,
    PAGE_WIDTH,
    Drawing,
    Skipped,
    error_line,
    fid_title,
    legend,
    log_ticks,
    seconds_axis,
    shortened,
    value_of,
)
from bench.reporting.identity import identity
from bench.reporting.rows import Group, Row

MAX_LEVELS, MANY_SERIES, MOST_SERIES = 5, 6, 24
PALE = 0.4   # of the ink of points that share the style of others
Curve = list[tuple[float, float]]


def curves_of(group: Group, results_dir: Path) -> list[Drawing | Skipped]:
    """Every curve figure of one group, or why it cannot be drawn; none of edits."""
    if group.of_edits:
        return []
    return [fid_against_steps(group), fid_against_seconds(group), *fid_against_evaluations(group),
            bound_during_training(group, results_dir), temperature_trade(group)]


def fid_against_steps(group: Group) -> Drawing | Skipped:
    """Quality over the step sweep (Table 3 as a curve)."""
    name = f"fid-steps-{group.slug}"
    top = frame_top(group)
    series = step_series(group, lambda row: row.steps, top)
    if not any(len(points) > 1 for points in series.values()):
        return Skipped(name, f"{group.title}: fewer than two rows of one prior differ in sampler.steps")

    def draw() -> Figure:
        figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 2.5), layout="constrained")
        draw_series(axes, series, styles_of(group))
        draw_levels(axes, group, top)
        axes.set_xlabel("diffusion steps")
        axes.set_ylabel(fid_title(group))
        log_ticks(axes, [x for points in series.values() for x, _ in points])
        legend(axes)
        return figure

    return Drawing(name, f"FID against steps, {group.title}", "Bars are 95% intervals where a sound one is at hand; "
                   "priors without steps are drawn as levels." + beyond(group, top), draw, "Table 3")


def fid_against_seconds(group: Group) -> Drawing | Skipped:
    """Quality against wall clock, with the Pareto front; autoregressive rows with and without cache."""
    name = f"fid-seconds-{group.slug}"
    top = frame_top(group)
    series = step_series(group, lambda row: value_of(row, "seconds_per_image"), top)
    uncached = step_series(group, lambda row: value_of(row, "seconds_per_image_uncached"), top)
    if not series:
        return Skipped(name, f"{group.title}: no row has both FID and seconds per image")

    def draw() -> Figure:
        figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 2.6), layout="constrained")
        every = [*series.values(), *uncached.values()]
        draw_front(axes, [(x, value_of(row, "fid")) for points in every for x, row in points])
        styles = styles_of(group)
        draw_series(axes, series, styles, annotate=True)
        if uncached:
            draw_series(axes, uncached, styles, strength=PALE, in_legend=False)
            axes.plot([], [], color=INK, alpha=PALE, marker="o", linestyle="none", label="paler: no cache")
        seconds_axis(axes)
        axes.set_xlabel("seconds per image (prior only)")
        axes.set_ylabel(fid_title(group))
        legend(axes)
        return figure

    caption = ("One image at a time. Numbers at points are diffusion steps; the grey line is the Pareto front: nothing "
               "measured is both faster and better." + beyond(group, top))
    return Drawing(name, f"FID against seconds, {group.title}", caption, draw, "Section 4.2.1")


def fid_against_evaluations(group: Group) -> list[Drawing]:
    """Quality against what sampling costs on any machine; nothing where few priors and samplers stand side by side."""
    top = frame_top(group)
    series = step_series(group, lambda row: value_of(row, "network_evaluations") or None, top,
                         MOST_SERIES)   # none: no network
    if len(series) < MANY_SERIES:
        return []

    def draw() -> Figure:
        figure, axes = plt.subplots(figsize=(PAGE_WIDTH, 3.4), layout="constrained")
        draw_front(axes, [(x, value_of(row, "fid")) for points in series.values() for x, row in points])
        draw_series(axes, series, styles_of(group))
        seconds_axis(axes)
        axes.set_xlabel("network evaluations per image")
        axes.set_ylabel(fid_title(group))
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))   # beside: there are many
        return figure

    caption = ("An evaluation is one pass of the network; with a key-value cache it is over one token, else over all. "
               "The grey line is the Pareto front: nothing measured needs fewer and is better. Bars are 95% intervals."
               + beyond(group, top))
    return [Drawing(f"fid-evaluations-{group.slug}", f"FID against evaluations, {group.title}", caption, draw)]


def bound_during_training(group: Group, results_dir: Path) -> Drawing | Skipped:
    """Validation likelihood while training, one curve a prior and loss (the paper's Fig. 5)."""
    name = f"bound-training-{group.slug}"
    curves = validation_curves(group, results_dir)
    if not curves:
        return Skipped(name, f"{group.title}: no record has a curve of validation_bits_per_token")

    def draw() -> Figure:
        figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 2.5), layout="constrained")
        for index, (label, trainings) in enumerate(sorted(curves.items())):
            for number, points in enumerate(trainings):
                axes.plot(*zip(*points, strict=True), label=None if number else shortened(label),
                          color=COLOURS[index % 6], linestyle=("-", "--", ":", "-.")[index % 4],
                          linewidth=0.6 if number else None)
        axes.set_ylim(top=after_the_start(curves))
        axes.set_xlabel("training steps")
        axes.set_ylabel("validation bits per token")
        legend(axes)
        return figure

    return Drawing(name, f"Validation likelihood during training, {group.title}",
                   "Exact for autoregressive priors, an upper bound for diffusion. Thin lines are further training "
                   "seeds. The first tenth of training may lie above the frame.", draw, "Figure 5")


def temperature_trade(group: Group) -> Drawing | Skipped:
    """What a lower temperature buys and costs: precision and density against recall and coverage (Fig. 6)."""
    name = f"temperature-{group.slug}"
    chosen = temperature_rows(group)
    metrics = [m for m in ("precision", "recall", "density", "coverage") if all(m in row.cells for row in chosen)]
    if len(chosen) < 2 or not metrics:
        return Skipped(name, f"{group.title}: fewer than two rows of one prior differ in sampler.temperature alone")

    def draw() -> Figure:
        figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 2.4), layout="constrained")
        for index, metric in enumerate(metrics):
            points = [(row.temperature, row.cells[metric]) for row in chosen if row.cells[metric].value is not None]
            error_line(axes, points, COLOURS[index], MARKERS[index], metric_of(metric).title)
        axes.set_xticks([row.temperature for row in chosen])
        axes.set_xlabel("sampling temperature")
        axes.set_ylabel("share of images")
        legend(axes)
        return figure

    return Drawing(name, f"Temperature against diversity, {chosen[0].name}, {group.title}",
                   "Fidelity (precision, density) against diversity (recall, coverage).", draw, "Figure 6")


def temperature_rows(group: Group) -> list[Row]:
    """The longest run of rows of one prior that differ in temperature alone."""
    families: dict[str, list[Row]] = {}
    for row in group.measured():
        family = {k: v for k, v in identity(row.role, row.spec).items() if k != "sampler.temperature"}
        families.setdefault(repr(sorted(family.items())), []).append(row)
    best = max(families.values(), key=lambda rows: (len(rows), rows[0].steps or 0), default=[])
    return sorted(best, key=lambda row: row.temperature)


def step_series(group: Group, x_of: Callable[[Row], float | None], top: float,
                most: int = MAX_SERIES) -> dict[str, list[tuple[float, Row]]]:
    """Legend label -> [(x, row)]: rows of one prior and temperature that have FID (at most `top`) and an x, in order.

    Of more than `most` the longest, and of equally long ones the plain; a figure that shows everything shows
    nothing.
    """
    series: dict[str, list[tuple[float, Row]]] = {}
    for row in group.measured():
        x, fid = x_of(row), value_of(row, "fid")
        if x is not None and fid is not None and fid <= top:
            series.setdefault(series_label(row), []).append((x, row))
    longest = sorted(series.items(), key=lambda item: (-len(item[1]), item[0] != item[1][0][1].name))[:most]
    return {label: sorted(points, key=lambda point: point[0]) for label, points in longest}


def series_label(row: Row) -> str:
    """A row's label without its steps, short enough for a legend."""
    label = row.label.replace(f", {row.steps} steps", "") if row.steps is not None else row.label
    return label.replace(", temperature ", ", t = ").replace("sampler.", "").replace("prior.", "")


def styles_of(group: Group) -> dict[str, tuple[str, str]]:
    """Series -> (colour, marker), no two alike, and the same in every figure of the group; plain priors come first."""
    labels = {series_label(row): row.name for row in group.measured()}
    plain_first = sorted(labels, key=lambda label: (label != labels[label], label))
    return {label: (COLOURS[index % 6], MARKERS[(index + index // 6) % 6]) for index, label in enumerate(plain_first)}


def draw_series(axes: Axes, series: dict[str, list[tuple[float, Row]]], styles: dict[str, tuple[str, str]], *,
                annotate: bool = False, strength: float = 1.0, in_legend: bool = True) -> None:
    """strength: of ink, 1 is full; series that share the style of others are told from them by it."""
    for index, (label, points) in enumerate(series.items()):
        colour, marker = styles[label]
        cold = points[0][1].temperature < 1
        error_line(axes, [(x, r.cells["fid"]) for x, r in points], colour, marker, label,
                   hollow=cold, dashed=cold, order=3 + index, strength=strength, in_legend=in_legend)
        for x, r in points if annotate and not cold and len(points) > 1 else ():
            axes.annotate(str(r.steps), (x, r.cells["fid"].value), textcoords="offset points", xytext=(4, 4),
                          fontsize=6, color=INK)


def frame_top(group: Group) -> float:
    """The highest FID that is drawn: all, but for a row so far off that the others would share half of the frame."""
    found = sorted(fid for row in group.rows if row.role != "real" and (fid := value_of(row, "fid")) is not None)
    if len(found) > 3 and found[-1] - found[-2] > found[-2] - found[0]:
        return found[-2]
    return math.inf


def beyond(group: Group, top: float) -> str:
    """A sentence that names the rows above the frame."""
    off = [f"{row.label} ({value_of(row, 'fid'):.0f})" for row in group.rows if (value_of(row, "fid") or 0.0) > top]
    return f" Above the frame: {', '.join(off)}." if off else ""


def draw_levels(axes: Axes, group: Group, top: float) -> None:
    """Rows without steps as horizontal lines: reconstructions and the priors that have no step sweep."""
    levels = [row for row in group.rows if row.steps is None and row.role != "real"
              and (fid := value_of(row, "fid")) is not None and fid <= top]
    styles = styles_of(group)
    for row in levels[:MAX_LEVELS]:
        colour, _ = styles.get(series_label(row), (INK, ""))
        axes.axhline(row.cells["fid"].value or 0.0, color=colour, linewidth=1, label=shortened(series_label(row)),
                     linestyle=(0, (1, 1.5)) if row.role == "prior" else (0, (4, 2)))


def draw_front(axes: Axes, points: list[tuple[float, float | None]]) -> None:
    """The lower left staircase of (seconds, FID)."""
    front: list[tuple[float, float]] = []
    for x, y in sorted((x, y) for x, y in points if y is not None):
        if not front or y < front[-1][1]:
            front.append((x, y))
    if len(front) > 1:
        axes.step(*zip(*front, strict=True), where="post", color=INK, alpha=0.25, linewidth=3, zorder=1,
                  label="Pareto front")


def validation_curves(group: Group, results_dir: Path) -> dict[str, list[Curve]]:
    """Label -> the validation curves of a prior's trainings, seeds apart; one a training, not one a row."""
    curves: dict[str, list[Curve]] = {}
    configurations: dict[str, str] = {}
    for row in group.rows:
        for record in row.records:
            path = record.curves.get("prior")
            points = read_curve(results_dir / path, "validation_bits_per_token") if path else []
            if row.role != "prior" or not points:
                continue
            objective = row.option("prior", "objective")
            label = f"{row.name} ({objective})" if objective else row.name
            known = identity(row.role, record.spec)
            trained = json.dumps({key: value for key, value in known.items() if key.startswith(("vq.", "prior."))},
                                 sort_keys=True, default=str)
            if configurations.setdefault(label, trained) != trained:
                label = f"{label}, {content_id(trained)[:6]}"
            if points not in curves.get(label, []) and (label in curves or len(curves) < MAX_SERIES):
                curves.setdefault(label, []).append(points)
    return curves


def after_the_start(curves: dict[str, list[Curve]]) -> float:
    """The highest value once a tenth of the training is over: what comes before would flatten the rest."""
    every = [points for trainings in curves.values() for points in trainings]
    last = max(step for points in every for step, _ in points)
    late = [value for points in every for step, value in points if step > last / 10]
    return max(late) + 0.04 * (max(late) - min(late))
