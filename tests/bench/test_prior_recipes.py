"""Published methods by name that are settings of a prior: prior=mdlm, remdm, maskgit, flow_matching, udlm."""

import json

import pytest

from bench.compose import compose
from bench.conf_files import CONF
from bench.labels import label_of
from bench.reporting.identity import identity
from bench.reporting.rows import describe
from bench.stages.base import Run
from bench.stages.identity import run_key
from bench.stages.prior import PRIOR
from bench.stages.samples import SAMPLES
from bench.store.store import Store

RECIPES = ("mdlm", "remdm", "maskgit", "flow_matching")   # of absorbing diffusion
EVERY_RECIPE = (*RECIPES, "udlm")
SMOKE = ["preset=smoke", "dataset=digits"]


def spec_of(*arguments):
    return compose([*SMOKE, *arguments])


@pytest.mark.parametrize("recipe", EVERY_RECIPE)
def test_a_recipe_is_a_registered_prior_under_its_own_name(recipe):
    spec, name = spec_of(f"prior={recipe}"), "absorbing" if recipe in RECIPES else "uniform"
    assert (spec.prior.name, spec.prior.recipe, spec.prior.title) == (name, recipe, recipe)
    assert label_of(spec).split(", ")[0] == recipe
    assert describe("prior", {"prior": {"name": name, "recipe": recipe}, "sampler": {}}, "") == recipe


def test_every_recipe_of_the_configuration_is_known_here():
    found = {path.stem for path in (CONF / "prior").glob("*.yaml") if "\nrecipe: " in path.read_text()}
    assert found == set(EVERY_RECIPE)


def test_what_each_recipe_trains_and_how_it_samples():
    chosen = {name: spec_of(f"prior={name}") for name in RECIPES}
    trained = {name: (spec.prior.options["objective"], spec.prior.options["mask_schedule"],
                      spec.prior.options.get("mask_ratio")) for name, spec in chosen.items()}
    assert trained == {"mdlm": ("elbo", "random", None), "remdm": ("elbo", "random", None),
                       "maskgit": ("mlm", "fixed", "cosine"), "flow_matching": ("cross_entropy", "random", None)}
    sampled = {name: [spec.sampler.get(key) for key in ("method", "remasking", "order", "schedule", "steps")]
               for name, spec in chosen.items()}
    assert sampled == {"mdlm": ["event", None, "random", "even", None],
                       "remdm": ["remdm", None, "random", "even", None],
                       "maskgit": ["event", None, "confidence", "cosine", 8],
                       "flow_matching": ["remdm", "flow", "random", "even", None]}


def test_udlm_is_uniform_diffusion_of_continuous_time_and_linear_noise():
    named, spelt = spec_of("prior=udlm"), spec_of("prior=uniform", "prior.form=udlm", "prior.noise_schedule=null")
    assert named.prior.options["form"] == "udlm" and run_key(Run(named)) == run_key(Run(spelt))
    keys = {Run(spec_of(*arguments)).recipe(PRIOR).key for arguments in (
        ["prior=uniform"], ["prior=udlm"], ["prior=udlm", "prior.noise_schedule=cosine"])}
    assert len(keys) == 3


def test_a_name_is_part_of_no_key_and_of_no_rows_identity():
    """What mdlm is called by its options has the very keys, and remdm samples the artefact that mdlm trained."""
    named, spelt = spec_of("prior=mdlm"), spec_of("prior.objective=elbo", "prior.timesteps=1000")
    assert named.prior.recipe == "mdlm" and spelt.prior.recipe is None
    assert run_key(Run(named)) == run_key(Run(spelt))
    assert Run(spec_of("prior=remdm")).recipe(PRIOR) == Run(named).recipe(PRIOR)
    flat = identity("prior", {"prior": {"name": "absorbing", "recipe": "mdlm"}})
    assert json.dumps(flat) == json.dumps(identity("prior", {"prior": {"name": "absorbing"}}))


@pytest.mark.parametrize(("arguments", "recipe"), [
    (["prior=maskgit", "sampler.steps=12"], "maskgit"), (["prior=remdm", "sampler.remasking=cap"], "remdm"),
    (["prior=mdlm", "prior.width=64"], "mdlm"), (["prior=mdlm", "prior.objective=mlm"], None),
    (["prior=maskgit", "sampler=default"], None), (["sampler=maskgit", "prior=remdm"], None)])
def test_a_recipe_keeps_its_name_while_it_is_what_the_name_says(arguments, recipe):
    spec = spec_of(*arguments)
    assert spec.prior.recipe == recipe and label_of(spec).split(", ")[0] == (recipe or "absorbing")


def test_a_sampler_on_the_command_line_goes_before_the_recipes():
    assert spec_of("prior=maskgit", "sampler=default").sampler["order"] == "random"


@pytest.mark.parametrize(("sampler", "prior", "method"), [
    ("remdm", "absorbing", "remdm"), ("flow_matching", "absorbing", "remdm"), ("maskgit_8", "absorbing", "event"),
    ("predictor_corrector", "absorbing", "predictor_corrector"), ("jacobi", "autoregressive", "jacobi"),
    ("jacobi", "any_order", "jacobi"), ("speculative", "any_order", "speculative")])
def test_samplers_can_be_chosen_by_name(sampler, prior, method):
    assert spec_of(f"prior={prior}", f"sampler={sampler}").sampler["method"] == method


@pytest.mark.slow
@pytest.mark.network
def test_every_recipe_trains_and_samples(tmp_path):
    store, keys = Store(tmp_path), {}
    for recipe in EVERY_RECIPE:
        spec = compose([*SMOKE, f"prior={recipe}", "protocol.num_fake=4", "sampling.chunk=4", "sampler.steps=3",
                        "vq.training.steps=2", "prior.training.steps=2"])
        run = Run(spec, store=store, announce=lambda text: None)
        assert run.obtain(SAMPLES) is not None
        keys[recipe] = run.used["prior"].path
    assert keys["remdm"] == keys["mdlm"] and len(set(keys.values())) == 4
