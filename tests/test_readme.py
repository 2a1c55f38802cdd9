"""What the README shows works: its prior, and its commands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import COMMANDS as COMMANDS_OF_BENCH
from bench.compose import expand
from bench.testing import check_prior

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PRIOR = "docs/examples/neighbourhood_prior.py"
PAGES = README + "".join((ROOT / "docs" / name).read_text() for name in ("usage.md", "how-do-i.md"))
COMMANDS = sorted(set(re.findall(r"^    python -m (bench\.[^\n#]+?) *(?:#.*)?$", PAGES, re.MULTILINE)))
RUNS = [command for command in COMMANDS if command.startswith("bench.run ")]
OF_THE_READER = ("/data/", "/models/", "my_package")
ABSENT = ("churches", "path/to", "tracking=", *OF_THE_READER)   # data, code and packages that may not be here


def test_a_reader_has_seen_it_in_a_minute():
    assert len(README.splitlines()) <= 150
    assert README.index("make demo") < README.index("![") < README.index("## What was found") < 2500


def test_the_prior_of_the_readme_keeps_the_contract(monkeypatch):
    assert f"({PRIOR})" in README and len((ROOT / PRIOR).read_text().splitlines()) < 60
    monkeypatch.syspath_prepend((ROOT / PRIOR).parent)
    check_prior("neighbourhood_prior:Neighbourhood")


@pytest.mark.network
def test_the_prior_of_the_readme_runs_from_the_command_line(tmp_path, own_cache):
    command = [sys.executable, "-m", "bench.run", "prior=neighbourhood_prior:Neighbourhood", "dataset=digits",
               "preset=smoke",
               "metrics.names=[nll,kid]", "protocol.num_fake=8", "baselines=false", f"results_dir={tmp_path / 'runs'}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=(ROOT / PRIOR).parent)
    assert done.returncode == 0, done.stderr
    assert "neighbourhood_prior:Neighbourhood" in done.stdout


DOORS = ("list=", "--help", "config=", "config_out=", "rebuild=")   # which another test looks at


@pytest.mark.parametrize("command", [c for c in RUNS if not any(word in c for word in (*OF_THE_READER, *DOORS))])
def test_run_commands_of_the_readme_compose(command):
    assert expand(command.split()[1:], announce=lambda text: None)


@pytest.mark.network
@pytest.mark.parametrize("command", [c for c in RUNS if not any(word in c for word in ABSENT + DOORS + ("status=",))])
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
        assert module.removeprefix("bench.") in COMMANDS_OF_BENCH, module


@pytest.mark.parametrize("page", ["README.md", "docs/editing.md", "docs/protocols.md", "results/README.md",
                                  "docs/usage.md", "docs/measures.md", "docs/architecture.md", "docs/plugins.md",
                                  "results/tables.md"])
def test_every_file_that_a_page_links_to_is_there(page):
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / page).read_text())
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []
