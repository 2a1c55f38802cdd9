"""Measured beside expected, four ways: a terminal's table, CSV, Markdown, and lines for the page.

    found = comparisons(groups)
    console.print(terminal(found))
    print(tally(found))             # "98 numbers with an expected score: 97 as expected, 1 off."
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from bench.printable import cell as plain_cell
from bench.reporting.catalogue import in_order, metric_of
from bench.reporting.escaping import csv_cell, markdown_text
from bench.reporting.expected import BORDER, HOW, ONE_TRAINING, OTHER_SELECTION, Comparison
from bench.reporting.numbers import text_of
from bench.reporting.words import plural

STYLES = {"as expected": "green", "off": "red", "not compared": "dim"}
TITLE = "Measured, and below it the expected score"
HEAD = ("row", "metric", "measured", "expected", "sigma", "verdict")


def tally(found: Sequence[Comparison]) -> str:
    """How many numbers have an expected one, and how they compare; "" for none."""
    counts = {verdict: sum(c.verdict == verdict for c in found) for verdict in STYLES}
    parts = [f"{count} {verdict}" for verdict, count in counts.items() if count]
    return f"{plural(len(found), 'number')} with an expected score: {', '.join(parts)}." if found else ""


def notes(found: Sequence[Comparison]) -> list[str]:
    """What a reader of the verdicts must know, each thing once."""
    if not found:
        return []
    rows = by_row(found)
    counts = {remark: sum(any(remark in c.remark for c in own) for _, own in rows)
              for remark in (ONE_TRAINING, OTHER_SELECTION)}
    return [f"As expected: within {BORDER:g} sigma. {HOW}",
            *(f"{count} of {plural(len(rows), 'row')}: {remark}." for remark, count in counts.items() if count)]


def words_of_row(found: Sequence[Comparison]) -> str:
    """All numbers of a row in one line, those that are off by name."""
    off = [c for c in found if c.verdict == "off"]
    good = sum(c.verdict == "as expected" for c in found)
    compared = good + len(off)
    if not compared:
        return f"not compared: {found[0].remark}"
    names = ", ".join(f"{metric_of(c.metric).title} {c.sigmas or 0.0:+.1f}" for c in off)
    limits = "; ".join(dict.fromkeys(c.remark for c in off if c.remark))
    return f"as expected ({good} of {compared})" if not off else \
        f"{good} of {compared} as expected; off by sigma: {names}" + (f" ({limits})" if limits else "")


def terminal(found: Sequence[Comparison]) -> RichTable:
    """A row a run, a column a headline metric; the verdict is on all metrics of the row."""
    shown = [name for name in in_order({c.metric for c in found}) if metric_of(name).headline]
    view = RichTable(title=TITLE, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    view.add_column("run", overflow="fold", min_width=20)
    for name in shown:
        view.add_column(metric_of(name).short or metric_of(name).title, justify="right", no_wrap=True)
    view.add_column("verdict", overflow="fold", min_width=20)
    for label, own in by_row(found):
        at = {c.metric: c for c in own}
        worst = "red" if any(c.verdict == "off" for c in own) else ""
        view.add_row(plain_cell(label), *(_both(at.get(name)) for name in shown), plain_cell(words_of_row(own), worst))
    return view


def csv_text(found: Sequence[Comparison]) -> str:
    """Full precision, one line a number."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", "metric", "measured", "measured low", "measured high", "expected", "expected low",
                     "expected high", "sigma", "verdict", "remark"])
    for c in found:
        sides = (c.measured.value, c.measured.low, c.measured.high, c.expected.value, c.expected.low, c.expected.high)
        line = [c.row.label, c.metric, *sides, c.sigmas, c.verdict, c.remark]
        writer.writerow("" if value is None else csv_cell(value) for value in line)
    return out.getvalue()


def markdown(found: Sequence[Comparison]) -> str:
    """A pipe table, then the tally and the notes."""
    lines = ["| " + " | ".join(HEAD) + " |", "|:--|:--|--:|--:|--:|:--|"]
    lines += ["| " + " | ".join(map(markdown_text, line)) + " |" for line in lines_of(found)]
    return "\n".join(lines) + "\n" + "".join(f"\n{markdown_text(note)}\n" for note in (tally(found), *notes(found)))


def lines_of(found: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """The texts of each comparison, in the order of HEAD."""
    return [(c.row.label, metric_of(c.metric).title, str(text_of(c.measured)), str(text_of(c.expected)),
             "" if c.sigmas is None else f"{c.sigmas:+.1f}", c.words) for c in found]


def by_row(found: Sequence[Comparison]) -> list[tuple[str, list[Comparison]]]:
    return [(label, list(own)) for (_, label), own in groupby(found, key=lambda c: (c.group.slug, c.row.label))]


def _both(comparison: Comparison | None) -> Text:
    """The measured number in the colour of its verdict, and the expected one below it."""
    if comparison is None:
        return Text("")
    text = plain_cell(text_of(comparison.measured).value, STYLES[comparison.verdict])
    expected = text_of(comparison.expected)
    spread = expected if comparison.metric == "fid" else expected.value   # the others' would not fit
    return text.append(f"\n{spread}", style="dim")
