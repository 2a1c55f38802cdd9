"""condition= from the command line to the record: keys, refusals, whose conditions, and what is measured."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.baselines import with_baselines
from bench.compose import compose, expand
from bench.config import MetricsConfig
from bench.data.conditions import sampled_images
from bench.errors import InputError
from bench.pipeline import run as run_of_spec
from bench.run import main
from bench.selection import SCORED
from bench.stages.base import Run
from bench.stages.chain import planned
from bench.stages.condition import CONDITION, condition_of_held_out, judged_as
from bench.stages.identity import protocol_id, run_key
from bench.stages.prior import PRIOR
from bench.stages.samples import SAMPLES, _source
from bench.stages.tokenizer import TOKENIZER
from bench.stages.tokens import TOKENS
from bench.store.store import Store
from bench.training.trajectories import Trajectory
from priors.base import Draws, Sample

TOKENIZER_FILE = Path(__file__).with_name("patch_means.py")
SMALL = ["vq=patch_means:PatchMeans", "preset=smoke", "metrics.names=[nll,condition_information,class_accuracy]"]
DIGITS = [*SMALL, "dataset=digits", "baselines=false"]
CLASS = [*DIGITS, "condition=class", "prior.training.selection=shared"]


@pytest.fixture(scope="module", autouse=True)
def grey(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copy(TOKENIZER_FILE, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setattr("bench.metrics.classifier.STEPS", (50, 50))   # enough to tell digits from chance
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def begun(*arguments, place=None):
    return Run(compose([*arguments]), store=Store(place / "cache" / "artefacts") if place else None,
               announce=lambda text: None)


def record_of(place, *arguments):
    spec = compose([*arguments, f"results_dir={place / 'results'}"])
    return run_of_spec(spec, store=Store(place / "cache" / "artefacts"), announce=lambda text: None)


def measured(record):
    return {m.metric: m for m in record.measurements}


def bits_of(run, told):
    """Bits a token of each held-out image that `protocol.nll_images` takes, by the prior itself."""
    tokens = torch.from_numpy(run.open(TOKENS)[1][np.arange(64)])
    condition = {"condition": condition_of_held_out(run)(np.arange(64))} if told else {}
    return run.open(PRIOR).nll(tokens, draws=Draws.seeded(0), **condition).nats / tokens.shape[1] / np.log(2)


@pytest.fixture(scope="module")
def autoregressive(place):
    return record_of(place, *CLASS, "prior=autoregressive", "protocol.nll_images=64", "prior.training.measure_at=log",
                     "prior.training.measure_images=64")


@pytest.fixture(scope="module")
def unigram(place):
    return record_of(place, *CLASS, "prior=unigram", "protocol.nll_images=64")


@pytest.mark.parametrize("prior", ["autoregressive", "unigram"])
def test_a_condition_changes_the_prior_and_neither_tokenizer_nor_tokens(prior):
    plain, told = begun(*DIGITS, f"prior={prior}"), begun(*CLASS, f"prior={prior}")
    assert all(plain.recipe(stage) == told.recipe(stage) for stage in (TOKENIZER, TOKENS))
    assert all(plain.recipe(stage).key != told.recipe(stage).key for stage in (PRIOR, SAMPLES))
    assert protocol_id(plain) != protocol_id(told) and run_key(plain) != run_key(told)


def test_the_sizes_of_a_condition_stand_in_the_priors_key_and_not_in_the_spec():
    told = begun(*CLASS, "prior=autoregressive")
    config = told.recipe(PRIOR).config
    assert config["options"]["num_labels"] == 10 and config["condition"]["name"] == "class"
    assert "num_labels" not in told.spec.prior.options


def test_other_labels_of_the_same_pixels_are_another_prior(monkeypatch):
    told, other = (begun(*CLASS, "prior=autoregressive") for _ in range(2))
    found = other.splits.labels()
    object.__setattr__(other.splits, "labels", lambda: type(found)(found.names, found.train[::-1], found.validation))
    assert told.recipe(TOKENS) == other.recipe(TOKENS) and told.recipe(PRIOR).key != other.recipe(PRIOR).key


def test_the_baselines_of_a_conditional_run_stand_in_its_protocol():
    runs = with_baselines(expand([*SMALL, "dataset=digits", "prior=unigram", "condition=none,class"]))
    assert [run.spec.source for run in runs] == ["real", "reconstruction"] * 2 + ["prior"] * 2
    ids = [protocol_id(Run(run.spec)) for run in runs]
    assert ids[0] == ids[1] == ids[4] != ids[2] == ids[3] == ids[5]


@pytest.mark.parametrize(("arguments", "reason"), [
    (["condition=text", "prior=unigram"], "prior=unigram knows no condition=text: its Options lack text_length"),
    (["condition=class", "prior=neighbourhood_prior:Neighbourhood"], "knows no condition"),
    (["condition=class", "prior=block_diffusion"], "block_diffusion knows no condition=class"),
    (["sampler.guidance=2", "prior=autoregressive"], "guidance=2 without a condition has nothing to guide towards")])
def test_what_a_prior_cannot_have_is_a_hole_in_a_sweep_and_an_error_alone(arguments, reason, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "docs" / "examples")
    (run,) = expand([*DIGITS, *arguments])
    assert reason in run.unsupported
    with pytest.raises(InputError, match=reason.split(":")[0]):
        compose([*DIGITS, *arguments])


@pytest.mark.parametrize(("arguments", "complaint"), [
    (["condition=clas"], "unknown condition 'clas'. Did you mean 'class'"),
    (["condition=class", "condition.length=8"], "condition.length=8 has no effect on condition=class"),
    (["condition=text", "condition.length=2"], "condition.length=2: expected a .*number of positions"),
    (["condition=class", "prior.num_labels=10"], "prior.num_labels=10: leave it out: condition=class sets it"),
    (["prior.num_labels=10"], "prior.num_labels=10: it belongs to condition=class, which sets it"),
    (["condition=class", "metrics.names=[fid_per_class]"], "fid_per_class is not measured: .* Use kid_per_class"),
    (["prior.condition_dropout=0.2"], "has no condition to hide")])
def test_wrong_values_are_refused_before_work(arguments, complaint):
    with pytest.raises(InputError, match=complaint):
        expand([*DIGITS, "prior=autoregressive", *arguments])


def test_a_data_set_without_captions_is_refused_before_anything_is_built(tmp_path, own_cache, capsys):
    command = [*DIGITS, "prior=autoregressive", "condition=text", f"results_dir={tmp_path}"]
    before = set(own_cache.glob("artefacts/*/*"))
    assert main(command) == 2 and "dataset=digits has no captions" in capsys.readouterr().err
    assert set(own_cache.glob("artefacts/*/*")) == before and not list(tmp_path.iterdir())


def test_a_condition_adds_its_metrics_to_those_of_every_run():
    plain = MetricsConfig().names
    assert compose(["preset=smoke", "dataset=digits"]).metrics.names == plain
    named = compose(["preset=smoke", "dataset=digits", "condition=class"]).metrics.names
    assert named == [*plain, "condition_information", "class_accuracy"]


def test_a_measure_of_conditional_runs_is_a_hole_with_its_reason_in_others(place):
    record = record_of(place, *DIGITS, "prior=unigram", "metrics.names=[nll,condition_information,cas,kid_per_class]")
    notes = {m.metric: m.note for m in record.measurements if m.value is None}
    assert set(notes) == {"condition_information", "cas", "kid_per_class"}
    assert notes["cas"] == "only with condition=class: this run has condition=none"
    assert notes["condition_information"] == "only with condition=class or text: this run has condition=none"


def test_each_chunk_is_drawn_for_the_conditions_of_its_own_samples_in_whole_chunks(place):
    told = begun(*CLASS, "prior=autoregressive", "protocol.num_fake=13", "sampling.chunk=5", place=place)
    asked = []

    class Prior:
        codebook_size = 4

        def sample(self, num, *, sampler, condition, draws):
            asked.append(condition.labels)
            return Sample(torch.zeros(num, 16, dtype=torch.int64), *torch.zeros(2, num, dtype=torch.int64))

    told._opened[PRIOR] = Prior()
    source = _source(told)
    for start, stop in ((10, 13), (0, 5)):
        source.chunk(start, stop)
    labels = told.splits.labels().validation[sampled_images(64, 15, seed=0)]
    assert [list(found) for found in asked] == [list(labels[10:]), list(labels[:5])]
    assert np.array_equal(judged_as(told), sampled_images(64, 13, seed=0))


def test_a_unigram_of_classes_has_the_bits_of_counting(place, unigram):
    told = begun(*CLASS, "prior=unigram", place=place)
    (train, held_out), labels = told.open(TOKENS), told.splits.labels()
    counts = np.ones((11, 4)) * told.open(PRIOR).options.smoothing   # the last row of all classes
    for grid, label in zip(train[np.arange(128)], labels.train, strict=True):
        counts[label] += np.bincount(grid, minlength=4)
        counts[10] += np.bincount(grid, minlength=4)
    bits, tokens = -np.log2(counts / counts.sum(1, keepdims=True)), held_out[np.arange(64)]
    own, of_all = bits[labels.validation[:, None], tokens], bits[10][tokens]
    found = measured(unigram)
    assert found["bits_per_token"].value == pytest.approx(own.mean())
    assert found["condition_information"].value == pytest.approx((of_all - own).sum(1).mean())


def test_a_conditional_run_is_trained_and_measured_under_conditions(place, autoregressive):
    told = begun(*CLASS, "prior=autoregressive", "protocol.nll_images=64", "prior.training.measure_at=log",
                 "prior.training.measure_images=64", place=place)
    own, null = bits_of(told, True), bits_of(told, False)
    found = measured(autoregressive)
    assert found["bits_per_token"].value == pytest.approx(float(own.mean()), rel=1e-6)
    assert found["condition_information"].value == pytest.approx(16 * float((null - own).mean()), rel=1e-3, abs=1e-4)
    assert found["condition_information"].value != 0
    assert autoregressive.label == "autoregressive, class"


def test_points_of_a_trajectory_are_measured_under_conditions(place, autoregressive):
    told = begun(*CLASS, "prior=autoregressive", "protocol.nll_images=64", "prior.training.measure_at=log",
                 "prior.training.measure_images=64", place=place)
    last = Trajectory.load(told.obtain(PRIOR).path / "trajectory.npz")
    halves = [last.bits[part][-1].mean() for part in ("selection", "scoring")]
    assert np.mean(halves) == pytest.approx(float(bits_of(told, True).mean()), rel=1e-5)


def test_class_accuracy_stands_beside_that_on_real_images(autoregressive):
    found = measured(autoregressive)["class_accuracy"]
    assert found.n == 24 and 0 <= found.value <= 1
    assert found.extra["held_out_accuracy"] > 2 * found.extra["chance"] and found.extra["reconstruction_accuracy"] < 1
    assert found.extra["chance"] < 0.25


def test_real_images_reach_the_accuracy_on_held_out_ones(place, autoregressive):
    record = record_of(place, *CLASS, "prior=autoregressive", "source=real", "protocol.num_fake=64")
    found = measured(record)["class_accuracy"]
    assert set(measured(record)) == {"class_accuracy"} and found.value == found.extra["held_out_accuracy"]


def test_the_sheet_has_a_row_a_class_with_its_name(place, autoregressive):
    sheet = autoregressive.media["samples"]
    labels = begun(*CLASS).splits.labels()
    drawn = labels.validation[sampled_images(64, 24, seed=0)]
    assert sheet.labels == tuple(labels.names[c] for c in np.unique(drawn)) and sheet.rows == len(sheet.labels)
    assert sheet.columns == np.bincount(drawn).max()


def test_real_images_teach_classifiers_more_than_samples_of_an_untrained_prior(place):
    cas = ["metrics.names=['bench.metrics.cas:ClassificationAccuracyScore']", "protocol.num_fake=64"]
    real, drawn = (measured(record_of(place, *CLASS, "prior=unigram", *cas, *more))["cas"] for more in (["source=real"],
                                                                                                       []))
    assert real.n == drawn.n == 64 and real.extra["num_held_out"] == 64
    assert real.value > drawn.value and len(real.extra["seeds"]) == 3


def test_guided_samples_have_no_likelihood_and_a_plain_sampler_keeps_its_own(place, unigram):
    guided = measured(record_of(place, *CLASS, "prior=unigram", "protocol.nll_images=64", "sampler.guidance=3"))
    for name in ("bits_per_token", "condition_information"):
        assert guided[name].value is None and "sampler.guidance=3" in guided[name].note
    assert guided["class_accuracy"].value is not None and measured(unigram)["bits_per_token"].value is not None


def test_a_prior_that_never_saw_the_null_has_no_information_of_its_condition(place):
    record = record_of(place, *CLASS, "prior=autoregressive", "prior.condition_dropout=0.0",
                       "metrics.names=[condition_information]")
    found = measured(record)["condition_information"]
    assert found.value is None and "never hid the condition" in found.note


def test_information_of_scored_images_says_so_and_has_the_entropy_of_their_classes(place):
    record = record_of(place, *DIGITS, "condition=class", "prior=unigram", "metrics.names=[condition_information]")
    found = measured(record)["condition_information"]
    shares = np.unique(begun(*CLASS).splits.labels().validation[1::2], return_counts=True)[1] / found.n
    assert found.n == 32 and found.extra["images"] == SCORED
    assert found.extra["ceiling"] == pytest.approx(-(shares * np.log2(shares)).sum())


@pytest.fixture
def captioned(tmp_path, monkeypatch):
    """A folder of images with captions, and of an encoder that is never read."""
    from PIL import Image

    folder, encoder = tmp_path / "photos", tmp_path / "encoder"
    folder.mkdir()
    encoder.mkdir()
    for i in range(40):
        Image.fromarray(np.full((16, 16, 3), 40 + 60 * (i % 3), np.uint8)).save(folder / f"{i:02}.png")
        (folder / f"{i:02}.txt").write_text(("dark", "grey", "light")[i % 3])
    monkeypatch.setitem(sys.modules, "tokenizers", type(sys)("tokenizers"))
    for name in ("model.safetensors", "tokenizer.json"):
        (encoder / name).write_text("")
    (encoder / "config.json").write_text(json.dumps({
        "model_type": "bert", "hidden_act": "gelu", "hidden_size": 3, "num_hidden_layers": 2, "num_attention_heads": 1,
        "max_position_embeddings": 12, "layer_norm_eps": 1e-12}))
    monkeypatch.setattr("bench.training.conditioned.encoder_of", _Letters.load)
    return [*SMALL, "dataset=folder", f"dataset.path={folder}", "dataset.resolution=16",
            "dataset.validation_fraction=0.25", "baselines=false", "condition=text", f"condition.encoder={encoder}",
            "condition.length=6", "prior=autoregressive", "protocol.nll_images=8"]


class _Letters:
    """Three features of each letter: its code, its place, one."""

    class config:
        width = 3

    @classmethod
    def load(cls, folder, device):
        return cls()

    def __call__(self, texts, *, length):
        lengths = torch.tensor([min(len(text), length) for text in texts])
        features = torch.zeros(len(texts), length, 3)
        for row, text in zip(features, texts, strict=True):
            for i, letter in enumerate(text[:length]):
                row[i] = torch.tensor([ord(letter) / 128, i / 8, 1.0])
        return features, lengths


def test_captions_are_encoded_once_and_reach_training_and_samples(place, captioned):
    told = begun(*captioned, place=place)
    assert [step.name for step in planned(told)][:4] == ["tokenizer", "tokens", "condition", "prior"]
    assert told.recipe(PRIOR).config["options"]["text_width"] == 3
    record = record_of(place, *captioned, "metrics.names=[nll,condition_information]", "prior.training.steps=30",
                       "prior.training.learning_rate=1e-2", "prior.training.selection=shared")
    found = measured(record)
    assert found["condition_information"].value > 0 and "ceiling" not in found["condition_information"].extra
    assert set(record.media["samples"].labels) <= {"dark", "grey", "light"}
    assert told.recipe(CONDITION).key == begun(*captioned, "seed=3", "prior.width=64").recipe(CONDITION).key
    assert told.recipe(CONDITION).key != begun(*captioned, "condition.length=7").recipe(CONDITION).key


@pytest.mark.slow
def test_on_digits_the_class_saves_bits_at_an_equal_budget(tmp_path):
    """The mean paired difference of an image, with its 95% interval, between two trainings of one budget."""
    budget = ["prior=autoregressive", "dataset.max_train=null", "dataset.max_validation=null",
              "prior.training.steps=400", "prior.training.batch_size=32", "prior.training.ema_decay=0.95",
              "prior.training.learning_rate=3e-3"]
    bits = {name: bits_of(begun(*DIGITS, *budget, f"condition={name}", place=tmp_path), name == "class")
            for name in ("none", "class")}
    saved = 16 * (bits["none"] - bits["class"])
    low = float(saved.mean() - 1.96 * saved.std() / len(saved) ** 0.5)
    assert low > 0, f"saved {float(saved.mean()):.3f} bits an image, at least {low:.3f}"
