"""Tokens in a folder of the user's: written with the images they belong to, read back only where they belong."""

import csv
import os

import numpy as np
import pytest
from PIL import Image

from bench import encode, run
from bench.compose import compose
from bench.data.arrays import ArrayImages
from bench.data.token_files import check_tokens, write_tokens
from bench.data.tokens import encode_split, import_tokens
from bench.errors import InputError
from bench.stages.base import Run
from bench.stages.tokens import TOKENS
from bench.store.store import Store
from tests.faults.doors import at_most

TOKENIZER = '''
from dataclasses import dataclass
import torch

class Corners(torch.nn.Module):
    """Of each quarter of an image the red value of its first pixel, in `levels` steps."""

    @dataclass(frozen=True)
    class Options:
        levels: int = 8

    def __init__(self, *, options, resolution):
        super().__init__()
        self.resolution, self.codebook_size, self.grid = resolution, options.levels, (2, 2)

    def encode(self, images):
        half = self.resolution // 2
        return (images[:, 0, ::half, ::half].long() * self.codebook_size // 256).flatten(1)

    def decode(self, tokens):
        half = self.resolution // 2
        values = (tokens.view(-1, 1, 2, 2) * 256 // self.codebook_size).to(torch.uint8)
        return values.repeat_interleave(half, 2).repeat_interleave(half, 3).repeat(1, 3, 1, 1)
'''


@pytest.fixture(autouse=True)
def plugin(tmp_path, monkeypatch, own_cache):
    (tmp_path / "tests_encode.py").write_text(TOKENIZER)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture
