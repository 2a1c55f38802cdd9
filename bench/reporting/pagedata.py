"""What the page's script needs to show where a number comes from, each thing once.

    book_data = PageData(book)
    index = book_data.cell(cell, "FID", "absorbing, 16 steps")      # goes into the button of that number
    json_text = book_data.as_json()
"""

from __future__ import annotations

import json
from typing import Any

from bench.records import Record
from bench.reporting.catalogue import metric_of
from bench.reporting.identity import dataset_of, protocol_name_of, role_of
from bench.reporting.numbers import text_of
from bench.reporting.published import SOURCE
from bench.reporting.rows import Book, Cell

SHOWN_PROVENANCE = ("artefacts", "git_commit", "git_dirty", "versions", "hardware", "kernels", "device", "threads",
                    "parameters", "protocol", "dataset_notes", "held_out", "wall_seconds")


class PageData:
    """Cells, records and their configurations; equal parts of configurations are stored once."""

    def __init__(self, book: Book):
        self.parts: list[Any] = []
        self.images: list[str] = []
        self.cells: list[list[Any]] = []
        self._part_index: dict[str, int] = {}
        self._cell_index: dict[int, int] = {}
        self._kept: list[Cell] = []
        self._numbers = {name: index for index, name in enumerate(book.records)}
        self.records = {record.id: self._record(record) for record in book.records.values()}

    def cell(self, cell: Cell, title: str, row: str) -> int:
        """The index of a cell, which is added if it is new."""
        if id(cell) not in self._cell_index:
            self._cell_index[id(cell)] = len(self.cells)
            self._kept.append(cell)   # keeps its id taken
            shared = {"title": title, "basis": cell.basis, "note": cell.note, "bound": cell.bound, "unit": cell.unit,
                      "about": metric_of(cell.metric).about, "published": SOURCE if cell.printed else ""}
            self.cells.append([self.part(_trimmed(shared)), self.part(row), str(text_of(cell, at_most="≤")),
                               [self._source(source) for source in cell.sources]])
        return self._cell_index[id(cell)]

    def image(self, uri: str) -> int:
        """The index of a picture, given as data: URI."""
        self.images.append(uri)
        return len(self.images) - 1

    def part(self, value: Any) -> int:
        """The index of any piece of JSON; equal pieces share one."""
        key = json.dumps(value, sort_keys=True, default=str)
        if key not in self._part_index:
            self._part_index[key] = len(self.parts)
            self.parts.append(value)
        return self._part_index[key]

    def as_json(self) -> str:
        """Safe inside a <script> element."""
        data = {"ids": list(self.records), "records": self.records, "cells": self.cells, "parts": self.parts,
                "images": self.images}
        text = json.dumps(data, default=str, separators=(",", ":"), allow_nan=False)   # ASCII alone
        return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")

    def _record(self, record: Record) -> dict[str, Any]:
        spec = {key: self.part(value) for key, value in record.spec.items()}
        provenance = {key: self.part(record.provenance[key]) for key in SHOWN_PROVENANCE if key in record.provenance}
        shown = {"label": record.label, "status": record.status, "created": record.created,
                 "dataset": dataset_of(record.spec), "protocol": protocol_name_of(record.spec)}
        return shown | _trimmed({"role": role_of(record), "run_key": record.run_key, "message": record.message,
                                 "spec": spec, "provenance": provenance})

    def _source(self, source: Any) -> list[Any]:
        m = source.measurement
        extra = self.part(m.extra) if m.extra and len(json.dumps(m.extra, default=str)) < 2000 else None
        numbers = [_rounded(number) for number in (m.value, m.ci_low, m.ci_high, m.standard_error)]
        return [self._numbers[source.record], source.training_seed, source.sampling_seed, *numbers, m.n,
                self.part(m.note), self.part(m.protocol), extra]


def _trimmed(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value not in ("", None, [], {})}


def _rounded(number: float | None) -> float | None:
    """Eight significant digits: more than any of these numbers has."""
    return None if number is None else float(f"{number:.8g}")
