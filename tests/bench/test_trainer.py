"""The training loop: exact resume, schedules, data order."""

import math
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from bench.config.models import TrainingConfig
from bench.errors import BenchError
from bench.training.loop import batch_indices, learning_rate_factor, train
from priors.linear import HAS_ONEDNN, kernel_in_use, use_kernel

CONFIG = TrainingConfig(steps=12, batch_size=4, learning_rate=0.05, warmup_steps=3, ema_decay=0.5, ema_every=2,
                        validate_every=4, checkpoint_every=4, log_every=3)


class Line(nn.Module):
    """Least squares with noise from the draws, which resuming must repeat."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Linear(1, 1)
        self.seen = []

    def optimizers(self):
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.05)
        return [self.optimizer]

    def update(self, batch, step, draws, optimize):
        self.seen.append(step)
        loss = (self.model(batch) - 3 * batch - draws.normal(len(batch), 1)).square().mean()
        optimize(loss, self.optimizer)
        return {"loss": loss.detach()}

    def validate(self, model, batch, draws):
        return {"loss": (model(batch) - 3 * batch).square().mean()}


def _fetch(indices):
    return torch.as_tensor(indices, dtype=torch.float32)[:, None] / 10


def _train(config, work, out, task=None, fetch=_fetch, **options):
    out.mkdir(exist_ok=True)
    task = task or Line()
    train(task, fetch, config, num_items=10, validation={"validation": lambda: iter([_fetch(np.arange(10))])}, seed=0,
          work=work, out=out, **options)
    return task


class _Killed(Exception):
    pass


def _killed_at_six(work, out):
    class Dies(Line):
        def update(self, batch, step, draws, optimize):
            if step == 6:
                raise _Killed
            return super().update(batch, step, draws, optimize)

    with pytest.raises(_Killed):
        _train(CONFIG, work, out, task=Dies())
    return work / "latest.pt"


def test_interrupted_training_ends_in_bit_identical_weights(tmp_path):
    _train(CONFIG, tmp_path / "a", tmp_path / "whole")
    _killed_at_six(tmp_path / "b", tmp_path / "parts")
    task = _train(CONFIG, tmp_path / "b", tmp_path / "parts")
    assert task.seen[0] == 4
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert (tmp_path / "whole" / "curves.csv").read_text() == (tmp_path / "parts" / "curves.csv").read_text()


@pytest.mark.skipif(not HAS_ONEDNN, reason="this torch has no oneDNN: there is no choice")
def test_it_goes_on_with_the_kernels_it_began_with_whatever_this_machine_would_choose(tmp_path):
    try:
        use_kernel("torch")
        _killed_at_six(tmp_path / "work", tmp_path / "out")
        use_kernel("onednn")
        _train(CONFIG, tmp_path / "work", tmp_path / "out")
        assert kernel_in_use() == "torch"
    finally:
        use_kernel("onednn")


def test_a_longer_budget_continues_a_finished_run(tmp_path):
    short = TrainingConfig(**{**vars(CONFIG), "steps": 6})
    _train(short, tmp_path / "a", tmp_path / "short")
    task = _train(CONFIG, tmp_path / "b", tmp_path / "long", resume_from=tmp_path / "short" / "state.pt")
    _train(CONFIG, tmp_path / "c", tmp_path / "whole")
    assert task.seen[0] == 6
    long, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("long", "whole"))
    assert all(torch.equal(long[name], whole[name]) for name in whole)


def test_a_damaged_checkpoint_of_ours_is_started_over(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "latest.pt").write_bytes(b"half")
    assert _train(CONFIG, tmp_path / "work", tmp_path / "out").seen[0] == 0


@pytest.mark.parametrize("share", [0.02, 0.2, 0.4, 0.6, 0.8, 0.98])
def test_a_checkpoint_with_one_flipped_byte_is_never_used(tmp_path, share, capsys):
    _train(CONFIG, tmp_path / "a", tmp_path / "whole")
    latest = _killed_at_six(tmp_path / "b", tmp_path / "parts")
    content = bytearray(latest.read_bytes())
    content[int(share * len(content))] ^= 0x10
    latest.write_bytes(content)
    assert _train(CONFIG, tmp_path / "b", tmp_path / "parts").seen[0] == 0
    assert "not as it was written" in capsys.readouterr().err
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_death_between_digest_and_checkpoint_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    latest = _killed_at_six(tmp_path / "b", tmp_path / "parts")
    held, replace = latest.read_bytes(), os.replace

    def dies(source, target):
        if str(target) == str(latest):
            raise _Killed
        replace(source, target)

    for _ in range(3):
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", dies)
            with pytest.raises(_Killed):
                _train(CONFIG, tmp_path / "b", tmp_path / "parts")
    assert latest.read_bytes() == held and _train(CONFIG, tmp_path / "b", tmp_path / "parts").seen[0] == 4


def test_a_loss_that_is_not_finite_stops_with_advice(tmp_path):
    with pytest.raises(BenchError, match="lower training.learning_rate"):
        _train(CONFIG, tmp_path / "w", tmp_path / "o", fetch=lambda i: torch.full((len(i), 1), math.nan))


def test_every_epoch_visits_every_item_once():
    order = np.concatenate([batch_indices(step, 4, 10, seed=1) for step in range(5)])
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert list(order[:10]) != list(order[10:])


def test_cosine_ends_at_zero_and_constant_stays():
    cosine = TrainingConfig(**{**vars(CONFIG), "schedule": "cosine"})
    assert learning_rate_factor(0, CONFIG) == pytest.approx(1 / 3)
    assert learning_rate_factor(11, CONFIG) == 1
    assert learning_rate_factor(12, cosine) == pytest.approx(0)


def test_the_best_averaged_weights_are_published_when_asked_for(tmp_path):
    best = TrainingConfig(**{**vars(CONFIG), "select": "best", "validate_every": 1})
    _train(best, tmp_path / "w", tmp_path / "o")
    curve = [line.split(",") for line in (tmp_path / "o" / "curves.csv").read_text().splitlines()[1:]]
    lowest = min(float(value) for _, metric, value in curve if metric == "validation_loss")
    model = nn.Linear(1, 1)
    model.load_state_dict(load_file(tmp_path / "o" / "model.safetensors"))
    x = _fetch(np.arange(10))
    assert float((model(x) - 3 * x).square().mean()) == pytest.approx(lowest)