def photos(tmp_path):
    """Twelve 20x20 images of noise with names that no CSV takes as they are."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 20, 20, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    for index, pixels in enumerate(noise):
        Image.fromarray(pixels).save(tmp_path / "photos" / f'{index:02}, "é".png')
    return tmp_path / "photos"


@pytest.fixture
def command(photos):
    return ["vq=tests_encode:Corners", "preset=smoke", "dataset=folder", f"dataset.path={photos}",
            "dataset.resolution=16", "dataset.validation_fraction=0.3", "dataset.max_train=null"]


@pytest.fixture
def encoded(command, tmp_path):
    assert encode.main([*command, f"out={tmp_path / 'tokens'}"]) == 0
    return tmp_path / "tokens"


def refused(command, folder, tmp_path, capsys):
    arguments = [*command, f"vq.tokens={folder}", "prior=unigram", "metrics.names=[nll]", "baselines=false",
                 f"results_dir={tmp_path / 'runs'}"]
    assert run.main(arguments) == 2
    said = capsys.readouterr()
    assert "building" not in said.out + said.err
    return " ".join(said.err.split())


def test_the_folder_lists_each_image_beside_its_tokens(command, encoded):
    splits = Run(compose(command)).splits
    for name in ("train", "validation"):
        images, tokens = getattr(splits, name), np.load(encoded / f"{name}.npy")
        rows = list(csv.DictReader(open(encoded / f"{name}.csv", newline="")))
        assert [row["name"] for row in rows] == list(images.names) and len(tokens) == len(images) > 3
        expected = images.images(range(len(images)))[:, 0, ::8, ::8].astype(int) * 8 // 256
        assert np.array_equal(tokens, expected.reshape(-1, 4))


def test_a_run_over_them_has_the_tokens_it_would_have_encoded(command, encoded, tmp_path):
    theirs, ours = (Run(compose([*command, *more]), store=Store(tmp_path / f"store{len(more)}"),
                        announce=lambda text: None).open(TOKENS) for more in ([f"vq.tokens={encoded}"], []))
    for one, other in zip(theirs, ours, strict=True):
        assert np.array_equal(one[range(len(one))], other[range(len(other))])


def test_another_order_is_named_before_anything_is_built(command, encoded, tmp_path, capsys):
    """As of another program that lists the images of its tokens."""
    (encoded / "tokens.json").unlink()
    rows = (encoded / "train.csv").read_text().splitlines(keepends=True)
    (encoded / "train.csv").write_text("".join([rows[0], rows[2], rows[1], *rows[3:]]))
    assert "the same names stand in another order" in refused(command, encoded, tmp_path, capsys)


def test_a_new_image_is_named_before_anything_is_built(command, encoded, photos, tmp_path, capsys):
    (photos / "00, \"é\".png").rename(photos / "new.png")
    assert "the two are of different images" in refused(command, encoded, tmp_path, capsys)


@pytest.mark.parametrize(("changed", "message"), [
    (["dataset.max_train=3"], "train.npy holds an array (8, 4), and the data set has 3 such images"),
    (["dataset.resize=plain"], "has other pixels here than when its tokens were made"),
    (["vq.levels=4"], "Give bench.run the vq.* keys that bench.encode was given"),
])
def test_another_data_set_or_tokenizer_is_named_before_anything_is_built(command, encoded, tmp_path, capsys, changed,
                                                                         message):
    assert message in refused([*command, *changed], encoded, tmp_path, capsys)


def test_out_is_asked_for_and_files_of_another_program_are_not_overwritten(command, tmp_path, capsys):
    (tmp_path / "train.npy").write_bytes(b"theirs")
    for arguments, message in (([], "out=<folder>"), ([f"out={tmp_path}"], "they are not overwritten"),
                               (["out=x", f"vq.tokens={tmp_path}"], "these are encoded already"),
                               (["out=x", "source=real"], "it has no tokens")):
        assert encode.main([*command, *arguments]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "train.npy").read_bytes() == b"theirs"


# -- the files alone ---------------------------------------------------------------------------------------------------

@pytest.fixture
def written(tmp_path):
    """(folder, splits) of images without names."""
    pixels = np.random.default_rng(1).integers(0, 256, (30, 3, 4, 4), dtype=np.uint8)
    splits = {"train": ArrayImages(pixels[:20]), "validation": ArrayImages(pixels[20:])}
    tokens = {name: encode_split(lambda images: images[:, 0].reshape(len(images), -1), images, tmp_path / name,
                                 codebook_size=70_000) for name, images in splits.items()}
    write_tokens(tmp_path / "out", {name: (tokens[name], splits[name]) for name in splits}, tokenizer="one")
    return tmp_path / "out", splits


def test_images_without_names_are_told_by_all_their_pixels(written):
    folder, splits = written
    check_tokens(folder, splits, tokenizer="one")
    swapped = splits["train"].array[[*range(17), 18, 17, 19]]
    with pytest.raises(InputError, match=r"train.csv: image 17 has other pixels"):
        check_tokens(folder, splits | {"train": ArrayImages(swapped)}, tokenizer="one")


def test_ids_beyond_uint16_are_written_as_uint32(written):
    assert np.load(written[0] / "train.npy").dtype == np.uint32


def test_a_list_of_another_program_need_not_hold_hashes(written):
    folder, splits = written
    (folder / "tokens.json").unlink()
    (folder / "train.csv").write_text("name,pixels\n" + 'a.png,""\n' * 20)
    check_tokens(folder, splits, tokenizer="any")
    (folder / "train.csv").write_text("name,pixels\n" + 'a.png,""\n' * 19)
    with pytest.raises(InputError, match="lists 19 images, and the data set has 20"):
        check_tokens(folder, splits, tokenizer="any")


def test_encoding_again_replaces_what_was_encoded(written, tmp_path):
    folder, splits = written
    tokens = encode_split(lambda images: images[:, 1].reshape(len(images), -1), splits["train"], tmp_path / "again",
                          codebook_size=256)
    write_tokens(folder, {"train": (tokens, splits["train"])}, tokenizer="two")
    assert np.array_equal(np.load(folder / "train.npy"), splits["train"].array[:, 1].reshape(20, -1))
    with pytest.raises(InputError, match="that they are of the tokenizer two, and this run's is one"):
        check_tokens(folder, splits, tokenizer="one")


def test_of_another_program_s_tokens_the_number_is_checked(written):
    folder, splits = written
    for name in ("tokens.json", "train.csv", "validation.csv"):
        (folder / name).unlink()
    check_tokens(folder, splits, tokenizer="any")
    with pytest.raises(InputError, match=r"array \(20, 16\), and the data set has 10 such images"):
        check_tokens(folder, splits | {"train": splits["validation"]}, tokenizer="any")


@pytest.mark.parametrize("name", ["train.csv", "train.npy"])
def test_damage_is_an_error_that_names_the_file(written, name, damage):
    folder, splits = written
    damage(folder / name)
    with pytest.raises(InputError, match=f"{name} is not as tokens.json says"):
        check_tokens(folder, splits, tokenizer="one")


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[]", "{}", '{"tokenizer": "one", "sha256": 3}'])
def test_a_damaged_manifest_is_named(written, text):
    folder, splits = written
    (folder / "tokens.json").write_text(text)
    with pytest.raises(InputError, match="tokens.json is damaged"):
        check_tokens(folder, splits, tokenizer="one")


@pytest.mark.parametrize("name", ["tokens.json", "train.csv", "train.npy"])
def test_a_pipe_in_the_place_of_a_file_is_named_and_never_waited_for(written, name):
    folder, splits = written
    if name != "tokens.json":
        (folder / "tokens.json").unlink()
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(InputError, match=name), at_most(20):
        check_tokens(folder, splits, tokenizer="one")


@pytest.mark.parametrize("text", ["{'descr': '<u2', (", "{'descr'; '<u2'", "(" * 900])
def test_an_array_whose_header_is_no_python_is_named(written, tmp_path, text):
    folder, splits = written
    (folder / "tokens.json").unlink()
    line = text.encode().ljust(1000) + b"\n"
    (folder / "train.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line + bytes(100))
    with pytest.raises(InputError, match="train.npy is not an .npy"):
        check_tokens(folder, splits, tokenizer="any")
    with pytest.raises(InputError, match="train.npy is not a .npy"):
        import_tokens(folder / "train.npy", tmp_path / "imported", num_tokens=16, codebook_size=70_000)
