"""The judge: builds what is missing, measures every prior alike, and writes records and reports.

    import bench

    frame = bench.run("prior=absorbing,autoregressive", preset="demo")     # trains, samples, measures: one row a number
    frame = bench.load("results/reference")                                # what was measured before
    bench.plan("prior=absorbing", preset="demo")                           # what would be built, and how long it takes
    bench.report("results/runs", out="report").page                        # tables, figures, verdicts, one page

Nothing is imported before it is asked for: neither torch nor pandas.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.face import load as load
    from bench.planning import plan as plan
    from bench.report import report as report
    from bench.run import run as run

# Libraries of torch read these when it is loaded; a choice of the user's stays.
# Threads that wait for one another sleep. Spinning, two threads beside two other processes took 1.5 s for a training
# step of width 128; sleeping, .85 s; alone .3 s either way.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# oneDNN compiles a kernel for every shape and keeps 1,024. A training on masks of random sizes fills that with kernels
# it never uses again: its peak at the demo's size is 1.16 GB with them, 1.03 with these. A network of fixed shapes,
# such as Inception, has fewer.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")

__all__ = ["load", "plan", "report", "run"]


def __getattr__(name: str) -> Any:
    if name in ("run", "report"):   # modules that can be called: see bench/callable_module.py
        return importlib.import_module(f"bench.{name}")
    homes = {"load": "bench.face", "plan": "bench.planning"}
    if name in homes:
        return getattr(importlib.import_module(homes[name]), name)
    raise AttributeError(f"module 'bench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
