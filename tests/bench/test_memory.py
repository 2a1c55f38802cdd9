"""Memory that is freed goes back to the system, and peaks start anew."""

import os
import subprocess
import sys

import pytest

from priors.linear import HAS_ONEDNN

CHILD = """
import ctypes, sys
from bench.memory import forget_peak_memory, give_back, peak_memory_gb
assert "torch" not in sys.modules
malloc = ctypes.CDLL("libc.so.6").malloc
free = ctypes.CDLL("libc.so.6").free
malloc.restype, free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
pieces = [malloc(100_000) for _ in range(3_000)]   # below what malloc maps on its own
for piece in pieces:
    ctypes.memset(ctypes.c_void_p(piece), 1, 100_000)
last = malloc(100)   # the top of the heap stays in use
full = peak_memory_gb("cpu")
for piece in pieces:
    free(piece)
give_back()
forget_peak_memory("cpu")
print(full, peak_memory_gb("cpu"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc and /proc")
def test_freed_memory_is_given_back_and_a_new_peak_begins():
    ran = subprocess.run([sys.executable, "-c", CHILD],
                         capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    full, after = map(float, ran.stdout.split())
    assert full > 0.3 and after < full - 0.25


KEPT = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
WITHOUT = {name: value for name, value in os.environ.items() if name != KEPT}
SHAPES = """
from pathlib import Path
from bench.memory import give_back
import torch
torch.set_num_threads(1)
weight = torch.randn(512, 512)
for rows in range(100, 1_600, 2):
    torch.ops.mkldnn._linear_pointwise(torch.randn(rows, 512), weight, None, "none", [], "none")
give_back()
print(next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of /proc")
@pytest.mark.skipif(not HAS_ONEDNN, reason="this torch has no oneDNN")
def test_kernels_of_shapes_long_gone_are_not_kept():
    held = [int(subprocess.run([sys.executable, "-c", SHAPES], capture_output=True, text=True, check=True,
                               env=WITHOUT | more).stdout) for more in ({KEPT: "1024"}, {})]
    assert held[1] < held[0] - 20_000   # kB
