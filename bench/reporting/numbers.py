"""Numbers as text: as many digits as the interval makes meaningful, and no more.

    text_of(Cell("fid", 219.04, 214.6, 223.4))        # "219.0 ± 4.4"
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.reporting.catalogue import metric_of
from bench.reporting.rows import Cell


@dataclass(frozen=True)
class Text:
    """value: "219.0", with `<=` where it bounds, "219.0@40" where N is not the column's, "0.031 (1 thread)" so.

    interval: "± 4.4", "[210.1, 230.2]" or ""."""

    value: str
    interval: str = ""

    def __str__(self) -> str:
        return f"{self.value} {self.interval}".rstrip()


def text_of(cell: Cell, *, at_most: str = "<=") -> Text:
    """The text of a cell that has a value; published numbers stand as printed."""
    if cell.printed:
        return Text(cell.printed)
    if cell.value is None:
        return Text("–")
    half = (cell.high - cell.low) / 2 if cell.low is not None and cell.high is not None else None
    decimals = decimals_for(cell.value, half, metric_of(cell.metric).decimals)
    value = f"{at_most} {number(cell.value, decimals)}" if cell.bound == "upper" else number(cell.value, decimals)
    value += f"@{cell.shown_n}" if cell.shown_n is not None else ""
    value += f" ({cell.shown_timed})" if cell.shown_timed else ""
    if half is None or half == 0:
        return Text(value)
    if is_symmetric(cell):
        return Text(value, f"± {number(half, decimals)}")
    return Text(value, f"[{number(cell.low, decimals)}, {number(cell.high, decimals)}]")


def decimals_for(value: float, half_width: float | None, default: int) -> int:
    """Two significant digits of the half-width; without one, the default, or two significant digits if small."""
    if half_width is not None and half_width > 0 and math.isfinite(half_width):
        return min(6, max(0, 1 - math.floor(math.log10(half_width))))
    if not math.isfinite(value) or default <= 1 and float(value).is_integer():
        return 0
    return min(6, max(default, 1 - math.floor(math.log10(abs(value))))) if 0 < abs(value) < 1 else default


def number(value: float | None, decimals: int) -> str:
    """12345.6 -> "12,346" at 0 decimals; minus signs are hyphens, for terminals and spreadsheets."""
    if value is None:
        return "–"
    text = f"{value:,.{decimals}f}"
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text


def is_symmetric(cell: Cell) -> bool:
    """Whether the interval lies evenly about the value, to within 5% of its width."""
    if cell.value is None or cell.low is None or cell.high is None:
        return False
    return abs((cell.low + cell.high) / 2 - cell.value) <= 0.05 * (cell.high - cell.low)
