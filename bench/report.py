"""Records to tables, figures, a verdict on every claim and one HTML page.

    python -m bench.report
    python -m bench.report results_dir=results/reference out=report dataset=cifar10 protocol=demo
    python -m bench.report compare=3f2a,9c41                      # two runs against each other
    python -m bench.report results_dir=results/reference readme=README.md [check=true]

A pure function of manifests, records and published numbers: the same records give the same files, byte for byte.
Exit codes: 0 done, 1 a damaged record was named and skipped (or, with check=true, the README is stale), 2 wrong input.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench.errors import BenchError
from bench.records import to_frame
from bench.reporting.options import Options, parse
from bench.reporting.render import csv_text, latex, markdown, terminal
from bench.reporting.rows import Book, gather
from bench.reporting.tables import Table, summary


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    console = terminal_console()
    errors = Console(stderr=True)
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        book = gather(options.results_dir, datasets=options.dataset, protocols=options.protocol)
        write_report(book, options, console)
    except BenchError as error:
        errors.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return error.exit_code
    for path, problem in book.damaged:
        errors.print(f"damaged, skipped: {path}: {problem}", style="red", markup=False, highlight=False, soft_wrap=True)
    return 1 if book.damaged else 0


def terminal_console() -> Console:
    """The terminal as wide as it is; a file or pipe wide enough for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=132)


def write_report(book: Book, options: Options, console: Console) -> None:
    """All files of a report under `options.out`; tables and reasons are printed as they are made."""
    out = Path(options.out)
    tables = [summary(group) for group in book.groups]
    write_tables(tables, out / "tables")
    for table in tables:
        console.print(terminal(table))
        console.print()
    to_frame(book.records.values()).to_csv(out / "measurements.csv", index=False, lineterminator="\n")
    if options.figures:
        write_figures(book, out / "figures", console)
    console.print(f"report: {out}", markup=False, highlight=False)


def write_tables(tables: Sequence[Table], folder: Path) -> None:
    """CSV, Markdown and LaTeX of every table."""
    folder.mkdir(parents=True, exist_ok=True)
    for table in tables:
        for suffix, text in (("csv", csv_text(table)), ("md", markdown(table)), ("tex", latex(table))):
            (folder / f"{table.name}.{suffix}").write_text(text, encoding="utf-8")


def write_figures(book: Book, folder: Path, console: Console) -> None:
    """PNG and PDF of every figure; those that cannot be drawn are printed with their reason."""
    from bench.reporting.figures import Skipped, curves_of, write
    from bench.reporting.pictures import pictures_of
    for group in book.groups:
        for item in curves_of(group, book.results_dir) + pictures_of(group, book.results_dir):
            if isinstance(item, Skipped):
                console.print(f"no figure {item.name}: {item.reason}", style="dim", markup=False, highlight=False,
                              soft_wrap=True)
            else:
                write(item, folder)


if __name__ == "__main__":
    sys.exit(main())
