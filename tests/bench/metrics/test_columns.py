"""Every column is declared once, and metrics and report read the same declaration."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from bench.metrics.columns import COLUMNS, Column, column_of, columns, in_order
from bench.registry import names, resolve
from bench.reporting.catalogue import metric_of
from bench.reporting.paper import paper_tables
from bench.reporting.rows import gather
from bench.reporting.tables import summary

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", names("metrics"))
def test_every_column_of_a_built_in_metric_is_the_one_the_report_prints(name):
    for column, declared in resolve("metrics", name)().columns.items():
        assert declared is COLUMNS[column] and metric_of(column) is declared


def test_only_the_columns_say_which_way_is_better():
    """No metric writes a direction of its own beside a number."""
    for path in (*(ROOT / "bench" / "metrics").glob("*.py"), ROOT / "bench" / "editing" / "benchmark.py"):
        directions = [word.value for word in ast.walk(ast.parse(path.read_text())) if isinstance(word, ast.keyword)
                      and word.arg == "better" and isinstance(word.value, ast.Constant)]
        assert not directions, path


def test_every_column_of_the_committed_records_is_a_declared_one():
    if not list((ROOT / "results/reference/records").glob("*.json")):
        pytest.skip("no records are committed in results/reference yet")
    for group in gather(ROOT / "results/reference").groups:
        for column in summary(group).columns:
            assert column.key in COLUMNS and column.better == COLUMNS[column.key].better


def test_a_share_of_memorised_samples_is_no_merit_either_way():
    assert column_of("memorised_share", "lower").better == "none"


def test_a_column_of_a_plug_in_comes_last_under_its_own_name_with_its_own_direction():
    assert column_of("grey_level", "higher") == Column("", "higher", title="grey level")
    assert in_order({"grey_level", "kid", "fid"}) == ["fid", "kid", "grey_level"]
    assert list(columns("kid", "fid")) == ["kid", "fid"]


def test_the_columns_need_no_torch():
    code = "import sys, bench.metrics.columns; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_every_column_of_every_table_says_what_its_number_is_for():
    silent = {(table.name, column.title) for group in gather(ROOT / "results/reference").groups
              for table in (summary(group), *paper_tables(group)) for column in table.columns if not column.about}
    assert silent == set()
    assert not [name for name, column in COLUMNS.items() if not column.about.endswith(".") or "plug-in" in column.about]
