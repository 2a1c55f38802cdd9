"""tracking=: curves and final measurements in TensorBoard or Weights & Biases, part of no key and never in the way."""

import importlib.util

import pytest

from bench import run as command
from bench import tracking
from bench.compose import compose
from bench.data.foreign import as_written
from bench.errors import InputError
from bench.pipeline import run
from bench.stages.base import Run
from bench.stages.chain import planned
from bench.stages.identity import run_key
from bench.store.store import Store

SMOKE = ["prior=autoregressive", "dataset=digits", "preset=smoke", "metrics.names=[nll]", "vq.perceptual_weight=0"]


def spec(tmp_path, *more):
    return compose([*SMOKE, f"results_dir={tmp_path / 'results'}", *more])


class Kept:
    """A tracker that remembers what it was told."""

    def __init__(self, folder, name, key, config):
        self.name, self.key, self.config, self.told, self.closed = name, key, config, [], False
        Kept.all.append(self)

    def scalars(self, values, step):
        self.told += [(name, step, value) for name, value in values.items()]

    def image(self, name, path):
        assert path.is_file()
        self.told.append((name, 0, None))

    def close(self):
        self.closed = True


@pytest.fixture
def kept(monkeypatch):
    Kept.all = []
    monkeypatch.setitem(tracking.TRACKERS, "tensorboard", Kept)
    monkeypatch.setattr(tracking, "check_tracking", lambda specs: None)
    return Kept.all


def test_trainings_and_the_record_are_tracked_runs_of_their_own(kept, tmp_path, own_cache):
    record = run(spec(tmp_path, "tracking=tensorboard"), store=Store(tmp_path / "store"), announce=lambda text: None)
    assert [one.key.split("-")[0] for one in kept] == ["tokenizer", "prior", record.run_key]
    assert all(one.closed for one in kept)
    curve = [(step, value) for name, step, value in kept[1].told if name == "validation_loss"]
    assert curve and [step for step, _ in curve] == sorted(step for step, _ in curve)
    final = {name: value for name, _, value in kept[2].told}
    bits = next(m for m in record.measurements if m.metric == "bits_per_token")
    assert final["final/bits_per_token"] == bits.value and "samples" in final
    assert kept[2].config["prior"]["name"] == "autoregressive"


def test_every_point_of_the_curves_is_tracked_once(kept, tmp_path, own_cache):
    record = run(spec(tmp_path, "tracking=tensorboard"), store=Store(tmp_path / "store"), announce=lambda text: None)
    rows = (tmp_path / "results" / record.curves["prior"]).read_text().splitlines()[1:]
    assert sorted(f"{step},{name},{value}" for name, step, value in kept[1].told) == sorted(
        f"{step},{name},{float(value)}" for step, name, value in (row.split(",") for row in rows))


def test_nothing_is_tracked_unless_asked_for(kept, tmp_path):
    with tracking.Tracked(spec(tmp_path), "a", "b", {}, print) as tracked:
        tracked.scalars({"loss": 1.0}, 1)
    assert kept == [] and not (tmp_path / "results" / "tracking").exists()


def test_tracking_is_part_of_no_key_and_of_no_record(tmp_path):
    plain, tracked = spec(tmp_path), spec(tmp_path, "tracking=wandb")
    assert run_key(Run(plain)) == run_key(Run(tracked)) and as_written(plain) == as_written(tracked)
    assert [stage.key for stage in planned(Run(plain))] == [stage.key for stage in planned(Run(tracked))]


def test_a_tracker_that_fails_says_so_once_and_is_left_alone(monkeypatch, tmp_path):
    class Broken(Kept):
        def scalars(self, values, step):
            raise ConnectionError("no route to host")

    Kept.all, said = [], []
    monkeypatch.setitem(tracking.TRACKERS, "wandb", Broken)
    with tracking.Tracked(spec(tmp_path, "tracking=wandb"), "a", "b", {}, said.append) as tracked:
        for step in range(3):
            tracked.scalars({"loss": 1.0}, step)
    assert said == ["tracking=wandb failed and is left out from here on: ConnectionError: no route to host"]
    assert [one.closed for one in Kept.all] == [True]


def test_a_package_that_is_not_installed_is_told_before_anything_is_built(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(tracking.PACKAGES, "wandb", "a_package_that_nobody_has")
    assert command.main([*SMOKE, f"results_dir={tmp_path}", "tracking=wandb"]) == 2
    assert "pip install 'vq-prior-bench[tracking]'" in capsys.readouterr().err


def test_a_tracker_there_is_none_of_names_the_nearest(tmp_path):
    with pytest.raises(InputError, match="Did you mean 'tensorboard'"):
        spec(tmp_path, "tracking=tensorbord")


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="the package tensorboard is not installed")
def test_tensorboard_reads_what_was_tracked(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    asked = spec(tmp_path, "tracking=tensorboard")
    for steps in (range(2), range(2, 4)):   # the second time it goes on
        with tracking.Tracked(asked, "prior absorbing, 4 steps", "prior-12", {"lr": 0.1}, pytest.fail) as tracked:
            for step in steps:
                tracked.scalars({"train_loss": 1.0 / (step + 1)}, step)
    folder, = (tmp_path / "results" / "tracking").glob("*/*")
    assert folder.parts[-2:] == ("prior-absorbing-4-steps", "prior-12")
    events = EventAccumulator(str(folder)).Reload()
    assert [(event.step, pytest.approx(event.value)) for event in events.Scalars("train_loss")] == [
        (0, 1.0), (1, 1 / 2), (2, 1 / 3), (3, 1 / 4)]


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="the package wandb is not installed")
def test_wandb_keeps_runs_on_this_machine_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    with tracking.Tracked(spec(tmp_path, "tracking=wandb"), "prior", "prior-12", {"lr": 0.1}, pytest.fail) as tracked:
        tracked.scalars({"train_loss": 1.0}, 1)
        tracked.scalars({"train_loss": 0.5}, 2)
    assert list((tmp_path / "results" / "tracking").glob("wandb/offline-run-*-prior-12/*.wandb"))
