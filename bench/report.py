"""Records to tables, figures, a verdict on every claim and one HTML page.

    python -m bench.report
    python -m bench.report results_dir=results/reference out=report dataset=cifar10 protocol=demo
    python -m bench.report compare=3f2a,9c41                      # two runs against each other
    python -m bench.report results_dir=results/reference readme=README.md [check=true]
    python -m bench.report results_dir=results/reference expected=results/expected/reference.csv [check=true]

A pure function of manifests, records, published numbers and expected scores: the same records give the same files, byte
for byte. Exit codes: 0 done, 1 a damaged record was named and skipped (or, with check=true, the README or the file of
expected scores is stale), 2 wrong input.
"""

from __future__ import annotations

import csv
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.text import Text

from bench.callable_module import CallableModule
from bench.command import run_command
from bench.printable import cell, one_line
from bench.records import to_frame
from bench.reporting import conditional_figures, expected, expected_views, regime_figures, regime_table
from bench.reporting.claims import ledger
from bench.reporting.compare import compare
from bench.reporting.escaping import csv_cell
from bench.reporting.figures import Drawing, Skipped, write
from bench.reporting.options import Options, parse
from bench.reporting.paper import paper_tables
from bench.reporting.paper_figures import curves_of
from bench.reporting.pictures import pictures_of
from bench.reporting.readme import check, claims_markdown, refresh
from bench.reporting.regime_map import regimes_of
from bench.reporting.regime_samples import samples_of_regimes
from bench.reporting.render import csv_text, latex, legend, markdown, terminal
from bench.reporting.rows import Book, Group, gather
from bench.reporting.tables import Table, headline, summary
from bench.reporting.verdicts import Verdict
from bench.reporting.webpage import render_page

LISTING = "files.txt"
"""Where a report keeps the names of its tables and figures."""


@dataclass(frozen=True)
class Report:
    """What was written.

    folder: of all files.  page: the HTML page, None where it was left out.
    tables: name -> the table as in its CSV, such as "summary-cifar10-demo"; claims: one row a claim and protocol.
    """

    folder: Path
    page: Path | None
    tables: dict[str, pd.DataFrame]
    claims: pd.DataFrame


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command(arguments, doc=__doc__, work=report_all)


def report(results_dir: str | Path = "results/runs", *, out: str | Path = "report", dataset: Sequence[str] = (),
           protocol: Sequence[str] = (), figures: bool = True, page: bool = True) -> Report:
    """Write the report on a results folder and return its tables.

    dataset, protocol: keep these only (a name, or several).  figures, page: whether these are written.
    Damaged records are left out with a warning each. Raises InputError for a folder without records, and for a data set
    or protocol that no record has.
    """
    dataset, protocol = ((names,) if isinstance(names, str) else tuple(names) for names in (dataset, protocol))
    book = gather(results_dir, datasets=dataset, protocols=protocol)
    options = Options(str(results_dir), str(out), dataset, protocol, figures=figures, page=page)
    write_report(book, options, Console(quiet=True))
    for path, problem in book.damaged:
        warnings.warn(f"damaged, skipped: {path}: {problem}", stacklevel=2)
    folder = Path(out)
    written = [folder / name for name in (folder / LISTING).read_text(encoding="utf-8").splitlines()]
    return Report(folder, folder / "index.html" if page else None,
                  {path.stem: pd.read_csv(path) for path in written if path.suffix == ".csv"},
                  pd.read_csv(folder / "claims.csv"))


def report_all(arguments: list[str]) -> int:
    """What the arguments ask for: a report, a comparison, or the README's results."""
    console, errors = terminal_console(), Console(stderr=True)
    options = parse(arguments)
    book = gather(options.results_dir, datasets=options.dataset, protocols=options.protocol)
    if options.readme:
        write_readme(book, options, console)
    elif options.expected:
        write_expected(book, options, console)
    elif options.compare:
        write_comparison(book, options, console)
    else:
        write_report(book, options, console)
    for path, problem in book.damaged:
        errors.print(cell(f"damaged, skipped: {path}: {problem}", "red"), soft_wrap=True)
    return 1 if book.damaged else 0


