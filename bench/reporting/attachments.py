"""The files that records refer to: pictures and curves, checked before anything is drawn from them.

    records, damaged = usable(records, Path("results/runs"))

A file that is not there is no damage (records travel without their media); one that cannot be read is named.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from PIL import Image

from bench.records import Record, Sheet
from bench.reporting.curves import read_curve


def usable(records: Iterable[Record], results_dir: Path) -> tuple[list[Record], list[tuple[Path, str]]]:
    """The records without their damaged attachments, and those with what is wrong with each."""
    kept, damaged = [], []
    for record in records:
        problems = {("media", name): (results_dir / sheet.path, _sheet_problem(results_dir / sheet.path, sheet))
                    for name, sheet in record.media.items()}
        problems |= {("curves", name): (results_dir / path, _curve_problem(results_dir / path))
                     for name, path in record.curves.items()}
        bad = {place for place, (_, problem) in problems.items() if problem}
        damaged += [problems[place] for place in sorted(bad)]
        kept.append(replace(record, media={n: s for n, s in record.media.items() if ("media", n) not in bad},
                            curves={n: p for n, p in record.curves.items() if ("curves", n) not in bad}))
    return kept, damaged


def _sheet_problem(path: Path, sheet: Sheet) -> str:
    if not path.is_file():
        return ""
    expected = (sheet.columns * sheet.tile[1], sheet.rows * sheet.tile[0])
    try:
        with Image.open(path) as image:
            size = image.size
            image.verify()
    except (OSError, SyntaxError) as error:
        return f"not a readable picture: {error}"
    if size != expected:
        return (f"{size[0]} x {size[1]} pixels, but its record says {sheet.columns} x {sheet.rows} tiles of "
                f"{sheet.tile[1]} x {sheet.tile[0]}")
    return ""


def _curve_problem(path: Path) -> str:
    try:
        read_curve(path, "validation_bits_per_token")
    except (ValueError, KeyError, TypeError, OSError) as error:
        return f"not a curve of step, metric, value: {error}"
    return ""
