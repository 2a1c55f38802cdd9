"""What a command says when its runs are done: one table a data set and protocol, then what failed, where, and why.

    print_summary(records)          # on standard output
    summaries_of(records)           # the same for machines
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench.metrics.columns import column_of, in_order
from bench.printable import cell, last_line, one_line
from bench.progress import duration
from bench.records import Measurement, Record
from bench.reporting import expected_views
from bench.reporting.expected import comparisons
from bench.reporting.numbers import decimals_for, number
from bench.reporting.rows import groups_of

ARROWS = {"lower": " \N{DOWNWARDS ARROW}", "higher": " \N{UPWARDS ARROW}", "none": ""}
FRAME = re.compile(r'^ *File "([^"\n]+)", line (\d+)', re.MULTILINE)
COSTS = ("s", "images/s", "per image")   # units of what is not a mean over N images
WIDE = 200   # columns of a file or pipe


def summaries_of(records: list[Record]) -> list[dict[str, Any]]:
    """Records for machines: who each is, how it went, its measurements, and the expected scores of its row."""
    expected: dict[str, list[dict[str, Any]]] = {record.id: [] for record in records}
    for c in comparisons(groups_of(records)):
        for record in c.row.records:
            expected[record.id].append({"metric": c.metric, "measured": c.measured.value, "expected": c.expected.value,
                                        "sigma": c.sigmas, "verdict": c.verdict, "remark": c.remark})
    return [{"record": record.id, "label": record.label, "role": record.role, "status": record.status,
             "message": last_line(record.message), "results_dir": record.spec.get("results_dir"),
             "measurements": [asdict(measurement) for measurement in record.measurements],
             "expected": expected[record.id]} for record in records]


def print_summary(records: Sequence[Record], *, since: str = "") -> None:
    """One row a run and one column a metric that any of them measured, with N and 95% interval; then the failures, the
    scores that the committed records of the same configurations have, where there are any, and what took how long.

    since: when the command began, as `utc_now` has it: what was built before took none of its time.
    """
    console = Console(width=WIDE if not sys.stdout.isatty() else None)
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault(_group_of(record, records), []).append(record)
    for (dataset, protocol), held in groups.items():
        console.print(_table(held, f"{dataset}, protocol {protocol}"))
    for record in records:
        if record.message:
            print("\n".join(_told(record)))
    if found := comparisons(groups_of(list(records))):
        console.print(expected_views.terminal(found))
        for line in (expected_views.tally(found), *expected_views.notes(found)):
            print(one_line(line))
    if since and (took := durations(records, since)):
        console.print(_durations_table(took))
    if records:
        results_dir = records[0].spec.get("results_dir", "results/runs")
        option = "" if results_dir == "results/runs" else f" results_dir={one_line(results_dir)}"
        print(f"{len(records)} records in {one_line(results_dir)}; tables and figures: python -m bench.report{option}")


@dataclass(frozen=True)
class Duration:
    """What was built of one kind: how many, in how many seconds, and the most memory that a build came to hold."""

    stage: str
    num: int
    seconds: float
    peak_gb: float | None


def durations(records: Sequence[Record], since: str) -> list[Duration]:
    """Of every kind of artefact that was built since then, the longest first; each artefact counts once."""
    built = {made["key"]: (title, made) for record in records
             for title, made in record.provenance.get("artefacts", {}).items() if _is_built(made, since)}
    kinds: dict[str, list[dict[str, Any]]] = {}
    for title, made in built.values():
        kinds.setdefault(title, []).append(made)
    found = [Duration(title, len(held), sum(made["wall_seconds"] for made in held),
                      max((peak for made in held if isinstance(peak := made.get("peak_resident_gb"), float)),
                          default=None))
             for title, held in kinds.items()]
    return sorted(found, key=lambda kind: -kind.seconds)


def _is_built(made: dict[str, Any], since: str) -> bool:
    """Whether it is of this command; records are files, so each field may be anything."""
    return (isinstance(made.get("key"), str) and isinstance(made.get("wall_seconds"), int | float)
            and isinstance(built_at := made.get("built_at"), str) and built_at >= since)


def _durations_table(found: Sequence[Duration]) -> Table:
    table = Table("what took how long", "built", "time", "memory", box=SIMPLE_HEAD, pad_edge=False)
    for kind in found:
        table.add_row(cell(kind.stage), str(kind.num), duration(kind.seconds),
                      "-" if kind.peak_gb is None else f"{kind.peak_gb:.1f} GB")
    table.add_row("together", "", duration(sum(kind.seconds for kind in found)), "")
    return table


def _table(records: Sequence[Record], title: str) -> Table:
    rows = [{m.metric: m for m in record.measurements if m.value is not None} for record in records]
    names = [name for name in in_order({name for row in rows for name in row}) if _stands(name)]
    commonest = {name: Counter(row[name].n for row in rows if name in row).most_common(1)[0][0] for name in names}
    table = Table(title=cell(title, "bold"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False,
                  caption="\N{PLUS-MINUS SIGN}, [ ]: 95% intervals; @: number of images; <=: an upper bound"
                  if names else None, caption_justify="left")
    table.add_column("run", overflow="fold", min_width=16)
    table.add_column("status")
    for name in names:
        better = next(row[name].better for row in rows if name in row)
        listed = column_of(name, better)
        told = f"@{commonest[name]}" if commonest[name] and listed.unit not in COSTS else ""
        heading = (listed.short or listed.title) + told
        table.add_column(cell(heading + ARROWS[listed.better]), justify="right")
    for record, row in zip(records, rows, strict=True):
        table.add_row(cell(record.label), record.status,
                      *(cell(_shown(row[name], commonest[name]) if name in row else "-") for name in names))
    return table


def _stands(name: str) -> bool:
    """Headline columns, and those of plug-ins."""
    listed = column_of(name)
    return listed.headline or not listed.short and listed.about == column_of("").about


def _shown(measurement: Measurement, commonest: int | None) -> str:
    """The value with its interval, and its N where the heading says another."""
    value, low, high = measurement.value, measurement.ci_low, measurement.ci_high
    assert value is not None
    half = (high - low) / 2 if low is not None and high is not None else None
    decimals = decimals_for(value, half, column_of(measurement.metric).decimals)
    text = f"{'<= ' if measurement.bound == 'upper' else ''}{number(value, decimals)}"
    is_other = measurement.n and measurement.n != commonest and measurement.unit not in COSTS
    text += f"@{measurement.n}" if is_other else ""
    if not half or low is None or high is None:
        return text
    if abs((low + high) / 2 - value) <= 0.05 * (high - low):
        return f"{text} \N{PLUS-MINUS SIGN} {number(half, decimals)}"
    return f"{text} [{number(low, decimals)}, {number(high, decimals)}]"


def _group_of(record: Record, records: Sequence[Record]) -> tuple[str, str]:
    """Data set and protocol id; of a run that measured nothing, the id of those that asked for the same protocol."""
    dataset, name = (record.spec.get(key, {}).get("name", "?") for key in ("dataset", "protocol"))
    for other in [record, *records]:
        alike = all(other.spec.get(key, {}).get("name", "?") == value
                    for key, value in (("dataset", dataset), ("protocol", name)))
        if alike and other.measurements:
            return dataset, other.measurements[0].protocol
    return dataset, name


def _told(record: Record) -> list[str]:
    """What became of a run that is not done: the error, where it was raised, and the record that has all of it."""
    lines = [f"{one_line(record.label)}: {record.status}: {last_line(record.message)}"]
    if record.status == "failed":
        frames = FRAME.findall(record.message)
        lines += [f"  at {one_line(frames[-1][0])}, line {frames[-1][1]}"] if frames else []
        folder = Path(str(record.spec.get("results_dir", "results/runs"))) / "records"
        lines += [f"  the whole message: {one_line(str(folder / record.id))}.json"]
    return lines
