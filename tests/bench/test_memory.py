"""Memory that is freed goes back to the system, and peaks start anew."""

import subprocess
import sys

import pytest

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
