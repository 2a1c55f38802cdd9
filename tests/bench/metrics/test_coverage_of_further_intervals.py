"""95% intervals of clipped density and coverage and of MIND contain the truth in 90% of 200 draws or more.

D = 16, n = 400, k = 5. The truth is the mean of 400 independent draws at the same n and k. There is no upper limit:
where samples are as good as real images both scores are capped at 1, and the error of MIND counts its second-order part
twice.
"""

from functools import lru_cache

import numpy as np
import pytest

from bench.metrics.clipped import COLUMNS, clipped
from bench.metrics.intervals import normal_interval
from bench.metrics.mind import mind

pytestmark = pytest.mark.slow
D, N, K = 16, 400, 5
NUM_TRUTH, NUM_INTERVALS = 400, 200


def far(share):
    def move(fake, rng):
        return fake + 20 * (rng.random((N, 1)) < share)
    return move


CASES = {"alike": far(0.0), "shifted": lambda fake, rng: fake + 0.3, "wider": lambda fake, rng: fake * 1.2,
         "30% bad": far(0.3), "70% bad": far(0.7), "narrower": lambda fake, rng: fake * 0.8}


def draw(case, seed):
    rng = np.random.default_rng(seed)
    fake, real = rng.standard_normal((N, D)), rng.standard_normal((N, D))
    return tuple(side.astype(np.float32) for side in (CASES[case](fake, rng), real))


@lru_cache
def truth_and_intervals(case):
    truths = [clipped(*draw(case, seed), k=K, uncertainty=False).values() for seed in range(NUM_TRUTH)]
    return ({column: np.mean([t[column] for t in truths]) for column in COLUMNS},
            [clipped(*draw(case, 10_000 + seed), k=K) for seed in range(NUM_INTERVALS)])


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("case", CASES)
def test_clipped_intervals_contain_the_truth(case, column):
    truth, found = truth_and_intervals(case)
    share = np.mean([low <= truth[column] <= high for low, high in (result.interval(column) for result in found)])
    print(f"coverage {case}: {column} truth {truth[column]:.4f} inside {share:.3f} of {NUM_INTERVALS} intervals")
    assert share >= 0.90


@pytest.mark.parametrize("num_real", [N, 700])
@pytest.mark.parametrize("case", CASES)
def test_mind_intervals_contain_the_truth(case, num_real):
    def judged(seed):
        more = np.random.default_rng(50_000 + seed).standard_normal((num_real, D)).astype(np.float32)
        return mind(draw(case, seed)[0], more, num_projections=100)

    truth = np.mean([judged(seed).value for seed in range(NUM_TRUTH)])
    found = [normal_interval(r.value, r.standard_error) for r in map(judged, range(10_000, 10_000 + NUM_INTERVALS))]
    share = np.mean([low <= truth <= high for low, high in found])
    print(f"coverage {case}, {num_real} real: MIND truth {truth:.4f} inside {share:.3f} of {NUM_INTERVALS} intervals")
    assert share >= 0.90
