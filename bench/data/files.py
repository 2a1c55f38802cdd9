"""Encoded images in a folder tree or a zip, listed once and read from any thread or process.

    files = open_files(Path("photos.zip"))       # or a folder
    files.read(files.names[0])                     # the encoded bytes of the first image
"""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from bench.data import pixels
from bench.data.regular import check_regular, kind_of, read_regular, too_large
from bench.data.threads import in_threads
from bench.errors import InputError

IMAGE_SUFFIXES = frozenset(
    ".png .jpg .jpeg .jpe .webp .bmp .gif .tif .tiff .ppm .pgm .pbm .pnm .tga .jp2 .avif".split())
WHOLE_CONTENT_LIMIT = 1 << 30   # bytes; a tree up to this size is hashed whole, a larger one by its files' heads
HEAD = 4096


class Files(Protocol):
    """names: the images, as sorted relative POSIX paths. ignored: how many other files stand among them."""

    @property
    def path(self) -> Path: ...

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def ignored(self) -> int: ...

    def read(self, name: str) -> bytes:
        """The encoded image. Raises CorruptImage where the container itself is damaged."""

    def stamp(self) -> str:
        """Changes when a file does; quick, and valid on this machine alone."""

    def digest(self, names: Sequence[str]) -> str:
        """Hash of names and contents, equal on every machine; see each class for what is read."""


class TreeFiles:
    """A folder and all below it; hidden files and files without an image's suffix are ignored and counted.

    Raises InputError for an image that is a device, a pipe or a socket, or that is too large.
    """

    def __init__(self, root: Path):
        self.path = root
        self._stats: dict[str, tuple[int, int]] = {}
        self.ignored = 0
        try:
            for name, entry in walk(root):
                if is_image_name(name):
                    self._stats[name] = _checked_stat(root, name, entry)
                else:
                    self.ignored += 1
        except OSError as error:
            raise InputError(f"{root} cannot be listed: {error}") from error
        self.names = sorted(self._stats)

    def read(self, name: str) -> bytes:
        return read_regular(self.path / name)

    def stamp(self) -> str:
        return hash_of([str(self.path.resolve())] + [f"{name} {self._stats[name]}" for name in self.names])

    def digest(self, names: Sequence[str]) -> str:
        """Name, size and CRC-32 of each file, as a zip of them would give; beyond 1 GiB in all, of its first 4 KiB."""
        limit = None if sum(self._stats[name][0] for name in names) <= WHOLE_CONTENT_LIMIT else HEAD

        def line(name: str) -> str:
            return f"{name} {self._stats[name][0]} {zlib.crc32(read_regular(self.path / name, limit)):08x}"

        return hash_of(in_threads(line, names))


