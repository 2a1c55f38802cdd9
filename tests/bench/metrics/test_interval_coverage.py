"""95% intervals contain the truth in 90-99% of 200 draws (Gaussians, D = 64, n = 1,000, k = 5).

The truth is the mean of 2,000 independent draws at the same n and k: an interval speaks of FID@N, not of FID-infinity.
"""

from functools import lru_cache

import numpy as np
import pytest

from bench.metrics.frechet import fid
from bench.metrics.intervals import normal_interval
from bench.metrics.kernel import kid
from bench.metrics.prdc import COLUMNS, prdc

pytestmark = pytest.mark.slow
D, N, K = 64, 1000, 5
NUM_TRUTH, NUM_INTERVALS = 2000, 200
SPECTRUM = np.arange(1, D + 1) ** -0.7   # of standard deviations, decaying as features' do

CASES = {
    "alike": lambda fake, real: (fake, real),
    "shifted": lambda fake, real: (fake + 0.15, real),
    "narrower": lambda fake, real: (fake * 0.85, real),
    "decaying spectrum, shifted": lambda fake, real: (fake * SPECTRUM + 0.05, real * SPECTRUM),
}


def draw(case, seed):
    rng = np.random.default_rng(seed)
    sides = CASES[case](rng.standard_normal((N, D)), rng.standard_normal((N, D)))
    return tuple(side.astype(np.float32) for side in sides)


def values(case, seed):
    fake, real = draw(case, seed)
    return {"fid": fid(fake, real, uncertainty=False).value, "kid": kid(fake, real).value,
            **prdc(fake, real, k=K, uncertainty=False).values()}


def intervals(case, seed):
    fake, real = draw(case, seed)
    distances = {"fid": fid(fake, real), "kid": kid(fake, real)}
    quality = prdc(fake, real, k=K)
    return {**{name: normal_interval(r.value, r.standard_error) for name, r in distances.items()},
            **{column: quality.interval(column) for column in COLUMNS}}


@lru_cache
def truth_and_intervals(case):
    truths = [values(case, seed) for seed in range(NUM_TRUTH)]
    truth = {name: np.mean([t[name] for t in truths]) for name in truths[0]}
    return truth, [intervals(case, 10_000 + seed) for seed in range(NUM_INTERVALS)]


@pytest.mark.parametrize("metric", ["fid", "kid", *COLUMNS])
@pytest.mark.parametrize("case", CASES)
def test_intervals_contain_the_truth(case, metric):
    truth, found = truth_and_intervals(case)
    share = np.mean([low <= truth[metric] <= high for low, high in (f[metric] for f in found)])
    print(f"coverage {case}: {metric} truth {truth[metric]:.5f} inside {share:.3f} of {NUM_INTERVALS} intervals")
    assert 0.90 <= share <= 0.99


@pytest.mark.parametrize("case", ["alike", "decaying spectrum, shifted"])
def test_fid_intervals_contain_the_truth_with_fewer_images_than_dimensions(case):
    few = 32
    truth = np.mean([fid(*(side[:few] for side in draw(case, seed)), uncertainty=False).value
                     for seed in range(NUM_TRUTH)])
    found = [fid(*(side[:few] for side in draw(case, 10_000 + seed))) for seed in range(NUM_INTERVALS)]
    share = np.mean([abs(r.value - truth) <= 1.96 * r.standard_error for r in found])
    print(f"coverage {case}, {few} images: FID {truth:.3f} inside {share:.3f} of {NUM_INTERVALS} intervals")
    assert 0.90 <= share <= 0.99
