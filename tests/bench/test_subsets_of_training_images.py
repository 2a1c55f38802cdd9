"""prior.training.images: a prior may see fewer images than its tokenizer did; nothing else changes."""

import dataclasses

import numpy as np
import pytest

from bench.compose import compose, expand
from bench.errors import InputError
from bench.pipeline import run
from bench.reporting.identity import row_key
from bench.stages.base import Run
from bench.stages.measurements import Measured, evidence_of
from bench.stages.prior import PRIOR, nested_indices, seen_images
from bench.stages.tokenizer import TOKENIZER
from bench.stages.tokens import TOKENS
from bench.store.store import Store

SMOKE = ["preset=smoke", "dataset=digits", "prior=autoregressive", "metrics.names=[nll]"]


def run_of(*more):
    return Run(compose([*SMOKE, *more]))


def test_a_smaller_set_lies_inside_a_larger_one():
    small, large = nested_indices(1000, 50), nested_indices(1000, 300)
    assert len(set(small)) == 50 and set(small) < set(large) and (np.diff(small) > 0).all()


def test_a_set_is_spread_over_the_whole():
    counts = np.histogram(nested_indices(10_000, 1000), bins=10, range=(0, 10_000))[0]
    assert counts.min() > 60


def test_no_number_and_the_whole_number_are_all_images():
    assert np.array_equal(nested_indices(7, None), np.arange(7)) and np.array_equal(nested_indices(7, 7), np.arange(7))


def test_a_subset_changes_the_prior_and_neither_tokenizer_nor_tokens():
    whole, part = run_of(), run_of("prior.training.images=32")
    for stage in (TOKENIZER, TOKENS):
        assert whole.recipe(stage) == part.recipe(stage)
    assert whole.recipe(PRIOR).key != part.recipe(PRIOR).key


def test_what_is_measured_of_samples_is_keyed_by_the_images_seen_and_a_likelihood_is_not():
    part = run_of("prior.training.images=32")
    assert Measured(metric="fld").recipe(part).config["seen"] == 32
    assert "seen" not in Measured(metric="nll").recipe(part).config | Measured(metric="fld").recipe(run_of()).config


def test_more_images_than_there_are_is_an_error():
    with pytest.raises(InputError, match=r"prior\.training\.images=129: digits has 128 training images"):
        run_of("prior.training.images=129").recipe(PRIOR)


@pytest.mark.parametrize(("argument", "complaint"), [("prior.training.images=0", "a positive number"),
                                                     ("vq.training.images=9", "unknown key 'vq.training.images'")])
def test_a_wrong_number_of_images_is_named(argument, complaint):
    with pytest.raises(InputError, match=complaint):
        expand([*SMOKE, argument])


def test_records_made_before_there_were_subsets_and_orders_are_of_the_same_row():
    spec = dataclasses.asdict(compose(SMOKE))
    older = {**spec, "prior": {**spec["prior"], "training": {**spec["prior"]["training"]}}}
    del older["prior"]["training"]["images"], older["prior"]["training"]["measure_order"]
    assert row_key("prior", "autoregressive", spec) == row_key("prior", "autoregressive", older)


@pytest.mark.network
def test_a_prior_learns_from_its_subset_alone(tmp_path):
    spec = compose([*SMOKE, "prior=unigram", "prior.training.images=8", "vq.training.steps=2"])
    fitted = Run(spec, store=Store(tmp_path), announce=lambda text: None)
    seen = fitted.open(TOKENS)[0][seen_images(fitted)]
    assert seen.shape[0] == 8 and np.array_equal(fitted.open(PRIOR).counts, np.bincount(seen.flatten(), minlength=16))
    assert np.array_equal(evidence_of(fitted).seen, seen_images(fitted))


@pytest.mark.network
def test_a_record_tells_the_regime_of_its_training(tmp_path):
    spec = compose([*SMOKE, "prior.training.images=32", "vq.training.steps=2", "prior.training.steps=4",
                    "baselines=false", f"results_dir={tmp_path}"])
    record = run(spec, store=Store(tmp_path / "store"), announce=lambda text: None)
    regime, parameters = record.provenance["regime"], record.provenance["parameters"]["prior"]
    assert (regime["images"], regime["presentations"], regime["passes"]) == (32, 64, 2.0)
    assert regime["tokens_per_parameter"] == 32 * record.provenance["sampling"]["num_tokens"] / parameters
