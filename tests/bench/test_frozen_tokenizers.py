"""A tokenizer from elsewhere that is not trained here: built as it is, asked for nothing it does not need."""

import numpy as np
import pytest
import torch

from bench import needs
from bench.compose import compose
from bench.errors import InputError
from bench.run import main
from bench.stages.base import Run
from bench.stages.prior import PRIOR
from bench.stages.sources import PriorSource, ReconstructionSource
from bench.stages.tokenizer import TOKENIZER
from bench.stages.tokenizer_fit import check_fit
from bench.stages.tokens import TOKENS
from bench.store.store import Store
from bench.testing import check_tokenizer
from priors.base import Draws

SOURCE = '''
from dataclasses import dataclass
import torch
from torch import nn

PATCH = 4

class Colours(nn.Module):
    """The mean colour of each patch, in `levels` steps a channel, under a random but fixed numbering."""

    @dataclass(frozen=True)
    class Options:
        levels: int = 6
        def __post_init__(self):
            if not 2 <= self.levels <= 64:
                raise ValueError(f"levels={self.levels}: expected 2 to 64")

    def __init__(self, *, options, resolution):
        super().__init__()
        self.levels, self.resolution = options.levels, resolution
        self.codebook_size, self.grid = options.levels ** 3, (resolution // PATCH, resolution // PATCH)
        self.register_buffer("numbers", torch.randperm(self.codebook_size))
        self.register_buffer("base", options.levels ** torch.arange(3)[:, None, None])

    def encode(self, images):
        if images.dtype != torch.uint8:
            raise ValueError(f"images are {images.dtype}: expected uint8")
        means = torch.nn.functional.avg_pool2d(images.double(), PATCH)
        steps = (means / 255 * (self.levels - 1)).round().long()
        return self.numbers[(steps * self.base).sum(1)].flatten(1)

    def decode(self, tokens):
        canvas = tokens.view(-1, *self.grid) if tokens.ndim == 2 else tokens
        steps = self.numbers.argsort()[canvas][:, None] // self.base % self.levels
        return (steps * 255 / (self.levels - 1)).round().to(torch.uint8).repeat_interleave(PATCH, 2).repeat_interleave(
            PATCH, 3)
'''
COMMAND = ["vq=tests_frozen:Colours", "dataset=digits", "preset=smoke", "prior=unigram", "metrics.names=[nll]"]


