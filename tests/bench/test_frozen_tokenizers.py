"""A tokenizer from elsewhere that is not trained here: built as it is, asked for nothing it does not need."""

import numpy as np
import pytest
import torch

from bench import needs
from bench.compose import compose
from bench.pipeline import Pipeline
from bench.recipes import Recipes
from bench.run import main
from bench.sources import PriorSource, ReconstructionSource
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


def pipeline(tmp_path, *more):
    return Pipeline(compose([*COMMAND, *more]), store=Store(tmp_path / "store"), announce=lambda text: None)


def test_a_class_without_trainable_keeps_the_contract():
    assert len(check_tokenizer("tests_frozen:Colours").passed) == 6


def test_it_runs_through_to_records_without_weights_of_lpips(no_assets, tmp_path, capsys):
    assert main([*COMMAND, f"results_dir={tmp_path / 'runs'}"]) == 0
    assert len(list((tmp_path / "runs" / "records").glob("*.json"))) == 3


def test_its_weights_are_kept_with_the_tokens_they_made(tmp_path):
    first, again = pipeline(tmp_path), pipeline(tmp_path)
    images = first.recipes.splits.validation.images(range(8))
    tokens = first.tokens[1][range(8)]
    assert len(np.unique(tokens)) > 3
    assert again.tokenizer.encode(torch.from_numpy(images)).tolist() == tokens.tolist()


def test_its_key_holds_neither_a_training_nor_its_seed(tmp_path):
    keys = {Recipes(compose([*COMMAND, *more])).tokenizer().key
            for more in ([], ["vq.training.steps=7"], ["seed=1"], ["vq.training.learning_rate=0.1"])}
    assert len(keys) == 1 and keys != {Recipes(compose([*COMMAND, "vq.levels=7"])).tokenizer().key}


def test_the_plan_counts_no_steps_of_training_for_it():
    stage = Recipes(compose(COMMAND)).stages()[0]
    assert stage.name == "tokenizer" and stage.work == 0


def test_ids_beyond_65_535_come_back_as_they_were_encoded(tmp_path):
    made = pipeline(tmp_path, "vq.levels=47")   # 103,823 ids
    images = made.recipes.splits.train.images(range(128))
    tokens = made.tokens[0][range(128)]
    assert tokens.max() > 65_535 and np.array_equal(tokens, made.tokenizer.encode(torch.from_numpy(images)).numpy())


def test_samples_and_reconstructions_keep_ids_beyond_65_535(tmp_path):
    made = pipeline(tmp_path, "vq.levels=47")
    images = made.recipes.splits.train
    reconstructed = ReconstructionSource(images, made.tokenizer, device="cpu").chunk(0, 128)["tokens"]
    sampler = type(made.prior).Sampler()
    drawn = PriorSource(made.prior, made.tokenizer, sampler, seed=0, chunk=64, device="cpu").chunk(0, 64)["tokens"]
    assert np.array_equal(reconstructed, made.tokens[0][range(128)])
    direct = made.prior.sample(64, sampler=sampler, draws=Draws.seeded("sampling", 0, 0, device="cpu")).tokens
    assert np.array_equal(drawn, direct.numpy()) and drawn.max() > 65_535
