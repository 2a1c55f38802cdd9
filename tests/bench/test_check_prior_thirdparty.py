"""A prior from another package, in fewer than 60 lines: it keeps the contract, trains in the common loop and runs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.compose import compose
from bench.config.models import PriorTrainingConfig
from bench.testing import check_prior
from bench.training.loop import train
from bench.training.tasks import PriorTask
from priors.base import Draws

FOLDER = Path(__file__).parents[2] / "docs" / "examples"
TARGET = "neighbourhood_prior:Neighbourhood"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


def test_it_takes_fewer_than_sixty_lines():
    assert len((FOLDER / "neighbourhood_prior.py").read_text().splitlines()) < 60


def test_it_keeps_the_contract_by_its_dotted_path():
    report = check_prior(TARGET)
    assert report.notes == ("known tokens: it fills the grid row by row: no known token can follow an unknown one",)


def test_its_options_are_keys_of_the_command_line():
    spec = compose([f"prior={TARGET}", "prior.width=16", "sampler.temperature=0.9", "dataset=digits", "preset=smoke"])
    assert spec.prior.options == {"width": 16} and spec.sampler == {"seed": 0, "temperature": 0.9}


def test_its_wrong_option_is_an_error_before_anything_runs():
    with pytest.raises(ValueError, match="width=0"):
        compose([f"prior={TARGET}", "prior.width=0", "dataset=digits", "preset=smoke"])


def test_the_common_loop_trains_it(tmp_path):
    from neighbourhood_prior import Neighbourhood, Options

    generator = torch.Generator().manual_seed(0)
    images = (torch.randint(5, (64, 1), generator=generator) + torch.arange(6)) % 5   # each one more than the last
    torch.manual_seed(0)
    prior = Neighbourhood(grid=(2, 3), codebook_size=5, options=Options(width=8))
    config = PriorTrainingConfig(steps=60, batch_size=32, learning_rate=1e-2, warmup_steps=0, ema_every=1,
                                 ema_decay=0.5, validate_every=60, checkpoint_every=60)
    (tmp_path / "out").mkdir()
    before = prior.nll(images, draws=Draws.seeded(0)).nats.mean()
    train(PriorTask(prior, config), lambda indices: images[np.asarray(indices)], config, num_items=64, seed=0,
          validation={"validation": lambda: [images]}, work=tmp_path / "work", out=tmp_path / "out")
    after = prior.nll(images, draws=Draws.seeded(0)).nats.mean()
    assert after < 0.5 * before and (tmp_path / "out" / "model.safetensors").is_file()
