"""Every speed claim, measured on this machine: ours against the textbook algorithm, in turn, in one process.

    python -m bench.speed                                     # all rows, a quarter of an hour
    python -m bench.speed rows=ar,absorbing rounds=5 out=speed.json
    python -m bench.speed quick=true                          # toy sizes: does every row run?
    python -m bench.speed claims results_dir=results/runs     # both sides of the paper's claims: bench.timing.claims

Times are CPU-seconds on one thread (`threads=`), because machines are shared; on device=cuda wall clock. All is float32
and eager: nothing is compiled. The table is written after every line, as JSON with every round and as CSV beside it.
Exit codes: 0 done, 1 a row failed while working, 2 wrong input, 130 Ctrl-C (the table so far is printed). A benchmark,
not a test: nothing here asserts a time.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.command import run_command
from bench.errors import InputError, did_you_mean
from bench.provenance import provenance, utc_now
from bench.store.files import write_text
from bench.words import pairs_of, split_commas

ROW_NAMES = ("ar", "absorbing", "lossless", "evaluation", "elbo", "prdc", "fid", "neighbours", "inception", "training",
             "tokenizer", "scaling", "pipeline")


@dataclass(frozen=True)
class Options:
    """rows: which groups (default all).  rounds: turns a method takes (one where a turn takes minutes).

    out: the JSON file; default results/runs/speed/speed.json, or quick.json for quick=true.
    """

    rows: tuple[str, ...] = ROW_NAMES
    quick: bool = False
    rounds: int = 3
    threads: int = 1
    device: str = "cpu"
    out: str = ""

    @property
    def path(self) -> Path:
        return Path(self.out or f"results/runs/speed/{'quick' if self.quick else 'speed'}.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command(arguments, doc=__doc__, work=_work, kept="the lines that were finished are kept")


def _work(given: list[str]) -> int:
    """A table of ours against the textbook's, or the two sides of the claims."""
    console = _console()
    if given[:1] != ["claims"]:
        return measure(parse(given), console)
    from bench.timing import claim_turns, claims

    return claim_turns.compare_speeds(claims.parse(given[1:]), lambda text: console.print(
        text, markup=False, highlight=False, soft_wrap=True))


def parse(arguments: Sequence[str]) -> Options:
    """key=value options. Raises InputError for an unknown or repeated key and a value of the wrong kind."""
    pairs = pairs_of(arguments, [f.name for f in fields(Options)])
    values = {key: _value(key, text) for key, text in pairs.items()}
    for row in values.get("rows", ()):
        if row not in ROW_NAMES:
            raise InputError(f"rows={row}: {did_you_mean(row, ROW_NAMES)}")
    if not values.get("out", ".json").endswith(".json"):
        raise InputError(f"out={values['out']}: expected a file name ending in .json; the CSV is put beside it.")
    return Options(**values)


def measure(options: Options, console: Console) -> int:
    """Time the rows, print the table and write it line by line; 1 if a row failed, which is then named."""
    import torch
    from threadpoolctl import threadpool_limits

    from bench.metrics.speed import threads
    from bench.timing.rows import ROWS
    from bench.timing.turns import Settings, gemm_peak

    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device={options.device}: torch sees no CUDA device here. Use device=cpu.")
    settings = Settings(quick=options.quick, rounds=options.rounds, device=options.device)
    cells: list[Any] = []
    failures: list[tuple[str, str]] = []
    with threads(options.threads), threadpool_limits(options.threads):   # torch's, and those of numpy's BLAS
        peak = gemm_peak(options.device, sizes=(128,) if options.quick else (512, 1024, 2048))
        try:
            for name in options.rows:
                console.print(f"timing {name} ...", style="dim")
                began = time.perf_counter()
                try:
                    for cell in ROWS[name](settings):
                        cells.append(cell)
                        write(options.path, cells, peak, failures, options)
                        console.print(f"  {cell.what}: {_ratio(cell)} ({time.perf_counter() - began:.0f} s)",
                                      markup=False, highlight=False)
                except Exception as error:   # one broken row must not cost the others their hour
                    failures.append((name, f"{type(error).__name__}: {error}"))
        finally:   # also on Ctrl-C
            write(options.path, cells, peak, failures, options)
            console.print(render(cells, peak, options))
    for name, reason in failures:
        console.print(f"failed: {name}: {reason}", style="red", markup=False, highlight=False, soft_wrap=True)
    console.print(f"written: {options.path} and {options.path.with_suffix('.csv').name}", markup=False, highlight=False)
    return 1 if failures else 0


