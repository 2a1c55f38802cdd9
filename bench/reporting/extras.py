"""What the further numbers of a measurement tell a report, read with care: a record promises nothing about them.

    superseded("memorised_share", measurements)     # "", or why these numbers should be measured again
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeGuard

from bench.records import Measurement
from bench.reporting.estimates import NORMAL_95

_OLD_RULE = ("measured by a rule since found weak, which could miss copiers of 5%: it searched a part of the training "
             "images and tested a nearer tail; measure it again")
_CHANGED = {"memorised_share": _OLD_RULE, "memorisation_auc": _OLD_RULE}
"""Columns whose records name their rule since it changed."""


def superseded(metric: str, measurements: Iterable[Measurement]) -> str:
    """Why the numbers of a column are no longer what it says; "" where all were measured by the rule of today."""
    return _CHANGED[metric] if metric in _CHANGED and any("rule" not in m.extra for m in measurements) else ""


def bound_of_steps(m: Measurement) -> Measurement | None:
    """The bound of the T steps trained, which the paper prints, beside that of infinitely many; None if untold."""
    told = m.extra.get("bound_T")
    if not isinstance(told, dict) or not is_number(bits := told.get("bits")):
        return None
    error = told.get("standard_error")
    low, high = (bits - NORMAL_95 * error, bits + NORMAL_95 * error) if is_number(error) else (None, None)
    return replace(m, metric="bits_per_token_T", value=float(bits), ci_low=low, ci_high=high, note="",
                   standard_error=error if is_number(error) else None, extra={"kind": "bound_T"})


def is_number(value: Any) -> TypeGuard[float]:
    """What a record holds where nothing is promised may be anything."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
