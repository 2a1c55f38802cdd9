"""Whose weights measured is part of a protocol's id; the published ones go by their plain name."""

import json

import pytest

from bench.assets import cache as assets
from bench.assets.cache import weights_mark
from bench.assets.catalogue import ASSETS, PUBLISHED_WEIGHTS, Asset, AssetError
from bench.assets.fetch import Origin
from bench.compose import compose
from bench.errors import InputError
from bench.plugin_code import marked
from bench.stages.base import Run
from bench.stages.features import REAL_FEATURES
from bench.stages.identity import extractor_of, protocol_id

SMOKE = ["preset=smoke", "dataset=digits", "prior=unigram"]


class Stated:
    """An extractor that says whose weights it holds."""

    weights = "0123456789abcdef" * 4


def run_of(*more):
    return Run(compose([*SMOKE, *more]))


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """An asset converted in the cache; returns a function that says what it holds."""
    source = Origin("url", "https://example.org/tiny.bin", file="tiny.bin", sha256="ab" * 32, size=3, licence="MIT")
    monkeypatch.setitem(ASSETS, "tiny", Asset("tiny", "a test", "TINY_ASSET", ((source, None),)))
    monkeypatch.setitem(PUBLISHED_WEIGHTS, "tiny", "cd" * 32)
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(tmp_path))

    def holds(content):
        folder = assets._folder_of(ASSETS["tiny"], source)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").write_text(json.dumps({"content_sha256": content}))

    return holds


def test_weights_not_here_yet_are_taken_for_the_published_ones(tiny):
    assert weights_mark("tiny") == ""


def test_published_weights_have_no_mark_and_others_have_their_hash(tiny):
    tiny("cd" * 32)
    assert weights_mark("tiny") == ""
    tiny("ef" * 32)
    assert weights_mark("tiny") == "@" + "ef" * 8


def test_weights_that_the_user_names_are_marked_by_what_they_hold(tiny, tmp_path, monkeypatch):
    tiny("ef" * 32)
    (tmp_path / "mine.bin").write_bytes(b"abc")
    monkeypatch.setenv("TINY_ASSET", str(tmp_path / "mine.bin"))
    assert weights_mark("tiny") == "@" + "ef" * 8
    monkeypatch.setenv("TINY_ASSET", str(tmp_path / "absent.bin"))
    assert weights_mark("tiny") == ""


@pytest.mark.parametrize("asset", ["inception", "lpips-alex"])
def test_other_metric_weights_make_another_protocol(asset, monkeypatch):
    monkeypatch.setattr(assets, "weights_mark", lambda name: "")
    published = protocol_id(run_of())
    monkeypatch.setattr(assets, "weights_mark", lambda name: "@beef" if name == asset else "")
    assert protocol_id(run_of()) != published


def test_features_of_other_inception_weights_are_other_features(monkeypatch):
    monkeypatch.setattr(assets, "weights_mark", lambda name: "")
    published = run_of().recipe(REAL_FEATURES).key
    monkeypatch.setattr(assets, "weights_mark", lambda name: "@beef")
    assert run_of().recipe(REAL_FEATURES).key != published


def test_an_extractor_that_states_its_weights_has_them_in_its_name():
    target = f"{__name__}:Stated"
    assert extractor_of(run_of(f"protocol.extractor='{target}'")) == f"{marked('extractors', target)}@0123456789abcdef"


def test_an_unknown_lpips_network_is_refused_before_anything_is_built():
    with pytest.raises(InputError, match="protocol.neighbours_net=squeeze: Valid: alex, vgg"):
        run_of("protocol.neighbours_net=squeeze")
    unchecked = run_of()
    unchecked.spec.protocol.neighbours_net = "squeeze"
    with pytest.raises(AssetError, match="lpips-squeeze"):
        protocol_id(unchecked)


def test_statistics_of_a_reference_change_the_id_by_their_content_wherever_they_lie(tmp_path):
    ids = {}
    for name, content in (("a", b"1"), ("b", b"2"), ("c", b"1")):
        (tmp_path / f"{name}.npz").write_bytes(content)
        ids[name] = protocol_id(Run(compose(["preset=smoke", "dataset=digits", "prior=unigram",
                                            f"protocol.reference={tmp_path / name}.npz"])))
    plain = protocol_id(Run(compose(["preset=smoke", "dataset=digits", "prior=unigram"])))
    assert ids["a"] == ids["c"] and len({plain, ids["a"], ids["b"]}) == 3
