"""check_tokenizer and check_metric pass ours and name what is wrong with others."""

import dataclasses

import pytest
import torch

from bench.metrics.base import Column
from bench.records import Measurement
from bench.testing import CheckFailed, check_metric, check_tokenizer
from vq.options import VQGANOptions
from vq.vqgan import VQGAN

TINY = VQGANOptions(channels=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(), norm_groups=4,
                    embedding_dim=8, codebook_size=16)


def test_the_vqgan_keeps_the_contract():
    assert len(check_tokenizer("vqgan", options=TINY).passed) == 6


class MisreadsFloats(VQGAN):
    def encode(self, images):
        return super().encode(images.to(torch.uint8))


class ReturnsFloats(VQGAN):
    def decode(self, tokens):
        return super().decode(tokens).float() / 255


class BrightensABatch(VQGAN):
    def decode(self, tokens):
        return (super().decode(tokens).int() + 10 * len(tokens)).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize(("tokenizer", "complaint"), [
    (MisreadsFloats, "float images"), (ReturnsFloats, "torch.float32"), (BrightensABatch, "decoded one by one")])
def test_a_tokenizers_fault_is_named(tokenizer, complaint):
    with pytest.raises(CheckFailed, match=complaint):
        check_tokenizer(tokenizer, options=TINY)


class Brightness:
    """Mean pixel value of the samples: what a metric plug-in looks like."""

    name = "brightness"
    columns = {"brightness": Column("grey levels", "none")}
    depends_on = ()
    unit, protocol, repeat = "grey levels", None, 0.0

    def applies(self, evidence):
        return True

    def __call__(self, evidence):
        images = evidence.images("fake").images(range(len(evidence.images("fake"))))
        self.shift = getattr(self, "shift", 0.0) + self.repeat
        value = float(images.mean()) + self.shift
        return [Measurement("brightness", value, self.protocol or evidence.protocol_id, n=len(images), unit=self.unit)]


def test_a_metric_plug_in_keeps_the_contract():
    assert len(check_metric(Brightness).passed) == 5


@pytest.mark.parametrize("name", ["fid", "kid", "prdc", "memorisation"])
def test_our_metrics_keep_the_contract(name):
    assert len(check_metric(name).passed) == 5


def test_a_metric_that_does_not_apply_is_a_note():
    assert any("does not apply" in note for note in check_metric("nll").notes)


@pytest.mark.parametrize(("change", "complaint"), [
    ({"protocol": "mine"}, "carries protocol 'mine'"), ({"unit": "metres"}, "is in 'metres'"),
    ({"columns": {"other": Column("grey levels", "none")}}, "none of the columns"), ({"repeat": 1.0}, "became"),
    ({"columns": {"brightness": dataclasses.asdict(Column("", "none"))}}, "expected a dict of"),
], ids=lambda value: "" if isinstance(value, dict) else value)
def test_a_metrics_fault_is_named(change, complaint):
    with pytest.raises(CheckFailed, match=complaint):
        check_metric(type("Broken", (Brightness,), change))


def test_a_metric_that_asks_for_features_a_run_does_not_have_is_told_so():
    class OfTheTrainingSet(Brightness):
        def __call__(self, evidence):
            return [Measurement("brightness", float(evidence.features("train").mean()), evidence.protocol_id)]

    with pytest.raises(CheckFailed, match="features of 'train'"):
        check_metric(OfTheTrainingSet)
