"""A whole run on real digits with the real Inception weights: built once, resumed after a kill, shared by shards."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bench.compose import compose
from bench.pipeline import build, run
from bench.stages.base import Run
from bench.stages.prior import PRIOR
from bench.stages.samples import SAMPLES
from bench.stages.tokens import TOKENS
from bench.store.store import Store

pytestmark = pytest.mark.network
SMOKE = ["dataset=digits", "preset=smoke", "metrics.names=[fid,kid,prdc,nll]", "protocol.num_fake=12",
         "protocol.num_real=16", "protocol.prdc_num=12", "protocol.nll_images=16", "sampling.chunk=4"]


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def _spec(results, *more):
    return compose([*SMOKE, f"results_dir={results}", *more])



def _samples(run, name):
    return np.load(run.obtain(SAMPLES).path / f"{name}.npy")

def _values(record) -> dict[str, float]:
    return {m.metric: m.value for m in record.measurements}


@pytest.fixture(scope="module")
def record(results, store):
    return run(_spec(results, "prior=absorbing", "sampler.steps=4"), store=store, announce=lambda text: None)


def test_a_run_measures_what_was_asked_for(record):
    assert set(_values(record)) >= {"fid", "kid", "precision", "recall", "density", "coverage", "bits_per_token"}
    assert record.status == "ok" and all(m.value is not None or m.note for m in record.measurements)


def test_every_value_carries_the_protocol(record):
    assert {m.protocol for m in record.measurements} == {record.measurements[0].protocol}
    assert record.measurements[0].protocol.startswith("smoke-")


def test_a_second_identical_run_builds_nothing(record, results, store):
    said = []
    again = run(_spec(results, "prior=absorbing", "sampler.steps=4"), store=store, announce=said.append)
    assert not [line for line in said if line.startswith("building")]
    assert _values(again) == _values(record)


def test_another_sampler_rebuilds_only_what_depends_on_it(record, results, store):
    said = []
    run(_spec(results, "prior=absorbing", "sampler.steps=2"), store=store, announce=said.append)
    built = {line.split()[1] for line in said if line.startswith("building")}
    assert built == {"metric", "samples", "features"}
    assert not [line for line in said if line.startswith(("building features of real", "building metric nll"))]


def test_a_likelihood_is_measured_once_for_all_samplers_and_anew_for_another_seed(record, results, store):
    def built(*more):
        said: list[str] = []
        other = run(_spec(results, "prior=absorbing", "metrics.names=[nll]", *more), store=store, announce=said.append)
        return [line for line in said if line.startswith("building metric")], _values(other)["bits_per_token"]

    assert built("sampler.steps=3") == ([], _values(record)["bits_per_token"])
    lines, bits = built("sampler.steps=4", "sampler.seed=1")
    assert len(lines) == 1 and bits != _values(record)["bits_per_token"]


def test_an_average_that_remembers_the_first_steps_is_announced(store, results):
    said: list[str] = []
    spec = _spec(results, "prior=absorbing", "prior.training.ema_decay=0.98")
    build(Run(spec, store=store, announce=said.append), PRIOR)
    assert [text for text in said if "67% of the averaged weights" in text]   # .98^20


@pytest.mark.parametrize("shards", [2, 7])
def test_samples_do_not_depend_on_how_many_jobs_share_the_work(record, results, store, tmp_path, shards):
    spec = _spec(results, "prior=absorbing", "sampler.steps=4", f"sampling.shards={shards}")
    whole = Run(spec, store=store, announce=lambda text: None)
    other = Store(tmp_path)
    for stage in ("tokenizer", "tokens", "prior"):   # the trained models are the same ones
        (tmp_path / stage).symlink_to(store.root / stage)
    for shard in reversed(range(shards)):
        build(Run(spec, store=other, announce=lambda text: None), SAMPLES, shard=shard)
    shared = Run(spec, store=other, announce=lambda text: None)
    for name in ("images", "tokens"):
        assert np.array_equal(_samples(whole, name), _samples(shared, name))


def test_a_damaged_chunk_is_drawn_again_and_the_samples_stay(record, results, store, tmp_path, damage, capsys):
    spec = _spec(results, "prior=absorbing", "sampler.steps=4")
    whole = Run(spec, store=store, announce=lambda text: None)
    other = Store(tmp_path)
    for stage in ("tokenizer", "tokens", "prior"):   # the trained models are the same ones
        (tmp_path / stage).symlink_to(store.root / stage)
    build(Run(spec, store=other, announce=lambda text: None), SAMPLES, shard=0)
    chunk = other.work_folder(whole.recipe(SAMPLES)) / "chunk-000001.npz"
    damage(chunk)
    was_there = chunk.exists()
    again = Run(spec, store=other, announce=lambda text: None)
    assert np.array_equal(_samples(whole, "images"), _samples(again, "images"))
    assert (f"{chunk} is damaged" in capsys.readouterr().err) == was_there


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_the_state_of_a_shorter_training_with_a_flipped_byte_is_never_used(record, results, store, tmp_path, share,
                                                                           capsys):
    training = ["prior=autoregressive", "prior.training.schedule=constant", "prior.training.checkpoint_every=1000"]
    short, long = (_spec(results, *training, f"prior.training.steps={steps}") for steps in (2, 4))
    weights = []
    for name in ("damaged", "alone"):
        own = Store(tmp_path / name)
        own.root.mkdir()
        for stage in ("tokenizer", "tokens"):
            (own.root / stage).symlink_to(store.root / stage)
        if name == "damaged":
            build(Run(short, store=own, announce=lambda text: None), PRIOR)
            state, = own.root.glob("prior/*/state.pt")
            content = bytearray(state.read_bytes())
            content[int(share * len(content))] ^= 0x10
            state.write_bytes(content)
        build(Run(long, store=own, announce=lambda text: None), PRIOR)
        path = own.find(Run(long, store=own).recipe(PRIOR)).path
        weights.append((path / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert "state.pt does not have its sha256" in capsys.readouterr().err


def test_a_prior_from_outside_runs_by_its_dotted_path(results, store, tmp_path, monkeypatch):
    (tmp_path / "outside.py").write_text(
        "from priors.unigram import Unigram\n\nclass Mine(Unigram):\n    '''Somebody else's.'''\n")
    monkeypatch.syspath_prepend(tmp_path)
    record = run(_spec(results, "prior=outside:Mine"), store=store, announce=lambda text: None)
    assert record.label == "outside:Mine" and _values(record)["bits_per_token"] > 0


def test_an_edited_prior_from_outside_is_trained_anew_and_said_so(results, store, tmp_path, monkeypatch):
    module, said = tmp_path / "edited.py", []
    monkeypatch.syspath_prepend(tmp_path)
    for text in ("", "    def fit(self, batches):\n        super().fit(batch * 0 for batch in batches)\n"):
        module.write_text(f"from priors.unigram import Unigram\n\nclass Mine(Unigram):\n    name = 'mine'\n{text}")
        sys.modules.pop("edited", None)
        record = run(_spec(results, "prior=edited:Mine", "metrics.names=[nll]"), store=store, announce=said.append)
    assert [line for line in said if line.startswith("code of edited:Mine changed since") and line.endswith(" prior")]
    assert len([line for line in said if line.startswith("building prior")]) == 2
    assert record.provenance["plugins"][0].startswith("edited:Mine+code:")


def test_images_of_another_model_are_judged_from_a_folder_of_npz(record, results, store, tmp_path):
    images = _samples(Run(_spec(results, "prior=absorbing", "sampler.steps=4"), store=store), "images")
    np.savez(tmp_path / "theirs.npz", arr_0=images.transpose(0, 2, 3, 1))
    theirs = run(_spec(results, f"source={tmp_path / 'theirs.npz'}"), store=store, announce=lambda text: None)
    assert theirs.role == "source"
    assert _values(theirs)["fid"] == pytest.approx(_values(record)["fid"])


def test_tokens_computed_elsewhere_give_the_same_prior(results, store, tmp_path):
    ours = Run(_spec(results, "prior=unigram"), store=store, announce=lambda text: None)
    for split, tokens in zip(("train", "validation"), ours.open(TOKENS), strict=True):
        np.save(tmp_path / f"{split}.npy", tokens[np.arange(len(tokens))])
    spec = _spec(results, "prior=unigram", f"vq.tokens={tmp_path}")
    theirs = Run(spec, store=store, announce=lambda text: None)
    assert theirs.recipe(PRIOR).key != ours.recipe(PRIOR).key
    assert np.array_equal(theirs.open(PRIOR).log_probabilities.numpy(), ours.open(PRIOR).log_probabilities.numpy())


def _start(results, cache) -> subprocess.Popen:
    command = [sys.executable, "-m", "bench.run", *SMOKE, "prior=autoregressive", "baselines=false",
               f"results_dir={results}"]
    return subprocess.Popen(command, env={**os.environ, "VQ_PRIOR_BENCH_CACHE": str(cache)},
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _finished(results, cache) -> dict[str, float]:
    process = _start(results, cache)
    _, said = process.communicate(timeout=1800)
    assert process.returncode == 0, said
    record, = [json.loads(path.read_text()) for path in (results / "records").glob("*.json")]
    return {m["metric"]: m["value"] for m in record["measurements"]}


def test_a_run_killed_at_any_moment_ends_in_the_same_numbers(tmp_path, cache, tmp_path_factory):
    own = [tmp_path_factory.mktemp(name) for name in ("whole", "killed")]
    for folder in own:
        for name in ("assets", "datasets"):
            (folder / name).symlink_to((cache / name).resolve())
    expected = _finished(tmp_path / "a", own[0])
    for seconds in (3.0, 4.5, 6.0, 7.5):
        process = _start(tmp_path / "b", own[1])
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    records = list((tmp_path / "b").glob("records/*.json"))
    for path in records:   # it may have finished before the last kill
        path.unlink()
    assert _finished(tmp_path / "b", own[1]) == expected
