"""Emoji: variants of one emoji never stand on both sides of the split, and alpha lies on white."""

import io

import pytest
from PIL import Image

from bench.config import DatasetConfig
from bench.data.emoji import Emoji, base_of, split_by_base
from bench.errors import InputError

NAMES = [f"{point:x}{variant}.png" for point in range(0x1F400, 0x1F450) for variant in ("", "-1f3fb", "-1f3ff")]


@pytest.fixture
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("one, other", [
    ("1f44b.png", "1f44b-1f3fd.png"), ("1f468-200d-1f680.png", "1f469-1f3ff-200d-1f680.png"),
    ("1f3c3-200d-2640-fe0f.png", "1f3c3-1f3fb.png"), ("30-20e3.png", "39-20e3.png"), ("1f550.png", "1f55c.png")])
def test_variants_share_a_base(one, other):
    assert base_of(one) == base_of(other)


@pytest.mark.parametrize("one, other", [("1f600.png", "1f601.png"), ("1f1e9-1f1ea.png", "1f1e9-1f1f0.png")])
def test_different_pictures_have_different_bases(one, other):
    assert base_of(one) != base_of(other)


def test_no_base_stands_on_both_sides():
    train, validation = split_by_base(NAMES, 0.2)
    assert not {base_of(n) for n in train} & {base_of(n) for n in validation}
    assert sorted(train + validation) == sorted(NAMES)


def test_no_more_than_the_fraction_is_set_aside():
    assert len(split_by_base(NAMES, 0.2)[1]) == 48   # 240 names in groups of 3


def test_a_file_not_named_by_code_points_is_an_error():
    with pytest.raises(InputError, match="smile.png"):
        base_of("smile.png")


def test_transparent_pixels_become_white(tmp_path, private_cache):
    for point in ("1f600", "1f601"):
        buffer = io.BytesIO()
        Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(buffer, "PNG")
        (tmp_path / f"{point}.png").write_bytes(buffer.getvalue())
    splits = Emoji().open(DatasetConfig(name="emoji", path=str(tmp_path), resolution=8))
    assert splits.train.images([0]).min() == 255


@pytest.mark.network
def test_the_published_emoji_open():
    splits = Emoji().open(DatasetConfig(name="emoji", resolution=64))
    assert len(splits.train) + len(splits.validation) == 4009
