"""What guidance buys and costs: fidelity against obedience, a curve a prior, its points labelled by guidance.

    drawing = fidelity_against_obedience(group)     # None where no prior ran with two guidances

Obedience is the share of samples that a classifier takes for the class they were drawn for (`class_accuracy`).
"""

from __future__ import annotations

from collections import defaultdict

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.reporting.figures import (
    COLOURS,
    COLUMN_WIDTH,
    INK,
    MARKERS,
    MAX_SERIES,
    Drawing,
    fid_title,
    legend,
    shortened,
    value_of,
)
from bench.reporting.identity import identity
from bench.reporting.rows import Cell, Group, Row

GUIDANCE, OBEDIENCE = "sampler.guidance", "class_accuracy"
FIDELITY = ("fid", "kid")
"""The first that two rows of a sweep have is drawn."""


def fidelity_against_obedience(group: Group) -> Drawing | None:
    """FID (or KID) against class accuracy over the guidance sweep, with intervals both ways."""
    found = next(((metric, sweeps) for metric in FIDELITY if (sweeps := guidance_sweeps(group, metric))), None)
    if found is None:
        return None
    metric, sweeps = found

    def draw() -> Figure:
        figure, axes = plt.subplots(figsize=(COLUMN_WIDTH, 2.6), layout="constrained")
        for index, (label, rows) in enumerate(sweeps.items()):
            colour, marker = COLOURS[index % 6], MARKERS[(index + index // 6) % 6]
            _points(axes, rows, metric, colour, marker, label, line="-", order=3 + index)
            _guidances(axes, rows, metric, colour, above=index % 2 == 0)
        for row in group.measured("reconstruction"):
            if _has(row, metric):
                _points(axes, [row], metric, INK, "x", row.label, line="", order=2)
        axes.set_xlabel("class accuracy of samples")
        axes.set_ylabel(fid_title(group) if metric == "fid" else "KID")
        legend(axes)
        return figure

    title = "FID" if metric == "fid" else "KID"
    return Drawing(f"guidance-{group.slug}", f"{title} against class accuracy, {group.title}",
                   "Right is more obedient, down is nearer to the reference. Numbers at points are the guidance: 1 is "
                   "the conditional model, 0 the same weights without the condition. Bars are 95% intervals, both "
                   "ways, where a sound one is at hand.", draw)


def guidance_sweeps(group: Group, metric: str) -> dict[str, list[Row]]:
    """Legend label -> rows of one prior that differ in guidance alone and have both numbers, in order of guidance."""
    families: dict[str, list[Row]] = defaultdict(list)
    for row in group.measured():
        if _has(row, metric):
            alike = {key: value for key, value in identity(row.role, row.spec).items() if key != GUIDANCE}
            families[repr(sorted(alike.items()))].append(row)
    sweeps: dict[str, list[Row]] = {}
    for rows in families.values():
        if len({guidance_of(row) for row in rows}) > 1:
            sweeps.setdefault(_label(rows[0]), sorted(rows, key=guidance_of))
    return dict(sorted(sorted(sweeps.items(), key=lambda item: -len(item[1]))[:MAX_SERIES]))


def guidance_of(row: Row) -> float:
    """1 where the row's sampler knows none."""
    found = row.spec.get("sampler", {}).get("guidance")
    return 1.0 if found is None else float(found)


def _label(row: Row) -> str:
    """A row's label without its guidance, short enough for a legend."""
    if not row.variant:
        return row.label
    others = [part for part in row.variant.split(", ") if not part.startswith(f"{GUIDANCE}=")]
    label = row.label.removesuffix(f" ({row.variant})") + (f" ({', '.join(others)})" if others else "")
    return label.replace("sampler.", "").replace("prior.", "")


def _has(row: Row, metric: str) -> bool:
    return value_of(row, metric) is not None and value_of(row, OBEDIENCE) is not None


def _points(axes: Axes, rows: list[Row], metric: str, colour: str, marker: str, label: str, *, line: str,
            order: int) -> None:
    across, up = [row.cells[OBEDIENCE] for row in rows], [row.cells[metric] for row in rows]
    axes.errorbar([cell.value or 0.0 for cell in across], [cell.value or 0.0 for cell in up], xerr=_bars(across),
                  yerr=_bars(up), color=colour, marker=marker, linestyle=line or "none", label=shortened(label),
                  elinewidth=0.7, capsize=1.5, zorder=order)


def _guidances(axes: Axes, rows: list[Row], metric: str, colour: str, *, above: bool) -> None:
    """The guidance beside each point, on the side that its nearest neighbour leaves free."""
    obedience = [row.cells[OBEDIENCE].value or 0.0 for row in rows]
    for at, row in enumerate(rows):
        nearest = min((x for other, x in enumerate(obedience) if other != at), key=lambda x: abs(x - obedience[at]))
        right = obedience[at] > nearest
        axes.annotate(f"{guidance_of(row):g}", (obedience[at], row.cells[metric].value or 0.0),
                      textcoords="offset points", xytext=(4 if right else -4, 4 if above else -4), fontsize=6,
                      color=colour, ha="left" if right else "right", va="bottom" if above else "top", zorder=30)


def _bars(cells: list[Cell]) -> tuple[list[float], list[float]]:
    """How far each interval reaches below and above; nowhere where there is none."""
    return ([0.0 if cell.low is None else max(0.0, (cell.value or 0.0) - cell.low) for cell in cells],
            [0.0 if cell.high is None else max(0.0, cell.high - (cell.value or 0.0)) for cell in cells])
