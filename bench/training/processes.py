"""The processes of one job, and the device each computes on.

    fabric = make_fabric("float32", device=device_of("auto"))
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import InputError

if TYPE_CHECKING:   # importing Fabric takes longer than importing torch: only trainings pay for it
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

PRECISIONS: dict[str, Any] = {"float32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def device_of(name: str) -> str:
    """The device that `device=` names, as this process has it: "auto" is CUDA where torch sees one.

    Raises InputError for a CUDA device that torch does not see.
    """
    if name == "auto":
        return process_device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device={name}: torch sees no CUDA device here. Use device=cpu or auto.")
    if name.startswith("cuda:") and int(name[5:]) >= torch.cuda.device_count():
        raise InputError(f"device={name}: torch sees {torch.cuda.device_count()} CUDA devices here, numbered from 0. "
                         "Use one of them, or device=cuda.")
    return process_device(name)


def make_fabric(precision: str, *, device: str = "cpu") -> Fabric:
    """One process, or the group of processes that srun or torchrun started for this job; the group is joined here.

    device: "cpu", "cuda" or "cuda:<index>"; a group takes as many CUDA devices as it has processes on a machine.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment

    found = _process_group()
    accelerator, _, index = device.partition(":")
    if found is None:
        alone = LightningEnvironment()
        return Fabric(accelerator=accelerator, devices=[int(index)] if index else 1, precision=PRECISIONS[precision],
                      plugins=alone)
    num_nodes = int(os.environ.get("SLURM_NNODES", os.environ.get("GROUP_WORLD_SIZE", "1")))
    fabric = Fabric(accelerator=accelerator, devices=found.world_size() // num_nodes, num_nodes=num_nodes,
                    strategy="ddp", precision=PRECISIONS[precision], plugins=found)
    fabric.launch()
    return fabric


def process_rank() -> int:
    """This process's place among those that srun or torchrun started for this job; 0 if there is one."""
    found = _process_group()
    return found.global_rank() if found else 0


def process_device(device: str) -> str:
    """`device` as this process has it: in a group "cuda" is the one of its own, which is also where Fabric trains.

    Raises InputError where several processes would share the one device that was named.
    """
    found = _process_group()
    if found is None or not device.startswith("cuda"):
        return device
    if device != "cuda":
        raise InputError(f"device={device}: {found.world_size()} processes cannot share one CUDA device. Use "
                         "device=cuda, which gives each its own.")
    return f"cuda:{found.local_rank()}"


def _process_group() -> SLURMEnvironment | TorchElasticEnvironment | None:
    if all(int(os.environ.get(name, "1")) == 1 for name in ("SLURM_NTASKS", "WORLD_SIZE")):
        return None
    from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

    if "SLURM_NTASKS" in os.environ and SLURMEnvironment.detect():
        found: SLURMEnvironment | TorchElasticEnvironment = SLURMEnvironment()
    elif TorchElasticEnvironment.detect():
        found = TorchElasticEnvironment()
    else:
        return None
    return found if found.world_size() > 1 else None
