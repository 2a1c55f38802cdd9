"""The wheel holds what the tree holds, and works where the tree is not: another environment, another folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("setuptools", minversion="77", reason="the wheel is built with what is installed")
ROOT = Path(__file__).parents[1]
BUILT_FROM = ("bench", "priors", "vq", "results/__init__.py", "results/published", "results/expected",
              "slurm/profile.yaml", "pyproject.toml", "README.md", "LICENSE")


def elsewhere():
    """This process's environment without a path to the tree."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def pip(*words):
    done = subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *words], capture_output=True,
                          text=True, env=elsewhere())
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that nothing of it is left in the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:
        source, target = ROOT / name, folder / "tree" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    pip("wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(folder),
        str(folder / "tree"))
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def scripts(wheel, tmp_path_factory):
    """The scripts of a fresh environment in which the wheel is installed; the libraries it needs are borrowed."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    pip("--python", str(folder / "bin" / "python"), "install", "--quiet", "--no-deps", "--no-index", str(wheel))
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin"


def start(words, folder, **more):
    """Standard output of a command in a folder where there is nothing of ours. Raises if it fails."""
    done = subprocess.run(list(map(str, words)), cwd=folder, capture_output=True, text=True, env=elsewhere() | more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_file_of_the_packages_is_in_the_wheel(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    ours = {str(path.relative_to(ROOT)) for name in ("bench", "priors", "vq", "results/published")
            for path in (ROOT / name).rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    kinds = (".py", ".yaml", ".typed", ".html", ".css", ".js", ".csv")
    assert {name for name in ours if name.endswith(kinds)} - held == set()


def test_the_profile_of_a_cluster_is_installed_beside_the_environment(scripts):
    assert (scripts.parent / "share" / "vq-prior-bench" / "profile.yaml").read_text() == (
        ROOT / "slurm" / "profile.yaml").read_text()


def test_the_installed_commands_list_what_there_is(scripts, tmp_path):
    where = start([scripts / "python", "-c", "import bench; print(bench.__file__)"], tmp_path)
    assert Path(where.strip()).is_relative_to(scripts.parent)
    assert "absorbing" in start([scripts / "vq-prior-bench", "run", "list=priors"], tmp_path)
    assert "bench.testing" in start([scripts / "vq-prior-bench", "testing", "--help"], tmp_path)


@pytest.mark.network
def test_the_installed_package_runs_and_reports_from_another_folder(scripts, tmp_path, cache):
    start([scripts / "vq-prior-bench", "run", "prior=unigram", "dataset=digits", "preset=smoke",
           "metrics.names=[nll]"], tmp_path, VQ_PRIOR_BENCH_CACHE=str(cache))
    assert list((tmp_path / "results" / "runs").rglob("*.json"))
    start([scripts / "python", "-m", "bench.report", "figures=false"], tmp_path)
    assert "unigram" in (tmp_path / "report" / "index.html").read_text()
