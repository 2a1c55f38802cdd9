"""The files that records refer to: pictures and curves, checked before anything is drawn from them.

    records, damaged = usable(records, Path("results/runs"))

A file that is not there is no damage (records travel without their media). One that cannot be read is named, and so is
one that is no file of the record's own: a link, a device, a picture of another kind.
"""

from __future__ import annotations

import csv
import io
import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from PIL import Image

from bench.printable import one_line
from bench.records import Record, Sheet, media_folders
from bench.reporting.curves import read_curve
from bench.training.trajectories import Trajectory
from bench.typed_json import Malformed, read_bytes

MAX_BYTES = 64 * 2**20
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error, OverflowError, IndexError,
              Image.DecompressionBombError)
"""What Pillow raises at a file that is no picture."""


def usable(records: Iterable[Record], results_dir: Path) -> tuple[list[Record], list[tuple[Path, str]]]:
    """The records without their damaged attachments, and those with what is wrong with each."""
    kept, damaged = [], []
    for record in records:
        problems = {("media", name): (results_dir / sheet.path, _sheet_problem(results_dir, record, sheet))
                    for name, sheet in record.media.items()}
        problems |= {("curves", name): (results_dir / path, _curve_problem(results_dir, record, path))
                     for name, path in record.curves.items()}
        problems["trajectory", ""] = (results_dir / trajectory_of(record), _trajectory_problem(results_dir, record))
        bad = {place for place, (_, problem) in problems.items() if problem}
        damaged += [problems[place] for place in sorted(bad)]
        kept.append(replace(record, media={n: s for n, s in record.media.items() if ("media", n) not in bad},
                            curves={n: p for n, p in record.curves.items() if ("curves", n) not in bad}))
    return kept, damaged


def _sheet_problem(results_dir: Path, record: Record, sheet: Sheet) -> str:
    expected = (sheet.columns * sheet.tile[1], sheet.rows * sheet.tile[0])
    try:
        content = own_bytes(results_dir, record, sheet.path)
        if content is None:
            return ""
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if image.size != expected:
                return (f"{image.size[0]} x {image.size[1]} pixels, but its record says {sheet.columns} x {sheet.rows} "
                        f"tiles of {sheet.tile[1]} x {sheet.tile[0]}")
            image.load()
    except UNREADABLE as error:
        return f"not a readable picture: {one_line(str(error))}"
    return ""


def _curve_problem(results_dir: Path, record: Record, path: str) -> str:
    try:
        if own_bytes(results_dir, record, path) is not None:
            read_curve(results_dir / path, "validation_bits_per_token")
    except (ValueError, KeyError, TypeError, OSError, csv.Error) as error:
        return f"not a curve of step, metric, value: {one_line(str(error))}"
    return ""


def trajectory_of(record: Record) -> str:
    """Where its trajectory would stand, relative to the results folder."""
    return f"media/{record.id}/trajectory.npz"


def trajectory(results_dir: Path, record: Record) -> Trajectory | None:
    """What its training left at log-spaced steps; None where there is none, or none that can be read."""
    try:
        content = own_bytes(results_dir, record, trajectory_of(record))
        return Trajectory.read(content) if content is not None else None
    except (ValueError, OSError):
        return None   # named by `usable`


def _trajectory_problem(results_dir: Path, record: Record) -> str:
    try:
        if (content := own_bytes(results_dir, record, trajectory_of(record))) is not None:
            Trajectory.read(content)
    except (ValueError, OSError) as error:
        return one_line(str(error))
    return ""


def own_bytes(results_dir: Path, record: Record, path: str) -> bytes | None:
    """The content of a regular file in the record's own media folder, None if there is no such file.

    Raises Malformed for a path that leads elsewhere, by itself or by a link.
    """
    folder, _, name = path.rpartition("/")
    if folder not in media_folders(record) or name in ("", ".", ".."):
        raise Malformed(f"expected a file in media/{record.id}/")
    if not os.path.lexists(results_dir / path):
        return None
    if (results_dir / path).resolve() != results_dir.resolve() / path:
        raise Malformed(f"a link, or behind one: expected the file itself in media/{record.id}/")
    return read_bytes(results_dir / path, MAX_BYTES)
