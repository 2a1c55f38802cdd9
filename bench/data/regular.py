"""Reading files that somebody else made: regular ones alone, and no more of each than is sensible.

    data = read_regular(Path("photos/cat.png"))       # bytes; raises CorruptImage

A link to a device never ends, and a pipe makes its reader wait for ever: both are told from files before they are read.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bench.data.pixels import CorruptImage
from bench.errors import InputError

MAX_IMAGE_BYTES = 256 << 20   # encoded: over twice what a 16-bit picture of MAX_PIXELS takes as PNG or TIFF
KINDS = {stat.S_IFIFO: "a pipe (FIFO)", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket",
         stat.S_IFDIR: "a folder"}


def kind_of(mode: int) -> str:
    """What a thing that is no regular file is, in words; "" for a regular file."""
    return "" if stat.S_ISREG(mode) else KINDS.get(stat.S_IFMT(mode), "no regular file")


def too_large(size: int) -> str:
    """Why an encoded image of `size` bytes is not read; "" if it is."""
    return "" if size <= MAX_IMAGE_BYTES else (
        f"takes {size:,} bytes, and at most {MAX_IMAGE_BYTES:,} are read of an image")


def check_regular(path: Path, what: str) -> None:
    """Raise InputError if there is something at `path` (links followed) that is neither a file nor a folder.

    what: how the command named it, such as "source=photos".
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise InputError(f"{what} does not exist.") from None
    except OSError as error:
        raise InputError(f"{what} cannot be looked at: {error.strerror}.") from None
    if not stat.S_ISDIR(mode) and (kind := kind_of(mode)):
        raise InputError(f"{what} is {kind}: expected a regular file or a folder.")


def read_regular(path: Path, first: int | None = None) -> bytes:
    """The bytes of an encoded image, or the first few of them.

    Raises CorruptImage if it is no regular file or too large, OSError if it cannot be read.
    """
    if kind := kind_of(os.stat(path).st_mode):   # before it is opened: opening alone can move a device
        raise CorruptImage(f"is {kind}")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        now = os.fstat(descriptor)
        if reason := kind_of(now.st_mode) or too_large(now.st_size):
            raise CorruptImage(reason)
        return file.read(now.st_size if first is None else first)
