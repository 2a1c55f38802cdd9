"""Training curves on disk: CSV files with the columns step, metric, value."""

from __future__ import annotations

import csv
from pathlib import Path

LARGEST = 1e30
"""Beyond it, and for what is not a number, nothing can be drawn."""


def read_curve(path: Path, metric: str) -> list[tuple[float, float]]:
    """[(step, value)] of one metric, numbers within +-1e30 only; empty where the file is not there."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        points = [(float(line["step"]), float(line["value"])) for line in csv.DictReader(file)
                  if line["metric"] == metric]
    return [(step, value) for step, value in points if abs(step) < LARGEST and abs(value) < LARGEST]
