"""VQ-Diffusion in the common loop: its estimates behind p(t) survive a restart and are shared between processes."""

import csv
import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
from pathlib import Path
import torch
from bench.config.models import PriorTrainingConfig
from bench.training.loop import train
from bench.training.processes import make_fabric
from bench.training.tasks import PriorTask
from priors.transition_options import VQDiffusionOptions
from priors.vq_diffusion import VQDiffusion

torch.set_num_threads(1)
work = Path(sys.argv[1]); work.mkdir(exist_ok=True)
tokens = torch.randint(0, 7, (64, 16), generator=torch.Generator().manual_seed(1))
for steps in map(int, sys.argv[2:]):
    torch.manual_seed(0)
    prior = VQDiffusion(grid=(4, 4), codebook_size=7,
                        options=VQDiffusionOptions(width=16, num_layers=1, num_heads=2, timesteps=3))
    config = PriorTrainingConfig(steps=steps, batch_size=8, learning_rate=1e-3, warmup_steps=2, log_every=1,
                            validate_every=20, checkpoint_every=10)
    train(PriorTask(prior, config), lambda i: tokens[torch.as_tensor(i)], config, num_items=64,
          validation={"validation": lambda: [tokens[:8]]}, seed=0, work=work, out=work, fabric=make_fabric("float32"))
assert float((prior.time.probabilities() - 1 / 3).abs().max()) > 0.01   # importance has set in
"""


def curve(folder, *, steps=(40,), command=(sys.executable,)):
    script = folder.with_suffix(".py")
    script.write_text(SCRIPT)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    subprocess.run([*map(str, (*command, script, folder, *steps))], check=True, timeout=900,
                   env=plain | {"OMP_NUM_THREADS": "1"})
    with open(folder / "curves.csv") as stream:
        return {(int(row["step"]), row["metric"]): float(row["value"]) for row in csv.DictReader(stream)}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return curve(tmp_path_factory.mktemp("vq") / "undisturbed")


def test_training_that_stopped_goes_on_exactly(undisturbed, tmp_path):
    assert curve(tmp_path / "continued", steps=(20, 40)) == undisturbed


def test_two_processes_draw_their_times_from_one_distribution(undisturbed, tmp_path):
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert curve(tmp_path / "two", command=torchrun) == pytest.approx(undisturbed, abs=1e-4)
