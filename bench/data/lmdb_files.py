"""Encoded images in an LMDB, read by any thread or process, with the list of keys in this benchmark's cache.

    files = LmdbFiles(Path("church_outdoor_val_lmdb"))       # a Files, as a folder or a zip is
    files.read(files.names[0])

Keys are memory-mapped, so that LSUN Bedroom's three million cost no memory; the LMDB itself may be read-only.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from bench.assets.fetch import say
from bench.data.files import hash_of
from bench.data.pixels import CorruptImage
from bench.data.regular import too_large
from bench.errors import InputError
from bench.store.cache import cache_root
from bench.store.files import keeping, read

DIGEST_SAMPLES = 256   # values whose bytes enter the fingerprint, beside all keys and the size of the file
REPORT_EVERY = 500_000


class Keys(Sequence[str]):
    """Keys of an LMDB as text: an (n,) array of fixed-width bytes, memory-mapped."""

    def __init__(self, array: np.ndarray):
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Keys: ...
    def __getitem__(self, index: int | slice) -> str | Keys:
        if isinstance(index, slice):
            return Keys(self.array[index])
        return self.array[index].decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def without(self, names: Collection[str]) -> Keys:
        """All keys but these, still as fixed-width bytes."""
        dropped = np.array([name.encode("latin-1") for name in names], dtype=self.array.dtype)
        return Keys(self.array[~np.isin(self.array, dropped)]) if len(dropped) else self


class LmdbFiles:
    """The values of one LMDB as files named by their keys; threads share the environment, processes open their own."""

    ignored = 0

    def __init__(self, path: Path):
        self.path = path
        self._data = path / "data.mdb" if path.is_dir() else path
        self.names = Keys(self._keys())

    def read(self, name: str) -> bytes:
        with environment(self.path).begin() as transaction:
            value = transaction.get(name.encode("latin-1"))
        if value is None:
            raise CorruptImage("the key is gone")
        if reason := too_large(len(value)):
            raise CorruptImage(reason)
        return value

    def stamp(self) -> str:
        stat = self._data.stat()
        return hash_of([f"{self._data.resolve()} {stat.st_size} {stat.st_mtime_ns}"])

    def digest(self, names: Sequence[str]) -> str:
        """All keys, the file's size and 256 values at even distances: the 43 GB of Bedroom are not read whole."""
        sampled = np.unique(np.linspace(0, len(names) - 1, DIGEST_SAMPLES).astype(np.int64))
        values = (f"{i} {hashlib.sha256(self.read(names[int(i)])).hexdigest()}" for i in sampled)
        return hash_of([hash_of(names), str(self._data.stat().st_size), *values])

    def _keys(self) -> np.ndarray:
        memo = cache_root() / "datasets" / f"{self.stamp()}-keys.npy"
        if read(memo, _map) is None:
            with keeping(memo) as stream:
                _write_keys(self.path, Path(stream.name))
        return _map(memo)


class _Environments:
    """LMDB allows one environment of a file a process, and none across a fork: so one for each file, opened anew."""

    def __init__(self) -> None:
        self.lock: threading.Lock = threading.Lock()
        self.by_file: dict[tuple[int, int], Any] = {}
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """In a forked child: drop what the parent opened (nothing is locked on disk, so nothing is undone there)."""
        for inherited in self.by_file.values():
            inherited.close()
        self.lock, self.by_file = threading.Lock(), {}

    def get(self, path: Path) -> Any:
        import lmdb

        stat = (path / "data.mdb" if path.is_dir() else path).stat()
        key = (stat.st_dev, stat.st_ino)
        with self.lock:
            if key not in self.by_file:
                try:
                    self.by_file[key] = lmdb.open(str(path), subdir=path.is_dir(), readonly=True, lock=False,
                                                  readahead=False, meminit=False, max_spare_txns=32)
                except lmdb.Error as error:
                    raise InputError(f"{path} is not a readable LMDB: {error}") from error
            return self.by_file[key]


@functools.cache
def _environments() -> _Environments:
    return _Environments()


def environment(path: Path) -> Any:
    """The read-only LMDB environment of this process.  Raises InputError if it cannot be opened."""
    return _environments().get(path)


def _map(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r")


def _write_keys(path: Path, target: Path) -> None:
    """All keys in the LMDB's order, as one (n,) array of bytes, written in pieces."""
    env = environment(path)
    count = env.stat()["entries"]
    if count == 0:
        raise InputError(f"{path} is an empty LMDB")
    with env.begin() as transaction:
        width = max(map(len, transaction.cursor().iternext(keys=True, values=False)))
        keys = np.lib.format.open_memmap(target, mode="w+", dtype=f"S{width}", shape=(count,))
        for position, key in enumerate(transaction.cursor().iternext(keys=True, values=False)):
            keys[position] = key
            if position and position % REPORT_EVERY == 0:
                say(f"listing {path.name}: {position:,} of {count:,}")
    keys.flush()


def check_complete(path: Path) -> None:
    """Raise InputError unless the file is as long as its last page says.

    A truncated data.mdb would kill the process with a bus error when its missing pages are touched.
    """
    data = path / "data.mdb" if path.is_dir() else path
    if not data.is_file():
        raise InputError(f"{path} has no data.mdb: it is no LMDB")
    env = environment(path)
    needed = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    if data.stat().st_size < needed:
        raise InputError(f"{data} is truncated: {data.stat().st_size:,} bytes, {needed:,} expected; fetch it again")

