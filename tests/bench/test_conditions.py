"""The condition of a run: refused early, in the keys, of the right images, and nothing without one."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from bench.compose import compose
from bench.config import ConditionConfig, DatasetConfig
from bench.config.models import PriorTrainingConfig
from bench.data.base import Splits
from bench.data.conditions import Given, resolve, sampled_images, shown
from bench.data.digits import Digits
from bench.data.labels import Captions, labels_from
from bench.data.splits import ResizedImages
from bench.errors import InputError
from bench.schema import check_own_options, why_condition_unsupported
from bench.stages.condition import features_recipe
from bench.training.conditioned import ConditionedTask, conditions_of, encode_captions, with_rows
from priors.autoregressive import Autoregressive
from priors.base import Draws
from priors.conditions import Condition
from priors.options import AutoregressiveOptions, BackboneOptions, UnigramOptions

CAPTIONS = Captions(("a fox", "a dog", "", "a fox"), ("a dog", "a cat"))


def splits_of(labels=None, captions=None, train=4, validation=2):
    sides = (ResizedImages(np.zeros((n, 8, 8, 3), np.uint8), resolution=8, resize="antialias")
             for n in (train, validation))
    return Splits(*sides, "x", labels=labels, captions=captions)


def classes():
    return resolve(ConditionConfig("class"), splits_of(lambda: labels_from(["b", "a", "b", "c"], ["c", "a"])), "x")


def captions():
    options, identity = {"text_width": 3, "text_length": 5}, {"captions": CAPTIONS.digest}
    return Given("text", options, identity, captions=CAPTIONS, folder="")


class FakeEncoder:
    """Each text's letters, three features a position: a code, a place, one."""

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
                row[i] = torch.tensor([ord(letter), i, 1.0])
        return features, lengths


