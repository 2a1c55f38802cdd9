"""Runs with condition=text judged by their captions: with a small CLIP and without one, beside real images."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.compose import compose
from bench.pipeline import run as run_of_spec
from bench.run import main
from bench.stages.base import Run
from bench.stages.chain import planned
from bench.stages.prior import PRIOR
from bench.store.store import Store
from tests.small_clip import save_clip
from tests.tiny_lpips import TinyLpips

TOKENIZER_FILE = Path(__file__).with_name("patch_means.py")
SHADES = {"dark": 40, "grey": 100, "light": 160}
METRICS = "metrics.names=[caption_agreement,caption_retrieval]"


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copy(TOKENIZER_FILE, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setattr("bench.metrics.copy_search.lpips_model", lambda net: TinyLpips())
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """48 even pictures of three shades; each caption is its shade and letters of its own."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(48):
        word = list(SHADES)[i % 3]
        Image.fromarray(np.full((16, 16, 3), SHADES[word], np.uint8)).save(folder / f"{i:02}.png")
        (folder / f"{i:02}.txt").write_text(f"{word} {'abcdefgh'[i % 8]}{'stuvwxyz'[i // 8]}")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def arguments(photos, encoder, *more):
    return ["vq=patch_means:PatchMeans", "preset=smoke", "dataset=folder", f"dataset.path={photos}",
            "dataset.resolution=16", "dataset.validation_fraction=0.25", "baselines=false", "condition=text",
            f"condition.encoder={encoder}", "condition.length=8", "prior=autoregressive", METRICS,
            "prior.training.steps=60", "prior.training.learning_rate=1e-2", *more]


def record_of(place, asked):
    spec = compose([*asked, f"results_dir={place / 'results'}"])
    return run_of_spec(spec, store=Store(place / "cache" / "artefacts"), announce=lambda text: None)


def measured(record):
    return {m.metric: m for m in record.measurements}


class Words:
    """A text encoder that reads the first word alone, as one of three directions."""

    class config:
        width = 3

    def __call__(self, texts, *, length):
        features = torch.zeros(len(texts), length, 3)
        for row, text in zip(features, texts, strict=True):
            row[:2, list(SHADES).index(text.split()[0])] = 1.0
        return features, torch.full((len(texts),), 2)


@pytest.fixture
def words(tmp_path, monkeypatch):
    """The folder of an encoder of which nothing but the configuration is read."""
    import sys

    monkeypatch.setitem(sys.modules, "tokenizers", type(sys)("tokenizers"))
    monkeypatch.setattr("bench.training.conditioned.encoder_of", lambda folder, device: Words())
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_text("")
    (tmp_path / "config.json").write_text(json.dumps({
        "model_type": "bert", "hidden_act": "gelu", "hidden_size": 3, "num_hidden_layers": 2, "num_attention_heads": 1,
        "max_position_embeddings": 12, "layer_norm_eps": 1e-12}))
    return tmp_path


def test_without_a_clip_samples_are_judged_by_captions_of_the_images_they_look_like(place, photos, words):
    asked = arguments(photos, words)
    found = measured(record_of(place, asked))
    agreement = found["caption_agreement"]
    assert agreement.n == 24 and agreement.extra["held_out"] == pytest.approx(1)
    assert agreement.extra["chance"] < agreement.ci_low   # it learned what the words mean
    assert found["clip_score"].value is None and "protocol.clip=<folder>" in found["clip_score"].note
    for source in ("real", "reconstruction"):
        beside = measured(record_of(place, [*asked, f"source={source}"]))
        assert beside["caption_agreement"].value == pytest.approx(1) and beside["caption_agreement"].n == 12


def test_rows_beside_the_priors_have_features_of_captions_only_where_they_are_compared(photos, words):
    real = [*arguments(photos, words), "source=real"]
    titles = [[step.name for step in planned(Run(compose(asked)))] for asked in (real, [*real, "metrics.names=[fid]"])]
    assert "condition" in titles[0] and "condition" not in titles[1]


def test_a_text_run_asks_for_what_needs_no_clip_and_another_run_says_why_it_has_neither(place, photos, words):
    names = compose([*(a for a in arguments(photos, words) if a != METRICS)]).metrics.names
    assert names[-1] == "caption_agreement"   # caption_retrieval is asked for, with a CLIP
    plain = [a for a in arguments(photos, words) if not a.startswith("condition")]
    notes = {m.note for m in record_of(place, plain).measurements}
    assert notes == {"only with condition=text: this run has condition=none"}


def test_a_clip_that_is_not_whole_is_refused_before_anything_is_built(photos, words, tmp_path, own_cache, capsys):
    folder = tmp_path / "clip"
    folder.mkdir()
    before = set(own_cache.glob("artefacts/*/*"))
    assert main([*arguments(photos, words), f"protocol.clip={folder}", f"results_dir={tmp_path / 'results'}"]) == 2
    assert f"{folder} lacks model.safetensors and config.json" in capsys.readouterr().err
    assert set(own_cache.glob("artefacts/*/*")) == before


@pytest.fixture(scope="module")
def clip(transformers, tmp_path_factory):
    return save_clip(transformers, tmp_path_factory.mktemp("clip"))


def test_a_clip_tells_the_prior_its_captions_and_judges_its_samples(place, photos, clip):
    asked = arguments(photos, clip, f"protocol.clip={clip}")
    found = measured(record_of(place, asked))
    assert set(found) == {"caption_agreement", "caption_retrieval_10", "caption_retrieval_100", "clip_score"}
    assert 0 <= found["caption_retrieval_10"].value <= 1 and found["caption_retrieval_10"].n == 24
    assert found["caption_retrieval_100"].note == "held-out images have 12 different captions: 100 are needed"
    assert found["clip_score"].value >= 0 and found["clip_score"].extra["other_captions"] >= 0
    told = Run(compose(asked)).recipe(PRIOR).config
    assert told["options"]["text_width"] == 16
    for source in ("real", "reconstruction"):
        beside = measured(record_of(place, [*asked, f"source={source}"]))
        assert beside["caption_retrieval_10"].n == beside["clip_score"].n == 12
