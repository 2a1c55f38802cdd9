"""A few faults of every part on every run of the tests; the full numbers are slow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.__main__ import FULL, IN_PROCESS

ROOT = Path(__file__).parents[2]
FEW = {"kills": 2, "damages": 2, "surroundings": 1, "locked": 2, "commands": 12, "files": 12}


def campaign(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "tests.faults", *arguments], cwd=ROOT, text=True, capture_output=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize("part", IN_PROCESS)
def test_a_few_cases_of_what_needs_no_run_end_without_a_fault(part, tmp_path):
    done = campaign(f"{part}={FEW[part]}", "seed=1", f"out={tmp_path / 'page.md'}")
    assert done.returncode == 0, done.stderr
    assert f"| {FEW[part]} |" in (tmp_path / "page.md").read_text()


@pytest.mark.slow
@pytest.mark.network
def test_a_few_kills_and_damages_end_in_the_undisturbed_numbers():
    done = campaign(*(f"{part}={num}" for part, num in FEW.items() if part not in IN_PROCESS))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("part", FULL)
def test_the_full_number_of_cases_ends_without_a_fault(part):
    done = campaign(f"{part}={FULL[part]}")
    assert done.returncode == 0, done.stderr[-5000:]


def test_a_case_is_run_again_by_its_number_and_an_unknown_part_is_refused(tmp_path):
    assert "commands: 1 cases" in campaign("only=commands", "case=7").stderr
    refused = campaign("kill=3")
    assert refused.returncode == 2 and "Valid: kills" in refused.stderr


def test_rows_of_other_parts_stay_on_the_page(tmp_path):
    page = tmp_path / "page.md"
    for more in (["commands=3"], ["files=2"], ["commands=4"]):
        assert campaign(*more, f"out={page}").returncode == 0
    rows = [line for line in page.read_text().splitlines() if line.startswith(("| commands", "| files", "- "))]
    assert [row.split()[1].rstrip(":") for row in rows] == ["commands", "files"] * 2
    assert "| 4 |" in rows[0] and "`commands=4`" in rows[0] and "| 2 |" in rows[1]
