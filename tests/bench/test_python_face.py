"""The face towards Python: the same functions whatever was imported first, and tables that lose nothing."""

import inspect
import itertools
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import bench
from bench.compose import compose, expand
from bench.errors import InputError
from bench.face import COLUMNS, tidy
from bench.pipeline import failed_record
from bench.records import Measurement, Record, save_record
from bench.words import arguments_of

ROOT = Path(__file__).parents[2]
SMOKE = {"preset": "smoke", "dataset": "digits"}
IMPORTS = ("import bench", "import bench.run, bench.report", "from bench import run, report", "from bench import plan",
           "from bench.run import main", "from bench.report import report")
CALLED = """
import bench, bench.run as module, sys
assert callable(bench.run) and callable(bench.report) and callable(bench.load) and callable(bench.plan)
assert bench.run is module is sys.modules["bench.run"] and callable(module.main) and callable(bench.report.main)
from bench import run, report
assert run is bench.run and report is bench.report
"""


def python(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, **options)


@pytest.mark.parametrize(("name", "ours"), [("OMP_WAIT_POLICY", "PASSIVE"), ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")])
@pytest.mark.parametrize("given", [None, "7"])
def test_settings_of_libraries_are_made_before_torch_is_loaded_unless_the_user_made_them(name, ours, given):
    environment = {key: value for key, value in os.environ.items() if key != name}
    code = f"import bench, os, sys; assert 'torch' not in sys.modules; print(os.environ['{name}'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env=environment | ({name: given} if given else {}))
    assert done.stdout.strip() == (given or ours)


def test_every_order_of_imports_gives_the_same_functions():
    fresh = ("for name in ('bench', 'bench.run', 'bench.report', 'bench.face', 'bench.planning'):\n"
             "    sys.modules.pop(name, None)\n")
    orders = ["\n".join(order) for order in itertools.permutations(IMPORTS, 2)]
    done = python("import sys\n" + "\n".join(fresh + order + CALLED for order in orders))
    assert done.returncode == 0, done.stderr


def test_importing_it_imports_neither_torch_nor_pandas():
    done = python("import bench, sys; assert not {'torch', 'pandas', 'numpy'} & set(sys.modules), sys.modules.keys()")
    assert done.returncode == 0, done.stderr


def test_planning_imports_no_torch(tmp_path):
    code = (f"import bench, sys; bench.plan('prior=unigram preset=smoke dataset=digits results_dir={tmp_path}'); "
            "from bench.run import main; from bench.report import main; assert 'torch' not in sys.modules")
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_what_is_called_is_replaced_where_it_stands(monkeypatch):
    monkeypatch.setattr(bench.run, "run", lambda *texts, **keys: (texts, keys))
    assert bench.run("a", b=1) == (("a",), {"b": 1})


def test_a_callable_module_tells_its_signature_and_survives_pickling():
    assert list(inspect.signature(bench.report).parameters)[:2] == ["results_dir", "out"]
    assert pickle.loads(pickle.dumps(bench.run)) is bench.run


def test_the_surface_is_listed_and_the_rest_is_refused():
    assert set(bench.__all__) <= set(dir(bench))
    with pytest.raises(AttributeError, match="no attribute 'rnu'"):
        bench.rnu   # noqa: B018


def test_tuples_are_swept_and_lists_are_values():
    words = arguments_of(("prior=absorbing,unigram",), {**SMOKE, "metrics": {"names": ["fid", "nll"]},
                                                        "sampler": {"steps": (8, 16)}, "sampler.temperature": 0.9})
    runs = expand(words, announce=lambda text: None)
    assert [(run.spec.prior.name, run.spec.sampler.get("steps")) for run in runs] == [
        ("absorbing", 8), ("absorbing", 16), ("unigram", None)]
    assert runs[0].spec.metrics.names == ["fid", "nll"] and runs[0].spec.sampler["temperature"] == 0.9


@pytest.mark.parametrize("text", ["a b", "it's", "a,b", "a\\'b", "end\\", "1", "true", "null", "\"quoted\"", "x=y",
                                  "[a]", "ünï", "a\\b", "'", "\\\\'"])
def test_a_text_arrives_as_it_is(text):
    assert compose(arguments_of((), {**SMOKE, "prior": "unigram", "label": text})).label == text


def test_numbers_flags_and_none_arrive_as_they_are():
    spec = compose(arguments_of((), {**SMOKE, "prior.training.learning_rate": 1e-5, "baselines": False,
                                     "dataset.max_train": None, "prior.training.betas": [0.5, 0.9]}))
    assert spec.prior.training.learning_rate == 1e-5 and spec.baselines is False and spec.dataset.max_train is None
    assert spec.prior.training.betas == [0.5, 0.9]


def test_texts_are_read_as_a_shell_would():
    assert arguments_of(("prior=unigram label='two words'",), {}) == ["prior=unigram", "label=two words"]


@pytest.mark.parametrize("texts, keys, words", [
    ((), {"prior": "absorbing,unigram"}, "Sweep with a tuple, prior=\\('absorbing', 'unigram'\\)"),
    ((), {"prior": ["absorbing", "unigram"]}, "Sweep with a tuple"), ((), {"seed": ()}, "at least one value"),
    ((), {"metrics.memory_gb": math.inf}, "finite"), ((), {"seed": object()}, "expected a text"),
    (("label='open",), {}, "closed"), ((3,), {}, "expected texts")])
def test_what_no_command_line_could_hold_is_refused(texts, keys, words):
    with pytest.raises(InputError, match=words):
        arguments_of(texts, keys)


def test_a_plan_is_a_table_of_what_would_be_built(tmp_path, monkeypatch):
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(tmp_path))
    table = bench.plan("prior=unigram,autoregressive", **SMOKE, baselines=False)
    assert list(table.columns) == ["stage", "key", "state", "work", "unit", "seconds", "note"]
    assert set(table.state) == {"missing"} and table.key.is_unique and table.seconds.isna().all()
    lone = bench.plan("prior=autoregressive sampler.steps=4", **SMOKE, baselines=False)
    assert "absorbing" in lone[lone.state == "unsupported"].note.item()


def test_a_plan_is_not_run_and_a_run_is_no_plan():
    with pytest.raises(InputError, match="bench.plan"):
        bench.run("prior=unigram plan=true", **SMOKE)


def records():
    spec = {"prior": {"name": "absorbing"}, "dataset": {"name": "digits"}, "seed": 1,
            "sampler": {"seed": 2, "steps": 8}, "protocol": {"name": "smoke"}}
    measured = (Measurement("fid", 3.5, "smoke-1", n=24, ci_low=3.0, ci_high=4.0, better="lower"),
                Measurement("kid", None, "smoke-1", note="too few images"))
    yield Record("one", "2026-01-01", "prior", "absorbing, 8 steps", spec, "k", "ok", measured)
    yield Record("two", "2026-01-02", "real", "real", spec, "l", "failed", message="Traceback\nValueError: no")


def test_a_table_has_one_row_a_measurement_and_one_for_a_run_without():
    table = tidy(records())
    assert tuple(table.columns) == COLUMNS and list(table.record) == ["one", "one", "two"]
    first, hole, failed = table.to_dict("records")
    assert (first["value"], first["n"], first["seed"], first["sampler_seed"]) == (3.5, 24, 1, 2)
    assert math.isnan(hole["value"]) and hole["note"] == "too few images"
    assert (failed["metric"], failed["status"], failed["note"]) == ("", "failed", "ValueError: no")
    assert failed["prior"] == "" and failed["protocol"] == "smoke"


def test_an_empty_table_has_the_same_columns_and_types():
    pd.testing.assert_series_equal(tidy([]).dtypes, tidy(records()).dtypes)


def test_an_unsupported_run_is_a_row():
    spec = compose(["prior=unigram", "preset=smoke", "dataset=digits"])
    row, = tidy([failed_record(spec, "unigram", InputError("not that"), status="unsupported")]).to_dict("records")
    assert row["status"] == "unsupported" and "not that" in row["note"]


def test_loading_gives_what_was_saved_with_its_configuration_where_asked(tmp_path):
    for record in records():
        save_record(record, tmp_path)
    assert bench.load(tmp_path).value.notna().sum() == 1
    assert bench.load(tmp_path, spec=True)["spec.sampler.steps"].tolist()[:2] == [8, 8]


def test_a_damaged_record_is_warned_of_and_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no records"):
        bench.load(tmp_path)
    save_record(next(records()), tmp_path)
    (tmp_path / "records" / "broken.json").write_text("{")
    with pytest.warns(UserWarning, match="broken.json"):
        assert len(bench.load(tmp_path)) == 2


def test_a_report_returns_its_tables(tmp_path):
    found = bench.report(ROOT / "results/reference", out=tmp_path, protocol="naeem", figures=False, page=False)
    assert found.folder == tmp_path and found.page is None
    assert found.tables["summary-cifar10-naeem"].iloc[0, 0] == "real against real"
    assert list(found.claims.columns)[:3] == ["dataset", "protocol", "claim"]


@pytest.mark.network
def test_a_run_returns_every_number_of_its_rows(tmp_path, own_cache):
    keys = {**SMOKE, "results_dir": tmp_path, "metrics": {"names": ["nll"]}, "protocol": {"num_fake": 8}}
    table = bench.run("prior=unigram", **keys)
    again = bench.run("prior=unigram", **keys)
    bits, = table[table.metric == "bits_per_token"].to_dict("records")
    assert bits["prior"] == "unigram" and bits["ci_low"] < bits["value"] < bits["ci_high"]
    pd.testing.assert_frame_equal(table, again)
    pd.testing.assert_frame_equal(bench.load(tmp_path)[lambda t: t.metric == "bits_per_token"].reset_index(drop=True),
                                  table[table.metric == "bits_per_token"].reset_index(drop=True))
