"""prior.seed: several trainings of a prior on the tokens of one tokenizer, which count as repetitions."""

import pytest

from bench.baselines import with_baselines
from bench.compose import compose, expand
from bench.data.foreign import as_written
from bench.errors import InputError
from bench.reporting.identity import row_key, seeds_of
from bench.stages.base import Run
from bench.stages.identity import run_key
from bench.stages.prior import PRIOR
from bench.stages.tokenizer import TOKENIZER
from bench.stages.tokens import TOKENS
from bench.store.store import Store

SMOKE = ["preset=smoke", "dataset=digits", "prior=autoregressive", "metrics.names=[nll]"]


def run_of(*more):
    return Run(compose([*SMOKE, *more]))


def test_it_changes_the_prior_and_neither_tokenizer_nor_tokens():
    plain, seeded = run_of(), run_of("prior.seed=1")
    assert all(plain.recipe(stage) == seeded.recipe(stage) for stage in (TOKENIZER, TOKENS))
    assert plain.recipe(PRIOR) != seeded.recipe(PRIOR) and run_key(plain) != run_key(seeded)


def test_the_seed_of_the_run_given_again_is_the_same_training():
    assert run_of("seed=3").recipe(PRIOR).key == run_of("seed=3", "prior.seed=3").recipe(PRIOR).key
    assert run_of("prior.seed=0").recipe(PRIOR).key == run_of().recipe(PRIOR).key


def test_a_prior_of_another_tokenizer_is_another_training():
    assert run_of("seed=1").recipe(PRIOR).key != run_of("prior.seed=1").recipe(PRIOR).key


def test_a_list_of_seeds_multiplies_out_over_one_baseline():
    runs = expand([*SMOKE, "prior.seed=0,1,2"])
    assert [run.spec.prior.seed for run in runs] == [0, 1, 2]
    assert [run.spec.source for run in with_baselines(runs)] == ["real", "reconstruction", "prior", "prior", "prior"]


@pytest.mark.parametrize(("arguments", "complaint"), [
    (["prior.seed=-1"], r"prior\.seed=-1: expected a number, whole, at least 0 .* or null for the run's seed"),
    (["prior.seed=1.5"], "prior.seed"), (["prior.seed=first"], "prior.seed"), (["vq.seed=1"], "vq.seed"),
    (["prior.seed=1", "prior.path=prior.safetensors"], "prior.path=prior.safetensors is trained already")])
def test_what_is_no_seed_of_a_training_is_refused(arguments, complaint):
    with pytest.raises(InputError, match=complaint):
        expand([*SMOKE, *arguments])


def test_a_record_names_it_only_where_it_is_set():
    assert "seed" not in as_written(compose(SMOKE))["prior"]
    assert as_written(compose([*SMOKE, "prior.seed=4"]))["prior"]["seed"] == 4


def test_trainings_of_two_seeds_are_one_row_and_two_repetitions():
    plain, seeded = (as_written(compose([*SMOKE, *more])) for more in ([], ["prior.seed=4"]))
    assert row_key("prior", "autoregressive", plain) == row_key("prior", "autoregressive", seeded)
    assert seeds_of(plain) == (0, 0) and seeds_of(seeded)[0] != 0


def test_every_pair_of_seeds_is_a_training_of_its_own():
    trainings = [seeds_of({"source": "prior", "seed": seed, "prior": {"seed": of_prior}})[0]
                 for seed in (0, 1) for of_prior in (None, 0, 1, 2)]
    assert trainings[0] == trainings[1] == 0 and trainings[4] == trainings[6] == 1   # as the run's own seed
    assert len(set(trainings)) == 6


def test_reconstructions_know_no_seed_of_a_prior():
    assert seeds_of({"source": "reconstruction", "seed": 2, "prior": {"seed": 5}}) == (2, 0)


@pytest.mark.network
def test_it_trains_another_prior_on_the_same_tokens(tmp_path):
    def trained(*more):
        spec = compose([*SMOKE, "vq.training.steps=2", "prior.training.steps=2", *more])
        run = Run(spec, store=Store(tmp_path), announce=lambda text: None)
        return run.obtain(TOKENS).key, (run.obtain(PRIOR).path / "model.safetensors").read_bytes()

    (tokens, plain), (same_tokens, seeded) = trained(), trained("prior.seed=1")
    assert tokens == same_tokens and plain != seeded
