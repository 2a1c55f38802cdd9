"""The table every renderer understands, and the summary of one group.

    table = summary(group)
    table.columns[0].title, table.rows[0].label, table.rows[0].cells["fid"]

Columns belong to a block: "measured" or "published". No column holds both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from bench.reporting.catalogue import Better, in_order, metric_of
from bench.reporting.rows import Cell, Group, Row

Block = Literal["measured", "published"]
OFF_CONTEST = ("real", "reconstruction")
"""Rows that show the floor; they take no part in "best"."""
EDITS_HEADLINE = ("lpips", "seam_ratio")
"""Metrics that come first among completed images, and last elsewhere."""


@dataclass(frozen=True)
class Column:
    """key: of the cells.  group: a heading over neighbouring columns, such as a data set.

    short, headline: the heading in a terminal, and whether it stands there.
    """

    key: str
    title: str
    block: Block = "measured"
    better: Better = "none"
    group: str = ""
    about: str = ""
    short: str = ""
    headline: bool = True


@dataclass(frozen=True)
class TableRow:
    """section: a heading over neighbouring rows.  reason: why the whole row is a hole.  contest: may it be best?"""

    label: str
    cells: dict[str, Cell] = field(default_factory=dict)
    section: str = ""
    reason: str = ""
    contest: bool = True
    source: Row | None = None


@dataclass(frozen=True)
class Table:
    """name: for files.  stub: the heading of the labels.

    has_best_in_each_section: sections are contests of their own (the paper's Table 1, one a data set).
    """

    name: str
    title: str
    stub: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    caption: str = ""
    has_best_in_each_section: bool = False

    def best(self, column: Column, section: str = "") -> float | None:
        """The best value of a column (in a section that is a contest of its own), if rows differ in it."""
        return self._bests.get((column.key, section if self.has_best_in_each_section else ""))

    @cached_property
    def _bests(self) -> dict[tuple[str, str], float]:
        values: dict[tuple[str, str], list[float]] = {}
        for row in self.rows:
            for key, cell in row.cells.items():
                if row.contest and cell.value is not None:
                    place = (key, row.section if self.has_best_in_each_section else "")
                    values.setdefault(place, []).append(cell.value)
        choose = {column.key: min if column.better == "lower" else max for column in self.columns
                  if column.better != "none"}
        return {place: choose[place[0]](found) for place, found in values.items()
                if place[0] in choose and len(set(found)) > 1}

    def is_best(self, row: TableRow, column: Column) -> bool:
        cell = row.cells.get(column.key)
        if cell is None or cell.value is None:
            return False
        return row.contest and cell.value == self.best(column, row.section)

    def remark(self, row: TableRow, column: Column) -> str:
        """What sets a bound apart from other bounds of the column, "" where they are all of one kind."""
        remarks = {cell.remark for r in self.rows if (cell := r.cells.get(column.key)) and cell.bound}
        return row.cells[column.key].remark if column.key in row.cells and len(remarks) > 1 else ""

    def holes(self) -> list[tuple[str, str, str]]:
        """(row, column or "all", reason) of every number that should be there and is not."""
        found = [(row.label, "all", row.reason) for row in self.rows if row.reason and _is_empty(row)]
        found += [(row.label, "some", row.reason) for row in self.rows if row.reason and not _is_empty(row)]
        found += [(row.label, column.title, cell.note) for row in self.rows for column in self.columns
                  if (cell := row.cells.get(column.key)) and cell.value is None and not cell.printed]
        return found


def summary(group: Group) -> Table:
    """Every row and every metric of one data set under one protocol."""
    names = in_order({name for row in group.rows for name in row.cells})
    columns = tuple(_column(name, [row.cells[name] for row in group.rows if name in row.cells]) for name in names)
    columns = tuple(replace(column, headline=column.headline or group.of_edits and column.key in EDITS_HEADLINE)
                    for column in columns)
    rows = tuple(table_row(row) for row in group.rows)
    return Table(f"summary-{group.slug}", group.title, "row", columns, rows,
                 f"Measured on {group.cited}. {repeats(group)}".rstrip())


def repeats(group: Group) -> str:
    """Which rows are means over seeds, and over how many; "" if none is."""
    found = []
    for row in group.rows:
        seeds = {seed for cell in row.cells.values() for seed in cell.seeds()}   # of runs that gave a number
        trainings = len({training for training, _ in seeds})
        drawn = f"{len(seeds)} samplings" if trainings == 1 else f"{len(seeds)} runs of {trainings} trainings"
        if len(seeds) > 1:
            found.append(f"{row.label} ({f'{trainings} trainings' if len(seeds) == trainings else drawn})")
    return f"Means over seeds: {'; '.join(found)}. Other rows are one run each." if found else ""


def headline(table: Table) -> Table:
    """The columns that fit a page."""
    return replace(table, columns=tuple(column for column in table.columns if column.headline))


def table_row(row: Row) -> TableRow:
    return TableRow(row.label, row.cells, reason=row.reason, contest=row.role not in OFF_CONTEST, source=row)


def measured_column(metric: str, cells: Sequence[Cell], *, key: str | None = None, group: str = "") -> Column:
    """A measured column; FID carries the number of samples, for it moves with it."""
    return _column(metric, cells, key=key, group=group)


def _column(metric: str, cells: Iterable[Cell], *, key: str | None = None, group: str = "") -> Column:
    cells = list(cells)
    listed = metric_of(metric, next((cell.better for cell in cells), "none"))
    counts = {cell.n for cell in cells if cell.value is not None and cell.n is not None}
    title = f"{listed.title}@{counts.pop()}" if metric == "fid" and len(counts) == 1 else listed.title
    short = title if metric == "fid" else listed.short
    return Column(key or metric, title, "measured", listed.better, group, listed.about, short, listed.headline)


def _is_empty(row: TableRow) -> bool:
    return all(cell.value is None for cell in row.cells.values())
