"""Tables 1-5: measured beside published, and never in one column."""

import pytest

from bench.reporting.paper import is_adversarial, paper_tables
from bench.reporting.published import published
from bench.reporting.render import csv_text, latex, markdown
from bench.reporting.rows import Row, gather


@pytest.fixture(scope="module")
def tables(troubled_results):
    return paper_tables(gather(troubled_results).groups[0])


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_every_published_cell_is_printed_as_the_paper_prints_it(tables, number):
    shown = sorted(cell.printed for row in tables[number - 1].rows for cell in row.cells.values() if cell.printed)
    assert shown == sorted(cell.printed for cell in published(number))


def test_no_column_holds_both_measured_and_published_numbers(tables):
    for table in tables:
        for column in table.columns:
            cells = [row.cells[column.key] for row in table.rows if column.key in row.cells]
            assert {bool(cell.printed) for cell in cells} <= {column.block == "published"}


def test_ours_stands_beside_the_row_with_most_steps_and_the_same_temperature(tables):
    answers = {row.label: row.source.label for row in tables[1].rows if row.label.startswith("Ours")}
    assert answers == {"Ours (t = 1.0)": "absorbing, 64 steps",
                       "Ours (t = 0.9)": "absorbing, 64 steps, temperature 0.9"}


def test_table_three_has_a_column_for_every_measured_number_of_steps(tables):
    assert [c.title for c in tables[2].columns if c.block == "measured"] == ["8", "16", "25", "32", "64", "128"]


def test_a_step_count_that_was_not_run_is_an_explained_hole(tables):
    absorbing = next(row for row in tables[2].rows if row.label == "absorbing")
    assert "no record" in absorbing.cells["measured:128"].note


def test_table_four_compares_a_bound_with_an_exact_value(tables):
    bounds = {row.label: row.cells["measured:bits_per_token"].bound for row in tables[3].rows[:2]}
    assert bounds == {"Autoregressive": "", "Absorbing DDPM": "upper"}
    assert "<= 6.080" in markdown(tables[3]) and r"$\le$\,6.080" in latex(tables[3])


def test_a_variant_of_table_five_that_was_not_run_says_what_it_needs(tables):
    cell = next(row for row in tables[4].rows if row.label == "Default").cells["measured:fid"]
    assert cell.value is None and "vq.diffaug=false" in cell.note


def test_a_tokenizer_that_never_met_its_discriminator_answers_no_row_of_table_five():
    def row(start, steps):
        return Row("k", "reconstruction", "", "", "ok", spec={"vq": {"options": {"disc_start_step": start},
                                                                   "training": {"steps": steps}}})
    assert [is_adversarial(row(*case)) for case in [(None, 500), (600, 500), (100, 500)]] == [False, False, True]


def test_the_best_of_table_one_is_bold_within_its_data_set(tables):
    table = tables[0]
    column = table.columns[0]
    assert [row.label for row in table.rows if table.is_best(row, column)] == ["Ours (t = 0.9)"] * 3


def test_latex_escapes_names_and_balances_its_environments(tables):
    for table in tables:
        text = latex(table)
        assert text.count(r"\begin{") == text.count(r"\end{")
        assert "vq_diffusion" not in text
        body = text.split(r"\midrule")[1]
        rows = [line for line in body.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
        assert {line.count(" & ") for line in rows} == {len(table.columns)}


def test_the_csv_has_a_line_for_every_row(tables):
    for table in tables:
        assert len(csv_text(table).splitlines()) == len(table.rows) + 1
