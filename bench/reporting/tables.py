"""The table every renderer understands, and the summary of one group.

    table = summary(group)
    table.columns[0].title, table.rows[0].label, table.rows[0].cells["fid"]

Columns belong to a block: "measured" or "published". No column holds both.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from bench.reporting.catalogue import Better, in_order, metric_of
from bench.reporting.conditions import commonest, mark
from bench.reporting.differences import contest_of, is_worse
from bench.reporting.rows import Cell, Group, Row

Block = Literal["measured", "published"]
OFF_CONTEST = ("real", "reconstruction")
"""Rows that priors are read against; they take no part in "best"."""
EDITS_HEADLINE = ("lpips", "seam_ratio")
"""Metrics that come first among completed images, and last elsewhere."""
NEEDS_RECALL = ("precision", "density", "clipped_density")
"""Columns that samples without diversity can lead."""
NO_RECALL = 0.01
NO_DIVERSITY = ("recall may be 0: samples without diversity, all in a dense place, score high here; so this row takes "
                "no part in what is best")
BOLD = ("Bold: no row of the same tokenizer, kind of likelihood, N and number of threads is better beyond the 95% "
        "interval of their difference; nothing is bold where that holds for every row.")


@dataclass(frozen=True)
class Column:
    """key: of the cells.  group: a heading over neighbouring columns, such as a data set.

    short, headline: the heading in a terminal, and whether it stands there.
    n: the number of images behind most of its cells, where that moves them; the others carry their own.
    """

    key: str
    title: str
    block: Block = "measured"
    better: Better = "none"
    group: str = ""
    about: str = ""
    short: str = ""
    headline: bool = True
    n: int | None = None


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

    def is_best(self, row: TableRow, column: Column) -> bool:
        """Whether no row of its contest is better beyond chance; of nobody where that holds for all of them."""
        return (id(row), column.key) in self._best

    @cached_property
    def _best(self) -> set[tuple[int, str]]:
        found = set()
        for column in self.columns:
            contests: dict[object, list[tuple[TableRow, Cell]]] = defaultdict(list)
            for row in self.rows:
                cell = row.cells.get(column.key)
                if cell and cell.value is not None and _competes(row, column):
                    section = row.section if self.has_best_in_each_section else ""
                    contests[section, contest_of(cell)].append((row, cell))
            for rivals in contests.values():
                found |= {(id(row), column.key) for row in _unbeaten(rivals, column.better)}
        return found

    def remark(self, row: TableRow, column: Column) -> str:
        """The kind of a likelihood, what is wrong with a number, or that a fidelity is one without diversity."""
        if row.contest and column.key in row.cells and lacks_diversity(row, column):
            return NO_DIVERSITY
        cells = [cell for r in self.rows if (cell := r.cells.get(column.key))]
        cell = row.cells.get(column.key)
        return cell.remark if cell and (not cell.kind or any(c.bound for c in cells)) else ""

    def holes(self) -> list[tuple[str, str, str]]:
        """(row, column or "all", reason) of every number that should be there and is not."""
        found = [(row.label, "all", row.reason) for row in self.rows if row.reason and _is_empty(row)]
        found += [(row.label, "some", row.reason) for row in self.rows if row.reason and not _is_empty(row)]
        found += [(row.label, column.title, cell.note) for row in self.rows for column in self.columns
                  if (cell := row.cells.get(column.key)) and cell.value is None and not cell.printed]
        return found


def lacks_diversity(row: TableRow, column: Column) -> bool:
    """Whether a measured fidelity is of samples whose recall, by its interval, may be as good as none."""
    cell = row.cells.get(column.key)
    if cell is None or column.block != "measured" or cell.metric not in NEEDS_RECALL:
        return False
    return has_no_recall([*row.cells.values(), *(row.source.cells.values() if row.source else ())])


def has_no_recall(cells: Iterable[Cell]) -> bool:
    """Whether a measured recall among them, by its interval, may be as good as none."""
    return any((cell.value if cell.low is None else cell.low) < NO_RECALL for cell in cells
               if cell.metric == "recall" and not cell.printed and cell.value is not None)


def _competes(row: TableRow, column: Column) -> bool:
    return row.contest and column.better != "none" and not lacks_diversity(row, column)


def _unbeaten(rivals: Sequence[tuple[TableRow, Cell]], better: Better) -> list[TableRow]:
    """The rows that the leader does not beat beyond chance; none where it beats nobody."""
    leader = (min if better == "lower" else max)((cell for _, cell in rivals), key=lambda cell: cell.value or 0.0)
    unbeaten = [row for row, cell in rivals if not is_worse(cell, leader)]
    return unbeaten if len(unbeaten) < len(rivals) else []


def with_counts(columns: Sequence[Column], rows: Iterable[TableRow]) -> tuple[TableRow, ...]:
    """The rows, with N beside every number of another N than its column's heading says, and threads beside timings of
    another number of threads than most of their column.
    """
    rows = list(rows)
    expected = {column.key: column.n for column in columns if column.n is not None}
    timed = {column.key: commonest([cell.timed for row in rows if (cell := row.cells.get(column.key)) and cell.timed])
             for column in columns}

    def shown(key: str, cell: Cell) -> Cell:
        if words := mark(cell.timed, timed.get(key)):
            return replace(cell, shown_timed=words)
        differs = key in expected and cell.value is not None and cell.n is not None and cell.n != expected[key]
        return replace(cell, shown_n=cell.n) if differs and not cell.printed else cell

    return tuple(replace(row, cells={key: shown(key, cell) for key, cell in row.cells.items()}) for row in rows)


def summary(group: Group) -> Table:
    """Every row and every metric of one data set under one protocol."""
    names = in_order({name for row in group.rows for name in row.cells})
    columns = tuple(_column(name, [row.cells[name] for row in group.rows if name in row.cells]) for name in names)
    tokenizers = {row.cells["bits_per_token"].tokenizer for row in group.rows if "bits_per_token" in row.cells}
    more = EDITS_HEADLINE if group.of_edits else ("bits_per_image",) if len(tokenizers) > 1 else ()
    columns = tuple(replace(column, headline=column.headline or column.key in more) for column in columns)
    rows = with_counts(columns, (table_row(row) for row in group.rows))
    return Table(f"summary-{group.slug}", group.title, "row", columns, rows,
                 f"Measured on {group.cited}. {repeats(group)}".rstrip() + f" {BOLD}")


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
    """A measured column; its heading carries the N of most cells: of FID always, of others where N differ."""
    return _column(metric, cells, key=key, group=group)


def _column(metric: str, cells: Iterable[Cell], *, key: str | None = None, group: str = "") -> Column:
    cells = list(cells)
    listed = metric_of(metric, next((cell.better for cell in cells), "none"))
    counts = Counter(cell.n for cell in cells if cell.value is not None and cell.n is not None)
    n = max(counts, key=lambda n: (counts[n], n)) if counts and listed.moves_with_n else None
    mark = f"@{n}" if n is not None and (metric == "fid" or len(counts) > 1) else ""
    short = f"{listed.short}{mark}" if listed.short else ""
    return Column(key or metric, listed.title + mark, "measured", listed.better, group, listed.about, short,
                  listed.headline, n)


def _is_empty(row: TableRow) -> bool:
    return all(cell.value is None for cell in row.cells.values())
