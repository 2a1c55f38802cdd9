"""prior.training.measure_at=log: what one training reaches along the way is what separate trainings reach."""

import dataclasses

import numpy as np
import pytest
import torch

from bench.compose import compose
from bench.errors import InputError
from bench.registry import resolve
from bench.schema import schema_of
from bench.stages.base import Run
from bench.stages.models import training_of
from bench.stages.prior import PRIOR
from bench.stages.prior import regime as regime_of
from bench.store.store import Store
from bench.training.tasks import PriorTask, flops_of_training
from bench.training.trajectories import SPLITS, Trajectory, is_measured
from priors.base import Draws

LOG = ["preset=smoke", "dataset=digits", "metrics.names=[nll]", "prior.training.measure_at=log",
       "prior.training.schedule=constant", "prior.training.measure_images=40", "prior.training.select=latest"]


def trained(store, *more):
    """The folder of the trained prior's artefact."""
    run = Run(compose([*LOG, *more]), store=store, announce=lambda _: None)
    return run, run.obtain(PRIOR).path


def same(one, other):
    return one.steps == other.steps and all(
        np.array_equal(a, b) for split in SPLITS for a, b in zip(one.bits[split], other.bits[split], strict=True))


def test_the_steps_are_log_spaced_and_do_not_depend_on_the_end():
    steps = [step for step in range(1, 13_000) if is_measured(step)]
    assert steps[:5] == [100, 126, 159, 200, 252] and 20 <= len(steps) <= 22
    assert all(1.2 < after / before < 1.3 for before, after in zip(steps, steps[1:], strict=False))


@pytest.mark.parametrize("prior", ["autoregressive", "absorbing"])
def test_a_trajectory_equals_separate_runs_bit_for_bit(tmp_path, prior):
    at_once = Trajectory.load(trained(Store(tmp_path / "a"), f"prior={prior}", "prior.training.steps=130")[1]
                              / "trajectory.npz")
    assert at_once.steps == [100, 126, 130]
    alone = Trajectory.load(trained(Store(tmp_path / "b"), f"prior={prior}", "prior.training.steps=100")[1]
                            / "trajectory.npz")
    assert alone.steps == [100] and all(np.array_equal(alone.bits[s][0], at_once.bits[s][0]) for s in SPLITS)
    assert at_once.kind == ("exact" if prior == "autoregressive" else "bound_continuous")
    assert len(at_once.bits["selection"][0]) == len(at_once.bits["scoring"][0]) == 20


def task_of(prior, order):
    """The training task of an untrained prior of four tokens, measured in this order."""
    config = compose([*LOG, f"prior={prior}", f"prior.training.measure_order={order}"]).prior
    options = schema_of(config, "priors")[0](**config.options)
    return PriorTask(resolve("priors", prior)(grid=(2, 2), codebook_size=3, options=options), config.training)


@pytest.mark.parametrize("prior", ["absorbing", "any_order"])
def test_a_trajectory_can_be_of_the_exact_likelihood_in_one_order(prior):
    task, tokens, draws = task_of(prior, "column"), Draws.seeded(1).integers(0, 3, 5, 4), Draws.seeded(0)
    torch.nn.init.normal_(task.model.net.head.weight)
    bits, variance, kind = task.measure(task.model.eval(), tokens, draws)
    nats = task.model.nll_in_order(tokens, torch.tensor([0, 2, 1, 3])).nats
    assert torch.allclose(bits, nats / 4 / np.log(2)) and not variance.any() and kind == "exact"


@pytest.mark.parametrize(("prior", "complaint"), [
    ("autoregressive", "its own order, raster, alone"), ("vq_diffusion", "no likelihood in an order of one's choice")])
def test_an_order_that_a_prior_cannot_take_is_refused_before_its_training(prior, complaint):
    with pytest.raises(InputError, match=complaint):
        task_of(prior, "column")


def test_extending_the_steps_continues_the_trajectory(tmp_path):
    store = Store(tmp_path / "a")
    trained(store, "prior=autoregressive", "prior.training.steps=110")
    _, extended = trained(store, "prior=autoregressive", "prior.training.steps=130")
    _, at_once = trained(Store(tmp_path / "b"), "prior=autoregressive", "prior.training.steps=130")
    assert same(Trajectory.load(extended / "trajectory.npz"), Trajectory.load(at_once / "trajectory.npz"))
    assert (extended / "model.safetensors").read_bytes() == (at_once / "model.safetensors").read_bytes()


def test_best_and_latest_of_one_training_are_trained_once(tmp_path):
    store = Store(tmp_path / "a")
    trained(store, "prior=autoregressive", "prior.training.steps=130")
    run, best = trained(store, "prior=autoregressive", "prior.training.steps=130", "prior.training.select=best")
    assert run.used["prior"].manifest["wall_seconds"] < 30
    assert Trajectory.load(best / "trajectory.npz").steps == [100, 126, 130]


