"""One table, four ways: CSV, Markdown, LaTeX (booktabs) and the terminal.

    Path("summary.tex").write_text(latex(summary(group)))

The best is bold, with all that cannot be told from it; bounds carry `<=`; holes and the kinds of likelihoods are
marked and explained below the table.
"""

from __future__ import annotations

import csv
import io
import string
from collections.abc import Iterable
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text as RichText

from bench.printable import cell as plain_cell
from bench.printable import one_line
from bench.reporting.escaping import csv_cell, markdown_text, tex_label, tex_text
from bench.reporting.numbers import Text, text_of
from bench.reporting.tables import Column, Table, TableRow

ARROWS = {"lower": "↓", "higher": "↑", "none": ""}
LATEX_ARROWS = {"lower": r"$\downarrow$", "higher": r"$\uparrow$", "none": ""}
LATEX_MARK = r"\textsuperscript{%s}"
EMPTY, HOLE = "", "–"


class Footnotes:
    """Letters for reasons, each reason once."""

    def __init__(self) -> None:
        self.letters: dict[str, str] = {}

    def mark(self, reason: str) -> str:
        if reason not in self.letters:
            index = len(self.letters)
            alphabet = string.ascii_lowercase
            self.letters[reason] = alphabet[index] if index < 26 else alphabet[index // 26 - 1] + alphabet[index % 26]
        return self.letters[reason]


def csv_text(table: Table) -> str:
    """Full precision, one column a number: of every measured one value, low, high, kind of bound, N; then reasons."""
    has_sections = any(row.section for row in table.rows)
    header = (["section"] if has_sections else []) + [table.stub]
    for column in table.columns:
        name = " ".join(filter(None, [column.block, column.group, column.title]))
        header += [name] if column.block == "published" else [
            name, f"{name} low", f"{name} high", f"{name} bound", f"{name} n"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(csv_cell, [*header, "reason"]))
    reasons: dict[str, list[str]] = {}
    for label, _, reason in table.holes():
        reasons.setdefault(label, []).append(reason)
    for row in table.rows:
        line: list[object] = [row.section, row.label] if has_sections else [row.label]
        for column in table.columns:
            line += _csv_cells(row, column)
        writer.writerow(map(csv_cell, [*line, "; ".join(dict.fromkeys(reasons.get(row.label, [])))]))
    return out.getvalue()


def markdown(table: Table) -> str:
    """A pipe table; holes carry letters that are explained below it."""
    notes = Footnotes()
    head = [table.stub] + [_heading(table, column, ARROWS) for column in table.columns]
    lines = ["| " + " | ".join(markdown_text(h) for h in head) + " |", "|:--" + "|--:" * len(table.columns) + "|"]
    for section, rows in groupby(table.rows, key=lambda row: row.section):
        lines += [f"| **{markdown_text(section)}** " + "| " * len(table.columns) + "|"] if section else []
        for row in rows:
            cells = [_markdown_cell(table, row, column, notes) for column in table.columns]
            lines.append("| " + " | ".join([markdown_text(row.label) + _mark(row.reason, notes), *cells]) + " |")
    text = (f"**{markdown_text(table.title)}**\n\n" if table.title else "") + "\n".join(lines) + "\n"
    text += f"\n{markdown_text(table.caption)}\n" if table.caption else ""
    return text + "".join(f"\n({letter}) {markdown_text(reason)}  " for reason, letter in notes.letters.items()) \
        + ("\n" if notes.letters else "")


def legend(columns: Iterable[Column]) -> str:
    """What each column's number is for, one line each in Markdown; columns of one name once."""
    lines = dict.fromkeys(f"- {markdown_text(title)}: {markdown_text(about)}" for title, about in meanings(columns))
    return "\n".join(lines) + "\n" if lines else ""


def meanings(columns: Iterable[Column]) -> list[tuple[str, str]]:
    """(title, what it is for) of each column that says, one of each name."""
    return list({c.title.partition("@")[0]: c.about for c in columns if c.about}.items())


def latex(table: Table) -> str:
    """A booktabs table environment to paste; one that is wider than the line is scaled down to it."""
    notes = Footnotes()
    lines = [r"% needs \usepackage{booktabs,graphicx}", r"\begin{table}", r"\centering",
             r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
             r"\begin{tabular}{l" + _latex_alignment(table) + "}", r"\toprule"]
    lines += _latex_heads(table) + [r"\midrule"]
    for index, (section, rows) in enumerate(groupby(table.rows, key=lambda row: row.section)):
        if section:
            lines += ([r"\midrule"] if index else [])
            lines += [rf"\multicolumn{{{len(table.columns) + 1}}}{{l}}{{\emph{{{tex_text(section)}}}}} \\"]
        for row in rows:
            mark = _mark(row.reason, notes, LATEX_MARK)
            cells = [_latex_cell(table, row, column, notes) for column in table.columns]
            lines.append(" & ".join([tex_text(row.label) + mark, *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}}"]
    remarks = "; ".join(f"({letter}) {tex_text(reason)}" for reason, letter in notes.letters.items())
    caption = " ".join(filter(None, [tex_text(table.title) + ".", tex_text(table.caption), remarks]))
    return "\n".join([*lines, rf"\caption{{{caption}}}", rf"\label{{tab:{tex_label(table.name)}}}", r"\end{table}", ""])


def terminal(table: Table) -> RichTable:
    """For a rich console: the headline columns, best in bold, holes with their letters explained below."""
    notes = Footnotes()
    columns = [column for column in table.columns if column.headline]
    view = RichTable(title=plain_cell(table.title, "bold"), title_justify="left", header_style="bold",
                     box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), caption_justify="left")
    view.add_column(plain_cell(table.stub), overflow="fold", min_width=24)
    for column in columns:
        style = "cyan" if column.block == "published" else ""
        lines = [one_line(column.group), one_line(column.short or column.title) + f" {ARROWS[column.better]}".rstrip()]
        view.add_column(RichText("\n".join(filter(None, lines))), justify="right", style=style, no_wrap=True)
    for section, rows in groupby(table.rows, key=lambda row: row.section):
        if section:
            view.add_row(plain_cell(section, "italic"))
        for row in rows:
            label = plain_cell(row.label + _mark(row.reason, notes))
            view.add_row(label, *[_rich_cell(table, row, c, notes) for c in columns])
    reasons = [f"({letter}) {one_line(reason)}" for reason, letter in notes.letters.items()]
    view.caption = RichText("\n".join(reasons), style="table.caption") if reasons else None
    return view


def _csv_cells(row: TableRow, column: Column) -> list[object]:
    cell = row.cells.get(column.key)
    if column.block == "published":
        return [cell.printed if cell else EMPTY]
    if cell is None or cell.printed:
        return [cell.printed if cell else EMPTY, EMPTY, EMPTY, EMPTY, EMPTY]
    return [*(EMPTY if v is None else v for v in (cell.value, cell.low, cell.high)),
            (cell.kind or cell.bound).replace("continuous", "infinity"), EMPTY if cell.n is None else cell.n]


def _cell_text(row: TableRow, column: Column) -> tuple[Text | None, str]:
    """(text, "") of a number, (None, reason) of a hole, (None, "") where there is nothing to say."""
    cell = row.cells.get(column.key)
    if cell is None:
        return None, ""
    if cell.value is None and not cell.printed:
        return None, cell.note
    return text_of(cell), ""


def _markdown_cell(table: Table, row: TableRow, column: Column, notes: Footnotes) -> str:
    text, reason = _cell_text(row, column)
    if text is None:
        return f"{HOLE} ({notes.mark(reason)})" if reason else EMPTY
    value = f"**{markdown_text(text.value)}**" if table.is_best(row, column) else markdown_text(text.value)
    return f"{value} {markdown_text(text.interval)}".rstrip() + _mark(table.remark(row, column), notes)


def _latex_cell(table: Table, row: TableRow, column: Column, notes: Footnotes) -> str:
    text, reason = _cell_text(row, column)
    if text is None:
        return rf"--\textsuperscript{{{notes.mark(reason)}}}" if reason else EMPTY
    value = tex_text(text.value.removeprefix("<= "))
    value = rf"\textbf{{{value}}}" if table.is_best(row, column) else value
    prefix = r"$\le$\," if text.value.startswith("<=") else ""
    interval = text.interval.replace("± ", r"$\pm$\,")
    return prefix + value + (rf" {{\scriptsize {interval}}}" if interval else "") \
        + _mark(table.remark(row, column), notes, LATEX_MARK)


def _rich_cell(table: Table, row: TableRow, column: Column, notes: Footnotes) -> RichText:
    text, reason = _cell_text(row, column)
    if text is None:
        return RichText(f"{HOLE} ({notes.mark(reason)})" if reason else EMPTY, style="dim")
    value = RichText(text.value, style="bold green" if table.is_best(row, column) else "")
    wanted = text.interval and (column.key == "fid" or not column.short)   # the others would not fit
    mark = _mark(table.remark(row, column), notes)
    return value.append((f" {text.interval}" if wanted else "") + mark, style="dim")


def _mark(reason: str, notes: Footnotes, form: str = " (%s)") -> str:
    return form % notes.mark(reason) if reason else ""


def _heading(table: Table, column: Column, arrows: dict[str, str]) -> str:
    has_both = len({c.block for c in table.columns}) > 1
    name = " ".join(filter(None, [column.block if has_both else "", column.group, column.title]))
    return f"{name} {arrows[column.better]}".rstrip()


def _latex_alignment(table: Table) -> str:
    """A gap between the blocks, so that published and measured are apart to the eye."""
    blocks = [column.block for column in table.columns]
    return "".join(("@{\\hspace{2em}}" if i and blocks[i - 1] != block else "") + "r" for i, block in enumerate(blocks))


def _latex_heads(table: Table) -> list[str]:
    lines = []
    for level in ("block", "group"):
        names = [getattr(column, level) for column in table.columns]
        if len(set(names)) > 1 or (level == "group" and names[0:1] != [""] and names):
            lines += _latex_spans(names)
    titles = [f"{tex_text(c.title)} {LATEX_ARROWS[c.better]}".rstrip() for c in table.columns]
    return [*lines, " & ".join([tex_text(table.stub), *titles]) + r" \\"]


def _latex_spans(names: list[str]) -> list[str]:
    cells, rules, start = [], [], 2
    for name, run in groupby(names):
        width = len(list(run))
        cells.append(rf"\multicolumn{{{width}}}{{c}}{{{tex_text(name)}}}")
        rules += [rf"\cmidrule(lr){{{start}-{start + width - 1}}}"] if name else []
        start += width
    return [" & ".join(["", *cells]) + r" \\", "".join(rules)]
