"""The token cache: a data set encoded once, as memory-mapped shards beside a manifest.

    encode_split(encode, splits.train, folder, codebook_size=1024)
    tokens = TokenArray(folder)
    tokens[[3, 1, 4]]                  # (3, N) int64

Shards are uint16 up to 65,536 codes and uint32 beyond.

Encoding holds one shard and two batches in memory, whatever the size of the data set, and goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench.assets.fetch import say
from bench.data.base import ImageData
from bench.data.npz import BROKEN
from bench.errors import BenchError, InputError
from bench.provenance import sha256_of
from bench.store import files

FORMAT = 1
MANIFEST = "tokens.json"
LARGEST_CODEBOOK = 2**32   # ids are uint32 at most
Encode = Callable[[np.ndarray], np.ndarray]


def id_type(codebook_size: int) -> type[np.unsignedinteger]:
    """The smallest type of the cache that holds every id in [0, codebook_size)."""
    return np.uint16 if codebook_size <= 65_536 else np.uint32


class TokenArray:
    """(len, N) tokens on disk; indexing gives int64 in memory. Cheap to open and to send to another process."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        rows = [shard["rows"] for shard in self.manifest["shards"]]
        if sum(rows) != self.manifest["num_images"]:
            raise InputError(f"{self.folder} is unfinished: {sum(rows):,} of {self.manifest['num_images']:,} images")
        self.num_tokens: int = self.manifest["num_tokens"]
        self.codebook_size: int = self.manifest["codebook_size"]
        self._maps: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self.manifest["num_images"]

    def __getitem__(self, indices: slice | Sequence[int] | np.ndarray) -> np.ndarray:
        """(n, N) int64 in the order of the indices.  Raises IndexError beyond the end."""
        if isinstance(indices, slice):
            indices = np.arange(*indices.indices(len(self)))
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.ndim != 1 or (len(wanted) and not 0 <= wanted.min() <= wanted.max() < len(self)):
            raise IndexError(f"expected a list of indices in [0, {len(self)}), got {indices!r}")
        out = np.empty((len(wanted), self.num_tokens), np.int64)
        shard_of, row = np.divmod(wanted, self.manifest["shard_size"])
        for shard in np.unique(shard_of):
            here = shard_of == shard
            out[here] = self._map(int(shard))[row[here]]
        return out

    def check(self) -> None:
        """Read every shard against the manifest.  Raises InputError naming the damaged one."""
        for shard in self.manifest["shards"]:
            if not _is_sound(self.folder, shard):
                raise InputError(f"{self.folder / shard['file']} is damaged: encode or import it again")

    def _map(self, shard: int) -> np.ndarray:
        if shard not in self._maps:
            path = self.folder / self.manifest["shards"][shard]["file"]
            try:
                self._maps[shard] = np.load(path, mmap_mode="r")
            except BROKEN as error:
                raise InputError(f"{path} is damaged: {error}") from error
        return self._maps[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}


def encode_split(encode: Encode, data: ImageData, folder: str | Path, *, codebook_size: int, batch_size: int = 100,
                 shard_size: int = 50_000, progress: Callable[[int], object] = lambda num_images: None) -> TokenArray:
    """Encode a split into `folder`; finished shards that still match their sha256 are kept.

    encode: (n, 3, H, W) uint8 -> (n, N) integers in [0, codebook_size).
    shard_size: images a file. Together with batch_size it decides which images meet in a batch.
    progress: called with the number of images that became ready, those found ready included.
    Raises InputError for a codebook beyond uint32, BenchError if `encode` returns anything but such tokens.
    """
    folder = Path(folder)
    writer = _Writer(folder, num_images=len(data), codebook_size=codebook_size, shard_size=shard_size, resume=True)
    for shard in range(writer.num_shards):
        start, stop = writer.range_of(shard)
        if writer.is_done(shard):
            progress(stop - start)
            continue
        rows: np.ndarray | None = None
        for indices, images in _batches(data, start, stop, batch_size):
            tokens = _checked(np.asarray(encode(images)), len(indices), codebook_size)
            if rows is None:
                rows = np.empty((stop - start, tokens.shape[1]), id_type(codebook_size))
            if tokens.shape[1] != rows.shape[1]:
                raise BenchError(f"encoder returned {tokens.shape[1]} tokens an image, {rows.shape[1]} before")
            rows[indices - start] = tokens
            progress(len(indices))
        assert rows is not None
        writer.write(shard, rows)
    return TokenArray(folder)


