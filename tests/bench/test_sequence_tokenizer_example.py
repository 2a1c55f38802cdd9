"""The documented tokenizer of 1-D grids: it keeps the contract, learns, and runs through to a record."""

import importlib
from pathlib import Path

import pytest
import torch

from bench import needs
from bench.compose import compose
from bench.pipeline import run
from bench.store.store import Store
from bench.testing import CheckFailed, check_tokenizer

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module("sequence_tokenizer")


def test_it_keeps_the_contract_and_the_report_says_that_it_has_no_other_canvas(example):
    report = check_tokenizer("sequence_tokenizer:SequenceTokenizer", resolution=16)
    assert len(report.passed) == 5 and "refuses canvases of other sizes" in report.notes[0]


def test_a_sequence_that_misreads_another_canvas_fails_the_check(example):
    class Careless(example.SequenceTokenizer):
        def decode(self, tokens):
            return super().decode(tokens.flatten(1)[:, :self.options.num_tokens])

    with pytest.raises(CheckFailed, match=r"\(1, 32\) tokens became"):
        check_tokenizer(Careless, resolution=16)


def test_it_learns_to_paint(example):
    torch.manual_seed(0)
    model = example.SequenceTokenizer(options=example.SequenceTokenizerOptions(width=32, num_layers=1), resolution=8)
    task = model.trainable(perceptual=None, learning_rate=3e-3, betas=(0.9, 0.99))
    images = torch.randint(0, 256, (8, 3, 2, 2), dtype=torch.uint8).repeat_interleave(4, 2).repeat_interleave(4, 3)

    def optimize(loss, optimizer):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    losses = [task.update(images, step, None, optimize)["loss"].item() for step in range(40)]
    assert losses[-1] < 0.6 * losses[0]


def test_a_run_over_sequences_ends_in_a_record_and_needs_no_weights(example, tmp_path):
    spec = compose(["vq=sequence_tokenizer:SequenceTokenizer", "vq.num_tokens=12", "vq.width=32", "vq.num_layers=1",
                    "dataset=digits", "preset=smoke", "prior=absorbing", "metrics.names=[nll]", "sampler.steps=4",
                    f"results_dir={tmp_path / 'runs'}"])
    assert needs.assets_of([spec]) == []
    record = run(spec, store=Store(tmp_path / "store"), announce=lambda text: None)
    assert record.status == "ok" and record.provenance["sampling"]["num_tokens"] == 12
