"""Figures of conditional runs: fidelity against obedience, samples by class, samples with their captions.

    for figure in figures_of(group, book.results_dir): ...        # nothing of a group without a condition
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from bench.records import Sheet
from bench.reporting.figures import INK, PAGE_WIDTH, Drawing, shortened
from bench.reporting.guidance_figure import fidelity_against_obedience
from bench.reporting.identity import condition_of
from bench.reporting.pictures import find_sheet, has_row_per_label, join, rows_of, show, tiles, wrap
from bench.reporting.rows import Group, Row

MAX_COLUMNS, MAX_STRIPS = 8, 6
CAPTIONED = 6   # pictures a strip, so that a caption fits below each
LONGEST_NAME = 18   # letters of a class
Found = tuple[Row, Path, Sheet]


def figures_of(group: Group, results_dir: Path) -> list[Drawing]:
    """Those that the records of a group have; of edits none."""
    found = [] if group.of_edits else [fidelity_against_obedience(group), samples_by_class(group, results_dir),
                                       captioned_samples(group, results_dir)]
    return [drawing for drawing in found if drawing is not None]


def samples_by_class(group: Group, results_dir: Path) -> Drawing | None:
    """A row a class, a column a prior; None where no sheet is sorted by class."""
    found = [item for item in _with_sheets(group, results_dir, "class") if has_row_per_label(item[2])]
    if not found:
        return None
    chosen = a_few_of_each(found, MAX_COLUMNS)
    names = list(dict.fromkeys(label for _, _, sheet in chosen for label in sheet.labels))
    a_class = min(max(2, 24 // len(chosen)), max(sheet.columns for _, _, sheet in chosen))

    def draw() -> Figure:
        images = [np.concatenate([join(line) for line in _lines(path, sheet, names, a_class)])
                  for _, path, sheet in chosen]
        left, gap = 0.25 + 0.055 * min(LONGEST_NAME, max(map(len, names))), 0.08
        width = (PAGE_WIDTH - left) / len(chosen) - gap
        titles = [wrap(_told(row), max(10, int(width * 20))) for row, _, _ in chosen]
        head = 0.1 + 0.1 * max(title.count("\n") + 1 for title in titles)
        height = width * images[0].shape[0] / images[0].shape[1]
        figure = plt.figure(figsize=(PAGE_WIDTH, height + head))
        for index, (image, title) in enumerate(zip(images, titles, strict=True)):
            axes = figure.add_axes(((left + index * (width + gap)) / PAGE_WIDTH, 0, width / PAGE_WIDTH,
                                    height / (height + head)))
            show(axes, image)
            axes.set_title(title, fontsize=6, color=INK)
            for at, name in enumerate(names if index == 0 else ()):
                axes.text(-0.05, 1 - (at + 0.5) / len(names), shortened(name, LONGEST_NAME), ha="right", va="center",
                          transform=axes.transAxes, fontsize=6.5, color=INK)
        return figure

    return Drawing(f"classes-{group.slug}", f"Samples by class, {group.title}",
                   "A row a class, as asked for; a column a prior. The first samples of each class, not picked; white "
                   "where a class was drawn less often.", draw)


def captioned_samples(group: Group, results_dir: Path) -> Drawing | None:
    """Samples of text runs, the caption that each was drawn for under it; None where no sheet has captions."""
    found = [item for item in _with_sheets(group, results_dir, "text")
             if len(item[2].labels) == item[2].rows * item[2].columns]
    if not found:
        return None
    chosen = a_few_of_each(found, MAX_STRIPS)

    def draw() -> Figure:
        figure, grid = plt.subplots(len(chosen), CAPTIONED, figsize=(PAGE_WIDTH, 1.45 * len(chosen)), squeeze=False,
                                    layout="constrained")
        for line, (row, path, sheet) in zip(grid, chosen, strict=True):
            pictures = tiles(path, sheet)
            for at, axes in enumerate(line):
                axes.set_axis_off()
                if at < len(pictures):
                    show(axes, pictures[at])
                    axes.text(0.5, -0.04, _below(sheet.labels[at]), transform=axes.transAxes, ha="center", va="top",
                              fontsize=5.5, color=INK)
            line[0].text(-0.08, 0.5, wrap(_told(row), 16), transform=line[0].transAxes, ha="right", va="center",
                         fontsize=6.5, color=INK)
        return figure

    return Drawing(f"captions-{group.slug}", f"Samples and their captions, {group.title}",
                   "Below each picture the caption that it was drawn for (of real images and reconstructions, their "
                   "own). The first of each row, not picked.", draw)


def a_few_of_each(found: Sequence[Found], most: int) -> list[Found]:
    """At most so many, the first row of every prior before the second of any; plain rows count as first."""
    taken: Counter[str] = Counter()
    ranks: dict[str, int] = {}
    for row, _, _ in sorted(found, key=lambda item: bool(item[0].variant)):
        ranks[row.key] = taken[row.name]
        taken[row.name] += 1
    kept = {row.key for row, _, _ in sorted(found, key=lambda item: ranks[item[0].key])[:most]}
    return [item for item in found if item[0].key in kept]


def _with_sheets(group: Group, results_dir: Path, condition: str) -> list[Found]:
    """Rows of a condition whose samples have a labelled sheet."""
    told = [row for row in group.rows if condition_of(row.spec) == condition]
    sheets = [(row, find_sheet(row, results_dir, "samples")) for row in told]
    return [(row, *sheet) for row, sheet in sheets if sheet is not None and sheet[1].labels]


def _lines(path: Path, sheet: Sheet, names: Sequence[str], num: int) -> list[np.ndarray]:
    """For each class (num, h, w, 3): its first tiles, white where there are fewer."""
    by_name = dict(zip(sheet.labels, rows_of(path, sheet), strict=True))
    lines = []
    for name in names:
        line = np.full((num, *sheet.tile, 3), 255, np.uint8)
        drawn = by_name.get(name, line)[:num]
        line[:len(drawn)] = drawn
        lines.append(line)
    return lines


def _told(row: Row) -> str:
    """The row's label in a few words."""
    return shortened(row.label).replace("sampler.", "").replace("prior.", "")


def _below(caption: str) -> str:
    """Three short lines at most."""
    return "\n".join(textwrap.wrap(shortened(caption), 20, max_lines=3, placeholder="…"))