def terminal_console() -> Console:
    """The terminal as wide as it is; a file or pipe wide enough for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=132)


def write_report(book: Book, options: Options, console: Console) -> None:
    """All files of a report under `options.out`; tables and reasons are printed as they are made."""
    out = Path(options.out)
    tables = [table for group in book.groups
              for table in (summary(group), *paper_tables(group), samples_of_regimes(group)) if table]
    verdicts = {group.slug: ledger(group, book.results_dir, book.groups) for group in book.groups}
    written = [*write_tables(tables, out / "tables"), *write_claims(verdicts, out)]
    written += write_regimes(book, out / "tables")
    for group in book.groups:
        console.print(terminal(summary(group)))
        print_verdicts(verdicts[group.slug], console)
        written += write_comparisons(group, out / "tables", console)
    write_measurements(book, out / "measurements.csv")
    curves = {group.slug: [*curves_of(group, book.results_dir), *regime_figures.figures_of(group, book.results_dir),
                           *conditional_figures.figures_of(group, book.results_dir)] for group in book.groups}
    if options.figures:
        written += write_figures(book, curves, out / "figures", console)
    if options.page:
        (out / "index.html").write_text(render_page(book, verdicts, curves), encoding="utf-8")
    remove_leftovers(out, written, left_out=() if options.figures else ("figures/",))
    console.print(f"report: {out / 'index.html' if options.page else out}", markup=False, highlight=False)


def remove_leftovers(out: Path, written: Sequence[Path], *, left_out: tuple[str, ...]) -> None:
    """Tables and figures that an earlier report wrote here and this one did not; nothing else in the folder is touched.

    left_out: beginnings of the names that this report was told not to make; they stay.
    """
    listing = out / LISTING
    earlier = set(listing.read_text(encoding="utf-8").splitlines()) if listing.is_file() else set()
    now = {path.relative_to(out).as_posix() for path in written}
    kept = {name for name in earlier if name.startswith(left_out)} if left_out else set()
    for name in earlier - now - kept:
        path = out / Path(name).parent.name / Path(name).name   # whatever the list says, never outside of `out`
        path.unlink(missing_ok=True)
    listing.write_text("".join(f"{name}\n" for name in sorted(now | kept)), encoding="utf-8")


def write_tables(tables: Sequence[Table], folder: Path) -> list[Path]:
    """CSV and Markdown of every table, and LaTeX of the columns that fit a page."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for table in tables:
        explained = f"{markdown(table)}\n{legend(table.columns)}"
        for suffix, text in (("csv", csv_text(table)), ("md", explained), ("tex", latex(headline(table)))):
            paths.append(folder / f"{table.name}.{suffix}")
            paths[-1].write_text(text, encoding="utf-8")
    return paths


def write_regimes(book: Book, folder: Path) -> list[Path]:
    """CSV and Markdown of the regimes of each group whose trainings left trajectories."""
    paths = []
    for group in book.groups:
        if regimes := regimes_of(group, book.results_dir):
            paths += [folder / f"regimes-{group.slug}.{suffix}" for suffix in ("csv", "md")]
            regime_table.frame(regimes).to_csv(paths[-2], index=False, lineterminator="\n")
            paths[-1].write_text(regime_table.markdown(regimes), encoding="utf-8")
    return paths


def write_measurements(book: Book, path: Path) -> None:
    """Every measurement of every record, one a line."""
    frame = to_frame(book.records.values()).rename(columns=csv_cell)
    texts = frame.select_dtypes(exclude=["number", "bool"]).columns
    frame[texts] = frame[texts].map(csv_cell)
    frame.to_csv(path, index=False, lineterminator="\n")


