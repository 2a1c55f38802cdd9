"""The results in a Markdown file, made from records, between two markers: all tables, or a first look at them.

    refresh(Path("results/tables.md"), book, command="python -m bench.report ... readme=results/tables.md")

A file may hold either block, or both (bench/reporting/glance.py says what the short one shows).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.errors import BenchError, InputError
from bench.reporting import glance
from bench.reporting.claims import ledger
from bench.reporting.escaping import markdown_text
from bench.reporting.render import legend, markdown
from bench.reporting.rows import Book, Group
from bench.reporting.tables import BOLD, headline, repeats, summary
from bench.reporting.verdicts import Verdict, limits

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def refresh(readme: Path, book: Book, *, command: str) -> bool:
    """Rewrite the block; returns whether the file changed. Raises InputError if the markers are missing."""
    text = _read(readme)
    fresh = refreshed(text, book, command, str(readme))
    if fresh != text:
        readme.write_text(fresh, encoding="utf-8")
    return fresh != text


def check(readme: Path, book: Book, *, command: str) -> None:
    """Raises BenchError (exit code 1) if the block is not what the records say."""
    text = _read(readme)
    if refreshed(text, book, command, str(readme)) != text:
        raise BenchError(f"{readme}: its results are stale. Refresh them: {command}")


def refreshed(text: str, book: Book, command: str, name: str) -> str:
    """The text with each block that it has made anew."""
    short = glance.BEGIN in text
    if short:
        text = glance.replaced(text, book, name)
    return replaced(text, block(book, command), name) if BEGIN in text or not short else text


def replaced(text: str, block_text: str, name: str) -> str:
    """The text with what stands between the markers replaced."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise InputError(f"{name}: expected one line {BEGIN} and, below it, one line {END}")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{block_text}{END}{rest.split(END)[1]}"


def block(book: Book, command: str) -> str:
    """Tables and verdicts of every group; a claim that no group could judge is named once, at the end."""
    parts, judged = [f"<!-- made by: {command} -->\n\n{BOLD}\n"], set[str]()
    claims: dict[str, str] = {}
    every: list[Verdict] = []
    for group in book.groups:
        verdicts = ledger(group, book.results_dir, book.groups)
        run = [verdict for verdict in verdicts if verdict.verdict != "not run"]
        claims |= {verdict.claim.text: f"{verdict.claim.text} ({verdict.claim.where})" for verdict in verdicts}
        every += run
        judged |= {verdict.claim.text for verdict in run}
        parts += [f"\n### {markdown_text(group.dataset)}, protocol `{markdown_text(group.heading)}`\n\n",
                  f"{markdown_text(hardware(group))}\n\n",
                  markdown(replace(headline(summary(group)), title="", caption=repeats(group))),
                  *(["\n", claims_markdown(run)] if run else [])]
    open_claims = [claim for text, claim in claims.items() if text not in judged]
    columns = [column for group in book.groups for column in headline(summary(group)).columns]
    parts += [f"\nWhat each number is for:\n\n{legend(columns)}"] if columns else []
    parts += [f"\n{note}\n" for note in limits(every)]
    return "".join(parts) + ("\nNot run: " + " ".join(open_claims) + "\n" if open_claims else "")


def claims_markdown(verdicts: list[Verdict]) -> str:
    """Verdicts as a pipe table."""
    if not verdicts:
        return ""
    lines = ["| claim of the paper | verdict | effect, 95% interval | seeds |", "|:--|:--|:--|--:|"]
    for v in verdicts:
        remarks = "".join([f", {markdown_text(v.says)}" if v.says else "",
                           *(f"; {markdown_text(caveat)}" for caveat in v.caveats)])
        effect = f"{v.effect} {v.interval}".strip() + remarks
        lines.append(f"| {v.claim.text} ({v.claim.where}) | **{v.words}** | {effect} | {v.seeds} |")
    return "\n".join(lines) + "\n"


def hardware(group: Group) -> str:
    """On what and from which commits the numbers come."""
    found = [record.provenance for row in group.rows for record in row.records]
    machines = _listed({p["hardware"]["cpu"] for p in found if p.get("hardware", {}).get("cpu")})
    devices = _listed({p["device"] for p in found if p.get("device")})
    threads = _listed({p["threads"] for p in found if p.get("threads")})
    commits = _listed({p["git_commit"][:8] + (" with uncommitted changes" if p.get("git_dirty") else "")
                       for p in found if p.get("git_commit")})
    where = ", ".join(filter(None, [devices, f"{threads} thread{'' if threads == '1' else 's'}" if threads else ""]))
    return f"{len(found)} runs on {machines or 'unknown hardware'}" + (f" ({where})" if where else "") + \
        (f", commit {commits}" if commits else "") + "."


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(sorted(str(value) for value in values))


def _read(readme: Path) -> str:
    if not readme.is_file():
        raise InputError(f"readme={readme}: no such file")
    return readme.read_text(encoding="utf-8")
