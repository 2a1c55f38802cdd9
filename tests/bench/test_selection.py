"""Weights are chosen on one half of the held-out images and scored on the other."""

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch

from bench import registry, selection
from bench.compose import compose
from bench.config.models import PriorTrainingConfig
from bench.errors import InputError
from bench.records import Measurement
from bench.reporting.differences import contest_of, why_no_contest
from bench.reporting.rows import Cell, Observation, cell_of
from bench.stages import identity
from bench.stages.base import Run
from bench.stages.identity import may_score, run_key
from bench.stages.measurements import evidence_of, recipe_of
from bench.stages.prior import PRIOR, _measured_indices, held_out_parts
from bench.stages.tokenizer import TOKENIZER
from bench.stages.tokens import TOKENS
from bench.stages.trainings import _shorter
from bench.store.store import Store
from priors.base import Likelihood

SMOKE = ["preset=smoke", "dataset=digits", "metrics.names=[nll]", "prior.training.select=best"]
composed = cache(lambda *more: compose([*SMOKE, *more]))


def keys(*more):
    run = Run(composed(*more))
    return run.recipe(PRIOR).key, recipe_of(run, "nll", {"bits_per_token": 2}, (), {}, ignores_samples=True).key


@pytest.mark.parametrize("total", [2, 3, 64, 10_000])
def test_no_image_chooses_and_scores(total):
    chooses, scores = selection.parts(PriorTrainingConfig(), total)
    assert not set(chooses) & set(scores) and sorted([*chooses, *scores]) == list(range(total))


def test_shared_selection_is_that_of_before():
    chooses, scores = selection.parts(PriorTrainingConfig(selection="shared"), 5)
    assert list(chooses) == list(scores) == [0, 1, 2, 3, 4] and \
        selection.budget(PriorTrainingConfig(selection="shared")) == 4


def test_one_validation_image_cannot_be_dealt():
    with pytest.raises(InputError, match="at least 2.*selection=shared"):
        selection.parts(PriorTrainingConfig(), 1)


def test_too_few_held_out_images_stop_a_run_before_its_keys_are_made():
    with pytest.raises(InputError, match="at least 2"):
        Run(composed("prior=autoregressive", "dataset.max_validation=1")).recipe(PRIOR)


class Watching:
    """Notes which held-out images a prior is shown, by their first tokens."""

    def __init__(self, monkeypatch, name):
        cls, self.seen = registry.resolve("priors", name), []
        original = cls.nll

        def nll(prior, tokens, **options):
            self.seen += [tuple(grid.tolist()) for grid in tokens]
            return original(prior, tokens, **options)

        monkeypatch.setattr(cls, "nll", nll)
        if hasattr(cls, "calibrate"):
            calibrate = cls.calibrate

            def watched(prior, tokens, **options):
                self.seen += [tuple(grid.tolist()) for grid in tokens]
                return calibrate(prior, tokens, **options)

            monkeypatch.setattr(cls, "calibrate", watched)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


