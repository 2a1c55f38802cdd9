"""The paper's numbers, cell by cell, from results/published/*.csv; a number stands exactly as it is printed.

    cells = published(2)
    cells[0].row, cells[0].dataset, cells[0].metric, cells[0].printed
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PUBLISHED = Path(__file__).parents[2] / "results" / "published"   # by place: other `results` may be in the way
SOURCE = "Bond-Taylor et al., Unleashing Transformers (ECCV 2022)"


@dataclass(frozen=True)
class PublishedCell:
    """One printed cell.

    row, dataset, metric: where it stands.  printed: the text; value: the number, None for "-".
    counterpart: overrides of the run that would measure it, such as "prior=absorbing sampler.steps=50".
    """

    table: int
    row: str
    dataset: str
    metric: str
    value: float | None
    printed: str
    counterpart: str
    note: str

    @property
    def selects(self) -> dict[str, object]:
        """{"prior": "absorbing", "sampler.temperature": 0.9}."""
        pairs = (text.partition("=") for text in self.counterpart.split())
        return {key: _plain(value) for key, _, value in pairs}


@cache
def published(table: int) -> tuple[PublishedCell, ...]:
    """All cells of one of the paper's Tables 1-5, in the order printed."""
    text = (PUBLISHED / f"table{table}.csv").read_text(encoding="utf-8")
    return tuple(PublishedCell(int(line["table"]), line["row"], line["dataset"], line["metric"],
                               float(line["value"]) if line["value"] else None, line["printed"], line["counterpart"],
                               line["note"]) for line in csv.DictReader(text.splitlines()))


def _plain(text: str) -> object:
    """"0.9" -> 0.9, "true" -> True, "absorbing" -> "absorbing"."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
