"""The report as one self-contained HTML page: no network, no external font, opens from file://.

    Path("report/index.html").write_text(render_page(book, ledgers, curves), encoding="utf-8")

Templates, style and script lie in page/. Pictures are inlined until `MEDIA_BYTES` are used up; the page says how many
were left out.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from bench.printable import clean
from bench.reporting import regime_table
from bench.reporting.expected import comparisons
from bench.reporting.expected_views import HEAD, lines_of, notes, tally
from bench.reporting.figures import Drawing, Skipped, svg, value_of
from bench.reporting.numbers import Text, text_of
from bench.reporting.pagedata import PageData
from bench.reporting.paper import paper_tables
from bench.reporting.pictures import CAPTIONS, MEDIA, find_sheet, has_row_per_label, join, row_to_show, rows_of
from bench.reporting.readme import hardware
from bench.reporting.regime_map import regimes_of
from bench.reporting.regime_samples import samples_of_regimes
from bench.reporting.render import ARROWS, meanings
from bench.reporting.rows import Book, Cell, Group, Row
from bench.reporting.tables import NO_DIVERSITY, Column, Table, TableRow, lacks_diversity, repeats, summary
from bench.reporting.verdicts import Verdict, limits

TEMPLATES = Path(__file__).parent / "page"
MEDIA_BYTES = 8_000_000
LOSSLESS_BYTES = 200_000
MAX_TILES = 64
WEBP_SIDE = 16_383
"""Pixels: the format's limit."""
ESSENTIAL = ("fid", "bits_per_token", "seconds_per_image")
"""How good, how likely, how fast: what fits a phone."""
SYMBOLS = {"replicated": "✓", "not replicated": "✗", "inconclusive": "≈", "not run": "–"}


@dataclass
class Budget:
    """Bytes left for pictures, and how many pictures did not fit."""

    left: int = MEDIA_BYTES
    refused: int = 0


@dataclass
class Section:
    """What the template shows of one group."""

    group: Group
    hardware: str
    facts: list[dict[str, Any]]
    summary: Table
    paper: list[Table]
    verdicts: Sequence[Verdict]
    tally: list[tuple[str, int]]
    figures: list[dict[str, Any]]
    skipped: list[Skipped]
    regimes: pd.DataFrame | None = None
    regime_samples: Table | None = None
    expected: dict[str, Any] | None = None
    browser: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[dict[str, Any]] = field(default_factory=list)


def render_page(book: Book, ledgers: dict[str, list[Verdict]], curves: dict[str, list[Drawing | Skipped]], *,
                media_bytes: int = MEDIA_BYTES) -> str:
    """The page. ledgers, curves: group slug -> its verdicts, its figures."""
    data, budget = PageData(book), Budget(media_bytes)
    sections = [_section(group, book, ledgers[group.slug], curves[group.slug], data, budget) for group in book.groups]
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True,
                              finalize=lambda value: clean(value) if type(value) is str else value)
    environment.filters |= {"code": _with_code, "symbol": lambda verdict: SYMBOLS[verdict],
                            "groupby_in_order": _by_section, "sentence": _sentence, "breakable": _breakable}
    environment.globals |= {"views_of": lambda table, row: _views(data, table, row), "bar": _interval_bar,
                            "arrow": lambda column: ARROWS[column.better], "spans": _spans, "meanings": meanings,
                            "essential": essential}
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    return environment.get_template("report.html").render(
        book=book, sections=sections, budget=budget, data=data, holes=_holes(sections), expected_head=HEAD,
        no_diversity=NO_DIVERSITY, about_regimes=regime_table.CAPTION,
        has_regimes=any(s.regimes is not None or s.regime_samples for s in sections),
        notes=" ".join(limits([v for found in ledgers.values() for v in found])), policy=_policy(script),
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")), script=Markup(script),
        data_json=lambda: Markup(data.as_json()))   # called last: the cells are numbered as they are written


