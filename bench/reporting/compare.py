"""Two runs against each other, metric by metric.

    table = compare(book, "3f2a", "9c41")

Rows of one configuration bring all their seeds, so a comparison is paired wherever both have the same seeds.
"""

from __future__ import annotations

from collections.abc import Iterable

from bench.errors import InputError, did_you_mean
from bench.reporting.catalogue import in_order, metric_of
from bench.reporting.differences import compare_cells, why_no_contest
from bench.reporting.estimates import Estimate
from bench.reporting.rows import Book, Cell, Group, Row
from bench.reporting.tables import NEEDS_RECALL, Column, Table, TableRow, has_no_recall


def compare(book: Book, first: str, second: str) -> Table:
    """first, second: record ids, or unambiguous prefixes of them.

    Raises InputError for an unknown or ambiguous id and for runs that no protocol makes comparable.
    """
    ids = [find_record(book, text) for text in (first, second)]
    places = [{group.protocol: (group, row) for group in book.groups for row in group.rows
               if any(record.id == wanted for record in row.records)} for wanted in ids]
    common = sorted(places[0].keys() & places[1].keys())
    if not common:
        raise InputError(f"{first} was measured under {_names(places[0])} and {second} under {_names(places[1])}: only "
                         "equal protocols may be compared. Measure both under one, with protocol=...")
    group, ours = places[0][common[0]]
    _, theirs = places[1][common[0]]
    if ours.key == theirs.key:
        raise InputError(f"{first} and {second} differ in seeds alone: both are runs of {ours.label}")
    return comparison(group, ours, theirs)


def comparison(group: Group, ours: Row, theirs: Row) -> Table:
    """A, B, their difference with its interval, and who is better where that is settled."""
    columns = (Column("a", f"A: {ours.label}"), Column("b", f"B: {theirs.label}"), Column("difference", "A - B"),
               Column("verdict", "verdict"), Column("seeds", "common seeds"))
    shared = in_order(ours.cells.keys() & theirs.cells.keys())
    empty = [name for name, row in (("A", ours), ("B", theirs)) if has_no_recall(row.cells.values())]
    why = f"no contest: recall of {' and '.join(empty)} may be 0" if empty else ""
    rows = [_line(metric, ours.cells[metric], theirs.cells[metric], why if metric in NEEDS_RECALL else "")
            for metric in shared]
    return Table(f"compare-{group.slug}", f"A: {ours.label} against B: {theirs.label}", "metric", columns, tuple(rows),
                 f"On {group.cited}.")


def find_record(book: Book, text: str) -> str:
    found = [text] if text in book.records else [name for name in book.records if name.startswith(text)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(sorted(found)[:5])
        raise InputError(f"compare: {len(found)} records begin with {text!r}: {names}. Give more of the id.")
    raise InputError(f"compare: no record {text!r}. {did_you_mean(text, list(book.records)[:40])}")


def verdict(metric: str, estimate: Estimate, better: str) -> str:
    """Who is better, where the interval of A - B excludes zero."""
    if better == "none":
        return ""
    if estimate.low is None or estimate.high is None:
        return "no interval"
    if estimate.low <= 0 <= estimate.high:
        return "not settled"
    a_is_lower = estimate.high < 0
    return "A better" if a_is_lower == (better == "lower") else "B better"


def _line(metric: str, ours: Cell, theirs: Cell, why_not: str) -> TableRow:
    title = metric_of(metric, ours.better).title
    if ours.value is None or theirs.value is None:
        return TableRow(title, {"a": ours, "b": theirs})
    estimate, seeds = compare_cells(ours, theirs)
    gap = Cell(metric, estimate.value, estimate.low, estimate.high, basis=estimate.basis)
    said = why_not or why_no_contest(ours, theirs) or verdict(metric, estimate, metric_of(metric, ours.better).better)
    words = {"verdict": Cell("verdict", None, printed=said or "–"), "seeds": Cell("seeds", None, printed=seeds)}
    return TableRow(title, {"a": ours, "b": theirs, "difference": gap, **words})


def _names(places: Iterable[str]) -> str:
    return ", ".join(sorted(places)) or "no protocol (it has no measurement)"
