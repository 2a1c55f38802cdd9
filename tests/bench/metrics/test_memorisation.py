"""The memorisation check: copies are flagged, fresh images pass, its error rates are what they claim."""

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from bench.assets.weights import lpips_model
from bench.config import DatasetConfig, MetricsConfig, ProtocolConfig, SpeedConfig
from bench.data.arrays import ArrayImages
from bench.errors import BenchError, InputError
from bench.metrics import copy_search, memorisation
from bench.metrics.base import Evidence
from bench.metrics.memorisation import (
    Memorisation,
    compare,
    detectable_share,
    held_out_images,
    newcombe,
    probability_closer,
)
from bench.registry import resolve
from tests.tiny_lpips import TinyLpips


class Darkener:
    """A tokenizer that loses half of the light."""

    def encode(self, images):
        return images // 2

    def decode(self, tokens):
        return tokens


@pytest.fixture(autouse=True)
def tiny_lpips(monkeypatch):
    monkeypatch.setattr(copy_search, "lpips_model", lambda net: TinyLpips())


def pictures(num, seed):
    """Images of one population, which lie close enough together for nearness to mean something."""
    return np.random.default_rng(seed).integers(0, 256, (num, 3, 4, 4), dtype=np.uint8)


def evidence_of(folder, fake, *, train=None, validation=None, tokenizer=None, num_fake=100):
    sides = {"fake": fake, "train": pictures(300, 1) if train is None else train,
             "validation": pictures(300, 2) if validation is None else validation}
    return Evidence(role="prior", protocol=ProtocolConfig(neighbours_resolution=4, num_fake=num_fake), protocol_id="p",
                    settings=MetricsConfig(), speed=SpeedConfig(), images=lambda side: ArrayImages(sides[side]),
                    features=lambda side: pytest.fail("needs no features"),
                    validation_tokens=lambda: pytest.fail("needs no tokens"), workspace=folder, caches=folder,
                    tokenizer=tokenizer, fingerprints={"train": "train", "validation": "validation"})


def test_a_copy_of_the_training_set_is_flagged(tmp_path):
    share, auc = Memorisation()(evidence_of(tmp_path, pictures(300, 1)[:100]))
    assert share.value == 1 and auc.value == 1 and share.extra["flagged"]
    assert "copies training images" in share.note


def test_a_tenth_of_copies_among_fresh_samples_is_flagged(tmp_path):
    samples = np.concatenate([pictures(300, 1)[:30], pictures(270, 3)])
    assert Memorisation()(evidence_of(tmp_path, samples))[0].extra["flagged"]


def test_real_held_out_images_pass(tmp_path):
    share, auc = Memorisation()(evidence_of(tmp_path, pictures(200, 4)))
    assert not share.extra["flagged"] and auc.ci_low < 0.5 < auc.ci_high


def test_near_duplicates_as_frequent_as_among_held_out_images_pass(tmp_path):
    train = pictures(300, 1)
    validation = np.concatenate([train[:9], pictures(291, 2)])
    samples = np.concatenate([train[100:106], pictures(194, 5)])
    share, _ = Memorisation()(evidence_of(tmp_path, samples, validation=validation))
    assert not share.extra["flagged"]


def test_the_images_searched_are_those_that_the_prior_saw(tmp_path):
    given = evidence_of(tmp_path, pictures(300, 1)[1:200:2])
    given.seen = np.arange(0, 300, 2)
    share, _ = Memorisation()(given)
    assert (share.extra["candidates"], share.extra["searched_share"], share.extra["flagged"]) == (150, 1, False)
    given.seen = np.arange(1, 300, 2)
    assert Memorisation()(given)[0].extra["flagged"]


def test_copies_are_found_through_a_tokenizer_that_changes_every_image(tmp_path):
    samples = pictures(300, 1)[:100] // 2
    through, _ = Memorisation()(evidence_of(tmp_path, samples, tokenizer=Darkener()))
    assert through.extra["flagged"] and through.extra["held_out_images"] == "reconstructed"


