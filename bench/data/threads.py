"""A few threads for reading and decoding: PIL, zlib and hashlib work outside the GIL."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from bench.assets.fetch import say

Item = TypeVar("Item")
Result = TypeVar("Result")
PIECE = 10_000   # items queued at once


def num_threads() -> int:
    """Decoding threads: the cores this process may use, at most 16."""
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


_pools: dict[int, ThreadPoolExecutor] = {}   # by process id: threads do not survive a fork


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], *, label: str = "") -> list[Result]:
    """[work(item) for item in items], in order.

    label: with it, progress is printed.
    """
    if len(items) < 2 or num_threads() == 1:
        return [work(item) for item in items]
    pool = _pools.get(os.getpid()) or _pools.setdefault(os.getpid(), ThreadPoolExecutor(num_threads()))
    results: list[Result] = []
    for start in range(0, len(items), PIECE):
        results += pool.map(work, (items[i] for i in range(start, min(start + PIECE, len(items)))))
        if label and len(items) > PIECE:
            say(f"{label}: {len(results):,} of {len(items):,}")
    return results
