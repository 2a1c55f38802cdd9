"""Captions that stand beside images: one table for all, or a text file for each.

    photos/captions.csv     file,caption          (with that header; paths as below photos/, any order)
    photos/cats/001.txt     beside photos/cats/001.png; its lines are joined

Of a folder or a zip; the table is taken where there are both.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from bench.data.pixels import CorruptImage
from bench.data.regular import read_regular
from bench.errors import InputError

TABLE = "captions.csv"
COLUMNS = ("file", "caption")
MAX_TABLE_BYTES = 1 << 28   # a million captions of 256 bytes
MAX_CAPTION = 10_000   # characters; an encoder reads some hundred
ReadText = Callable[[str], str | None]
"""The text of a file by its relative path, None where there is none."""


def read_captions(root: Path, names: Sequence[str]) -> dict[str, str]:
    """The caption of each image by its path below the root (a folder or a zip).

    Raises InputError for a damaged table, and naming images that have no caption.
    """
    with opened(root) as read:
        table = read(TABLE)
        found = _of_table(table, root / TABLE) if table is not None else _of_texts(read, names)
    absent = [name for name in names if name not in found]
    if absent:
        way = (f"add them to {TABLE}" if table is not None else
               f"put {PurePosixPath(absent[0]).with_suffix('.txt')} beside it, or a {TABLE} with the columns file and "
               f"caption into {root}")
        raise InputError(f"{len(absent)} of {len(names)} images in {root} have no caption, such as {absent[0]}: {way}; "
                         "or leave the condition out.")
    return {name: _checked(found[name], name) for name in names}


@contextmanager
def opened(root: Path) -> Iterator[ReadText]:
    """A reader of text files below a folder or in a zip."""
    if root.is_dir():
        yield lambda name: _text_of_file(root / name)
        return
    with zipfile.ZipFile(root) as archive:
        members = {info.filename: info for info in archive.infolist()}
        yield lambda name: _text_of_member(archive, members[name]) if name in members else None


def _text_of_file(path: Path) -> str | None:
    if not path.exists():
        return None
    try:
        return _decoded(read_regular(path, MAX_TABLE_BYTES), path)
    except (CorruptImage, OSError) as error:
        raise InputError(f"{path} cannot be read as text: it {error}") from None


def _text_of_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> str:
    try:
        with archive.open(info) as file:
            return _decoded(file.read(MAX_TABLE_BYTES), Path(info.filename))
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{info.filename} in {archive.filename} cannot be read: {error}") from None


def _decoded(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")   # Excel writes a mark at the beginning
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8.") from None


def _of_table(text: str, path: Path) -> dict[str, str]:
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if missing := [column for column in COLUMNS if column not in (rows.fieldnames or ())]:
            raise InputError(f"{path} lacks the column {' and '.join(missing)}: its first line must be file,caption, "
                             f"and is {','.join(rows.fieldnames or ())!r}.")
        found: dict[str, str] = {}
        for row in rows:
            if row["file"] is None or row["caption"] is None:
                raise InputError(f"{path}, line {rows.line_num}: expected a file and a caption.")
            if row["file"] in found:
                raise InputError(f"{path}, line {rows.line_num}: a second caption of {row['file']}; leave one.")
            found[row["file"]] = row["caption"]
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.line_num}: {error}. Captions with commas stand in quotes.") from None
    return found


def _of_texts(read: ReadText, names: Sequence[str]) -> dict[str, str]:
    texts = {name: read(str(PurePosixPath(name).with_suffix(".txt"))) for name in names}
    return {name: text for name, text in texts.items() if text is not None}


def _checked(text: str, name: str) -> str:
    """On one line."""
    if len(text) > MAX_CAPTION:
        raise InputError(f"the caption of {name} has {len(text):,} characters: at most {MAX_CAPTION:,} are read.")
    return " ".join(text.split())
