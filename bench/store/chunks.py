"""Arrays made piece by piece, each piece kept as soon as it is done.

    save_chunk(work / "chunk-000000.npz", {"images": images})
    concatenate(paths, total, out)          # out/images.npy
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.errors import BenchError
from bench.store import files


def chunk_path(work: Path, index: int) -> Path:
    return work / f"chunk-{index:06d}.npz"


def save_chunk(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with files.keeping(path) as stream:
        np.savez(stream, **arrays)   # type: ignore[arg-type]


def has_chunk(path: Path) -> bool:
    """Whether a finished chunk exists; a damaged one is removed with a message."""
    return files.read(path, lambda path: True) is not None


def missing_chunks(work: Path, indices: Sequence[int]) -> list[int]:
    """Those of these chunks that are not there."""
    return [index for index in indices if not has_chunk(chunk_path(work, index))]


def concatenate(paths: Sequence[Path], total: int, out: Path) -> None:
    """Chunks one after the other into `<name>.npy` files of `total` rows, without holding them all in memory."""
    start, whole = 0, {}
    for path in paths:
        with np.load(path, allow_pickle=False) as chunk:
            for name in chunk.files:
                part = chunk[name]
                if name not in whole:
                    whole[name] = np.lib.format.open_memmap(out / f"{name}.npy", "w+", part.dtype,
                                                            (total, *part.shape[1:]))
                whole[name][start:start + len(part)] = part
            start += len(part)
    if start != total:
        raise BenchError(f"{out.name}: the chunks hold {start} rows, expected {total}.")
    for array in whole.values():
        array.flush()
