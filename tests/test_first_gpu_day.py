"""The script for the first day with a GPU, rehearsed on a CPU."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "slurm" / "first_gpu_day.sh"


def test_an_unknown_argument_is_named_before_any_work(tmp_path):
    done = subprocess.run(["bash", SCRIPT, f"out={tmp_path / 'out'}", "gpu=0"], capture_output=True, text=True)
    assert done.returncode == 2 and "gpu=0: expected out=" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow   # three minutes
@pytest.mark.network
def test_its_rehearsal_leaves_records_and_a_killed_run_has_the_same_numbers(tmp_path):
    done = subprocess.run(["bash", SCRIPT, f"out={tmp_path}", "device=cpu", "preset=smoke", "dataset=digits",
                           "speed=quick=true"], capture_output=True, text=True)
    steps = [line.split("\t") for line in (tmp_path / "steps.tsv").read_text().splitlines()]
    assert done.returncode == 0, done.stdout
    assert [name for name, code, _ in steps if code == "0"] == \
        ["doctor", "smoke", "speed", "undisturbed", "killed", "same", "report"]
    assert ", 0 differ" in (tmp_path / "same.log").read_text() and (tmp_path / "report" / "index.html").is_file()