class Spelling:
    """Two grids of four tokens, of 16 codes, that spell their own image's number; a training image's end in ones."""

    grid, codebook_size = (2, 2), 16

    @staticmethod
    def tokens(num, last):
        numbers = np.arange(num)
        return np.stack([numbers // 16, numbers % 16, np.full(num, last), np.full(num, last)], 1).astype(np.int64)


def held_out_seen(watching):
    """Numbers of the held-out images that a prior was shown."""
    return {16 * grid[0] + grid[1] for grid in watching.seen if grid[2] == 0}


def run_of(store, *arguments):
    """A run with tokens that tell which image they are of, and no tokenizer to train."""
    run = Run(composed(*arguments), store=store, announce=lambda text: None)
    splits = run.splits
    run._opened = {TOKENIZER: Spelling(),
                   TOKENS: (Spelling.tokens(len(splits.train), 1), Spelling.tokens(len(splits.validation), 0))}
    return run


@pytest.mark.parametrize("name", ["absorbing", "autoregressive"])
@pytest.mark.parametrize("measured", [[], ["prior.training.measure_at=log", "prior.training.schedule=constant",
                                           "prior.training.measure_images=20"]])
def test_choosing_and_calibrating_never_look_at_an_image_that_scores(name, measured, store, monkeypatch):
    watching = Watching(monkeypatch, name)
    run = run_of(store, f"prior={name}", *measured)
    run.open(PRIOR)
    scored = {int(i) for i in held_out_parts(run)[1]}
    not_chosen_on = scored - ({int(i) for i in _measured_indices(run, 64, 20)[1]} if measured else set())
    assert held_out_seen(watching) and not held_out_seen(watching) & not_chosen_on
    assert {int(16 * grid[0] + grid[1]) for grid in evidence_of(run).validation_tokens()} == scored


def test_a_trajectory_s_halves_are_those_that_choose_and_score(store):
    run = run_of(store, "prior=autoregressive")
    chooses, scores = _measured_indices(run, 64, 20)
    assert (len(chooses), len(scores)) == (10, 10)
    assert set(chooses) <= set(held_out_parts(run)[0]) and set(scores) <= set(held_out_parts(run)[1])


def test_priors_whose_likelihood_is_a_sum_are_chosen_by_more_evaluations(store, monkeypatch):
    cls, budgets = registry.resolve("priors", "vq_diffusion"), set()

    def nll(prior, tokens, *, draws, budget=None):
        budgets.add(budget)
        return Likelihood(torch.ones(len(tokens)), torch.zeros(len(tokens)), "bound_T", 1)

    monkeypatch.setattr(cls, "nll", nll)
    run_of(store, "prior=vq_diffusion").open(PRIOR)
    assert budgets == {selection.BUDGET_APART}


@pytest.mark.parametrize("prior, key, run", [
    ("absorbing", "cbb818eb09c5b6f6", "23b96f64959e5968"),
    ("vq_diffusion", "7676be1dc715cf8c", "b8926dfff8b7d809")])
def test_keys_of_shared_selection_are_those_of_before_there_was_a_choice(prior, key, run, monkeypatch, tmp_path):
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(tmp_path))   # protocol ids tell of metric weights that lie there
    made = Run(compose(["preset=demo", "dataset=digits", f"prior={prior}", "prior.training.selection=shared"]))
    assert (made.recipe(PRIOR).key, run_key(made)) == (key, run)


@pytest.mark.parametrize("prior, more, changes", [
    ("absorbing", ["prior.training.select=latest"], True),      # it calibrates
    ("autoregressive", ["prior.training.select=latest"], False), ("autoregressive", [], True),
    ("vq_diffusion", [], True), ("unigram", [], False)])
def test_a_prior_s_key_tells_of_selection_where_held_out_images_have_a_say(prior, more, changes):
    apart, shared = (keys(f"prior={prior}", *more, f"prior.training.selection={how}") for how in ("apart", "shared"))
    assert (apart[0] != shared[0]) == changes
    assert apart[1] != shared[1]   # scored on other images


@pytest.mark.parametrize("metric", ["nll", "condition_information"])
def test_a_run_that_scores_held_out_images_tells_which(metric):
    one, other = (run_key(Run(composed("prior=unigram", "condition=class", f"metrics.names=[{metric}]",
                                       f"prior.training.selection={how}"))) for how in ("apart", "shared"))
    assert one != other


def test_a_registered_metric_from_elsewhere_may_score_them_too(monkeypatch):
    monkeypatch.setattr(identity, "marked", lambda kind, name: f"{name}+code:1" if name == "theirs" else name)
    assert may_score("theirs") and not may_score("fid")


@pytest.mark.parametrize("select, resumes", [("latest", True), ("best", False)])
def test_the_best_weights_of_another_selection_are_never_resumed(select, resumes, store):
    """The key of `latest` weights of a prior that calibrates nothing says nothing of selection."""
    run_of(store, "prior=autoregressive", "prior.training.select=latest", "prior.training.selection=apart",
           "prior.training.steps=20").obtain(PRIOR)
    longer = run_of(store, "prior=autoregressive", f"prior.training.select={select}", "prior.training.steps=30",
                    "prior.training.selection=shared")
    assert (_shorter(longer, PRIOR, longer.spec.prior.training) is not None) == resumes


def test_every_calibrating_prior_says_so():
    for name in ("absorbing", "autoregressive", "vq_diffusion", "uniform", "unigram"):
        cls = registry.resolve("priors", name)
        assert cls.Options.calibrates == hasattr(cls, "calibrate")
        assert getattr(cls.Options, "is_fitted", False) == hasattr(cls, "fit")


def likelihood_cell(value, **extra):
    measured = Measurement("bits_per_token", value, "p", n=10, standard_error=0.01, extra={"kind": "exact", **extra})
    return cell_of("bits_per_token", [Observation("r", 0, 0, measured)])


def test_likelihoods_of_other_held_out_images_do_not_compete():
    ours, theirs = likelihood_cell(5.0, images="scoring half"), likelihood_cell(5.1)
    assert contest_of(ours) != contest_of(theirs)
    assert why_no_contest(ours, theirs) == "scored on other held-out images"
    assert "on the scoring half of the held-out images" in ours.remark and theirs.remark == "exact"


def test_cells_without_a_likelihood_compete_as_before():
    assert contest_of(Cell("fid", 1.0)) == contest_of(dataclasses.replace(Cell("fid", 2.0)))
