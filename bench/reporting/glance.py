"""The first look: a few rows and columns of one group and every verdict in a line, for the first screen of a README.

What is shown stands in the opening mark of the block, so that the text around it and the numbers are chosen together:

    <!-- glance:begin dataset=cifar10 protocol=small
    rows: real against real | reconstruction | absorbing, 64 steps | autoregressive
    columns: fid | bits_per_token
    verdicts: demo | small -->
    <!-- glance:end -->

A file may hold several. `rows: all` shows every row, `verdicts: none` the table alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.errors import InputError, did_you_mean
from bench.reporting.claims import ledger
from bench.reporting.escaping import markdown_text
from bench.reporting.render import markdown
from bench.reporting.rows import Book, Group
from bench.reporting.tables import repeats, summary
from bench.reporting.verdicts import Verdict, multiplicity

BEGIN, END = "<!-- glance:begin", "<!-- glance:end -->"
MARK = re.compile(re.escape(BEGIN) + r" dataset=(?P<dataset>\S+) protocol=(?P<protocol>\S+)\nrows: (?P<rows>.+)\n"
                  r"columns: (?P<columns>.+)\nverdicts: (?P<verdicts>.+) -->\n")


@dataclass(frozen=True)
class Chosen:
    """rows: labels; columns: metrics; verdicts: names of protocols, each a column."""

    dataset: str
    protocol: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    verdicts: tuple[str, ...]


def replaced(text: str, book: Book, name: str) -> str:
    """The text with what stands below each mark made anew. Raises InputError for marks that cannot be read."""
    *blocks, rest = text.split(END)
    found = [list(MARK.finditer(block)) for block in blocks]
    if not blocks or text.count(BEGIN) != len(blocks) or any(len(marks) != 1 for marks in found):
        raise InputError(f"{name}: expected marks as bench/reporting/glance.py shows them, one line {END} below each")
    made = []
    for block, (mark,) in zip(blocks, found, strict=True):
        lists = (tuple(part.strip() for part in mark[key].split("|")) for key in ("rows", "columns", "verdicts"))
        made.append(block[:mark.end()] + glance(book, Chosen(mark["dataset"], mark["protocol"], *lists), name))
    return END.join([*made, rest])


def glance(book: Book, chosen: Chosen, name: str) -> str:
    """The table of the chosen rows, then the verdicts. Raises InputError for a name that no record has."""
    group = _group(book, chosen, name)
    rows = {row.label: row for row in summary(group).rows}
    wanted = tuple(rows) if chosen.rows == ("all",) else chosen.rows
    for label in wanted:
        if label not in rows:
            raise InputError(f"{name}: no row '{label}'. {did_you_mean(label, rows)}")
    picked = [rows[label].source for label in wanted]
    part = replace(group, rows=tuple(row for row in picked if row))
    table = summary(part)
    columns = {column.key: column for column in table.columns}
    for key in chosen.columns:
        if key not in columns:
            raise InputError(f"{name}: no column '{key}'. {did_you_mean(key, columns)}")
    table = replace(table, title="", caption=repeats(part), columns=tuple(columns[key] for key in chosen.columns))
    judged = "" if chosen.verdicts == ("none",) else verdicts(book, chosen)
    return "\n" + markdown(table) + "\n" + judged


def verdicts(book: Book, chosen: Chosen) -> str:
    """One row a claim, one column a protocol: the verdict in its words, and the effect with its interval.

    Below it how many are read at once, and the claims that none of these protocols could judge.
    """
    said: dict[str, dict[str, list[Verdict]]] = {}
    every = [verdict for group in book.groups if group.dataset == chosen.dataset
             and group.protocol_name in chosen.verdicts for verdict in ledger(group, book.results_dir, book.groups)]
    for verdict in (verdict for verdict in every if verdict.verdict != "not run"):
        said.setdefault(verdict.claim.text, {}).setdefault(verdict.group.protocol_name, []).append(verdict)
    open_claims = dict.fromkeys(verdict.claim.text for verdict in every if verdict.claim.text not in said)
    lines = ["| claim of the paper | " + " | ".join(f"`{name}`" for name in chosen.verdicts) + " |",
             "|:--|" + ":--|" * len(chosen.verdicts)]
    lines += [f"| {markdown_text(text)} | " + " | ".join(_said(found.get(name, ())) for name in chosen.verdicts) + " |"
              for text, found in said.items()]
    notes = [multiplicity(every), f"Not run: {' '.join(open_claims)}" if open_claims else ""]
    return "\n".join(lines) + "\n" + "".join(f"\n{markdown_text(note)}\n" for note in notes if note)


def _said(found: Sequence[Verdict]) -> str:
    return "; ".join(f"**{v.words}**, {v.effect} {v.interval}".rstrip() for v in found)


def _group(book: Book, chosen: Chosen, name: str) -> Group:
    found = [group for group in book.groups if group.dataset == chosen.dataset
             and chosen.protocol in (group.heading, group.protocol)]
    if len(found) != 1:
        there = [f"dataset={group.dataset} protocol={group.heading}" for group in book.groups]
        raise InputError(f"{name}: no dataset={chosen.dataset} protocol={chosen.protocol}; "
                         f"there are {'; '.join(there)}.")
    return found[0]
