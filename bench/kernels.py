"""Whose kernels multiply the matrices of linear layers on this machine: oneDNN's or torch's own, whichever is faster.

    settle(width=128)          # times both once a machine; "onednn" or "torch", from now on in use in this process

What is chosen is kept in the cache for this processor, version of torch, number of threads and width, and told by
records and artefacts. Both compute the same to rounding; a training that goes on takes the kernels it began with, so it
ends in the same bits. VQ_PRIOR_BENCH_LINEAR=onednn|torch chooses by hand.
"""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path

from bench import provenance
from bench.errors import InputError
from bench.store import files
from bench.store.cache import cache_root

VARIABLE = "VQ_PRIOR_BENCH_LINEAR"
ROUNDS = 5
FLOPS = 2e8   # of one product timed: milliseconds
CLEARLY = 0.95   # of oneDNN's time: what is not clearly faster is not worth other bits than elsewhere


def settle(width: int) -> str:
    """Choose for a transformer of this width, on a CPU. Raises InputError for an environment that names no kernel."""
    from priors.linear import KERNELS

    name = os.environ.get(VARIABLE) or _fastest(width, cache_root())
    if name not in KERNELS:
        raise InputError(f"{VARIABLE}={name}: expected {' or '.join(KERNELS)}. Leave it out to have both timed.")
    return take(name)


def take(name: str) -> str:
    """These from now on, as records will tell; returns those in use, torch's where there is no oneDNN."""
    from priors.linear import kernel_in_use, use_kernel

    use_kernel(name)
    provenance.tell_kernels(linear=kernel_in_use())
    return kernel_in_use()


@cache
def _fastest(width: int, root: Path) -> str:
    path = _place(width, root)
    if (found := files.read_json(path)) is not None:   # as we wrote it
        return str(found["kernel"])
    seconds = timed(width)
    name = "torch" if seconds["torch"] < CLEARLY * seconds["onednn"] else "onednn"
    try:
        files.keep_json(path, {"kernel": name, "seconds": seconds})
    except OSError:   # a cache that cannot be written to
        pass
    return name


def _place(width: int, root: Path) -> Path:
    import torch
    known = [provenance.provenance()["hardware"], torch.__version__, torch.get_num_threads(), width]
    return root / "kernels" / f"{provenance.content_id(known)}.json"


def timed(width: int) -> dict[str, float]:
    """Kernel -> the least seconds of a pass and its derivatives through a transformer's widest layer, taken in turn."""
    import torch

    from priors.linear import KERNELS, kernel_in_use, linear, use_kernel

    rows = max(16, round(FLOPS / (8 * width * width)))
    generator = torch.Generator().manual_seed(0)   # of its own: whatever is drawn next is the same, timed or not
    x, weight = (torch.randn(num, width, generator=generator) for num in (rows, 4 * width))
    before, seconds = kernel_in_use(), dict.fromkeys(KERNELS, float("inf"))
    for turn in range(ROUNDS + 1):
        for name in KERNELS:
            use_kernel(name)
            inputs = x.clone().requires_grad_(), weight.clone().requires_grad_()
            began = time.perf_counter()
            linear(*inputs).sum().backward()
            if turn:   # the first compiles
                seconds[name] = min(seconds[name], time.perf_counter() - began)
    use_kernel(before)
    return seconds
