"""Each of the choices that people vary, planted in a claim, is found; and where none is, that is said."""

import numpy as np
import pytest
import torch
from PIL import Image

from bench import doctor, fid_doctor
from bench.data.arrays import ArrayImages
from bench.fid_doctor import Case, examine, explanations, verdict
from bench.metrics.frechet import frechet_distance, moments

SIDE = 16


def pictures(num, seed, *, warmth=0.0):
    """Smooth coloured pictures with some noise, (n, 3, 16, 16) uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(120, 45, (num, 3, 4, 4)) + np.array([25 + warmth, 0, -25])[:, None, None]
    smooth = torch.nn.functional.interpolate(torch.from_numpy(coarse), SIDE, mode="bilinear").numpy()
    return np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


SAMPLES, TRAIN, TEST = pictures(240, 0, warmth=6), pictures(180, 1), pictures(200, 2, warmth=-4)


class Small:
    """Colours and steps between neighbours of an 8x8 thumbnail of the network's own resize to 299 pixels, or so."""

    weights, resize, num_features, device = "none", "bilinear", 24, torch.device("cpu")

    def __init__(self, name="small", power=1.0):
        self.name, self.power = name, power

    def __call__(self, images):
        x = torch.nn.functional.interpolate(images.float() / 255, 40, mode="bilinear") ** self.power
        step = x[..., 1:] - x[..., :-1]
        parts = [torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1), step.abs().mean((2, 3)),
                 step.square().mean((2, 3)), x.std((2, 3)), x.amax((2, 3))]
        return torch.cat(parts, 1) * 10


@pytest.fixture(scope="module", autouse=True)
def small_sizes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fid_doctor, "NET_SIDE", 48)
        patch.setattr(fid_doctor, "SMALLER", (100, 150))
        yield


@pytest.fixture(scope="module")
def case(small_sizes):
    return Case(ArrayImages(SAMPLES), ArrayImages(TRAIN), ArrayImages(TEST),
                {"small": Small(), "other": Small("other", 2.0)})


@pytest.fixture(scope="module")
def outcomes(case):
    return list(examine(case))


def claim(samples, reference, extractor=None):
    """The FID that someone printed, straight from moments."""
    sides = [(extractor or Small())(torch.from_numpy(np.ascontiguousarray(x))).numpy() for x in (samples, reference)]
    return f"{frechet_distance(*moments(sides[0]), *moments(sides[1])):.3f}"


def resized(images, how):
    return np.stack([np.asarray(Image.fromarray(i.transpose(1, 2, 0)).resize((48, 48), how)).transpose(2, 0, 1)
                     for i in images])


def as_jpeg(images, path):
    found = []
    for image in images:
        Image.fromarray(image.transpose(1, 2, 0)).save(path, quality=75)
        found.append(np.asarray(Image.open(path)).transpose(2, 0, 1))
    return np.stack(found)


CHOSEN = np.linspace(0, 239, 100).round().astype(int)
PLANTED = {
    "100 samples": lambda tmp: claim(SAMPLES[CHOSEN], TRAIN),
    "against the other split": lambda tmp: claim(SAMPLES, TEST),
    "JPEG of quality 75, samples alone": lambda tmp: claim(as_jpeg(SAMPLES, tmp / "x.jpg"), TRAIN),
    "PIL bicubic to 299 before the network (clean-fid), samples alone":
        lambda tmp: claim(resized(SAMPLES, Image.BICUBIC), TRAIN),
    "nearest to 299 before the network, samples alone": lambda tmp: claim(resized(SAMPLES, Image.NEAREST), TRAIN),
    "samples of 0..1 taken for -1..1":
        lambda tmp: claim(((SAMPLES / 255 + 1) / 2 * 255).round().astype(np.uint8), TRAIN),
    "samples of -1..1 taken for 0..1":
        lambda tmp: claim((np.clip(SAMPLES / 127.5 - 1, 0, 1) * 255 + 1e-6).astype(np.uint8), TRAIN),
    "samples with red and blue exchanged": lambda tmp: claim(SAMPLES[:, [2, 1, 0]], TRAIN),
    "features of other": lambda tmp: claim(SAMPLES, TRAIN, Small(power=2.0)),
}


