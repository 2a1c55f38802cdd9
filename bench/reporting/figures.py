"""How figures look and are kept: for a column of a paper, 3.4 inches wide, 8 point, Okabe and Ito's colours.

    write(Drawing("fid-steps", "FID against steps", "Bars are 95% intervals.", draw), Path("report/figures"))

Each figure is drawn from rows alone, and drawn alike twice: no dates, no random ids.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, ScalarFormatter  # noqa: E402

from bench.printable import one_line  # noqa: E402
from bench.reporting.rows import Group, Row  # noqa: E402

COLUMN_WIDTH = 3.4
PAGE_WIDTH = 7.0
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito (2008), without black and yellow, which vanish on one of the page's two backgrounds."""
MAX_SERIES = 10
MARKERS = ("o", "s", "^", "D", "v", "P")
WIDE = 100   # an axis whose ends are as many times apart has no room for more than powers of ten
INK = "#010203"
"""Text, axes and grid: a colour of its own, so that the page can replace it by the reader's."""
STYLE: dict[Any, Any] = {
    "font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "legend.fontsize": 6.5, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6,
    "lines.linewidth": 1.3, "lines.markersize": 4, "axes.grid": True, "grid.alpha": 0.12, "grid.linewidth": 0.5,
    "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "grid.color": INK, "legend.frameon": False, "figure.dpi": 100, "savefig.dpi": 300, "svg.fonttype": "none",
    "svg.hashsalt": "vq-prior-bench", "pdf.fonttype": 42, "text.parse_math": False, "font.family": "DejaVu Sans"}


@dataclass
class Drawing:
    """name: for files.  paper: the figure of the paper it answers, if any.  draw: makes the matplotlib figure."""

    name: str
    title: str
    caption: str
    draw: Callable[[], Figure]
    paper: str = ""

    @cached_property
    def figure(self) -> Figure:
        """Drawn and laid out once, for all formats."""
        with plt.rc_context(STYLE):
            figure = self.draw()
            figure.draw_without_rendering()
        figure.set_layout_engine("none")
        plt.close(figure)
        return figure


@dataclass(frozen=True)
class Skipped:
    """A figure of the paper that these records cannot give, and why."""

    name: str
    reason: str


def write(drawing: Drawing, folder: Path) -> list[Path]:
    """PNG (300 dpi, white) and PDF."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{drawing.name}.{suffix}" for suffix in ("png", "pdf")]
    with plt.rc_context(STYLE):
        drawing.figure.savefig(paths[0], facecolor="white", metadata={"Software": None})
        drawing.figure.savefig(paths[1], facecolor="white",
                               metadata={"CreationDate": None, "Producer": None, "Creator": None})
    return paths


def svg(drawing: Drawing) -> str:
    """For the page: transparent, text as text, and ink in the reader's colour."""
    buffer = io.StringIO()
    with plt.rc_context(STYLE):
        drawing.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg"):].replace(INK, "currentColor")


def error_line(axes: Axes, points: Sequence[tuple[float, Any]], colour: str, marker: str, label: str, *,
               hollow: bool = False, dashed: bool = False, order: int = 3, strength: float = 1.0,
               in_legend: bool = True) -> None:
    """points: [(x, Cell)]. A bar shows the interval of each cell that has one."""
    xs, cells = [x for x, _ in points], [cell for _, cell in points]
    low = [max(0.0, cell.value - cell.low) if cell.low is not None else 0.0 for cell in cells]
    high = [max(0.0, cell.high - cell.value) if cell.high is not None else 0.0 for cell in cells]
    axes.errorbar(xs, [cell.value for cell in cells], yerr=[low, high], color=colour, marker=marker, alpha=strength,
                  label=shortened(label) if in_legend else f"_{label}", linestyle="--" if dashed else "-",
                  elinewidth=0.7, capsize=1.5, zorder=order, markerfacecolor="none" if hollow else colour)


def value_of(row: Row, metric: str) -> float | None:
    cell = row.cells.get(metric)
    return cell.value if cell else None


def fid_title(group: Group) -> str:
    counts = {row.cells["fid"].n for row in group.rows if "fid" in row.cells and row.cells["fid"].n}
    return f"FID@{counts.pop()}" if len(counts) == 1 else "FID"


def shortened(label: str, length: int = 160) -> str:
    """A label for a figure: one line, not without end, and not hidden, as matplotlib does with one that begins by _."""
    text = one_line(label)
    text = text if len(text) <= length else f"{text[:length - 1]}…"
    return f" {text}" if text.startswith("_") else text


def log_ticks(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis that names the values it shows."""
    axes.set_xscale("log")
    axes.set_xticks(sorted(set(values)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()


def seconds_axis(axes: Axes) -> None:
    """Logarithmic, with plain numbers at powers of ten, and at 2 and 5 times them where there is room."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if high > WIDE * low else (1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def legend(axes: Axes) -> None:
    """Above the plot, where it hides nothing; the figure grows with it."""
    labels = axes.get_legend_handles_labels()[1]
    columns = 2 if max(map(len, labels), default=0) <= 29 else 1
    height = 2.1 + 0.14 * math.ceil(len(labels) / columns)
    axes.figure.set_size_inches(COLUMN_WIDTH, height)   # type: ignore[union-attr]
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, handlelength=1.8, columnspacing=1,
                borderaxespad=0.2)
