"""The likelihood head as a stage of its own: what depends on it, what does not, and that it goes on after a stop."""

import pytest
import torch
from safetensors.torch import load_file

from bench.compose import compose
from bench.pipeline import build, run
from bench.stages.base import Run
from bench.stages.chain import planned
from bench.stages.identity import run_key
from bench.stages.likelihood import LIKELIHOOD
from bench.stages.prior import PRIOR
from bench.stages.samples import SAMPLES
from bench.stages.tokenizer import TOKENIZER
from bench.stages.tokens import TOKENS
from bench.store.store import Interrupted, Store

SMOKE = ["dataset=digits", "preset=smoke", "prior=unigram", "protocol.num_fake=4", "sampling.chunk=4",
         "protocol.prdc_num=4", "vq.training.steps=2", "vq.perceptual_weight=0"]
PIXELS = [*SMOKE, "vq.likelihood_head=true", "metrics.names=[pixel_nll]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def quiet(text):
    pass


@pytest.fixture(scope="module")
def record(folder, store):
    return run(compose([*PIXELS, f"results_dir={folder}"]), store=store, announce=quiet)


@pytest.mark.network
def test_a_run_ends_in_bits_per_dimension_below_the_ceiling(record):
    measured, = record.measurements
    assert measured.metric == "bits_per_dim" and measured.bound == "upper" and 0 < measured.value < 8
    assert measured.n == 32 and "likelihood" in record.curves


@pytest.mark.network
def test_another_bit_depth_builds_a_head_and_nothing_before_it(record, folder, store):
    said = []
    other = run(compose([*PIXELS, "metrics.pixel_bits=5", f"results_dir={folder}"]), store=store, announce=said.append)
    built = {line.split()[1] for line in said if line.startswith("building")}
    assert built == {"likelihood", "metric"} and 0 < other.measurements[0].value < 5


@pytest.mark.network
def test_tokens_are_those_of_the_tokenizer_before_fine_tuning(record, store):
    pixels = Run(compose(PIXELS), store=store, announce=quiet)
    images = torch.from_numpy(pixels.splits.validation.images(range(8)))
    before = pixels.open(TOKENIZER).encode(images), pixels.open(TOKENIZER).log_likelihood(images, bits=8).mass
    after = pixels.open(LIKELIHOOD).encode(images), pixels.open(LIKELIHOOD).log_likelihood(images, bits=8).mass
    assert torch.equal(before[0], after[0]) and (after[1] > before[1]).all()


@pytest.mark.network
def test_an_interrupted_fine_tuning_ends_in_the_weights_of_an_undisturbed_one(record, store, tmp_path, monkeypatch):
    from bench.training import loop as trainer
    spec = compose([*PIXELS, "vq.likelihood.checkpoint_every=3"])
    other, asked = Store(tmp_path), []
    (tmp_path / "tokenizer").symlink_to(store.root / "tokenizer")
    monkeypatch.setattr(trainer, "_any_process", lambda flag, fabric: asked.append(flag) or len(asked) == 5)
    with pytest.raises(Interrupted):
        build(Run(spec, store=other, announce=quiet), LIKELIHOOD)
    assert len(asked) == 5
    heads = []
    for where in (other, store):
        pixels = Run(spec, store=where, announce=quiet)
        build(pixels, LIKELIHOOD)
        heads.append(load_file(where.find(pixels.recipe(LIKELIHOOD)).path / "model.safetensors"))
    assert all(torch.equal(value, heads[1][key]) for key, value in heads[0].items())


@pytest.mark.network
def test_a_tokenizer_without_the_head_leaves_a_hole(folder, store):
    record = run(compose([*SMOKE, "metrics.names=[pixel_nll]", f"results_dir={folder}"]), store=store, announce=quiet)
    hole, = record.measurements
    assert hole.value is None and "vq.likelihood_head=true" in hole.note


def test_the_head_moves_no_key_but_its_metric_s_and_the_run_s():
    plain, tuned = (Run(compose([*PIXELS, *more])) for more in ([], ["vq.likelihood.steps=11"]))
    for stage in (TOKENIZER, TOKENS, PRIOR, SAMPLES):
        assert plain.recipe(stage) == tuned.recipe(stage)
    assert plain.recipe(LIKELIHOOD).key != tuned.recipe(LIKELIHOOD).key and run_key(plain) != run_key(tuned)


@pytest.mark.parametrize("change", ["vq.likelihood.steps=11", "metrics.pixel_bits=5"])
def test_without_the_metric_its_settings_move_no_run(change):
    plain, other = (Run(compose([*SMOKE, "metrics.names=[nll]", *more])) for more in ([], [change]))
    assert run_key(plain) == run_key(other)


def test_the_plan_lists_the_stage_where_a_metric_asks_for_it():
    stages = {arguments: [stage.name for stage in planned(Run(compose(list(arguments))))]
              for arguments in (tuple(PIXELS), tuple(SMOKE))}
    assert "likelihood" in stages[tuple(PIXELS)] and "likelihood" not in stages[tuple(SMOKE)]