@pytest.mark.parametrize("cause", PLANTED)
def test_a_planted_cause_is_named_first(outcomes, cause, tmp_path):
    claimed = PLANTED[cause](tmp_path)
    found = explanations(outcomes, claimed)
    assert found and found[0].choice.name == cause, verdict(outcomes, found, claimed)
    assert f"Best explained by: {cause}" in verdict(outcomes, found, claimed)


def test_of_each_side_the_latest_features_alone_are_kept_and_none_are_taken_twice():
    class Counting(Small):
        taken = 0

        def __call__(self, images):
            self.taken += len(images)
            return super().__call__(images)

    extractor = Counting()
    known = Case(ArrayImages(SAMPLES), ArrayImages(TRAIN), ArrayImages(TEST), {"small": extractor})
    for outcome in examine(known):
        assert sum(getattr(held, "ndim", 0) == 2 for _, held in known.kept.values()) <= 3, outcome.choice.name
    changes = 6
    assert extractor.taken == len(SAMPLES) * (1 + changes + 3) + len(TRAIN) * (1 + changes) + len(TEST)


def test_a_claim_that_holds_needs_no_explanation(outcomes):
    claimed = claim(SAMPLES, TRAIN)
    assert "nothing needs explaining" in verdict(outcomes, explanations(outcomes, claimed), claimed)


def test_a_claim_that_nothing_explains_is_said_to_be_so(outcomes):
    assert explanations(outcomes, "0.31") == []
    assert "None of these choices alone explains 0.31. The nearest is" in verdict(outcomes, [], "0.31")


def test_a_claim_is_met_within_its_rounding(outcomes):
    outcome = outcomes[0]
    assert explanations([outcome], f"{outcome.value:.1f}") and not explanations([outcome], f"{outcome.value * 1.2:.3f}")


def test_against_statistics_only_samples_are_varied(case, outcomes):
    mean, covariance = moments(Small()(torch.from_numpy(TRAIN)).numpy())
    known = Case(case.samples, (mean, covariance), None, {"small": Small()})
    found = list(examine(known))
    assert not [o for o in found if "both sides" in o.choice.name or "reference" in o.choice.name]
    assert found[0].value == pytest.approx(outcomes[0].value, rel=1e-9)


def test_the_command_reads_files_and_names_the_cause(tmp_path, monkeypatch, capsys):
    for name, images in (("samples", SAMPLES), ("train", TRAIN), ("test", TEST)):
        np.savez(tmp_path / f"{name}.npz", images.transpose(0, 2, 3, 1))
    monkeypatch.setattr("bench.metrics.features.resolve_extractor", lambda name: Small(name))
    arguments = ["fid", f"source={tmp_path / 'samples.npz'}", f"reference={tmp_path / 'train.npz'}",
                 f"other={tmp_path / 'test.npz'}", "resolution=16", "extractors=small"]
    assert doctor.main([*arguments, f"claimed={claim(SAMPLES, TEST)}"]) == 0
    assert "Best explained by: against the other split" in " ".join(capsys.readouterr().out.split())
    assert doctor.main([*arguments, "claimed=0.001"]) == 1


@pytest.mark.parametrize(("arguments", "message"), [
    (["source=a.npz"], "reference=, claimed= missing beside source"), (["sauce=a"], "Did you mean 'source'"),
    (["source=a.npz", "reference=b.npz", "claimed=low"], "expected a number"),
    (["source=no.npz", "reference=b.npz", "claimed=6"], "source=no.npz"),
    (["source=a", "source=b"], "once")])
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, capsys):
    assert doctor.main(["fid", *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
@pytest.mark.network
def test_the_real_inception_finds_a_planted_jpeg(tmp_path):
    from bench.metrics.inception import InceptionCompat

    extractor = InceptionCompat()
    known = Case(ArrayImages(SAMPLES[:16]), ArrayImages(TRAIN[:16]), None, {"inception-v3-compat": extractor})
    claimed = claim(as_jpeg(SAMPLES[:16], tmp_path / "x.jpg"), TRAIN[:16], extractor)
    assert explanations(list(examine(known)), claimed)[0].choice.name == "JPEG of quality 75, samples alone"
