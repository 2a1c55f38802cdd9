"""The shipped copy of the paper's Tables 1-5."""

import pytest

from bench.reporting.published import published

CELLS = {1: 17 * 4, 2: 9 * 4, 3: 3 * 5, 4: 2 * 4, 5: 4 * 2}


@pytest.mark.parametrize("table", CELLS)
def test_every_cell_of_the_table_is_there_once(table):
    cells = published(table)
    assert len(cells) == CELLS[table]
    assert len({(c.row, c.dataset, c.metric) for c in cells}) == CELLS[table]


@pytest.mark.parametrize("table", CELLS)
def test_a_value_is_what_is_printed(table):
    for cell in published(table):
        scale = 1e6 if cell.printed.endswith("M") else 1
        assert cell.value == (None if cell.printed == "-" else float(cell.printed.rstrip("M")) * scale)


def test_both_bedroom_numbers_are_kept_as_printed():
    two = {(c.row, c.dataset): c.printed for c in published(2)}
    three = {(c.row, c.dataset): c.printed for c in published(3)}
    assert two["Ours (t = 1.0)", "bedroom"] == "5.07"
    assert three["256", "bedroom"] == "5.42"


def test_tables_two_and_three_agree_on_churches_and_ffhq_at_256_steps():
    two = {(c.row, c.dataset): c.value for c in published(2)}
    three = {(c.row, c.dataset): c.value for c in published(3)}
    assert all(two["Ours (t = 1.0)", d] == three["256", d] for d in ("churches", "ffhq"))


def test_the_abstracts_headline_numbers_stand_in_the_tables():
    one = {(c.row, c.dataset, c.metric): c.value for c in published(1)}
    two = {(c.row, c.dataset): c.value for c in published(2)}
    assert [one["Ours (t = 0.9)", d, "density"] for d in ("bedroom", "ffhq")] == [1.51, 1.20]
    assert one["Ours (t = 1.0)", "churches", "density"] == 1.12
    assert [two["Ours (t = 0.9)", d] for d in ("bedroom", "churches", "ffhq")] == [3.64, 4.07, 6.11]
