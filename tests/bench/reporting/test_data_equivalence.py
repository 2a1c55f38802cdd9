"""How many images the other prior needs, against trainings whose answer is known."""

import numpy as np
import pytest

from bench.reporting.data_equivalence import equivalence
from tests.bench.reporting.test_crossover import training


def reaching(bits, generator=None, base=None):
    """A training that falls to `bits` and stays."""
    return training(lambda passes: bits + 0.5 / passes**2, generator, base=base)


def others(bits, **more):
    return {number: [reaching(value, **more)] for number, value in bits.items()}


def test_between_two_numbers_of_images_it_is_interpolated_in_log_images():
    found = equivalence([reaching(6.0)], 500, others({500: 6.2, 2000: 5.8}), draws=20)
    assert found.ratio == pytest.approx(2.0, rel=0.01) and found.text == "2.00 [2.00, 2.00]"


@pytest.mark.parametrize(("bits", "text"), [
    ({500: 6.5, 1500: 6.1}, "> 3.00"), ({500: 5.9, 1500: 5.5}, "< 1.00"), ({250: 5.9, 500: 5.5}, "< 0.50"),
    ({500: 6.0, 1500: 5.5}, "1.00 [1.00, 1.00]")])
def test_beyond_what_was_trained_it_says_so(bits, text):
    assert equivalence([reaching(6.0)], 500, others(bits), draws=20).text == text


def test_more_images_that_did_not_help_count_as_none():
    found = equivalence([reaching(6.0)], 500, others({500: 6.2, 1000: 6.3, 2000: 5.8}), draws=20)
    assert 2.0 < found.ratio < 4.0


@pytest.mark.slow   # about a minute
def test_the_interval_covers_the_truth():
    generator, covered = np.random.default_rng(0), 0
    for case in range(200):
        base = {split: generator.normal(0, 0.8, 500) for split in ("train", "selection", "scoring")}
        more = {"generator": generator, "base": base}
        sides = [[reaching(bits, **more) for _ in range(3)] for bits in (6.0, 6.2, 5.8)]
        found = equivalence(sides[0], 500, {500: sides[1], 2000: sides[2]}, draws=200, seed=case)
        covered += found.low <= 2.0 <= found.high
    assert 0.90 * 200 <= covered <= 0.99 * 200, covered
