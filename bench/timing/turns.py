"""Two methods timed in turn, in one process, and the machine's peak beside them.

    laps = in_turn({"naive": naive, "ours": ours}, Settings(rounds=3))
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from threadpoolctl import threadpool_info
from torch.nn import functional as F

from bench.memory import forget_peak_memory, peak_memory_gb
from bench.metrics.speed import Laps, take_turns
from priors.base import Draws
from priors.linear import linear

Unit = Literal["s", "GB", "variance"]


@dataclass(frozen=True)
class Settings:
    """quick: toy sizes, to see that every row runs.  rounds: turns each method takes after one warm-up.

    device: CPU rows are timed in CPU-seconds, which a busy machine hardly changes; CUDA rows by the wall clock.
    """

    quick: bool = False
    rounds: int = 1
    device: str = "cpu"


@dataclass(frozen=True)
class Timing:
    """One line of the table.

    naive, ours: in `unit`, lower is better, medians of `rounds`.  target, stretch: the ratio naive / ours to reach.
    gflop: of ours, for its share of the measured GEMM peak.  note: what a reader must know.
    memory_gb: the most this process held while ours ran (on CUDA: the most allocated).
    """

    row: str
    what: str
    naive: float | None
    ours: float | None
    target: float | None = None
    stretch: float | None = None
    unit: Unit = "s"
    gflop: float | None = None
    gflop_naive: float | None = None
    note: str = ""
    rounds: dict[str, list[float]] = field(default_factory=dict)
    memory_gb: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.naive / self.ours if self.naive is not None and self.ours else None


def gemm_peak(device: str, *, sizes: tuple[int, ...] = (512, 1024, 2048), tries: int = 5) -> float:
    """The best of some float32 matrix products, in GFLOP/s: CPU time on a CPU, wall clock on CUDA.

    Of torch's and of the kernels that ours uses, which may be twice as fast: a share is of what the core can do.
    """
    best = 0.0
    for size in sizes:
        left, right = torch.randn(2, size, size, device=device).unbind()
        methods: dict[str, Callable[[], Any]] = {"product": partial(torch.matmul, left, right),
                                                 "linear": partial(F.linear, left, right),
                                                 "ours": partial(linear, left, right)}
        for laps in take_turns(methods, rounds=tries, warmup=2, device=device).values():
            best = max(best, 2e-9 * size**3 / min(seconds_of(laps, Settings(device=device))))
    return best


def blas_kernels() -> str:
    """Which kernels numpy's BLAS chose here: float64 times of both sides depend on them."""
    kinds = {f"{info['internal_api']} {info.get('architecture', '')}".strip() for info in threadpool_info()
             if info["user_api"] == "blas"}
    return ", ".join(sorted(kinds)) or "unknown BLAS"


@dataclass
class TimedLaps(Laps):
    """Laps, and the peak memory of each."""

    peaks_gb: list[float] = field(default_factory=list)


def in_turn(methods: dict[str, Callable[[], Any]], settings: Settings, *, warmup: int = 1) -> dict[str, TimedLaps]:
    """Each method `rounds` times after `warmup` rounds, taking turns, its peak memory watched."""
    found = {name: TimedLaps() for name in methods}

    def watched(name: str) -> Any:
        forget_peak_memory(settings.device)
        result = methods[name]()
        found[name].peaks_gb.append(peak_memory_gb(settings.device))
        return result

    laps = take_turns({name: partial(watched, name) for name in methods}, rounds=settings.rounds, warmup=warmup,
                      device=settings.device)
    for name, lap in laps.items():
        found[name].wall, found[name].cpu, found[name].results = lap.wall, lap.cpu, lap.results
    return found


def seconds_of(laps: Laps, settings: Settings) -> list[float]:
    """By the clock of these settings: the wall's on CUDA, else that of the CPU."""
    return laps.wall if settings.device.startswith("cuda") else laps.cpu


def timed(row: str, what: str, laps: dict[str, TimedLaps], settings: Settings, target: float | None,
          stretch: float | None, *, ours: str = "ours", naive_scale: float = 1.0, gflop: float | None = None,
          gflop_naive: float | None = None, note: str = "") -> Timing:
    """A line of the table from the laps of "naive" and `ours`; naive_scale: how many times it would have run."""
    rounds = {"naive": [naive_scale * s for s in seconds_of(laps["naive"], settings)],
              "ours": seconds_of(laps[ours], settings)}
    return Timing(row, what, statistics.median(rounds["naive"]), statistics.median(rounds["ours"]), target, stretch,
                gflop=gflop, gflop_naive=gflop_naive, note=note, rounds=rounds, memory_gb=max(laps[ours].peaks_gb))


def draws_of(settings: Settings) -> Draws:
    """The same for every method and row."""
    return Draws.seeded("bench.speed", device=settings.device)
