"""What two priors pay for a token when few tokens are unknown: is a higher bound a harder task, or underfitting?

    underfitting("absorbing", cells["absorbing"], "autoregressive", cells["autoregressive"])

The autoregressive prior predicts its last row knowing everything above and to the left. With as few tokens unknown,
wherever they lie, the other prior knows at least as much of the image: if it still pays more, its task is not harder.
"""

from __future__ import annotations

from typing import Any

from bench.reporting.estimates import NORMAL_95
from bench.reporting.extras import is_number
from bench.reporting.numbers import decimals_for, number
from bench.reporting.rows import Cell


def underfitting(ours: str, cell: Cell, theirs: str, other: Cell) -> str:
    """One sentence; "" unless both records tell what a token costs by how many are unknown."""
    last, row, their_row = _last_token(cell), _told(cell, "last_row"), _told(other, "last_row")
    if row is None or their_row is None or row[0] != their_row[0] or other.kind != "exact":
        return ""
    width = row[0]
    alone = f"{_bits(last)} with all but one token known, " if last else ""
    text = (f"bits a token: {ours} pays {alone}{_bits(row)} with 1 to {width} unknown; {theirs}'s last row of {width} "
            f"pays {_bits(their_row)}")
    error = (row[2] ** 2 + their_row[2] ** 2) ** 0.5
    if row[1] - their_row[1] > NORMAL_95 * error:
        return f"{text}: this suggests underfitting, not a harder task"
    return f"{text}: no more where as few are unknown, so what it pays more elsewhere may be the harder task"


def _last_token(cell: Cell) -> tuple[int, float, float] | None:
    for source in cell.sources:
        levels = source.measurement.extra.get("bits_by_unknown")
        if isinstance(levels, list) and levels and (found := _parsed(levels[0])) and found[0] == 1:
            return found
    return None


def _told(cell: Cell, key: str) -> tuple[int, float, float] | None:
    """(most tokens unknown, bits, standard error) of the first run that tells them."""
    return next((found for s in cell.sources if (found := _parsed(s.measurement.extra.get(key)))), None)


def _parsed(entry: Any) -> tuple[int, float, float] | None:
    if not isinstance(entry, dict):
        return None
    unknown, bits, error = entry.get("unknown"), entry.get("bits"), entry.get("standard_error")
    if not isinstance(unknown, list) or len(unknown) != 2 or not (is_number(bits) and is_number(error)):
        return None
    return (unknown[1], float(bits), float(error)) if isinstance(unknown[1], int) else None


def _bits(found: tuple[int, float, float]) -> str:
    half = NORMAL_95 * found[2]
    decimals = decimals_for(found[1], half, 2)
    return f"{number(found[1], decimals)} ± {number(half, decimals)}"
