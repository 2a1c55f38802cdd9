"""What is settled about CUDA before it computes: which device, seen by whom, in what precision. None is needed here."""

import os
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bench import doctor
from bench.compose import compose
from bench.config.models import TrainingConfig
from bench.errors import InputError
from bench.launch import local as launch_local
from bench.metrics.inception import InceptionCompat
from bench.stages.base import Run
from bench.store.store import Store
from bench.training import loop as trainer
from bench.training import processes


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine with two CUDA devices, as far as torch's answers go."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device=None: f"GPU of {device}")


@pytest.fixture
def second_of_two_processes(monkeypatch):
    group = SimpleNamespace(local_rank=lambda: 1, world_size=lambda: 2)
    monkeypatch.setattr(processes, "_process_group", lambda: group)


def run(device, folder):
    return Run(compose(["preset=smoke", f"device={device}"]), store=Store(folder))


def test_a_device_that_the_machine_lacks_is_refused_before_anything_is_built(two_gpus, tmp_path):
    with pytest.raises(InputError, match="cuda:2.* 2 CUDA devices"):
        _ = run("cuda:2", tmp_path).device


@pytest.mark.parametrize("asked, found", [("auto", "cuda"), ("cuda", "cuda"), ("cuda:1", "cuda:1"), ("cpu", "cpu")])
def test_one_process_uses_the_device_that_was_asked_for(two_gpus, tmp_path, asked, found):
    assert run(asked, tmp_path).device == found


@pytest.mark.parametrize("asked, found", [("auto", "cuda:1"), ("cuda", "cuda:1"), ("cpu", "cpu")])
def test_each_process_of_a_group_has_a_device_of_its_own(two_gpus, second_of_two_processes, tmp_path, asked, found):
    assert run(asked, tmp_path).device == found


def test_a_group_cannot_share_one_named_device(two_gpus, second_of_two_processes, tmp_path):
    with pytest.raises(InputError, match="2 processes cannot share"):
        _ = run("cuda:1", tmp_path).device


def test_the_name_of_the_gpu_is_told_and_a_cpu_adds_nothing(two_gpus, tmp_path):
    assert run("cuda:1", tmp_path).hardware["gpu"] == "GPU of cuda:1"
    assert "gpu" not in run("cpu", tmp_path).hardware


@pytest.mark.parametrize("device, accelerator, devices",
                         [("cpu", "cpu", 1), ("cuda", "cuda", 1), ("cuda:3", "cuda", [3])])
def test_training_takes_place_on_the_named_device(monkeypatch, device, accelerator, devices):
    monkeypatch.setattr(processes, "_process_group", lambda: None)
    monkeypatch.setattr("lightning_fabric.Fabric", lambda **options: options)
    options = processes.make_fabric("float32", device=device)
    assert (options["accelerator"], options["devices"]) == (accelerator, devices)


def test_the_doctor_knows_how_many_devices_there_are(two_gpus):
    levels = [next(doctor.check_devices([compose(["preset=smoke", f"device=cuda:{i}"])])).level for i in (1, 2)]
    assert levels == ["ok", "problem"]


@pytest.mark.parametrize("outside", ["0,1", None])
def test_a_sweep_left_alone_sees_the_gpus_that_its_command_saw(monkeypatch, outside):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")   # what submitit's local executor starts a process with
    monkeypatch.setattr(launch_local, "work_through", lambda *unused: os.environ.get("CUDA_VISIBLE_DEVICES"))
    assert launch_local._work_alone([], None, outside) == outside


def test_inception_features_do_without_tf32():
    seen = []
    extractor = object.__new__(InceptionCompat)
    extractor.device = torch.device("cpu")
    extractor.net = lambda x: seen.append(torch.backends.cudnn.conv.fp32_precision) or x[:, 0, 0]
    extractor(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    assert seen == ["none"] and torch.backends.cudnn.conv.fp32_precision == "tf32"   # torch's own default


class Line(nn.Module):
    """As much of a task as resuming needs."""

    def __init__(self):
        super().__init__()
        self.model = nn.Linear(1, 1)

    def optimizers(self):
        self.optimizer = torch.optim.Adam(self.model.parameters())
        return [self.optimizer]

    def update(self, batch, step, draws, optimize):
        loss = self.model(batch).square().mean()
        optimize(loss, self.optimizer)
        return {"loss": loss.detach()}


@pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter")
def test_resuming_leaves_step_counters_on_the_cpu_and_moves_the_rest_to_the_device(tmp_path):
    config = TrainingConfig(steps=9, batch_size=2, log_every=9)
    before = trainer._Loop(Line(), config, processes.make_fabric("float32"), seed=0)
    before.advance(torch.ones(2, 1))
    before.save(tmp_path / "latest.pt")
    precision = SimpleNamespace(load_state_dict=lambda state: None)
    elsewhere = SimpleNamespace(device=torch.device("meta"), world_size=1, setup_optimizers=lambda optimizer: optimizer,
                                strategy=SimpleNamespace(precision=precision))
    after = trainer._Loop(Line(), config, elsewhere, seed=0)
    after.restore(tmp_path / "latest.pt", None)
    state = after.task.optimizer.state[after.task.model.weight]
    assert (state["step"].device.type, state["exp_avg"].device.type) == ("cpu", "meta")
    assert after.sums["loss"][0].device.type == "meta"
