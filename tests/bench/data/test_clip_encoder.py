"""The text encoder of a CLIP folder: transformers' own features, and errors that come early. Small and random."""

import json
import shutil

import numpy as np
import pytest
import torch

from bench.config import ConditionConfig
from bench.data.arrays import ArrayImages
from bench.data.base import Splits
from bench.data.clip_encoder import ClipCaptions, ClipEncoder
from bench.data.conditions import resolve
from bench.data.encoder_files import check_clip, check_folder, identity_of
from bench.data.labels import Captions
from bench.errors import InputError
from bench.training.conditioned import conditions_of, encode_captions, encoder_of
from tests.small_clip import SYMBOLS, save_clip

TEXTS = ["a red fox", "fox", "", "A  Red dog of a very long caption", "  "]


@pytest.fixture(scope="module")
def whole(transformers, tmp_path_factory):
    return save_clip(transformers, tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def text_half(transformers, tmp_path_factory):
    return save_clip(transformers, tmp_path_factory.mktemp("clip-text"), text_alone=True)


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def theirs(transformers, folder, texts, cls):
    """transformers' tokenizer and model as its manual puts them together, and where there are tokens."""
    tokenizer = transformers.CLIPTokenizerFast.from_pretrained(folder)
    inputs = tokenizer(texts, padding="max_length", truncation=True, max_length=12, return_tensors="pt")
    with torch.inference_mode():
        return getattr(transformers, cls).from_pretrained(folder)(**inputs), inputs["attention_mask"]


@pytest.mark.parametrize("folder", ["whole", "text_half"])
def test_features_are_the_last_hidden_states_of_transformers(transformers, folder, request):
    folder = request.getfixturevalue(folder)
    features, lengths = ClipEncoder.load(folder)(TEXTS, length=12)
    output, mask = theirs(transformers, folder, TEXTS, "CLIPTextModel")
    assert features.shape == (5, 12, 16) and lengths.tolist() == [7, 3, 0, 12, 0]
    assert mask.sum(1)[[0, 1, 3]].tolist() == [7, 3, 12]
    for i in (0, 1, 3):
        own = int(lengths[i])
        torch.testing.assert_close(features[i, :own], output.last_hidden_state[i, :own], rtol=1e-4, atol=1e-5)
        assert (features[i, own:] == 0).all()


def test_embeddings_are_those_of_transformers_at_unit_length(transformers, whole):
    output, _ = theirs(transformers, whole, TEXTS[:2], "CLIPTextModelWithProjection")
    expected = torch.nn.functional.normalize(output.text_embeds, dim=1)
    torch.testing.assert_close(ClipCaptions.load(whole).embed(TEXTS[:2]), expected, rtol=1e-4, atol=1e-5)


def test_features_depend_on_the_text_alone(whole):
    encoder = ClipEncoder.load(whole)
    together = encoder(TEXTS, length=12)[0]
    for i, text in enumerate(TEXTS):
        torch.testing.assert_close(encoder([text], length=12)[0][0], together[i], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoder(TEXTS[:2], length=16)[0][:, :12], together[:2], rtol=1e-4, atol=1e-5)


def test_a_tokenizer_json_gives_what_vocabulary_and_merges_give(transformers, whole, copy):
    transformers.CLIPTokenizerFast.from_pretrained(whole).backend_tokenizer.save(str(copy / "tokenizer.json"))
    ids, lengths = ClipEncoder.load(whole).tokenize(TEXTS, 12)
    (copy / "vocab.json").unlink()
    found, found_lengths = ClipEncoder.load(copy).tokenize(TEXTS, 12)
    assert torch.equal(ids, found) and torch.equal(lengths, found_lengths)
    assert [SYMBOLS[i] for i in ids[1, :3]] == ["<|startoftext|>", "fox</w>", "<|endoftext|>"]


def test_sizes_are_read_without_the_package(whole, text_half):
    for folder, kind in ((whole, "clip"), (text_half, "clip_text_model")):
        found = check_folder(folder)
        assert (found.width, found.max_length, found.num_layers, found.kind) == (16, 20, 2, kind)
    assert check_clip(whole).width == 16


def test_what_a_configuration_leaves_out_is_as_transformers_has_it(copy):
    (copy / "config.json").write_text(json.dumps({"model_type": "clip", "text_config": {"hidden_size": 768}}))
    found = check_folder(copy)
    assert (found.width, found.max_length, found.num_heads) == (768, 77, 8)


def test_a_folder_is_known_by_weights_configuration_and_tokenizer(copy):
    before = identity_of(copy)
    for name in ("vocab.json", "merges.txt", "config.json"):
        (copy / name).write_text((copy / name).read_text() + "\n")
        assert identity_of(copy) != before
        before = identity_of(copy)
    (copy / "README.md").write_text("of no account")
    assert identity_of(copy) == before


def test_captions_of_a_data_set_become_conditions_of_a_clip(whole, tmp_path):
    captions = Captions(("a fox", "a dog", "", "a fox"), ("a dog", "a cat"))
    sides = (ArrayImages(np.zeros((n, 3, 8, 8), np.uint8)) for n in (4, 2))
    splits = Splits(*sides, "x", captions=lambda: captions)
    given = resolve(ConditionConfig("text", encoder=str(whole), length=9), splits, "x")
    assert given.options == {"text_width": 16, "text_length": 9} and given.key["encoder"] == identity_of(whole)
    encode_captions(given, tmp_path)
    conditions = conditions_of(given, tmp_path)
    rows = conditions.rows("train", np.array([0, 2]))
    features, lengths = encoder_of(whole)(["a fox", ""], length=9)
    found = conditions.of(rows)
    torch.testing.assert_close(found.features, features, rtol=1e-3, atol=1e-3)   # kept in float16
    assert torch.equal(found.lengths, lengths)
    means = conditions.means(rows)
    assert np.allclose(means[0], features[0, : int(lengths[0])].mean(0), atol=1e-3) and not means[1].any()
    with pytest.raises(InputError, match="has 20 positions"):
        resolve(ConditionConfig("text", encoder=str(whole)), splits, "x")


@pytest.mark.parametrize(("change", "message"), [
    (lambda f: (f / "merges.txt").unlink(), r"lacks tokenizer.json \(or vocab.json and merges.txt\)"),
    (lambda f: (f / "model.safetensors").unlink(), "lacks model.safetensors"),
    (lambda f: (f / "config.json").write_text('{"model_type": "clip", "text_config": 3}'), "is not the configuration"),
    (lambda f: (f / "config.json").write_text('{"model_type": "clip_vision_model"}'), "those of CLIP")])
def test_another_folder_is_an_error_before_any_work(copy, change, message):
    change(copy)
    with pytest.raises(InputError, match=message):
        check_folder(copy)


def test_half_a_clip_does_not_compare_images_with_texts(text_half):
    with pytest.raises(InputError, match="expected 'clip', a whole CLIP.* Leave protocol.clip out"):
        check_clip(text_half)


def test_weights_of_another_model_are_an_error(transformers, copy, text_half):
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 3
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="weights are missing, such as"):
        ClipEncoder.load(copy)
    with pytest.raises(InputError, match="text_projection"):
        ClipCaptions.load(text_half)


def test_without_transformers_the_way_out_is_named(copy, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(InputError, match="needs the package transformers: pip install transformers"):
        check_folder(copy)
