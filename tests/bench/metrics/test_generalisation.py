"""FLD, authenticity and C_T against straightforward assemblies, on a copier, a jittered copier and honest samples."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from bench.data.arrays import ArrayImages
from bench.errors import InputError
from bench.metrics import copying, generalisation
from bench.metrics.copying import authenticity, copying_score
from bench.metrics.feature_likelihood import Mixture, fld
from bench.metrics.generalisation import Copying, FeatureLikelihood

NUM, DIMENSIONS = 200, 80


def drawn(num, seed):
    """Points near a curved sheet of 12 dimensions, as features of images are."""
    rng = np.random.default_rng(seed)
    sheet = np.random.default_rng(99).standard_normal((12, DIMENSIONS)) * 0.6
    noise = 0.15 * rng.standard_normal((num, DIMENSIONS))
    return (np.tanh(rng.standard_normal((num, 12))) @ sheet + noise).astype("f4")


TRAIN, HELD_OUT, HONEST = drawn(2 * NUM, 0), drawn(NUM, 1), drawn(NUM, 2)
COPIES = TRAIN[:NUM].copy()
JITTERED = COPIES + 0.02 * np.random.default_rng(3).standard_normal(COPIES.shape).astype("f4")
HALF = np.concatenate([COPIES[::2], HONEST[::2]])
MODELS = {"honest": HONEST, "jittered": JITTERED, "half copied": HALF}


def fld_by_autograd(fake, train, held_out):
    """FLD and gap as the paper's algorithm reads, with torch's own derivatives, in float64."""
    mean, deviation = held_out.mean(axis=0, dtype="f8"), held_out.std(axis=0, ddof=1, dtype="f8")
    fake, train, held_out = (torch.from_numpy((x - mean) / deviation) for x in (fake, train, held_out))
    dimensions = fake.shape[1]

    def log_density(squares, log_width):
        return torch.distributions.Normal(0, (log_width / 2).exp()).log_prob(torch.zeros(())) * dimensions \
            - squares / (2 * log_width.exp())

    def squares(x, y):
        return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist") ** 2

    def nll(centres, widths, points):
        logs = log_density(squares(points, centres), widths)
        return -torch.logsumexp(logs - np.log(len(centres)), dim=1).mean() / dimensions

    def fitted(centres, points):
        across, to_mean = squares(points, centres), 0.81 * squares(points, points.mean(dim=0, keepdim=True))
        widths = ((across.min(dim=0).values + 1e-3) / dimensions).log().requires_grad_()
        spare = torch.zeros((), dtype=torch.float64, requires_grad=True)
        first, second = torch.zeros(2, len(widths) + 1, dtype=torch.float64)
        for step in range(1, 51):
            logs = torch.cat([log_density(across, widths) - np.log(len(centres)), log_density(to_mean, spare)], dim=1)
            loss = -torch.logsumexp(logs, dim=1).mean() / dimensions
            slope = torch.cat([part.reshape(-1) for part in torch.autograd.grad(loss, (widths, spare))])
            first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2   # Adam (Kingma & Ba 2015)
            move = 0.5 * first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
            widths.data, spare.data = (widths.data - move[:-1]).clamp(-40, 20), spare.data - move[-1]
        return widths.detach()

    widths = fitted(fake, train)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(train)))
    first, second = train[order][:len(fake)], train[order][len(fake):]
    value = nll(fake, widths, held_out)
    return float(100 * (value - nll(first, fitted(first, second), held_out))), \
        float(100 * (nll(fake, widths, train) - value))


@pytest.mark.parametrize(("name", "tolerance"), [("honest", 1e-3), ("half copied", 1e-3), ("jittered", 1e-2)])
def test_fld_follows_the_published_algorithm(name, tolerance):
    result = fld(MODELS[name], TRAIN, HELD_OUT)
    value, gap = fld_by_autograd(MODELS[name], TRAIN, HELD_OUT)
    assert result.value == pytest.approx(value, rel=tolerance, abs=0.02)
    if name != "half copied":   # there the training images' own likelihood is that of float64 zeros
        assert result.gap == pytest.approx(gap, rel=tolerance, abs=0.02)


def test_fld_rises_with_the_share_of_copies_and_its_gap_falls():
    found = [fld(model, TRAIN, HELD_OUT) for model in (HONEST, HALF, JITTERED, COPIES)]
    values, gaps = [r.value for r in found], [r.gap for r in found]
    assert values == sorted(values) and abs(values[0]) < 3 < values[1] and values[3] > 1000
    assert gaps[0] > -10 and all(gap < -100 for gap in gaps[1:])
    assert np.isfinite(values + gaps).all()


def test_a_mixture_s_likelihood_is_a_density():
    """One dimension: the density integrates to one."""
    mixture = Mixture(torch.tensor([[-1.0], [0.5]]), torch.tensor([-1.0, 0.3]))
    grid = torch.linspace(-12, 12, 4001)[:, None]
    assert float((-mixture.nll(grid)).exp().sum() * 24 / 4000) == pytest.approx(1, abs=1e-6)


def authentic_share(fake, train):
    near, index = NearestNeighbors(n_neighbors=1).fit(train).kneighbors(fake)
    others = NearestNeighbors(n_neighbors=1).fit(train).kneighbors()[0]
    return (others[index[:, 0], 0] < near[:, 0]).mean()


def test_authenticity_is_its_definition_in_any_block(monkeypatch):
    expected = [authentic_share(model, TRAIN) for model in MODELS.values()]
    assert [authenticity(model, TRAIN).share for model in MODELS.values()] == pytest.approx(expected)
    monkeypatch.setattr(copying, "BLOCK", 64)
    assert [authenticity(model, TRAIN).share for model in MODELS.values()] == pytest.approx(expected)


def test_copies_are_not_authentic():
    assert authenticity(COPIES, TRAIN).share == authenticity(JITTERED, TRAIN).share == 0
    honest = authenticity(HONEST, TRAIN)
    assert honest.interval[0] < honest.share < honest.interval[1] and honest.interval[0] > 0.3


def c_t(fake, train, held_out):
    components = PCA(n_components=64, random_state=0).fit(train)
    fake, train, held_out = (components.transform(x) for x in (fake, train, held_out))
    cells = KMeans(n_clusters=3, n_init=10, random_state=0).fit(train)
    scores, weights = [], []
    for cell in range(3):
        q, t, p = (x[cells.predict(x) == cell] for x in (fake, train, held_out))
        search = NearestNeighbors(n_neighbors=1).fit(t)
        u = mannwhitneyu(search.kneighbors(q)[0][:, 0], search.kneighbors(p)[0][:, 0], alternative="less").statistic
        scores.append((u - (len(p) * len(q) / 2 - 0.5)) / np.sqrt(len(p) * len(q) * (len(p) + len(q) + 1) / 12))
        weights.append(len(p) * (len(q) > 20))
    return np.average(scores, weights=weights)


@pytest.mark.parametrize("name", MODELS)
def test_c_t_follows_its_definition(name):
    assert copying_score(MODELS[name], TRAIN, HELD_OUT) == pytest.approx(c_t(MODELS[name], TRAIN, HELD_OUT), abs=1e-6)


def test_c_t_is_far_below_zero_for_copies_alone():
    assert abs(copying_score(HONEST, TRAIN, HELD_OUT)) < 3
    assert copying_score(HALF, TRAIN, HELD_OUT) < -4 and copying_score(JITTERED, TRAIN, HELD_OUT) < -8


def test_bad_input_is_an_error():
    with pytest.raises(InputError, match="at least 21"):
        copying_score(HONEST[:20], TRAIN, HELD_OUT)
    with pytest.raises(InputError, match="80 dimensions|79 dimensions"):
        fld(HONEST[:, :79].copy(), TRAIN, HELD_OUT)
    with pytest.raises(InputError, match="same features"):
        fld(HONEST, TRAIN, np.repeat(HELD_OUT[:1], 9, axis=0))


class Means:
    """Features of tiny images: their pixels."""

    name, weights, resize, num_features, device = "pixels", "none", "none", 12, torch.device("cpu")

    def __init__(self, device="cpu"):
        pass

    def __call__(self, images):
        return images.flatten(1).float()


@pytest.fixture
def evidence(tmp_path, monkeypatch):
    """Makes evidence of a model that drew so many images, with so many to validate."""
    monkeypatch.setattr(generalisation, "resolve_extractor", lambda name, device: Means())

    def make(role="prior", validation=120, num_fake=60):
        rng = np.random.default_rng(0)
        splits = {split: rng.integers(0, 256, (num, 3, 2, 2), dtype=np.uint8)
                  for split, num in (("train", 300), ("validation", validation), ("fake", num_fake))}
        pixels = {side: splits[split].reshape(-1, 12).astype(np.float32)
                  for side, split in (("fake", "fake"), ("real", "train"))}
        return SimpleNamespace(
            role=role, seen=None, protocol_id="demo-1", caches=tmp_path, device="cpu", progress=lambda text: None,
            images=lambda split: ArrayImages(splits[split]), features=lambda side: pixels[side],
            protocol=SimpleNamespace(extractor="pixels", num_fake=num_fake, real_split="train"),
            settings=SimpleNamespace(feature_batch_size=50),
            fingerprints={"train": "t", "validation": f"v{validation}"})

    return make


@pytest.mark.parametrize("metric", [FeatureLikelihood, Copying])
def test_a_metric_gives_its_columns_in_their_units(evidence, metric):
    found = metric()(evidence())
    assert [m.metric for m in found] == list(metric().columns)
    assert all(m.value is not None and m.note and m.unit == metric().columns[m.metric].unit for m in found)
    assert metric()(evidence())[0] == found[0]


def test_held_out_images_are_none_that_a_real_row_judges(evidence):
    given = evidence(role="real")
    held_out, _ = generalisation.held_out_features(given, least=4)
    judged = given.images("validation").images(np.linspace(0, 119, 60).round().astype(int)).reshape(-1, 12)
    assert len(held_out) == 60 and not {row.tobytes() for row in held_out} & {row.tobytes() for row in
                                                                            judged.astype(np.float32)}


def test_a_real_row_that_judges_all_held_out_images_is_a_hole_with_its_reason(evidence):
    found = FeatureLikelihood()(evidence(role="real", validation=60))
    assert all(m.value is None and "0 held-out images are left" in m.note for m in found)


def test_too_few_unjudged_images_are_made_up_by_judged_ones_for_a_prior_alone(evidence):
    given = evidence(validation=64)   # four are not judged
    assert len(generalisation.held_out_features(given)[0]) == 64
    given.role = "reconstruction"
    assert generalisation.held_out_features(given) == (
        None, "4 held-out images are left beside 60 that are judged: 50 are needed")


def test_a_verbatim_copier_is_named(evidence):
    given = evidence()
    features = given.features
    given.features = lambda side: features("real")[:60] if side == "fake" else features(side)
    assert "repeat training images" in FeatureLikelihood()(given)[0].note
    assert Copying()(given)[0].value == 0


def test_the_training_side_is_of_the_images_that_the_prior_saw(evidence):
    given = evidence()
    given.seen = np.arange(3, 300, 5)
    seen = given.images("train").images(given.seen).reshape(-1, 12).astype(np.float32)
    assert np.array_equal(generalisation.training_features(given), seen)
    for measurement in [*FeatureLikelihood()(given), *Copying()(given)]:
        assert (measurement.extra["num_train"], measurement.extra["searched_share"]) == (60, 1)


def test_a_copier_of_images_outside_the_reference_is_named(evidence):
    given = evidence()
    whole, given.seen = given.features("real"), np.arange(1, 120, 2)
    given.features = lambda side: whole[given.seen] if side == "fake" else whole[::2]
    assert "repeat training images" in FeatureLikelihood()(given)[0].note
    assert Copying()(given)[0].value == 0


def test_the_notes_tell_how_many_of_the_images_trained_on_are_searched(evidence):
    given = evidence()
    assert "all 300 training images searched" in Copying()(given)[0].note
    whole, given.seen = given.features("real"), np.arange(250)
    given.features = lambda side: whole[:100]
    assert "100 of the 250 training images searched" in FeatureLikelihood()(given)[0].note


def test_too_few_samples_in_every_cell_are_a_hole_beside_the_other_numbers(evidence):
    authentic, score = Copying()(evidence(num_fake=30))
    assert authentic.value is not None
    assert score.value is None and "no cell of C_T has more than 20 of 30 samples" in score.note


def test_held_out_images_that_miss_a_cell_are_a_hole(evidence):
    """All of them lie with two thirds of the training images; the last third is far away."""
    given = evidence(role="real", validation=120)
    shift = np.where(np.arange(300) < 200, 0, 1000).astype(np.float32)[:, None]
    features = given.features
    given.features = lambda side: features(side) + (shift if side == "real" else 0)
    score = Copying()(given)[1]
    assert score.value is None and "and 0 held-out images" in score.note


@pytest.mark.parametrize("metric", [FeatureLikelihood, Copying])
def test_a_prior_of_two_images_has_holes(evidence, metric):
    given = evidence()
    given.seen = np.array([4, 7])
    assert all(m.value is None and "2 training images" in m.note for m in metric()(given))