@pytest.fixture(autouse=True)
def plugin(tmp_path, monkeypatch):
    (tmp_path / "tests_frozen.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture
def no_assets(own_cache, monkeypatch):
    def refuse(name):
        raise AssertionError(f"{name} was asked for")
    monkeypatch.setattr(needs, "asset_folder", refuse)


def begin(tmp_path, *more):
    return Run(compose([*COMMAND, *more]), store=Store(tmp_path / "store"), announce=lambda text: None)


def key(*more):
    return Run(compose([*COMMAND, *more])).recipe(TOKENIZER).key


def test_a_class_without_trainable_keeps_the_contract():
    assert len(check_tokenizer("tests_frozen:Colours").passed) == 6


def test_it_runs_through_to_records_without_weights_of_lpips(no_assets, tmp_path, capsys):
    assert main([*COMMAND, f"results_dir={tmp_path / 'runs'}"]) == 0
    assert len(list((tmp_path / "runs" / "records").glob("*.json"))) == 3


def test_its_weights_are_kept_with_the_tokens_they_made(tmp_path):
    first, again = begin(tmp_path), begin(tmp_path)
    images = first.splits.validation.images(range(8))
    tokens = first.open(TOKENS)[1][range(8)]
    assert len(np.unique(tokens)) > 3
    assert again.open(TOKENIZER).encode(torch.from_numpy(images)).tolist() == tokens.tolist()


def test_its_key_holds_neither_a_training_nor_its_seed(tmp_path):
    keys = {key(*more) for more in ([], ["vq.training.steps=7"], ["seed=1"], ["vq.training.learning_rate=0.1"])}
    assert len(keys) == 1 and keys != {key("vq.levels=7")}


def test_the_plan_counts_no_steps_of_training_for_it():
    assert TOKENIZER.work(Run(compose(COMMAND))).amount == 0


def test_ids_beyond_65_535_come_back_as_they_were_encoded(tmp_path):
    made = begin(tmp_path, "vq.levels=44")   # 85,184 ids
    images = made.splits.train.images(range(128))
    tokens = made.open(TOKENS)[0][range(128)]
    expected = made.open(TOKENIZER).encode(torch.from_numpy(images))
    assert tokens.max() > 65_535 and np.array_equal(tokens, expected.numpy())


def test_samples_and_reconstructions_keep_ids_beyond_65_535(tmp_path):
    made = begin(tmp_path, "vq.levels=44")
    tokenizer, prior, images = made.open(TOKENIZER), made.open(PRIOR), made.splits.train
    reconstructed = ReconstructionSource(images, tokenizer, device="cpu").chunk(0, 128)["tokens"]
    assert np.array_equal(reconstructed, made.open(TOKENS)[0][range(128)])
    sampler = type(prior).Sampler()
    drawn = PriorSource(prior, tokenizer, sampler, seed=0, chunk=64, device="cpu").chunk(0, 64)["tokens"]
    direct = prior.sample(64, sampler=sampler, draws=Draws.seeded("sampling", 0, 0, device="cpu")).tokens
    assert np.array_equal(drawn, direct.numpy()) and drawn.max() > 65_535


# -- what does not suit the data set is said before any work ----------------------------------------------------------

def unsuited(fault):
    """Colours for 16 pixels with one fault."""
    from tests_frozen import Colours

    class Mine(Colours):
        def encode(self, images):
            if fault == "failure":
                raise KeyError("weights")
            return super().encode(images)

        def decode(self, tokens):
            images = super().decode(tokens)
            return images / 127.5 - 1 if fault == "range" else images[..., ::2, ::2] if fault == "size" else images

    made = Mine(options=Colours.Options(), resolution=32 if fault == "resolution" else 16)
    changed = {"downsampling": {"grid": (8, 8)}, "codebook": {"codebook_size": 5}}
    made.__dict__.update(changed.get(fault, {}))
    return made


@pytest.mark.parametrize(("fault", "message"), [
    ("resolution", "is for images of 32 pixels, and dataset.resolution=16"),
    ("downsampling", r"says grid=\(8, 8\), 64 tokens an image, and encodes one to \(16,\)"),
    ("codebook", r"expected int64 ids in \[0, 5\)"),
    ("range", "decodes to torch.float32 from -.* to .*: expected uint8 from 0 to 255"),
    ("size", r"decodes two images to \(2, 3, 8, 8\): expected \(2, 3, 16, 16\)"),
    ("failure", r"cannot encode and decode images \(2, 3, 16, 16\) uint8: KeyError"),
])
def test_what_does_not_suit_the_data_set_is_named(fault, message):
    with pytest.raises(InputError, match=message):
        check_fit(unsuited(fault), "Mine", resolution=16)


def test_what_suits_the_data_set_is_let_through():
    check_fit(unsuited(""), "Mine", resolution=16)


@pytest.mark.parametrize(("resolution", "message"), [
    ("32", "is for images of 32 pixels, and dataset.resolution=16"), ("int('256 only')", "256 only")])
def test_a_run_stops_before_any_work_if_its_tokenizer_does_not_suit(no_assets, tmp_path, capsys, resolution, message):
    (tmp_path / f"tests_unsuited_{len(message)}.py").write_text(
        "from tests_frozen import Colours\nclass Mine(Colours):\n    def __init__(self, *, options, resolution):\n"
        f"        super().__init__(options=options, resolution={resolution})\n")
    assert main([f"vq=tests_unsuited_{len(message)}:Mine", *COMMAND[1:], f"results_dir={tmp_path / 'runs'}"]) == 2
    said = capsys.readouterr()
    assert message in " ".join(said.err.split()) and "building" not in said.out + said.err
