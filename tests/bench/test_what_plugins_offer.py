"""What a plug-in may offer beside its contract, asked with isinstance: our own classes, and one that offers nothing."""

import subprocess
import sys

import pytest

from bench import registry
from priors.base import Calibrated, Fitted, MaskedPredictor, ReadsOfficialWeights
from vq.base import ImpliesOptions, ImpliesOptionsOfLayout, KnowsGrid, TrainableTokenizer

OFFERED = {"absorbing": {Calibrated, MaskedPredictor, ReadsOfficialWeights}, "autoregressive": {ReadsOfficialWeights},
           "unigram": {Fitted, MaskedPredictor}}


@pytest.mark.parametrize("name", OFFERED)
def test_a_prior_is_of_the_protocols_whose_method_it_has(name):
    protocols = (Fitted, Calibrated, MaskedPredictor, ReadsOfficialWeights)
    assert {p for p in protocols if issubclass(registry.resolve("priors", name), p)} == OFFERED[name]


def test_a_tokenizer_that_offers_nothing_is_not_trained_and_its_options_imply_nothing():
    class Plain:
        class Options:
            pass

    assert not issubclass(Plain, TrainableTokenizer)
    assert not any(issubclass(Plain.Options, p) for p in (ImpliesOptions, ImpliesOptionsOfLayout, KnowsGrid))


def test_our_tokenizer_is_trained_and_its_options_know_their_grid():
    vqgan = registry.resolve("tokenizers", "vqgan")
    assert issubclass(vqgan, TrainableTokenizer) and issubclass(vqgan.Options, KnowsGrid | ImpliesOptions)


def test_what_a_tokenizer_may_offer_is_known_without_torch():
    code = "import sys, vq.base, bench.schema; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