class ZipFiles:
    """The members of a zip, stored or deflated, read by position: threads and forked processes may share it."""

    def __init__(self, path: Path, *, under: str = ""):
        self.path, self.ignored = path, 0
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._descriptors: dict[int, int] = {}
        self._size = path.stat().st_size
        try:
            with zipfile.ZipFile(path) as archive:
                members = [info for info in archive.infolist() if not info.is_dir() and info.filename.startswith(under)]
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(f"{path} is not a readable zip: {error}") from error
        for info in members:
            if is_image_name(info.filename):
                self._check(info)
                self._members[info.filename.removeprefix(under)] = info
            else:
                self.ignored += 1
        self.names = sorted(self._members)

    def read(self, name: str) -> bytes:
        info, descriptor = self._members[name], self._descriptor()
        header = os.pread(descriptor, 30, info.header_offset)   # local file header: APPNOTE.TXT 4.3.7
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise pixels.CorruptImage("its local header is damaged")
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        raw = os.pread(descriptor, info.compress_size, info.header_offset + 30 + name_length + extra_length)
        try:
            data = raw if info.compress_type == zipfile.ZIP_STORED else _inflate(raw, info.file_size)
        except zlib.error as error:
            raise pixels.CorruptImage(f"cannot be inflated: {error}") from error
        if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise pixels.CorruptImage("its CRC-32 is wrong")
        return data

    def stamp(self) -> str:
        stat = self.path.stat()
        return hash_of([f"{self.path.resolve()} {stat.st_size} {stat.st_mtime_ns}"] + self.names)

    def digest(self, names: Sequence[str]) -> str:
        """Name, size and CRC-32 of each member, from the central directory: complete, and nothing is read."""
        return hash_of(f"{name} {self._members[name].file_size} {self._members[name].CRC:08x}" for name in names)

    def _check(self, info: zipfile.ZipInfo) -> None:
        if info.flag_bits & 1:
            raise InputError(f"{self.path}: {info.filename} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(f"{self.path}: {info.filename} is compressed with method {info.compress_type}; pack the "
                             "zip anew, stored or deflated, or unpack it into a folder")
        if reason := too_large(info.file_size):
            raise InputError(f"{self.path}: {info.filename} {reason}: leave it out, or scale it down")
        if info.header_offset + info.compress_size > self._size:
            raise InputError(f"{self.path}: {info.filename} would take {info.compress_size:,} bytes from byte "
                             f"{info.header_offset:,} on, and the zip has {self._size:,}: it is "
                             "damaged, fetch it again")

    def _descriptor(self) -> int:
        if os.getpid() not in self._descriptors:
            self._descriptors[os.getpid()] = os.open(self.path, os.O_RDONLY)
        return self._descriptors[os.getpid()]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptors": {}}

    def __del__(self) -> None:
        if (descriptor := self.__dict__.get("_descriptors", {}).pop(os.getpid(), None)) is not None:
            os.close(descriptor)


def open_files(path: Path) -> TreeFiles | ZipFiles:
    """A folder or a zip.  Raises InputError if it is neither, or holds no image."""
    if path.exists():
        check_regular(path, str(path))
    if path.is_dir():
        files: TreeFiles | ZipFiles = TreeFiles(path)
    elif path.is_file():
        if not zipfile.is_zipfile(path):
            raise InputError(f"{path} is a file but not a zip: expected a folder or a zip of images")
        files = ZipFiles(path)
    else:
        raise InputError(f"{path} does not exist: expected a folder or a zip of images")
    if not files.names:
        other = f" ({files.ignored} other files were ignored)" if files.ignored else ""
        raise InputError(f"{path} holds no images{other}: expected files ending in {', '.join(sorted(IMAGE_SUFFIXES))}")
    return files


def is_image_name(name: str) -> bool:
    """Whether a relative path looks like an image and no part of it is hidden (.git, ._cat.png, __MACOSX)."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return not hidden and path.suffix.lower() in IMAGE_SUFFIXES


def walk(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """(relative POSIX path, entry) of whatever is no folder below root; links are followed, each folder once."""
    pending, seen = [(str(root), "")], set()
    while pending:
        folder, prefix = pending.pop()
        stat = os.stat(folder)
        if (stat.st_dev, stat.st_ino) in seen:
            continue
        seen.add((stat.st_dev, stat.st_ino))
        with os.scandir(folder) as entries:
            for entry in entries:
                if _is_folder(entry):
                    pending.append((entry.path, f"{prefix}{entry.name}/"))
                else:
                    yield prefix + entry.name, entry


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:   # a link that leads to itself
        return False


def _checked_stat(root: Path, name: str, entry: os.DirEntry[str]) -> tuple[int, int]:
    """(size, mtime in ns) of an image: of what a link leads to, or of a link that leads nowhere, a corrupt image."""
    try:
        stat = entry.stat()
        if kind := kind_of(stat.st_mode):
            raise InputError(f"{root / name} is {kind}, no image: remove it.")
    except OSError:
        stat = entry.stat(follow_symlinks=False)
    if reason := too_large(stat.st_size):
        raise InputError(f"{root / name} {reason}: leave it out, or scale it down.")
    return stat.st_size, stat.st_mtime_ns


def _inflate(raw: bytes, size: int) -> bytes:
    """No more than one byte beyond the size announced, so that a forged member cannot fill the memory."""
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, size + 1)


def hash_of(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()
