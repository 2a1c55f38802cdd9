"""The results in the README and in results/tables.md are what the committed records say."""

from pathlib import Path

import pytest

from bench.reporting.readme import check
from bench.reporting.regime_map import regimes_of
from bench.reporting.regime_table import markdown
from bench.reporting.rows import gather

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(("page", "folder"), [("README.md", "reference"), ("results/tables.md", "reference"),
                                              ("docs/samplers.md", "samplers"), ("docs/conditional.md", "conditional")])
def test_the_pages_show_the_committed_records(page, folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    command = f"python -m bench.report results_dir=results/{folder} readme={page}"
    check(Path(page), gather(f"results/{folder}"), command=command)


def test_the_readme_s_regimes_are_those_of_the_committed_trajectories():
    group, = gather(ROOT / "results/regimes").groups
    table = markdown(regimes_of(group, ROOT / "results/regimes")).split("\n\n")[0]
    assert table in (ROOT / "README.md").read_text()
