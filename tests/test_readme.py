"""What the README shows works: its prior, and its commands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.compose import expand
from bench.testing import check_prior

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = sorted(set(re.findall(r"^    python -m (bench\.[^\n#]+?) *(?:#.*)?$", README, re.MULTILINE)))
RUNS = [command for command in COMMANDS if command.startswith("bench.run ")]
ABSENT = ("churches", "/data/", "my_package", "path/to")   # data and code of the reader's own


def _readme_prior(folder: Path) -> Path:
    code = re.search(r"<!-- prior:begin -->\n```python\n(.*?)```\n<!-- prior:end -->", README, re.DOTALL).group(1)
    path = folder / "readme_prior.py"
    path.write_text(code)
    return path


def test_the_prior_of_the_readme_keeps_the_contract(tmp_path, monkeypatch):
    assert len(_readme_prior(tmp_path).read_text().splitlines()) < 60
    monkeypatch.syspath_prepend(tmp_path)
    check_prior("readme_prior:Neighbourhood")


@pytest.mark.network
def test_the_prior_of_the_readme_runs_from_the_command_line(tmp_path, own_cache):
    _readme_prior(tmp_path)
    command = [sys.executable, "-m", "bench.run", "prior=readme_prior:Neighbourhood", "dataset=digits", "preset=smoke",
               "metrics.names=[nll,kid]", "protocol.num_fake=8", "baselines=false", f"results_dir={tmp_path / 'runs'}"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "readme_prior:Neighbourhood" in done.stdout


@pytest.mark.parametrize("command", [c for c in RUNS if "my_package" not in c and "/data/" not in c])
def test_run_commands_of_the_readme_compose(command):
    assert expand(command.split()[1:], announce=lambda text: None)


@pytest.mark.network
@pytest.mark.parametrize("command", [c for c in RUNS if not any(word in c for word in ABSENT)])
def test_run_commands_of_the_readme_can_be_planned(command, own_cache):
    arguments = [word for word in command.split() if not word.startswith("plan=")]
    done = subprocess.run([sys.executable, "-m", *arguments, "plan=true"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "nothing was built" in done.stdout


@pytest.mark.parametrize("command", ["bench.store ls", "bench.store du", "bench.run --help"])
def test_cheap_commands_run(command, own_cache):
    assert subprocess.run([sys.executable, "-m", *command.split()], capture_output=True).returncode == 0


def test_every_command_of_the_table_exists():
    for module in re.findall(r"\| `python -m (bench\.\w+)", README):
        assert (ROOT / (module.replace(".", "/") + ".py")).is_file(), module


@pytest.mark.parametrize("page", ["README.md", "docs/editing.md", "docs/protocols.md", "results/README.md"])
def test_every_file_that_a_page_links_to_is_there(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / page).read_text())
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []
