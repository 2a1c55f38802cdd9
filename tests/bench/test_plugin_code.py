"""The code of a class from elsewhere is part of the keys of what it makes; ours is not."""

import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from bench import registry
from bench.compose import compose
from bench.errors import InputError
from bench.plugin_code import marked, sources_of, what_changed
from bench.stages.base import Run
from bench.stages.chain import planned
from bench.stages.identity import plugins_of, run_key
from bench.stages.measurements import recipe_of
from bench.store.store import Store

SMOKE = ["dataset=digits", "preset=smoke", "prior=unigram"]
METRIC = """
from bench.metrics.base import Column
class Mean:
    name, columns, depends_on = "mean", {"mean": Column("", "none")}, ("protocol",)
    def applies(self, evidence): return True
    def __call__(self, evidence): return []
"""
DATASET = "from bench.data.digits import Digits\nclass Mine(Digits):\n    pass\n"
TOKENIZER = "from vq.vqgan import VQGAN\nclass Mine(VQGAN):\n    pass\n"
EXTRACTOR = "class Mine:\n    weights = 'ab' * 32\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of modules on the path, whose classes are imported anew by every `keys_of`."""
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "theirs"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    _forget(folder)


def _forget(folder):
    for name, module in list(sys.modules.items()):
        if str(folder) in str(getattr(module, "__file__", None)):
            del sys.modules[name]


def keys_of(folder, *more):
    """label -> key of a run's stages, and the run's own."""
    _forget(folder)
    recipes = Run(compose([*SMOKE, *more]))
    return {stage.label: stage.recipe.key for stage in planned(recipes)} | {"run": run_key(recipes)}


def changed_by(folder, path, more):
    """The labels whose key another last line of the file changes."""
    before = keys_of(folder, *more)
    path.write_text(path.read_text() + "\nEDITED = True\n")
    after = keys_of(folder, *more)
    return {label for label in before if before[label] != after[label]}


def test_an_edited_prior_has_other_keys_and_so_has_all_that_depends_on_it(folder):
    shutil.copy(Path(__file__).parents[2] / "docs/examples/neighbourhood_prior.py", folder)
    changed = changed_by(folder, folder / "neighbourhood_prior.py", ["prior=neighbourhood_prior:Neighbourhood"])
    assert {"prior neighbourhood_prior:Neighbourhood", "run"} < changed
    assert not any(label.startswith("token") for label in changed)


def test_an_edited_tokenizer_has_other_keys(folder):
    (folder / "tokenizer_of_mine.py").write_text(TOKENIZER)
    changed = changed_by(folder, folder / "tokenizer_of_mine.py", ["vq=tokenizer_of_mine:Mine"])
    assert {"tokenizer tokenizer_of_mine:Mine", "prior unigram", "run"} < changed


def test_an_edited_data_set_has_other_keys(folder):
    (folder / "digits_of_mine.py").write_text(DATASET)
    changed = changed_by(folder, folder / "digits_of_mine.py", ["dataset=digits_of_mine:Mine"])
    assert {"tokenizer vqgan", "prior unigram", "run"} < changed


def test_an_edited_extractor_has_other_features(folder):
    (folder / "net.py").write_text(EXTRACTOR)
    changed = changed_by(folder, folder / "net.py", ["protocol.extractor='net:Mine'"])
    assert {"run"} < changed and all(label.startswith("features") for label in changed - {"run"})


def test_an_edited_metric_is_measured_again_and_nothing_else_is_built(folder):
    (folder / "mean.py").write_text(METRIC)
    more = ["metrics.names=[fid,'mean:Mean']"]
    key = lambda: recipe_of(Run(compose([*SMOKE, *more])), "mean:Mean", {"mean": 1}, (), {}).key   # noqa: E731
    before = key()
    assert changed_by(folder, folder / "mean.py", more) == {"run"} and key() != before


def test_a_class_of_an_entry_point_is_marked_by_its_code_too(folder, monkeypatch):
    (folder / "mean.py").write_text(METRIC)
    theirs = EntryPoint("mean", "mean:Mean", "vq_prior_bench.metrics")
    ours = registry._points
    monkeypatch.setattr(registry, "_points", lambda kind: [*ours(kind), theirs])
    assert marked("metrics", "mean").startswith("mean+code:") and marked("metrics", "fid") == "fid"


def test_built_in_classes_have_no_mark_however_they_are_named():
    assert marked("priors", "absorbing") == "absorbing"
    assert marked("priors", "priors.absorbing:AbsorbingDiffusion") == "priors.absorbing:AbsorbingDiffusion"


def test_what_a_module_imports_from_beside_it_counts_and_what_it_does_not_import_does_not(folder):
    package = folder / "mine"
    (package / "nets").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "prior.py").write_text("import torch\nfrom .nets import wide\nfrom mine import sizes\nimport beside\n")
    (package / "nets/wide.py").write_text("from ..shared import X\nimport priors.base\n")
    for name in ("mine/sizes", "mine/shared", "mine/unused", "beside"):
        (folder / f"{name}.py").write_text("X = 1\n")
    assert sorted(sources_of("mine.prior:Prior")) == ["beside.py", "mine/__init__.py", "mine/nets/wide.py",
                                                      "mine/prior.py", "mine/shared.py", "mine/sizes.py"]


def test_the_code_is_read_without_being_imported(folder):
    (folder / "mine").mkdir()
    (folder / "mine/__init__.py").write_text("raise RuntimeError('imported')\n")
    (folder / "mine/prior.py").write_text("X = 1\n")
    assert "mine/prior.py" in sources_of("mine.prior:Prior")


def test_where_the_package_lies_changes_nothing(folder, tmp_path, monkeypatch):
    (folder / "mean.py").write_text(METRIC)
    first = marked("metrics", "mean:Mean")
    (tmp_path / "moved").mkdir()
    (folder / "mean.py").rename(tmp_path / "moved/mean.py")
    _forget(folder)
    monkeypatch.syspath_prepend(str(tmp_path / "moved"))
    assert marked("metrics", "mean:Mean") == first
    _forget(tmp_path)


def test_a_declared_version_decides_alone(folder):
    (folder / "mean.py").write_text(METRIC + "    version = '2'\n")
    assert marked("metrics", "mean:Mean") == "mean:Mean+version:2"
    assert changed_by(folder, folder / "mean.py", ["metrics.names=['mean:Mean']"]) == set()
    (folder / "mean.py").write_text(METRIC + "    version = '3.0'\n")
    _forget(folder)
    assert marked("metrics", "mean:Mean") == "mean:Mean+version:3.0"


def test_a_class_without_source_must_declare_a_version(monkeypatch):
    with pytest.raises(InputError, match="sys:flags.*declare a `version`"):
        sources_of("sys:flags")


def test_it_is_said_whose_code_changed_and_since_when(folder, tmp_path):
    store = Store(tmp_path / "store")

    def recipe():
        _forget(folder)
        return recipe_of(Run(compose([*SMOKE, "metrics.names=['mean:Mean']"])), "mean:Mean", {"mean": 1}, (), {})

    (folder / "mean.py").write_text(METRIC)
    built = store.obtain(recipe(), lambda out, work: (out / "numbers").write_text("1"))
    assert what_changed(recipe(), store.artefacts()) == ""
    (folder / "mean.py").write_text(METRIC + "# edited\n")
    since = built.manifest["built_at"][:19]
    assert what_changed(recipe(), store.artefacts()) == f"code of mean:Mean changed since {since}: rebuilding"


def test_the_record_names_what_came_from_elsewhere(folder):
    (folder / "mean.py").write_text(METRIC)
    plugins = plugins_of(Run(compose([*SMOKE, "metrics.names=[fid,'mean:Mean']"])))
    assert plugins == [marked("metrics", "mean:Mean")]


def test_finding_the_code_imports_no_torch():
    code = "import sys; from bench import plugin_code; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