def import_tokens(path: str | Path, folder: str | Path, *, num_tokens: int, codebook_size: int,
                  num_images: int | None = None, key: str = "tokens", shard_size: int = 50_000) -> TokenArray:
    """Take tokens computed elsewhere: a .npy, or array `key` of an .npz, of (n, N) or (n, h, w) integers.

    Every value is checked. A .npy is read as a memory map; an .npz must fit in memory.
    num_images: what the data set has; None accepts any.
    Raises InputError if the file, its shape, type or range is wrong.
    """
    source = _open_tokens(Path(path), key)
    if source.dtype.kind not in "iu":
        raise InputError(f"{path} holds {source.dtype}, expected integers")
    if source.ndim == 3:
        source = source.reshape(len(source), -1)
    if source.ndim != 2 or source.shape[1] != num_tokens:
        raise InputError(f"{path} has shape {source.shape}, expected (images, {num_tokens}) or a grid of as many")
    if num_images is not None and len(source) != num_images:
        raise InputError(f"{path} has {len(source):,} images, the data set {num_images:,}")
    writer = _Writer(Path(folder), num_images=len(source), codebook_size=codebook_size, shard_size=shard_size,
                     resume=False)
    for shard in range(writer.num_shards):
        start, stop = writer.range_of(shard)
        rows = np.asarray(source[start:stop])
        if rows.min() < 0 or rows.max() >= codebook_size:
            raise InputError(f"{path} holds tokens {rows.min()}..{rows.max()} (images {start}..{stop - 1}), expected "
                             f"0..{codebook_size - 1}: is it of another codebook?")
        writer.write(shard, rows.astype(id_type(codebook_size)))
    return TokenArray(folder)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises InputError if there is none, or it is not one of ours."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        version = manifest["format"]
        sizes = [manifest[name] for name in ("num_images", "num_tokens", "codebook_size", "shard_size")]
        sizes += [shard["rows"] for shard in manifest["shards"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{folder} holds no tokens: {type(error).__name__}: {error}") from error
    if version != FORMAT:
        raise InputError(f"{folder / MANIFEST} has format {version!r}, expected {FORMAT}: encode again")
    if not all(isinstance(size, int) for size in sizes):
        raise InputError(f"{folder / MANIFEST} is damaged: its sizes are {sizes}, expected whole numbers")
    return manifest


class _Writer:
    """Shards and their manifest, each written under a temporary name, so that a kill leaves whole files."""

    def __init__(self, folder: Path, *, num_images: int, codebook_size: int, shard_size: int, resume: bool):
        if not 1 <= codebook_size <= LARGEST_CODEBOOK:
            raise InputError(f"a codebook of {codebook_size:,} does not fit the token cache: 1 to {LARGEST_CODEBOOK:,}")
        if num_images < 1:
            raise InputError("there are no images to encode")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.manifest: dict[str, Any] = {"format": FORMAT, "num_images": num_images, "num_tokens": None,
                                         "codebook_size": codebook_size, "shard_size": shard_size, "shards": []}
        if not resume:
            files.remove(folder / MANIFEST)
        self.finished = self._sound_shards()

    @property
    def num_shards(self) -> int:
        return -(-self.manifest["num_images"] // self.manifest["shard_size"])

    def range_of(self, shard: int) -> tuple[int, int]:
        size = self.manifest["shard_size"]
        return shard * size, min((shard + 1) * size, self.manifest["num_images"])

    def is_done(self, shard: int) -> bool:
        return shard in self.finished

    def write(self, shard: int, rows: np.ndarray) -> None:
        """(n, N) of the type of the ids."""
        if self.manifest["num_tokens"] not in (None, rows.shape[1]):
            raise BenchError(f"{rows.shape[1]} tokens an image, {self.manifest['num_tokens']} in earlier shards")
        path = self.folder / f"tokens-{shard:05}.npy"
        with files.replacing(path) as stream:
            np.save(stream, rows)
        self.finished[shard] = {"file": path.name, "rows": len(rows), "sha256": sha256_of(path)}
        self.manifest["num_tokens"] = rows.shape[1]
        self.manifest["shards"] = [self.finished[i] for i in sorted(self.finished)]
        files.keep_json(self.folder / MANIFEST, self.manifest)

    def _sound_shards(self) -> dict[int, dict[str, Any]]:
        """What an earlier attempt left, by shard number; nothing if it was after something else."""
        earlier = files.read(self.folder / MANIFEST, lambda path: read_manifest(path.parent))
        if earlier is None:
            return {}
        if any(earlier[key] != self.manifest[key] for key in ("num_images", "codebook_size", "shard_size")):
            say(f"{self.folder} holds tokens of another size of data, codebook or shard; beginning again")
            return {}
        sound = {}
        for shard in earlier["shards"]:
            if _is_sound(self.folder, shard):
                sound[int(Path(shard["file"]).stem.removeprefix("tokens-"))] = shard
            else:
                say(f"{self.folder / shard['file']} is damaged: it will be encoded again")
        self.manifest["num_tokens"] = earlier["num_tokens"] if sound else None
        return sound


def _batches(data: ImageData, start: int, stop: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(indices, images) in order, the next batch being decoded while the last is encoded."""
    pieces = [np.arange(i, min(i + batch_size, stop)) for i in range(start, stop, batch_size)]
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(data.images, pieces[0])
        for piece, following in zip(pieces, [*pieces[1:], None], strict=True):
            images = coming.result()
            if following is not None:
                coming = reader.submit(data.images, following)
            yield piece, images


def _checked(tokens: np.ndarray, num_images: int, codebook_size: int) -> np.ndarray:
    if tokens.ndim != 2 or len(tokens) != num_images or tokens.dtype.kind not in "iu":
        raise BenchError(f"encoder returned {tokens.dtype} {tokens.shape} for {num_images} images, expected (n, N) "
                         "integers")
    if tokens.size == 0 or tokens.min() < 0 or tokens.max() >= codebook_size:
        raise BenchError(f"encoder returned tokens outside 0..{codebook_size - 1}")
    return tokens


def _is_sound(folder: Path, shard: dict[str, Any]) -> bool:
    path = folder / shard["file"]
    return path.is_file() and sha256_of(path) == shard["sha256"]


def _open_tokens(path: Path, key: str) -> np.ndarray:
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: expected a .npy or .npz of tokens") from None
    except BROKEN as error:
        raise InputError(f"{path} is not a .npy or .npz of numbers: {error}") from error
    if isinstance(loaded, np.ndarray):
        return loaded
    if key not in loaded.files:
        raise InputError(f"{path} has no array '{key}', but {', '.join(loaded.files) or 'none'}")
    try:
        return loaded[key]
    except BROKEN as error:
        raise InputError(f"{path}: array '{key}' is damaged: {error}") from error
