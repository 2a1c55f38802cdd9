"""Two processes train what one process trains: the same loss curve from the same global batch."""

import csv
import os
import subprocess
import sys

import pytest
import torch

from bench.training.loop import ShardedDraws
from priors.base import Draws

SCRIPT = """
import sys
from pathlib import Path
import torch
from bench.config.models import PriorTrainingConfig
from bench.training.loop import train
from bench.training.processes import make_fabric
from bench.training.tasks import PriorTask
from priors.absorbing import AbsorbingDiffusion
from priors.options import AbsorbingOptions

torch.set_num_threads(1)
torch.manual_seed(0)
config = PriorTrainingConfig(steps=12, batch_size=8, learning_rate=1e-3, warmup_steps=2, log_every=1, validate_every=12)
tokens = torch.randint(0, 7, (64, 16), generator=torch.Generator().manual_seed(1))
prior = AbsorbingDiffusion(grid=(4, 4), codebook_size=7, options=AbsorbingOptions(width=16, num_layers=2, num_heads=2))
out = Path(sys.argv[1]); out.mkdir(exist_ok=True)
train(PriorTask(prior, config), lambda i: tokens[torch.as_tensor(i)], config, num_items=64,
      validation={"validation": lambda: [tokens[:8]]}, seed=0, work=out, out=out, fabric=make_fabric("float32"))
"""


def _curve(path):
    with open(path / "curves.csv") as stream:
        return [(int(row["step"]), row["metric"], float(row["value"])) for row in csv.DictReader(stream)]


def test_two_processes_give_the_loss_curve_of_one(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for command in ([sys.executable, script, tmp_path / "one"], [*torchrun, script, tmp_path / "two"]):
        subprocess.run(list(map(str, command)), check=True, env=plain | {"OMP_NUM_THREADS": "1"}, timeout=900)
    one, two = _curve(tmp_path / "one"), _curve(tmp_path / "two")
    assert [row[:2] for row in one] == [row[:2] for row in two]
    assert [row[2] for row in two] == pytest.approx([row[2] for row in one], abs=1e-5)


def test_stratified_draws_of_two_processes_are_those_of_one_with_one_in_every_part():
    """Which a loss of udlm takes its times from."""
    def generator():
        return torch.Generator().manual_seed(0)

    whole = Draws(generator()).stratified(64)
    halves = [ShardedDraws(generator(), rank, 2).stratified(32) for rank in (0, 1)]
    assert torch.equal(torch.cat(halves), whole)
    assert (64 * whole).floor().sort().values.tolist() == list(range(64)) and (whole.diff() < 0).any()