def _policy(script: str) -> str:
    """The page's Content-Security-Policy: its own script, pictures that it carries, inline styles, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
            "base-uri 'none'; form-action 'none'")


def _section(group: Group, book: Book, verdicts: list[Verdict], drawn: list[Drawing | Skipped], data: PageData,
             budget: Budget) -> Section:
    figures = [{"title": d.title, "caption": d.caption, "paper": d.paper, "svg": _inline_svg(d), "name": d.name}
               for d in drawn if isinstance(d, Drawing)]
    counts: Counter[str] = Counter(verdict.verdict for verdict in verdicts)
    where = f"{hardware(group)} {repeats(group)}".rstrip()
    section = Section(group, where, _facts(group, data), summary(group), paper_tables(group), verdicts,
                      [(name, counts[name]) for name in SYMBOLS], figures, [d for d in drawn if isinstance(d, Skipped)])
    if regimes := regimes_of(group, book.results_dir):
        section.regimes = regime_table.frame(regimes)
    section.regime_samples = samples_of_regimes(group)
    if found := comparisons([group]):
        section.expected = {"lines": [(c.verdict, line) for c, line in zip(found, lines_of(found), strict=True)],
                            "tally": tally(found), "notes": notes(found)}
    section.browser = _browser(group, book, data, budget)
    section.pictures, skipped = _pictures(group, book, budget)
    section.skipped += skipped
    return section


def _facts(group: Group, data: PageData) -> list[dict[str, Any]]:
    """The three numbers a reader asks for first, chosen among priors, and that of the reconstructions."""
    rows = group.measured()
    best = min((fid for r in rows if (fid := value_of(r, "fid")) is not None), default=None)
    near = [r for r in rows if best is not None and (value_of(r, "fid") or math.inf) <= 1.1 * best]
    facts = []
    for metric, title, among in (("fid", "Best FID", rows), ("bits_per_token", "Fewest bits per token", rows),
                                 ("seconds_per_image", "Fastest within 10% of that FID", near)):
        measured = [r for r in among if value_of(r, metric) is not None]
        tokenizers = {r.cells[metric].tokenizer for r in measured}   # "" but for what only compares within one
        if measured and len(tokenizers) == 1:
            row = min(measured, key=lambda r: (value_of(r, metric) or 0.0, r.label))
            facts.append(_fact(title, row, metric, data))
    reconstructed = next((r for r in group.measured("reconstruction") if "fid" in r.cells), None)
    return facts + ([_fact("FID of reconstructions", reconstructed, "fid", data)] if reconstructed else [])


def _fact(title: str, row: Row, metric: str, data: PageData) -> dict[str, Any]:
    text = text_of(row.cells[metric], at_most="≤")
    unit = " s" if metric == "seconds_per_image" else ""
    return {"title": title, "value": text.value + unit, "interval": text.interval, "by": row.label,
            "cell": data.cell(row.cells[metric], title, row.label)}


def essential(table: Table) -> set[str]:
    """Keys of the columns that a phone shows first: of the headline ones, ESSENTIAL and then the next up to three."""
    headline = [column.key for column in table.columns if column.headline]
    ranked = [key for key in ESSENTIAL if key in headline] + [key for key in headline if key not in ESSENTIAL]
    return set(ranked[:len(ESSENTIAL)])


def _views(data: PageData, table: Table, row: TableRow) -> list[tuple[Column, dict[str, Any] | None]]:
    return [(column, _cell_view(data, table, row, column)) for column in table.columns]


def _cell_view(data: PageData, table: Table, row: TableRow, column: Column) -> dict[str, Any] | None:
    """What the template needs of one cell; None where there is nothing to say."""
    cell: Cell | None = row.cells.get(column.key)
    if cell is None:
        return None
    text = text_of(cell, at_most="≤") if cell.value is not None or cell.printed else Text("–")
    empty = row.contest and lacks_diversity(row, column)
    return {"value": text.value, "interval": text.interval, "best": table.is_best(row, column),
            "warning": NO_DIVERSITY if empty else "",
            "sort": None if cell.value is None else f"{cell.value:.8g}",
            "note": "; ".join(filter(None, [NO_DIVERSITY if empty else "", cell.note])),
            "hole": cell.value is None and not cell.printed,
            "index": data.cell(cell, column.title, row.source.label if row.source else row.label)}


def _browser(group: Group, book: Book, data: PageData, budget: Budget) -> list[dict[str, Any]]:
    """Series of sample sheets: each a label and its stops, in order of steps."""
    series: dict[str, list[dict[str, Any]]] = {}
    for row in group.rows:
        found = find_sheet(row, book.results_dir, "samples")
        by_class = found is not None and has_row_per_label(found[1])
        uri = _sheet_uri(found, budget, rows=16 if by_class else 8, columns=8) if found else None
        if found and uri:
            label = row.label.replace(f", {row.steps} steps", "") if row.steps is not None else row.label
            facts = [f"{title} {text_of(row.cells[m], at_most='≤')}" for m, title in
                     (("fid", "FID"), ("seconds_per_image", "seconds per image"))
                     if m in row.cells and row.cells[m].value is not None]
            facts += [f"a row a class: {', '.join(found[1].labels)}"] if by_class else []
            series.setdefault(label, []).append({"steps": row.steps, "image": data.image(uri), "label": row.label,
                                                 "facts": ", ".join(facts)})
    most_stops_first = sorted(series.items(), key=lambda item: -len(item[1]))
    return [{"label": label, "stops": sorted(stops, key=lambda s: s["steps"] or 0)}
            for label, stops in most_stops_first]


def _pictures(group: Group, book: Book, budget: Budget) -> tuple[list[dict[str, Any]], list[Skipped]]:
    """Neighbours, canvases, edits and the rest: one sheet each, of the first row that has one."""
    shown, skipped = [], []
    for medium, (title, paper) in MEDIA.items():
        if medium == "samples":
            continue
        row = row_to_show(group, book.results_dir, medium)
        if row is None:
            if not group.of_edits:
                skipped.append(Skipped(medium, f"{group.title}: no record has a sheet of {medium}"))
            continue
        uri = _sheet_uri(find_sheet(row, book.results_dir, medium), budget, rows=8, columns=12,
                         lead=medium == "neighbours")
        if uri:
            shown.append({"title": title, "paper": paper, "label": row.label, "caption": CAPTIONS[medium], "uri": uri,
                          "medium": medium})
    return shown, skipped


def _sheet_uri(found: Any, budget: Budget, *, rows: int, columns: int, lead: bool = False) -> str | None:
    """The upper left tiles of a sheet as data: URI, None if the budget is used up."""
    path, sheet = found
    lines = rows_of(path, sheet)[:rows, :columns]
    image = np.concatenate([join(line, lead=lead) for line in lines])[:-1, :-1]
    if max(image.shape) > WEBP_SIDE:
        budget.refused += 1
        return None
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", lossless=True, method=4)
    if buffer.tell() > LOSSLESS_BYTES:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "WEBP", quality=88, method=4)
    if buffer.tell() * 4 // 3 > budget.left:
        budget.refused += 1
        return None
    budget.left -= buffer.tell() * 4 // 3
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _inline_svg(drawing: Drawing) -> Markup:
    """Scales with its column, carries its name, and shares no id with its neighbours."""
    text = svg(drawing).replace("#0072b2", "var(--blue)")
    text = re.sub(r' id="(?:[A-Za-z]+(?:2d)?|matplotlib\.axis)_\d+"', "", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    label = str(escape(drawing.title))
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))


def _interval_bar(verdict: Verdict) -> dict[str, float] | None:
    """Positions in percent of effect, interval, zero and border on a small axis."""
    if verdict.value is None:
        return None
    ends = [verdict.value, 0.0, verdict.border, *(v for v in (verdict.low, verdict.high) if v is not None)]
    low, high = min(ends), max(ends)
    pad = (high - low or 1.0) * 0.12
    span = high - low + 2 * pad

    def place(value: float) -> float:
        return round(100 * (value - low + pad) / span, 2)

    bar = {"value": place(verdict.value), "zero": place(0.0), "border": place(verdict.border)}
    if verdict.low is not None and verdict.high is not None:
        bar |= {"low": place(verdict.low), "width": round(place(verdict.high) - place(verdict.low), 2)}
    return bar


def _spans(columns: Sequence[Column], level: str) -> list[tuple[str, int]]:
    """Neighbouring columns of one block or group: [(name, how many)]."""
    spans: list[tuple[str, int]] = []
    for column in columns:
        name = getattr(column, level)
        if spans and spans[-1][0] == name:
            spans[-1] = (name, spans[-1][1] + 1)
        else:
            spans.append((name, 1))
    return spans


def _breakable(label: str) -> Markup:
    """A label that a narrow column may break within an option, after its dot and its equals sign."""
    return Markup(re.sub(r"([.=])(?=[A-Za-z_])", r"\1<wbr>", str(escape(label))))


def _by_section(rows: Sequence[TableRow]) -> list[tuple[str, list[TableRow]]]:
    return [(name, list(members)) for name, members in groupby(rows, key=lambda row: row.section)]


def _holes(sections: Sequence[Section]) -> list[tuple[str, str, str, str]]:
    """(group, rows, column, reason) of everything that is missing, rows of one reason together."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for section in sections:
        for row, column, reason in section.summary.holes():
            rows.setdefault((section.group.title, column, reason), []).append(row)
    return [(group, "; ".join(found), column, reason) for (group, column, reason), found in rows.items()]


def _sentence(text: str) -> str:
    """Begins with a capital and ends with a full stop."""
    text = text[:1].upper() + text[1:]
    return text if not text or text.endswith((".", "`")) else text + "."


def _with_code(text: str) -> Markup:
    """`code` between backticks."""
    parts = text.split("`")
    return Markup("").join(Markup(f"<code>{escape(p)}</code>") if i % 2 else escape(p) for i, p in enumerate(parts))