def test_fresh_images_through_the_same_tokenizer_pass(tmp_path):
    share, auc = Memorisation()(evidence_of(tmp_path, pictures(200, 6) // 2, tokenizer=Darkener()))
    assert not share.extra["flagged"] and auc.ci_low < 0.5 < auc.ci_high


def test_the_held_out_images_are_not_those_the_real_row_judges(tmp_path):
    validation = np.arange(60, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 4, 4), dtype=np.uint8)
    held_out = held_out_images(evidence_of(tmp_path, pictures(1, 1), validation=validation, num_fake=20))
    chosen = held_out.images(range(len(held_out)))
    judged = np.linspace(0, 59, 20).round()
    assert len(chosen) == 40 and not np.isin(chosen[:, 0, 0, 0], judged).any()


def test_held_out_distances_are_computed_once_for_all_rows(tmp_path, monkeypatch):
    first = Memorisation()(evidence_of(tmp_path, pictures(20, 4)))
    searched = []
    monkeypatch.setattr(memorisation, "nearness", lambda images, *args: (
        searched.append(len(images)), copy_search.nearness(images, *args))[1])
    again = Memorisation()(evidence_of(tmp_path, pictures(20, 4)))
    assert searched == [20] and again == first


def test_damaged_held_out_distances_are_computed_again(tmp_path, damage):
    first = Memorisation()(evidence_of(tmp_path, pictures(20, 4)))
    path, = tmp_path.rglob("held-out-*.npy")
    damage(path)
    assert Memorisation()(evidence_of(tmp_path, pictures(20, 4))) == first


def test_no_validation_images_is_a_hole_with_its_reason(tmp_path):
    measurements = Memorisation()(evidence_of(tmp_path, pictures(5, 3), validation=pictures(0, 2)))
    assert [m.value for m in measurements] == [None, None] and "0 held-out images" in measurements[0].note


def test_the_probability_of_being_closer_is_mann_whitney_s():
    generator = np.random.default_rng(0)
    samples, held_out = generator.integers(0, 9, 40).astype(float), generator.integers(0, 9, 30).astype(float)
    expected = mannwhitneyu(held_out, samples).statistic / (40 * 30)
    assert probability_closer(samples, held_out) == pytest.approx(expected)


def test_identical_distances_are_as_close_as_each_other():
    result = compare(np.full(50, 0.2), np.full(60, 0.2))
    assert (result.closer, result.share, result.flagged) == (0.5, 0.0, False)


@pytest.mark.parametrize("samples, held_out", [([], [1.0]), ([1.0], []), ([np.nan], [1.0]), ([1.0], [np.inf])])
def test_distances_that_are_missing_or_not_finite_are_errors(samples, held_out):
    with pytest.raises(InputError, match="distances"):
        compare(np.array(samples), np.array(held_out))


def test_one_sample_is_compared_with_wide_intervals():
    result = compare(np.array([0.5]), np.linspace(0, 1, 101))
    assert result.closer == pytest.approx(0.5) and not result.flagged
    assert result.closer_interval[0] < 0.2 and result.closer_interval[1] > 0.8


def test_without_copying_few_runs_are_flagged():
    generator = np.random.default_rng(0)
    flags = [compare(generator.normal(size=200), generator.normal(size=150)).flagged for _ in range(500)]
    assert sum(flags) <= 3


def test_samples_that_lie_closer_as_a_whole_without_a_tail_are_not_flagged():
    generator = np.random.default_rng(0)   # featureless samples: near to everything, never as near as a copy
    result = compare(generator.normal(-0.6, 0.4, size=500), generator.normal(size=500))
    assert result.closer > 0.6 and result.p_closer < 1e-6 and not result.flagged


def test_the_detectable_share_of_copies_is_flagged_as_often_as_it_says():
    generator = np.random.default_rng(0)
    share, flags = detectable_share(500, 400), []
    for _ in range(300):
        copied = generator.random(500) < share
        flags.append(compare(np.where(copied, -9.0, 9.0), generator.normal(size=400)).flagged)
    assert 0.85 < np.mean(flags) < 0.95


def test_too_few_samples_could_show_no_copying():
    assert detectable_share(1, 100) > 1


def test_what_could_have_been_seen_counts_the_training_images_that_were_not_searched(tmp_path, monkeypatch):
    whole = evidence_of(tmp_path, pictures(200, 4))
    rates = []
    for searched in (300, 100):
        monkeypatch.setattr(memorisation, "SEARCHED", searched)
        rates.append(Memorisation()(whole)[0].extra["detectable_copy_rate"])
    assert rates[1] == pytest.approx(3 * rates[0])


def test_the_tail_p_value_is_uniform_or_larger_without_copying():
    generator = np.random.default_rng(0)
    p = np.array([compare(generator.normal(size=100), generator.normal(size=100)).p_share for _ in range(500)])
    assert all((p <= level).mean() < level + 0.03 for level in (0.01, 0.05, 0.2))


@pytest.mark.parametrize("shift, auc", [(0.0, 0.5), (1.0, 0.7602499)])
def test_intervals_of_the_probability_cover_the_truth(shift, auc):
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        result = compare(generator.normal(size=60) - shift, generator.normal(size=80))
        covered += result.closer_interval[0] <= auc <= result.closer_interval[1]
    assert 0.90 <= covered / 300 <= 0.99


def test_the_interval_of_a_perfect_separation_ends_at_one_and_has_width():
    low, high = newcombe(1.0, 20, 20)
    assert 0.8 < low < 0.95 and high == 1
    mirrored = newcombe(0.0, 20, 20)
    assert mirrored == pytest.approx((1 - high, 1 - low))


def rates(sample_nearness, runs=40):
    """How many of `runs` demos (500 samples, 2,000 held-out images) are flagged; fresh nearness as CIFAR-10 has it."""
    generator = np.random.default_rng(0)

    def fresh(num):
        near_duplicate = generator.random(num) < 0.03
        return np.where(near_duplicate, generator.uniform(0.05, 0.6, num), generator.beta(20, 9, num))

    return sum(compare(sample_nearness(generator, fresh), fresh(2000)).flagged for _ in range(runs)), runs


def copier(share):
    return lambda generator, fresh: np.where(np.arange(500) < 500 * share, 0.0, fresh(500))


def test_a_copier_of_5_percent_is_seen_at_the_size_of_the_demo():
    flagged, runs = rates(copier(0.05))
    assert flagged >= 0.9 * runs


def test_samples_that_copy_nothing_are_seldom_flagged_at_the_size_of_the_demo():
    for nothing in (copier(0), lambda generator, fresh: generator.beta(40, 9, 500)):   # the second: featureless
        flagged, runs = rates(nothing)
        assert flagged <= 0.05 * runs


def test_a_copy_of_an_image_that_the_training_set_repeats_is_as_near_as_any(tmp_path):
    train = np.concatenate([np.repeat(pictures(1, 9), 7, 0), pictures(293, 1)])
    samples = np.concatenate([np.repeat(train[:1], 20, 0), pictures(80, 3)])
    assert Memorisation()(evidence_of(tmp_path, samples, train=train))[0].extra["flagged"]


def test_where_nothing_can_be_nearer_than_the_held_out_images_no_copy_could_be_seen():
    assert compare(np.zeros(500), np.zeros(400)).detectable == np.inf


@pytest.mark.slow
def test_copies_among_real_images_are_flagged_and_blurred_ones_are_not(tmp_path, monkeypatch):
    try:
        splits = resolve("datasets", "cifar10")().open(DatasetConfig(name="cifar10", resolution=32))
        model = lpips_model("alex")
    except BenchError as absent:   # no network and nothing kept
        pytest.skip(f"needs CIFAR-10 and the weights of LPIPS: {absent}")
    monkeypatch.setattr(copy_search, "lpips_model", lambda net: model)
    train, held_out = splits.train.images(range(10_000)), splits.validation.images(range(4000))
    blurred = torch.nn.functional.avg_pool2d(torch.from_numpy(held_out[:500]).float(), 3, 1, 1).byte().numpy()
    samples = {0.0: held_out[:500], "blurred": blurred, 0.05: np.concatenate([train[:25], held_out[:475]])}
    flagged = {}
    for name, fake in samples.items():
        evidence = evidence_of(tmp_path, fake, train=train, validation=held_out[500:])
        evidence.protocol = ProtocolConfig(num_fake=500)
        flagged[name] = Memorisation()(evidence)[0].extra["flagged"]
    assert flagged == {0.0: False, "blurred": False, 0.05: True}