def render(cells: Sequence[Any], peak: float, options: Options) -> Table:
    """The table for a terminal; the machine stands below it."""
    hardware = provenance()["hardware"]
    clock = "wall clock" if options.device.startswith("cuda") else "CPU time"
    table = Table(title="Ours against the textbook algorithm" + (" (toy sizes)" if options.quick else ""),
                  caption=f"{hardware['cpu']}, {hardware['cores']} cores, {options.threads} thread(s), "
                          f"{options.device}, float32, eager, {clock}, median (lowest - highest) of "
                          f"{options.rounds} round(s) or as said; GEMM peak {peak:.0f} GFLOP/s")
    for heading in ("what", "textbook", "ours", "ratio", "aim", "of GEMM peak", "peak GB", "note"):
        table.add_column(heading, justify="left" if heading in ("what", "note") else "right")
    for cell in cells:
        reached = cell.ratio is not None and cell.target is not None and cell.ratio >= cell.target
        table.add_row(cell.what, _spread(cell, "naive", cell.naive), _spread(cell, "ours", cell.ours),
                      f"[green]{_ratio(cell)}[/]" if reached else _ratio(cell), _aim(cell), _share(cell, peak),
                      "" if cell.memory_gb is None else f"{cell.memory_gb:.2f}", cell.note)
    return table


def write(path: Path, cells: Sequence[Any], peak: float, failures: Sequence[tuple[str, str]],
          options: Options) -> None:
    """Everything the table shows and every round as JSON, and a CSV beside it; both replaced whole, never half."""
    rows = [asdict(cell) | {"ratio": cell.ratio, "gflops_peak_share": _shares(cell, peak)} for cell in cells]
    conditions = {"dtype": "float32", "compiled": False, "threads": options.threads, "device": options.device,
                  "clock": "wall" if options.device.startswith("cuda") else "CPU"}
    result = {"created": utc_now(), "options": asdict(options), "conditions": conditions, "gemm_peak_gflops": peak,
              "rows": rows, "failures": [{"row": name, "reason": reason} for name, reason in failures],
              "provenance": provenance()}
    write_text(path, json.dumps(result, indent=1, allow_nan=False))
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow([*CSV_COLUMNS, *conditions])
    for row in rows:
        rounds = {f"{side}_{name}": choose(values) for side, values in row["rounds"].items()
                  for name, choose in (("lowest", min), ("highest", max))}
        writer.writerow([*((row | rounds).get(column) for column in CSV_COLUMNS), *conditions.values()])
    write_text(path.with_suffix(".csv"), table.getvalue())


CSV_COLUMNS = ("row", "what", "unit", "naive", "naive_lowest", "naive_highest", "ours", "ours_lowest", "ours_highest",
               "ratio", "target", "stretch", "memory_gb", "note")


def _shares(cell: Any, peak: float) -> dict[str, float]:
    """Share of the GEMM peak, ours and (where its work is known) the textbook's."""
    pairs = (("ours", cell.gflop, cell.ours), ("naive", cell.gflop_naive, cell.naive))
    return {name: gflop / seconds / peak for name, gflop, seconds in pairs if gflop and seconds}


def _share(cell: Any, peak: float) -> str:
    shares = _shares(cell, peak)
    if "ours" not in shares:
        return ""
    return f"{shares['ours']:.0%}" + (f" (was {shares['naive']:.0%})" if "naive" in shares else "")


def _amount(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.3g}" + (f" {unit}" if unit != "variance" else "")


def _spread(cell: Any, side: str, value: float | None) -> str:
    """The median, and the lowest and highest round in brackets."""
    rounds = cell.rounds.get(side, [])
    return _amount(value, cell.unit) + (f" ({min(rounds):.3g} - {max(rounds):.3g})" if len(rounds) > 1 else "")


def _ratio(cell: Any) -> str:
    return "-" if cell.ratio is None else f"{cell.ratio:.3g}x"


def _aim(cell: Any) -> str:
    parts = [f"{value:g}x" for value in (cell.target, cell.stretch) if value is not None]
    return " / ".join(parts)


def _value(key: str, text: str) -> Any:
    kind = {f.name: type(f.default) for f in fields(Options)}[key]
    if kind is tuple:
        return tuple(split_commas(text))
    if kind is bool:
        if text not in ("true", "false"):
            raise InputError(f"{key}={text}: expected true or false.")
        return text == "true"
    if kind is int:
        if not text.isdigit() or int(text) < 1:
            raise InputError(f"{key}={text}: expected a whole number of at least 1.")
        return int(text)
    return split_commas(text)[0]


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=180)


if __name__ == "__main__":
    sys.exit(main())
