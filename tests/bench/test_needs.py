"""What a run needs is said once: the run, the doctor and the edits name the same weights, data and files."""

import numpy as np
import pytest

from bench import doctor, needs, run
from bench.assets.cache import AssetStatus
from bench.assets.catalogue import ASSETS
from bench.baselines import with_baselines
from bench.compose import compose, expand
from bench.errors import InputError

SMOKE = ["preset=smoke", "dataset=digits"]
COMMANDS = [[*SMOKE, *more] for more in (
    ["prior=unigram"], ["baselines=false"], ["metrics.names=[nll,speed]"], ["metrics.names=[fid,reconstruction]"],
    ["source=real"], ["source=reconstruction", "metrics.names=[reconstruction]"], ["protocol.neighbours_net=vgg"],
    ["vq.perceptual_net=vgg"], ["metrics.names=[nll]", "launcher=local"], ["prior=autoregressive", "sampler.steps=8"],
    ["protocol.extractor=torchvision:resnet18", "metrics.names=[kid]"],
    ["vq=tests_needs:Tokenizer", "metrics.names=[nll]"])] + [["preset=smoke", "metrics.names=[nll]"], ["dataset=emoji"]]


@pytest.fixture(autouse=True)
def plugin(tmp_path, monkeypatch):
    """A tokenizer of somebody else's, which states no perceptual network."""
    (tmp_path / "tests_needs.py").write_text(
        "from dataclasses import dataclass\n"
        "class Tokenizer:\n"
        "    @dataclass(frozen=True)\n"
        "    class Options:\n"
        "        width: int = 4\n"
        "    def trainable(self, **given): ...\n"
        "    def encode(self, images): ...\n"
        "    def decode(self, tokens): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture
def asked(monkeypatch):
    """Names of assets that were to be had, none of which is there."""
    names = []
    monkeypatch.setattr(needs, "asset_folder", names.append)
    return names


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_run_and_doctor_name_the_same_weights_and_data(command, monkeypatch, asked):
    runs = [r for r in with_baselines(expand(command, announce=lambda text: None)) if not r.unsupported]
    needs.have_assets(needs.assets_of(r.spec for r in runs))
    monkeypatch.setattr(doctor, "asset_status", lambda name: AssetStatus(name, False, None, "missing"))
    seen = []
    monkeypatch.setattr(doctor, "examine", lambda specs: seen.extend(doctor.check_assets(specs)) or [])
    assert doctor.main(command) == 0
    assert sorted({f.what.split(" ")[0] for f in seen if f.level == "problem"}) == asked


def test_statistics_of_other_features_are_refused_before_anything_is_built(tmp_path, monkeypatch, capsys, asked):
    (tmp_path / "tests_tiny.py").write_text(
        "class Extractor:\n"
        "    name, weights, resize, num_features = 'tests_tiny:Extractor', 'beef', 'none', 2\n"
        "    def __init__(self, *, device): self.device = device\n"
        "    def __call__(self, images): ...\n")
    monkeypatch.setattr(run, "launch", lambda runs, console: pytest.fail("it was refused"))
    np.savez(tmp_path / "theirs.npz", mu=np.zeros(2), sigma=np.eye(2), weights="c0ffee")
    assert run.main([*SMOKE, "prior=unigram", "metrics.names=[fid]", "protocol.extractor=tests_tiny:Extractor",
                     f"protocol.reference={tmp_path / 'theirs.npz'}", f"results_dir={tmp_path / 'runs'}"]) == 2
    assert "weights c0ffee and not beef" in " ".join(capsys.readouterr().err.split())


def test_a_run_has_its_weights_before_anything_is_built(tmp_path, monkeypatch, asked):
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(run, "launch", lambda runs, console: [])
    run.main([*SMOKE, "prior=unigram", "metrics.names=[fid,reconstruction]", f"results_dir={tmp_path / 'runs'}"])
    assert asked == ["inception", "lpips-alex"]
    assert not (tmp_path / "cache" / "artefacts").exists()


def test_the_reconstruction_beside_an_imported_tokenizer_needs_lpips(tmp_path):
    runs = with_baselines(expand([*SMOKE, "vq.path=model.safetensors", "metrics.names=[fid,reconstruction]"]))
    assert needs.assets_of(r.spec for r in runs) == ["inception", "lpips-alex"]


def test_a_metric_of_somebody_else_s_states_its_own_weights(tmp_path):
    (tmp_path / "tests_needs_metric.py").write_text(
        "class Mine:\n"
        "    name, columns, depends_on = 'mine', {}, ()\n"
        "    def assets(self, spec): return {'lpips-vgg'}\n"
        "    def applies(self, evidence): return True\n"
        "    def __call__(self, evidence): return []\n")
    spec = compose([*SMOKE, "source=real", "metrics.names=['tests_needs_metric:Mine']"])
    assert needs.assets_of([spec]) == ["lpips-vgg"]


def test_every_asset_that_is_needed_by_default_is_one_there_is():
    specs = [compose([f"dataset={name}", "preset=smoke"]) for name in ("cifar10", "emoji", "digits")]
    assert set(needs.assets_of(specs)) <= set(ASSETS)


def test_edits_need_the_weights_of_training_and_their_benchmark_those_of_its_metrics():
    spec = compose([*SMOKE, "vq.path=model.safetensors"])
    assert needs.assets_of_models([spec]) == []
    assert needs.assets_of_edits([spec]) == ["inception", "lpips-alex"]
    assert needs.assets_of_models([compose(SMOKE)]) == ["lpips-alex"]


@pytest.mark.parametrize("argument", ["vq.path=nowhere.safetensors", "prior.path=nowhere.safetensors",
                                      "vq.tokens=nowhere"])
def test_a_file_of_the_user_s_that_is_not_there_is_missed_by_run_edit_and_doctor(argument, capsys):
    from bench import edit
    command = [*SMOKE, argument, "metrics.names=[nll]"]
    for main, given in ((run.main, [*command, "plan=true"]),
                        (edit.main, ["task=filmstrip", *SMOKE, argument])):
        assert main(given) == 2
        assert "nowhere" in capsys.readouterr().err
    finding, = doctor.check_checkpoints([compose(command)])
    assert finding.level == "problem" and argument in finding.detail and "leave" in finding.remedy


def test_files_that_a_row_does_not_read_are_not_missed():
    needs.check_own_files([compose([*SMOKE, "source=real", "vq.path=nowhere", "prior.path=nowhere"])])
    with pytest.raises(InputError, match="nowhere"):
        needs.check_own_files([compose([*SMOKE, "source=reconstruction", "vq.path=nowhere"])])


def test_damaged_statistics_are_told_before_weights_are_asked_for(tmp_path, monkeypatch, capsys):
    (tmp_path / "theirs.npz").write_bytes(b"no zip")
    monkeypatch.setattr("bench.needs.have_assets", lambda names: pytest.fail("asked for weights"))
    assert run.main(["prior=unigram", "dataset=digits", "preset=smoke", f"protocol.reference={tmp_path / 'theirs.npz'}",
                     f"results_dir={tmp_path / 'runs'}"]) == 2
    assert "theirs.npz is not a readable .npz" in capsys.readouterr().err
