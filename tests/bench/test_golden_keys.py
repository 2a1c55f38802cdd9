"""Keys of artefacts and of runs, as they were: a cache and committed records outlive every move of the code.

A key changes only where the numbers behind it change; then, and only then, write the file anew:

    python tests/bench/test_golden_keys.py > tests/bench/golden_keys.json
"""

import json
import os
import sys
from pathlib import Path

import pytest

from bench.compose import compose
from bench.config import MASKS
from bench.editing.benchmark import edit_of
from bench.editing.options import EditOptions
from bench.stages.base import Run
from bench.stages.chain import planned
from bench.stages.identity import protocol_id, run_key
from bench.stages.measurements import recipe_of

GOLDEN = Path(__file__).with_name("golden_keys.json")
PRESETS = ("smoke", "demo", "small", "paper")
PRIORS = ("absorbing", "autoregressive", "any_order", "vq_diffusion", "uniform", "unigram")
BASELINES = ("reconstruction", "real")
LAUNCHERS = ("debug", "local", "slurm")
METRIC = ("fid", {"fid": 1}, ("protocol", "metrics.memory_gb"), {})


def runs():
    """name -> arguments of every preset with every prior and baseline, all on the digits that a package ships."""
    for preset in PRESETS:
        common = [f"preset={preset}", "dataset=digits"]
        for prior in PRIORS:
            yield f"{preset} {prior}", [*common, f"prior={prior}"]
        for source in BASELINES:
            yield f"{preset} {source}", [*common, "prior=unigram", f"source={source}"]
    yield "smoke seeds", ["preset=smoke", "dataset=digits", "prior=absorbing", "seed=1", "sampler.seed=2"]
    yield "smoke pixel likelihood", ["preset=smoke", "dataset=digits", "prior=unigram", "vq.likelihood_head=true",
                                     "metrics.names=[pixel_nll]"]


def edits():
    """name -> spec of every row that bench.edit task=benchmark measures on the same digits."""
    for mask in MASKS:
        for prior, more in (("absorbing", ["sampler.steps=4"]), ("autoregressive", [])):
            spec = compose(["preset=smoke", "dataset=digits", f"prior={prior}", *more])
            yield f"smoke edit {mask} {prior}", edit_of(spec, mask, EditOptions("benchmark"))
        yield f"smoke edit {mask} reconstruction", edit_of(spec, mask, EditOptions("benchmark"),
                                                           source="reconstruction")


def keys_of_stages(run, others=()):
    """Every key of one run or edit, by the label of its stage."""
    found = {stage.label: stage.recipe.key for stage in planned(run)}
    return found | dict(others) | {"run": run_key(run), "protocol": protocol_id(run)}


def keys(arguments):
    recipes = Run(compose(arguments))
    name, versions, depends_on, machine = METRIC
    metric = {"metric fid": recipe_of(recipes, name, versions, depends_on, machine).key}
    return keys_of_stages(recipes, metric)


@pytest.fixture(autouse=True)
def published_weights(tmp_path, monkeypatch):
    """Keys as they are where no weights have been fetched, or the published ones."""
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("VQ_PRIOR_BENCH_") and name[15:] != "CACHE"]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(("name", "arguments"), list(runs()), ids=[name for name, _ in runs()])
def test_keys_are_those_of_before(name, arguments):
    assert keys(arguments) == json.loads(GOLDEN.read_text())[name]


def test_keys_of_edits_are_those_of_before():
    golden = json.loads(GOLDEN.read_text())
    for name, spec in edits():
        assert keys_of_stages(Run(spec)) == golden[name], name


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_where_a_run_is_launched_is_part_of_no_key(launcher):
    name, arguments = next(iter(runs()))
    assert keys([*arguments, f"launcher={launcher}"]) == json.loads(GOLDEN.read_text())[name]


def test_an_option_of_later_days_enters_keys_and_labels_only_where_it_is_set():
    name, arguments = next(iter(runs()))
    sampler = compose(arguments).sampler
    assert "remasking" not in sampler and "corrector_steps" not in sampler
    spec = compose([*arguments, "sampler.method=remdm", "sampler.remasking=rescale"])
    assert spec.sampler["remasking"] == "rescale" and "remasking_strength" not in spec.sampler
    other = keys([*arguments, "sampler.method=remdm", "sampler.remasking=flow"])
    assert other["run"] != keys([*arguments, "sampler.method=remdm", "sampler.remasking=rescale"])["run"]
    assert other["prior absorbing"] == json.loads(GOLDEN.read_text())[name]["prior absorbing"]


if __name__ == "__main__":
    found = {name: keys(arguments) for name, arguments in runs()}
    json.dump(found | {name: keys_of_stages(Run(spec)) for name, spec in edits()}, sys.stdout, indent=1)
