"""The doctor: each ailment is found, named with its remedy, and decides the exit code."""

import stat

import pytest

from bench import doctor
from bench.assets.cache import AssetStatus
from bench.compose import compose
from bench.config import DatasetConfig
from bench.doctor import Finding, check_dataset, check_folder, check_slurm, main
from bench.needs import assets_of


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a shell script on PATH, and nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")

    def install(name, body):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return install


def slurm_specs(partition="fast"):
    return [compose(["preset=smoke", "launcher=slurm", f"launcher.partition={partition}"])]


def test_a_problem_makes_the_exit_code_one_and_its_remedy_is_printed(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", lambda specs: [Finding("problem", "disk", "full", "buy another")])
    assert main(["preset=smoke"]) == 1
    assert "buy another" in capsys.readouterr().out


def test_notes_alone_are_fine(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", lambda specs: [Finding("note", "disk", "smallish")])
    assert main(["preset=smoke"]) == 0
    assert "Ready" in capsys.readouterr().out


@pytest.mark.parametrize("argument, hint", [("datset=ffhq", "Did you mean 'dataset'"), ("fetch=maybe", "fetch=true")])
def test_wrong_input_exits_with_two_and_says_what_was_meant(argument, hint, capsys):
    assert main([argument]) == 2
    assert hint in capsys.readouterr().err


def test_help_is_the_module_s_own_page(capsys):
    assert main(["--help"]) == 0
    assert "python -m bench.doctor" in capsys.readouterr().out


def test_missing_weights_are_a_problem_only_where_they_are_needed(monkeypatch):
    monkeypatch.setattr(doctor, "asset_status", lambda name: AssetStatus(name, False, None, "missing"))
    spec = compose(["preset=smoke"])
    levels = {f.what.split(" ")[0]: f for f in doctor.check_assets([spec])}
    assert {name for name, f in levels.items() if f.level == "problem"} == set(assets_of([spec]))
    assert "fetch=true" in levels["inception"].remedy and "sha256" in levels["inception"].remedy


def test_only_the_weights_of_the_metrics_asked_for_are_needed():
    assert "inception" not in assets_of([compose(["preset=smoke", "metrics.names=[nll,speed]"])])


def test_the_tokenizer_s_own_perceptual_net_is_needed_unless_a_checkpoint_is_given():
    assert "lpips-vgg" in assets_of([compose(["preset=smoke", "vq.perceptual_net=vgg"])])
    given = compose(["preset=smoke", "vq.perceptual_net=vgg", "vq.path=model.safetensors"])
    assert "lpips-vgg" not in assets_of([given])


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path):
    (tmp_path / "file").write_text("")
    finding = check_folder("cache folder", tmp_path / "file", "choose another")
    assert finding.level == "problem" and "cannot be written" in finding.detail and finding.remedy == "choose another"


def test_a_folder_yet_to_be_made_is_judged_by_the_one_that_will_hold_it(tmp_path):
    assert check_folder("cache folder", tmp_path / "a" / "b", "").detail.startswith(str(tmp_path / "a" / "b"))
    assert not (tmp_path / "a").exists()


def test_a_full_disk_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "DISK_GB", {"needed": 1e9, "comfortable": 2e9})
    finding = check_folder("cache folder", tmp_path, "choose another")
    assert finding.level == "problem" and "bench.store gc" in finding.remedy


def test_an_absent_data_set_is_a_problem_only_if_asked_for():
    config = DatasetConfig(name="folder", path="nowhere")
    assert check_dataset(config, needed=True).level == "problem"
    assert check_dataset(config, needed=False).level == "note"


def test_a_data_set_inside_a_package_is_fine():
    assert check_dataset(DatasetConfig(name="digits", resolution=8), needed=True).level == "ok"


def test_cuda_asked_for_where_there_is_none_is_a_problem(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    finding, = doctor.check_devices([compose(["preset=smoke", "device=cuda"])])
    assert finding.level == "problem" and finding.remedy


def test_slurm_is_asked_for_its_partitions(program):
    program("sbatch", "exit 0")
    program("sinfo", "echo 'fast up'; echo 'slow down'")
    finding, = check_slurm(slurm_specs())
    assert finding.level == "ok" and "fast" in finding.detail


def test_a_partition_that_is_down_is_a_problem_and_the_others_are_named(program):
    program("sbatch", "exit 0")
    program("sinfo", "echo 'fast up'; echo 'slow down'")
    finding, = check_slurm(slurm_specs("slow"))
    assert finding.level == "problem" and "fast" in finding.remedy


def test_a_silent_controller_is_a_problem_only_for_runs_on_slurm(program):
    program("sbatch", "exit 0")
    program("sinfo", "echo no controller >&2; exit 1")
    assert [f.level for f in check_slurm(slurm_specs())] == ["problem"]
    assert [f.level for f in check_slurm([compose(["preset=smoke"])])] == ["note"]


def test_no_slurm_at_all_is_a_problem_only_for_runs_on_slurm(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [f.level for f in check_slurm(slurm_specs())] == ["problem"]
    assert [f.level for f in check_slurm([compose(["preset=smoke"])])] == ["note"]


def test_torch_and_torchvision_fit_here():
    assert doctor.check_torchvision().level == "ok"
