"""The README's results are what the committed records say."""

from pathlib import Path

import pytest

from bench.reporting.readme import check
from bench.reporting.regime_map import markdown, regimes_of
from bench.reporting.rows import gather

ROOT = Path(__file__).parents[3]


def test_the_readme_shows_the_committed_records(monkeypatch):
    monkeypatch.chdir(ROOT)
    if not list(Path("results/reference/records").glob("*.json")):
        pytest.skip("no records are committed in results/reference yet")
    command = "python -m bench.report results_dir=results/reference readme=README.md"
    check(Path("README.md"), gather("results/reference"), command=command)


def test_the_readme_s_regimes_are_those_of_the_committed_trajectories():
    group, = gather(ROOT / "results/regimes").groups
    table = markdown(regimes_of(group, ROOT / "results/regimes")).split("\n\n")[0]
    assert table in (ROOT / "README.md").read_text()
