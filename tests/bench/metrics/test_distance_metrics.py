"""FID, KID, MIND, PRDC and clipped scores as metrics of a run: columns, protocol, intervals and their absence."""

from types import SimpleNamespace

import numpy as np
import pytest

from bench.data.arrays import spread
from bench.errors import InputError
from bench.metrics.distances import (
    ClippedQuality,
    FrechetDistance,
    KernelDistance,
    MongeDistance,
    PrecisionRecall,
)
from bench.metrics.exchange import write_statistics

METRICS = (FrechetDistance, KernelDistance, PrecisionRecall, ClippedQuality, MongeDistance)


def features(n, d, *, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


@pytest.fixture
def evidence(tmp_path):
    """Makes evidence of given features."""
    def make(fake, real, *, k=3, num=1000, backend="blocked", reference=None):
        return SimpleNamespace(
            features=lambda side: {"fake": fake, "real": real}[side], protocol_id="demo-1", caches=tmp_path,
            protocol=SimpleNamespace(prdc_num=num, prdc_k=k, reference=reference, extractor="means"),
            settings=SimpleNamespace(memory_gb=1.0, prdc=SimpleNamespace(backend=backend)))

    return make


@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_gives_its_columns_under_its_protocol(evidence, metric):
    measurements = metric()(evidence(features(200, 8), features(220, 8, seed=1)))
    assert {m.metric for m in measurements} == set(metric().columns)
    assert all(m.protocol == "demo-1" and m.n == 200 for m in measurements)
    assert all(m.better == metric().columns[m.metric].better for m in measurements)


@pytest.mark.parametrize("metric", METRICS)
def test_every_value_has_an_interval_or_says_why_not(evidence, metric):
    for real in (features(220, 8, seed=1), features(60, 8, seed=1)):
        for m in metric()(evidence(features(200, 8), real)):
            assert m.note or (m.ci_low is not None and m.ci_low <= m.value <= m.ci_high)


def test_fid_is_labelled_with_its_number_of_images(evidence):
    assert FrechetDistance()(evidence(features(200, 8), features(220, 8, seed=1)))[0].extra["label"] == "FID@200"


def test_fid_infinity_is_a_hole_with_a_reason_where_images_are_fewer_than_dimensions(evidence):
    infinity = FrechetDistance()(evidence(features(30, 64), features(40, 64, seed=1)))[1]
    assert infinity.value is None and "fewer images" in infinity.note


@pytest.mark.parametrize("metric", METRICS)
def test_identical_samples_have_values_without_intervals(evidence, metric):
    same = np.repeat(features(1, 8), 200, axis=0)
    for m in metric()(evidence(same, features(220, 8, seed=1))):
        assert m.ci_low is None and m.note
        assert m.value is None or np.isfinite(m.value)


@pytest.mark.parametrize("metric", METRICS)
def test_very_few_images_have_values_without_intervals(evidence, metric):
    for m in metric()(evidence(features(20, 8), features(220, 8, seed=1))):
        assert m.ci_low is None and m.note


def test_the_reference_backend_gives_the_same_values_without_intervals(evidence):
    fake, real = features(200, 8), features(220, 8, seed=1)
    ours = PrecisionRecall()(evidence(fake, real))
    theirs = PrecisionRecall()(evidence(fake, real, backend="reference"))
    assert [m.value for m in ours] == pytest.approx([m.value for m in theirs])
    assert all(m.ci_low is None and "package" in m.note for m in theirs)


def test_an_unknown_backend_is_an_error(evidence):
    with pytest.raises(InputError, match="backend=blocked_. Did you mean 'blocked'"):
        PrecisionRecall()(evidence(features(20, 8), features(20, 8, seed=1), backend="blocked_"))


def test_prdc_takes_its_number_of_images_evenly_from_all():
    rows = spread(np.arange(100, dtype=np.float32)[:, None], 5)
    assert rows[:, 0].tolist() == [0, 25, 50, 74, 99]


def test_prdc_of_too_few_images_is_an_error(evidence):
    with pytest.raises(InputError, match="needs at least 4"):
        PrecisionRecall()(evidence(features(3, 8), features(20, 8, seed=1)))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", [1e18, 1e-20])
def test_features_whose_squares_float32_cannot_hold_are_an_error(evidence, metric, scale):
    with pytest.raises(InputError, match="expected 1e-12 to 1e[+]15"):
        metric()(evidence(features(50, 8) * np.float32(scale), features(50, 8, seed=1)))


class Means:
    name, weights, resize, num_features = "means", "none", "none", 8

    def __init__(self, device="cpu"):
        pass


@pytest.fixture(autouse=True)
def means(monkeypatch):
    """The extractor of that name."""
    known = {"means": Means}
    monkeypatch.setattr("bench.metrics.exchange.resolve_extractor", lambda name: known[name]())


def test_fid_against_statistics_of_a_file_is_that_against_its_images_without_interval(evidence, tmp_path):
    fake, real = features(200, 8), features(220, 8, seed=1)
    write_statistics(tmp_path / "real.npz", real, Means())
    value, infinity = FrechetDistance()(evidence(fake, None, reference=str(tmp_path / "real.npz")))
    assert value.value == pytest.approx(FrechetDistance()(evidence(fake, real))[0].value, rel=1e-9)
    assert value.ci_low is None and "no interval" in value.note and value.extra["num_real"] == 220
    assert infinity.value is None and infinity.note


@pytest.mark.parametrize(("arrays", "message"), [
    ({"extractor": "others"}, "extractor others and not means"), ({"weights": "beef"}, "weights beef and not none"),
    ({"extractor": "means", "resize": "bicubic"}, "resize bicubic and not none"),
    ({"mu": np.zeros(9), "sigma": np.eye(9)}, "num_features 9 and not 8")])
def test_statistics_of_another_extractor_are_refused(evidence, tmp_path, arrays, message):
    np.savez(tmp_path / "real.npz", **{"mu": np.zeros(8), "sigma": np.eye(8)} | arrays)
    with pytest.raises(InputError, match=message):
        FrechetDistance()(evidence(features(200, 8), None, reference=str(tmp_path / "real.npz")))
