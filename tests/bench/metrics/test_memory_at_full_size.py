"""What each metric of features needs beyond its input at 50,000 images a side, against metrics.memory_gb.

    python -m pytest -m slow -s tests/bench/metrics/test_memory_at_full_size.py     # a table of peaks and times
"""

import subprocess
import sys

import numpy as np
import pytest

NUM, WIDTH, HELD_OUT = 50_000, 2_048, 10_000
ON_FEATURES = ("fid", "kid", "prdc", "clipped", "mind")
AGAINST_TRAINING = ("fld", "authenticity", "copying_score")
CHILD = '''
import dataclasses, sys, threading, time
from pathlib import Path
import numpy as np
from bench import registry
from bench.config import MetricsConfig
from bench.metrics import copying, feature_likelihood
from bench.testing.checks import noise_evidence

def own_bytes():   # without pages of mapped files, which the system takes back when it likes
    return 1024 * next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))

def watch():
    while not over.wait(0.02):
        peaks.append(own_bytes())

name, folder = sys.argv[1], Path(sys.argv[2])
fake, real, held_out = (np.load(folder / f"{side}.npy", mmap_mode="r") for side in ("fake", "real", "held-out"))
if name in ("fid", "kid", "prdc", "clipped", "mind"):
    evidence = noise_evidence(folder)
    protocol = dataclasses.replace(evidence.protocol, num_fake=len(fake), num_real=len(real), prdc_num=len(fake))
    evidence = dataclasses.replace(evidence, protocol=protocol, settings=MetricsConfig(),
                                   features={"fake": fake, "real": real}.__getitem__)
    metric = registry.resolve("metrics", name)()
    work = lambda: metric(evidence)
elif name == "fld":
    most = feature_likelihood.MOST
    work = lambda: feature_likelihood.fld(np.array(fake[:most]), np.array(real[:most]), np.array(held_out))
else:
    work = lambda: getattr(copying, name)(*(np.array(part) for part in ([fake[:10_000], real] + (
        [held_out] if name == "copying_score" else []))))
peaks, over, before, began = [], threading.Event(), own_bytes(), time.monotonic()
watcher = threading.Thread(target=watch)
watcher.start()
found = work()
over.set(); watcher.join()
print((max(peaks) - before) / 1e9, time.monotonic() - began)
'''


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("features"), np.random.default_rng(0)
    for side, num, shift in (("fake", NUM, 0.1), ("real", NUM, 0.0), ("held-out", HELD_OUT, 0.0)):
        kept = np.lib.format.open_memmap(folder / f"{side}.npy", "w+", np.float32, (num, WIDTH))
        for start in range(0, num, 5_000):
            kept[start:start + 5_000] = np.maximum(random.normal(shift, 0.3, (min(5_000, num - start), WIDTH)), 0)
        kept.flush()
    return folder


def peak_and_seconds(name, folder):
    ran = subprocess.run([sys.executable, "-c", CHILD, name, str(folder)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return tuple(map(float, ran.stdout.split()))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ON_FEATURES, *AGAINST_TRAINING])
def test_a_metric_of_fifty_thousand_images_stays_within_its_memory(name, features):
    peak, seconds = peak_and_seconds(name, features)
    print(f"\n{name}: {peak:.2f} GB beyond its input, {seconds:.0f} s")
    copies = 0.0 if name in ON_FEATURES else (NUM + 2 * HELD_OUT) * WIDTH * 4 / 1e9   # taken into memory by the caller
    assert peak <= 2.0 + copies