def write_comparisons(group: Group, folder: Path, console: Console) -> list[Path]:
    """CSV and Markdown of the numbers that have an expected one, if any has; a row that is off is printed."""
    found = expected.comparisons([group])
    if not found:
        return []
    console.print(cell(f" {expected_views.tally(found)}"), soft_wrap=True)
    for label, own in expected_views.by_row(found):
        if any(c.verdict == "off" for c in own):
            console.print(cell(f"   {label}: {expected_views.words_of_row(own)}", "red"), soft_wrap=True)
    console.print()
    paths = [folder / f"expected-{group.slug}.{suffix}" for suffix in ("csv", "md")]
    for path, text in zip(paths, (expected_views.csv_text(found), expected_views.markdown(found)), strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


def write_claims(verdicts: dict[str, list[Verdict]], out: Path) -> list[Path]:
    """claims.csv, and a Markdown ledger for each group that has claims; returns the ledgers."""
    with (out / "claims.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["dataset", "protocol", "claim", "text", "verdict", "words", "effect", "low", "high",
                         "border", "says", "seeds", "reason", "records"])
        for verdict in (v for found in verdicts.values() for v in found):
            line = [verdict.group.dataset, verdict.group.protocol, verdict.claim.key, verdict.claim.text,
                    verdict.verdict, verdict.words, verdict.value, verdict.low, verdict.high, verdict.border,
                    verdict.says, verdict.seeds, verdict.reason, " ".join(verdict.records)]
            writer.writerow(map(csv_cell, line))
    ledgers = {out / "tables" / f"claims-{slug}.md": found for slug, found in verdicts.items() if found}
    for path, found in ledgers.items():
        path.write_text(claims_markdown(found), encoding="utf-8")
    return list(ledgers)


def print_verdicts(verdicts: Sequence[Verdict], console: Console) -> None:
    """The claims in one line each."""
    styles = {"replicated": "green", "not replicated": "red", "inconclusive": "yellow", "not run": "dim"}
    for verdict in verdicts:
        line = Text(f" {verdict.words:<15} ", style=styles[verdict.verdict])
        effect = one_line(f"  {verdict.effect} {verdict.interval}".rstrip())
        console.print(line.append(verdict.claim.text, style="default").append(effect, style="dim"), soft_wrap=True)
    console.print()


def write_readme(book: Book, options: Options, console: Console) -> None:
    """Refresh the README's results block, or check that it is fresh."""
    command = f"python -m bench.report results_dir={options.results_dir} readme={options.readme}"
    if options.check:
        check(Path(options.readme), book, command=command)
        console.print(f"{options.readme}: up to date with {options.results_dir}", markup=False, highlight=False)
    else:
        outcome = "refreshed" if refresh(Path(options.readme), book, command=command) else "was up to date"
        console.print(f"{options.readme}: {outcome}", markup=False, highlight=False)


def write_expected(book: Book, options: Options, console: Console) -> None:
    """Refresh the scores that these records say one should see, or check that they are fresh."""
    path = Path(options.expected)
    if options.check:
        command = f"python -m bench.report results_dir={options.results_dir} expected={options.expected}"
        expected.check(path, book, command=command)
        console.print(f"{path}: up to date with {options.results_dir}", markup=False, highlight=False)
    else:
        outcome = "refreshed" if expected.refresh(path, book) else "was up to date"
        console.print(f"{path}: {outcome}", markup=False, highlight=False)


def write_comparison(book: Book, options: Options, console: Console) -> None:
    """Two runs side by side."""
    table = compare(book, *options.compare)
    write_tables([table], Path(options.out) / "tables")
    console.print(terminal(table))


def write_figures(book: Book, curves: dict[str, list[Drawing | Skipped]], folder: Path,
                  console: Console) -> list[Path]:
    """PNG and PDF of every figure; those that cannot be drawn are printed with their reason."""
    paths: list[Path] = []
    for group in book.groups:
        for item in [*curves[group.slug], *pictures_of(group, book.results_dir)]:
            if isinstance(item, Skipped):
                console.print(cell(f"no figure {item.name}: {item.reason}", "dim"), soft_wrap=True)
            else:
                paths += write(item, folder)
    return paths


if __name__ == "__main__":
    sys.exit(main())

sys.modules[__name__].__class__ = CallableModule   # bench.report(...) is report(...)
