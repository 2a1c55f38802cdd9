"""`rebuild=`: a stage and what depends on it are built anew for everybody; the old stays until the new is there."""

import subprocess
import sys

import pytest

from bench import rebuild, run
from bench.compose import Request, compose, expand
from bench.errors import InputError
from bench.records import Record, save_record
from bench.stages import samples as samples_stage
from bench.stages.base import Run
from bench.stages.chain import planned
from bench.stages.identity import run_key
from bench.stages.measurements import recipe_of
from bench.store.__main__ import gc
from bench.store.store import Recipe, Store

SMOKE = ["dataset=digits", "preset=smoke", "prior=absorbing", "metrics.names=[fid,nll]"]
PRIOR = Recipe("prior", {"size": 3})
SAMPLES = Recipe("samples", {"num": 2}, (PRIOR.key,))
FEATURES = Recipe("features", {"samples": SAMPLES.key})


def _write(text):
    return lambda out, work: (out / "file.txt").write_text(text)


def _content(artefact):
    return (artefact.path / "file.txt").read_text()


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(tmp_path))
    return Store()


@pytest.fixture
def built(store):
    """Every stage of a smoke run and its two metrics, and the samples of another sampler: key -> stage."""
    runs = expand(SMOKE)
    recipes = Run(runs[0].spec)
    every = [stage.recipe for stage in planned(recipes)]
    every += [recipe_of(recipes, "fid", {"fid": 1}, (), {}),
              recipe_of(recipes, "nll", {}, (), {}, ignores_samples=True)]
    every.append(Run(compose([*SMOKE, "sampler.steps=2"])).recipe(samples_stage.SAMPLES))
    for recipe in every:
        store.obtain(recipe, _write("old"))
    return runs, every


def stages_marked(runs, wanted, store):
    return sorted(artefact.manifest["stage"] for artefact in rebuild.ask_anew(runs, wanted, store))


def test_what_is_asked_anew_counts_as_missing_until_it_is_built(store):
    store.ask_anew(store.obtain(PRIOR, _write("old")))
    assert store.find(PRIOR) is None and store.state(PRIOR) == "missing"
    assert _content(store.obtain(PRIOR, _write("new"))) == "new"
    assert store.state(PRIOR) == "cached" and store.keys_asked_anew() == set()


def test_the_old_is_there_while_the_new_is_built_and_after_it_failed(store):
    old = store.obtain(PRIOR, _write("old"))
    store.ask_anew(old)

    def fail(out, work):
        assert _content(old) == "old"
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        store.obtain(PRIOR, fail)
    assert _content(old) == "old" and store.keys_asked_anew() == {PRIOR.key}


def test_nothing_of_the_old_is_left_once_the_new_is_there(store):
    store.ask_anew(store.obtain(PRIOR, _write("old")))
    store.obtain(PRIOR, _write("new"))
    assert [path.name for path in store.root.glob("prior/*")] == [PRIOR.key]


def test_gc_keeps_what_is_asked_anew_and_that_it_is(store):
    store.ask_anew(store.obtain(PRIOR, _write("old")))
    gc(store)
    assert store.keys_asked_anew() == {PRIOR.key} and len(list(store.artefacts())) == 1


def test_dependents_are_found_through_inputs_and_through_what_features_are_of():
    assert rebuild.dependents({PRIOR.key}, [FEATURES, SAMPLES, PRIOR]) == {PRIOR.key, SAMPLES.key, FEATURES.key}
    assert rebuild.dependents({SAMPLES.key}, [FEATURES, SAMPLES, PRIOR]) == {SAMPLES.key, FEATURES.key}


def test_a_prior_takes_its_samples_features_and_metrics_with_it_for_other_runs_too(store, built):
    assert stages_marked(built[0], ["prior"], store) == ["features", "metric", "metric", "prior", "samples", "samples"]


def test_a_metric_is_rebuilt_alone(store, built):
    marked = rebuild.ask_anew(built[0], ["fid"], store)
    assert [artefact.manifest["config"]["metric"] for artefact in marked] == ["fid"]


def test_features_take_the_metrics_of_their_protocol_with_them(store, built):
    assert stages_marked(built[0], ["features"], store) == ["features", "features", "metric", "metric"]


def test_what_was_begun_with_the_old_is_dropped_but_not_what_a_rebuild_has_done_already(store, built):
    runs, recipes = built[0], {recipe.stage: recipe for recipe in built[1]}
    begun = store.work_folder(recipes["prior"]) / "latest.pt"
    begun.write_text("of the old")
    rebuild.ask_anew(runs, ["prior"], store)
    assert not begun.exists()
    begun = store.work_folder(recipes["prior"]) / "latest.pt"
    begun.write_text("of the new")
    rebuild.ask_anew(runs, ["prior"], store)
    assert begun.exists()


def test_a_record_made_of_what_is_to_be_built_anew_is_not_settled(store):
    artefact = store.obtain(PRIOR, _write("old"))
    record = Record("a", "2026", "prior", "a", {}, "k", "ok", provenance={"artefacts": {"prior": {"key": PRIOR.key}}})
    assert rebuild.settled([record], store) == [record]
    store.ask_anew(artefact)
    assert rebuild.settled([record], store) == []


def test_a_finished_run_is_launched_again_and_so_it_is_after_an_interruption(built, tmp_path, monkeypatch):
    runs, recipes = built
    prior = next(recipe for recipe in recipes if recipe.stage == "prior")
    results = f"results_dir={tmp_path / 'results'}"
    command = [*SMOKE, results, "baselines=false"]
    key = run_key(Run(compose(command)))
    save_record(Record("a", "2026", "prior", "absorbing", {}, key, "ok",
                       provenance={"artefacts": {"prior": {"key": prior.key}}}), tmp_path / "results")
    launched: list[list[Request]] = []
    for name in ("prepare", "print_summary"):
        monkeypatch.setattr(run, name, lambda *args, **keys: None)
    monkeypatch.setattr(run, "launch", lambda missing, console: launched.append(missing) or [])
    for more in ([], ["rebuild=prior"], []):
        assert run.run_all([*command, *more]) == 0
    assert [len(missing) for missing in launched] == [0, 1, 1]


@pytest.mark.parametrize("text, names", [("rebuild=prior", ["prior"]), ("rebuild=prior,fid", ["prior", "fid"]),
                                         ("rebuild=[samples, fid]", ["samples", "fid"])])
def test_a_list_may_have_brackets(text, names):
    assert rebuild.split_off(["prior=unigram", text]) == (names, ["prior=unigram"])


@pytest.mark.parametrize("name, says", [("priors", "Did you mean 'prior'"), ("", "expected stages or metrics"),
                                        ("likelihood", "no run of this command has that stage")])
def test_another_name_is_wrong_input_before_torch_is_imported(name, says, tmp_path):
    code = ("import sys; from bench.run import main; code = main(sys.argv[1:]); "
            "assert 'torch' not in sys.modules; sys.exit(code)")
    done = subprocess.run([sys.executable, "-c", code, *SMOKE, f"rebuild={name}", f"results_dir={tmp_path}"],
                          capture_output=True, text=True)
    assert done.returncode == 2 and says in " ".join(done.stderr.split())
    assert not list(tmp_path.rglob("*.json"))


def test_a_plan_marks_nothing(built, store):
    with pytest.raises(InputError, match="only look"):
        run.run_all([*SMOKE, "rebuild=prior", "plan=true"])
    assert store.keys_asked_anew() == set()
