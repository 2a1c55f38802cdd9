"""Files that survive a kill: written whole or not at all, and, where they are kept, used only as they were written.

    write_json(path, value)                              # readers see the old file or the new one, never half of one
    with replacing(path) as stream: np.save(stream, a)
    with keeping(path) as stream: np.save(stream, a)     # and its sha256 goes to <name>.sha256
    array = read(path, np.load)                          # None: not there, or damaged, which is said; make it again

Kept files are ours to make again: caches, checkpoints, chunks of unfinished work. One without its sha256 counts as
damaged. A file of the user's is never read here: its damage is an error that names it.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import socket
import sys
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from bench.provenance import sha256_of

T = TypeVar("T")
UNREADABLE = (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream to a temporary file, `stream.name`, that becomes `path` where the block ends without an error."""
    with _replacing(path) as stream:
        yield stream


@contextmanager
def keeping(path: Path) -> Iterator[BinaryIO]:
    """As `replacing`, for a file that `read` reads: its sha256 is on disk before it is."""
    with _replacing(path, before=_add_digest) as stream:
        yield stream


def write_text(path: Path, text: str) -> None:
    with replacing(path) as stream:
        stream.write(text.encode())


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file. Raises OSError or ValueError for anything else; a pipe is not waited for."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file")
    try:
        value = json.loads(path.read_text())
    except RecursionError:
        raise ValueError("JSON of too many levels") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, not {type(value).__name__}")
    return value


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, default=str))


def keep_json(path: Path, value: Any) -> None:
    with keeping(path) as stream:
        stream.write(json.dumps(value, indent=1).encode())


def read(path: Path, parse: Callable[[Path], T]) -> T | None:
    """The result of `parse` on a kept file; None if it is missing or damaged (then it is removed with a message)."""
    if not os.path.lexists(path):
        return None
    if not is_as_written(path):
        known = digests_of(path).is_file()
        discard(path, "it is not as it was written" if known else f"{digests_of(path).name} is missing")
        return None
    try:
        return parse(path)
    except UNREADABLE as error:   # as it was written, but by other code
        discard(path, f"{type(error).__name__}: {error}")
        return None


def read_json(path: Path) -> Any:
    """As `read`, of a file that `keep_json` wrote."""
    return read(path, lambda path: json.loads(path.read_text()))


def is_as_written(path: Path) -> bool:
    """Whether a kept file is there and has its sha256."""
    try:
        if not path.is_file() or not digests_of(path).is_file():   # such as a pipe, which would be waited for
            return False
        # In this order: whoever replaces the file meanwhile has added the sha256 of the new one before.
        return sha256_of(path) in re.findall("[0-9a-f]{64}", digests_of(path).read_text())
    except (OSError, UnicodeDecodeError):
        return False


def discard(path: Path, reason: str) -> None:
    """Remove a damaged file with a message; its digests stay, as another process may be about to replace it."""
    print(f"{path} is damaged ({reason}): it is removed and made again.", file=sys.stderr, flush=True)
    clear(path)


def clear(path: Path) -> None:
    """Remove whatever lies there: a file, a folder with all it holds, a link, or nothing."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a kept file that is no longer needed."""
    path.unlink(missing_ok=True)
    digests_of(path).unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file or folder to disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _replacing(path: Path, *, before: Callable[[Path, str], None] = lambda path, temporary: None) -> Iterator[BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(_temporary_name(path))
    try:
        with open(temporary, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        before(path, stream.name)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary_name(path: Path) -> str:
    """One that no other process uses, on whatever machine, and that no pattern such as *.json finds."""
    host = socket.gethostname().split(".")[0][:32]
    return f".{path.name}.{host}.{os.getpid()}.{uuid.uuid4().hex[:12]}"


def digests_of(path: Path) -> Path:
    """Where the sha256 of a kept file and of those it replaced stand."""
    return path.with_name(f"{path.name}.sha256")


def _add_digest(path: Path, temporary: str) -> None:
    """Append to the digests of earlier versions, so that one matches whenever a process dies or another one writes."""
    if not digests_of(path).is_file():
        clear(digests_of(path))
    with open(digests_of(path), "ab") as stream:
        stream.write(f"\n{sha256_of(Path(temporary))}\n".encode())
        stream.flush()
        os.fsync(stream.fileno())