def test_the_record_says_regime_operations_and_best_point(tmp_path):
    run, _ = trained(Store(tmp_path / "a"), "prior=absorbing", "prior.training.steps=130")
    regime = regime_of(run)
    assert regime["passes"] == 130 * run.spec.prior.training.batch_size / regime["images"]
    assert regime["best_step"] in (100, 126, 130)
    tokens = regime["presentations"] * run.open(PRIOR).num_tokens
    assert 3 < regime["training_flops"] / tokens / sum(p.numel() for p in run.open(PRIOR).parameters()) < 12


def halves(selection, scoring=None, steps=None):
    """A trajectory of one image a split."""
    found = Trajectory(steps or [100 * (i + 1) for i in range(len(selection))])
    for split, bits in (("train", selection), ("selection", selection), ("scoring", scoring or selection)):
        found.bits[split] = [np.array([value], np.float32) for value in bits]
        found.variance[split] = [np.zeros(1, np.float32) for _ in bits]
    return found


def test_patience_ends_what_has_long_passed_its_best():
    assert not halves([3, 2, 2.5]).has_long_passed_its_best(2)
    assert halves([3, 2, 2.5, 2.6]).has_long_passed_its_best(2)
    assert not halves([3, 2, 2.5, 1.9]).has_long_passed_its_best(2)
    assert not halves([3, 2, 2.5, 2.6]).has_long_passed_its_best(None)


def test_patience_ends_a_training_early_and_the_record_counts_what_was_trained(tmp_path):
    run, folder = trained(Store(tmp_path / "a"), "prior=autoregressive", "prior.training.steps=3000",
                               "prior.training.images=4", "prior.training.learning_rate=0.02",
                               "prior.training.patience=1.5")
    trajectory = Trajectory.load(folder / "trajectory.npz")
    assert trajectory.steps[-1] < 3000
    assert regime_of(run)["presentations"] == trajectory.steps[-1] * run.spec.prior.training.batch_size


def test_choosing_on_one_half_adds_no_optimism_to_the_other():
    generator = np.random.default_rng(0)
    gaps = {"selection": [], "scoring": []}
    for _ in range(400):
        noise = {split: generator.normal(5, 1, (20, 50)) for split in ("selection", "scoring")}
        found = Trajectory(list(range(1, 21)), {"train": [np.zeros(1)] * 20, **{k: list(v) for k, v in noise.items()}})
        for split, values in gaps.items():
            values.append(found.mean(split)[found.best()] - 5)
    assert np.mean(gaps["selection"]) < -0.2
    assert abs(np.mean(gaps["scoring"])) < 4 * np.std(gaps["scoring"]) / 20


def test_a_trajectory_survives_its_file_and_nothing_else_is_one(tmp_path):
    found = halves([3, 2.5])
    found.save(tmp_path / "t.npz")
    assert same(Trajectory.load(tmp_path / "t.npz"), found)
    (tmp_path / "t.npz").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"trajectory"):
        Trajectory.load(tmp_path / "t.npz")


@pytest.mark.parametrize("wrong", [
    "prior.training.measure_at=sometimes", "prior.training.measure_images=1", "prior.training.patience=0.5",
    "prior.training.schedule=cosine", "prior.training.measure_order=random"])
def test_what_cannot_be_measured_is_refused_before_work(wrong):
    with pytest.raises(InputError, match=wrong.split("=")[0]):
        compose([*LOG, wrong])


def test_patience_needs_something_to_look_at():
    with pytest.raises(InputError, match="measure_at=log"):
        compose(["preset=smoke", "dataset=digits", "prior=autoregressive", "prior.training.patience=2"])
    with pytest.raises(InputError, match="measure_order=raster: it looks at a trajectory"):
        compose(["preset=smoke", "dataset=digits", "prior=autoregressive", "prior.training.measure_order=raster"])


def test_keys_of_trainings_without_a_trajectory_are_what_they_were():
    training = compose(["preset=smoke", "dataset=digits", "prior=autoregressive"]).prior.training
    of_trajectories = {"measure_at", "measure_images", "measure_budget", "measure_order", "patience"}
    assert not of_trajectories & set(training_of(training))
    measured = dataclasses.replace(training, measure_at="log", schedule="constant")
    assert "measure_at" in training_of(measured) and "measure_order" not in training_of(measured)
    assert training_of(dataclasses.replace(measured, measure_order="raster"))["measure_order"] == "raster"


def test_operations_of_a_prior_without_options_are_those_of_its_linear_layers():
    prior = torch.nn.Linear(3, 5)
    prior.num_tokens = 4
    assert flops_of_training(prior) == 3 * 4 * 2 * 15