@pytest.fixture
def texts(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.training.conditioned.encoder_of", FakeEncoder.load)
    encode_captions(captions(), tmp_path)
    return conditions_of(captions(), tmp_path)


def test_no_condition_resolves_to_nothing_and_asks_the_data_set_nothing():
    assert resolve(ConditionConfig(), splits_of(lambda: pytest.fail(), lambda: pytest.fail()), "x") is None


def test_classes_settle_the_priors_options_and_stand_in_its_key():
    given = classes()
    assert given.options == {"num_labels": 3} and given.key["name"] == "class"
    other = resolve(ConditionConfig("class"), splits_of(lambda: labels_from(["b", "a", "c", "b"], ["c", "a"])), "x")
    assert given.key != other.key and given.protocol != other.protocol
    BackboneOptions(**given.options)


def test_labels_reach_the_images_they_belong_to():
    conditions = conditions_of(classes(), None)
    assert conditions.of(conditions.rows("train", np.array([3, 0]))).labels.tolist() == [2, 1]
    assert conditions.of(conditions.rows("validation", np.array([1, 0]))).labels.tolist() == [0, 2]
    assert shown(classes(), [1, 0]) == ["a", "c"]


def test_digits_labels_reach_the_condition():
    splits = Digits().open(DatasetConfig(name="digits", resolution=8))
    given = resolve(ConditionConfig("class"), splits, "digits")
    conditions = conditions_of(given, None)
    rows = conditions.rows("validation", np.arange(5))
    assert conditions.of(rows).labels.tolist() == given.labels.validation[:5].tolist()
    assert given.options == {"num_labels": 10}


def test_features_reach_the_images_they_belong_to_and_equal_captions_are_kept_once(texts, tmp_path):
    assert len(np.load(tmp_path / "ends.npy")) == 5   # "", a cat, a dog, a fox
    condition = texts.of(texts.rows("train", np.array([1, 2, 0, 3])))
    assert condition.lengths.tolist() == [5, 0, 5, 5] and condition.features.dtype == torch.float32
    words = ["".join(chr(int(code)) for code in row[:n, 0]) for row, n in
             zip(condition.features, condition.lengths, strict=True)]
    assert words == ["a dog", "", "a fox", "a fox"]
    assert texts.of(texts.rows("validation", np.array([1]))).features[0, :, 0].tolist() == [ord(c) for c in "a cat"]


def test_features_are_addressed_by_what_they_depend_on():
    given = captions()
    other = Given(given.name, given.options, {**given.identity, "length": 9}, captions=CAPTIONS)
    assert features_recipe(given).key == features_recipe(captions()).key != features_recipe(other).key


@pytest.mark.parametrize(("values", "message"), [
    (dict(name="clas"), "name=clas: Did you mean .class.. Valid: class, none, text"),
    (dict(name="class", length=8), "condition.length=8 has no effect on condition=class"),
    (dict(encoder="/x"), "condition.encoder=/x has no effect on condition=none"),
    (dict(name="text", length=2), "length=2: expected a .*number of positions, whole, .*3"),
])
def test_wrong_values_are_errors(values, message):
    with pytest.raises(InputError, match=message):
        ConditionConfig(**values)


def test_a_data_set_without_classes_or_captions_is_an_error():
    with pytest.raises(InputError, match="dataset=lsun has no classes"):
        resolve(ConditionConfig("class"), splits_of(), "lsun")
    with pytest.raises(InputError, match="dataset=lsun has no captions"):
        resolve(ConditionConfig("text"), splits_of(), "lsun")


def test_an_encoder_of_fewer_positions_than_asked_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", type(sys)("tokenizers"))
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_text("")
    (tmp_path / "config.json").write_text(json.dumps({
        "model_type": "bert", "hidden_act": "gelu", "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 12, "layer_norm_eps": 1e-12}))
    config = ConditionConfig("text", encoder=str(tmp_path), length=9)
    given = resolve(config, splits_of(captions=lambda: CAPTIONS), "x")
    assert given.options == {"text_width": 16, "text_length": 9}
    with pytest.raises(InputError, match="has 12 positions"):
        resolve(ConditionConfig("text", encoder=str(tmp_path), length=13), splits_of(captions=lambda: CAPTIONS), "x")


def test_a_prior_that_knows_no_condition_is_told_before_anything_is_built():
    text, label = ConditionConfig("text"), ConditionConfig("class")
    assert why_condition_unsupported(text, "absorbing", BackboneOptions, True) == ""
    assert "Options lack text_length, text_width" in why_condition_unsupported(text, "unigram", UnigramOptions, True)
    assert why_condition_unsupported(label, "unigram", UnigramOptions, True) == ""
    assert "knows no condition" in why_condition_unsupported(label, "theirs", BackboneOptions, False)
    assert why_condition_unsupported(ConditionConfig(), "theirs", BackboneOptions, False) == ""


def test_sizes_that_the_condition_settles_are_not_set_by_hand():
    check_own_options(ConditionConfig("class"), {"num_labels": None, "width": 8})
    with pytest.raises(InputError, match="prior.num_labels=3: leave it out: condition=class sets it"):
        check_own_options(ConditionConfig("class"), {"num_labels": 3})
    with pytest.raises(InputError, match="prior.text_width=3: it belongs to condition=text"):
        check_own_options(ConditionConfig(), {"text_width": 3})


@pytest.mark.parametrize(("arguments", "message"), [
    (["prior.num_labels=3"], "prior.num_labels=3: it belongs to condition=class"),
    (["prior.text_width=8", "prior.text_length=4"], "prior.text_width=8: it belongs to condition=text"),
    (["sampler.guidance=2"], "sampler.guidance=2 without a condition"),
    (["sampler.guidance=-2"], "guidance=-2"),
])
def test_a_command_cannot_ask_for_half_a_condition(arguments, message):
    with pytest.raises(InputError, match=message):
        compose(["preset=smoke", "dataset=digits", "prior=absorbing", *arguments])


def test_defaults_of_later_options_stand_in_no_spec():
    spec = compose(["preset=smoke", "dataset=digits", "prior=uniform", "sampler.guidance=1"])
    assert not {"num_labels", "text_width", "condition_dropout"} & set(spec.prior.options)
    assert not {"guidance", "guidance_schedule", "guidance_of"} & set(spec.sampler)


def test_samples_have_the_held_out_distribution_whatever_their_number():
    images = sampled_images(10, 25, seed=3)
    assert sorted(images[:10]) == sorted(images[10:20]) == list(range(10)) and len(set(images[20:])) == 5
    assert np.array_equal(sampled_images(10, 7, seed=3), images[:7])
    assert not np.array_equal(sampled_images(10, 25, seed=4), images) and len(sampled_images(10, 0, seed=0)) == 0


def test_the_task_trains_and_judges_each_image_under_its_own_condition():
    conditions = conditions_of(classes(), None)
    torch.manual_seed(0)
    options = AutoregressiveOptions(width=8, num_layers=1, num_heads=2, num_labels=3, condition_dropout=0.0)
    prior = Autoregressive(grid=(1, 3), codebook_size=5, options=options)
    task = ConditionedTask(prior, PriorTrainingConfig(steps=1), conditions)
    tokens, rows = torch.tensor([[0, 1, 2], [3, 4, 0]]), conditions.rows("validation", np.array([1, 0]))
    batch, condition = with_rows(tokens, rows), Condition(labels=torch.tensor([0, 2]))
    lost = task.update(batch, 0, Draws.seeded(0), lambda loss, optimizer: None) if task.optimizers() else None
    expected = prior.training_loss(tokens, condition=condition, draws=Draws.seeded(0))
    assert lost["loss"] == expected.detach() and task.validate(prior, batch, Draws.seeded(0))["loss"] == pytest.approx(
        float(expected.detach()), rel=1e-5)
    bits, _, kind = task.measure(prior.eval(), batch, Draws.seeded(0))
    assert kind == "exact" and float(bits.mean().detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_checks_and_keys_do_without_torch():
    code = ("import sys\nfrom bench.data.conditions import *\nimport bench.data.captions, bench.data.emoji_names\n"
            "sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.network
def test_emoji_captions_become_features_of_the_default_encoder(tmp_path):
    pytest.importorskip("tokenizers", reason="the extra text is not installed")
    from bench.data.emoji import Emoji

    splits = Emoji().open(DatasetConfig(name="emoji", resolution=64, max_train=60, max_validation=20))
    given = resolve(ConditionConfig("text"), splits, "emoji")
    encode_captions(given, tmp_path)
    conditions = conditions_of(given, tmp_path)
    condition = conditions.of(conditions.rows("validation", np.arange(20)))
    assert condition.features.shape == (20, 32, 384) and int(condition.lengths.max()) <= 32
    assert ((condition.lengths > 2) == torch.tensor([bool(text) for text in given.captions.validation])).all()
