"""Remarks that keep a number from being misread: underfitting, the bound of T steps, a rule since found weak."""

import dataclasses

import pytest

from bench.records import load_records, save_record
from bench.reporting.by_unknown import underfitting
from bench.reporting.extras import bound_of_steps, superseded
from bench.reporting.paper import table4
from bench.reporting.render import csv_text, markdown
from bench.reporting.rows import Cell, Observation, gather
from bench.reporting.tables import summary


def cell_of(measurement, bits, error=0.01, *, kind="bound_continuous", width=8):
    row = {"unknown": [1, width], "bits": bits, "standard_error": error}
    told = {"last_row": row, "bits_by_unknown": [{"unknown": [1, 1], "bits": bits - 0.5, "standard_error": error}]}
    made = dataclasses.replace(measurement, extra={"kind": kind} | told)
    return Cell("bits_per_token", 5.0, kind=kind, sources=(Observation("r", 0, 0, made),))


@pytest.fixture
def bits(demo_results):
    return next(m for r in load_records(demo_results)[0] for m in r.measurements if m.metric == "bits_per_token")


def test_paying_more_where_as_few_tokens_are_unknown_is_underfitting(bits):
    said = underfitting("absorbing", cell_of(bits, 6.0), "autoregressive", cell_of(bits, 5.5, kind="exact"))
    assert "underfitting, not a harder task" in said and "5.500 ± 0.020 with all but one token known" in said
    assert "autoregressive's last row of 8 pays 5.500 ± 0.020" in said


def test_paying_no_more_there_is_not_called_underfitting(bits):
    said = underfitting("absorbing", cell_of(bits, 5.51, 0.2), "autoregressive", cell_of(bits, 5.5, kind="exact"))
    assert "not a harder task" not in said and "harder task" in said


@pytest.mark.parametrize("width, extra", [(4, {}), (8, {"last_row": "?"}), (8, {"last_row": {"unknown": [1, 8]}})])
def test_records_that_tell_it_otherwise_or_not_at_all_say_nothing(bits, width, extra):
    theirs = cell_of(bits, 5.5, kind="exact", width=width)
    m = theirs.sources[0].measurement
    changed = dataclasses.replace(m, extra=m.extra | extra)
    theirs = dataclasses.replace(theirs, sources=(Observation("r", 0, 0, changed),))
    said = underfitting("absorbing", cell_of(bits, 6.0), "autoregressive", theirs)
    assert said == ""


def with_extra(folder, tmp_path, metric, more):
    """The records of a folder, with further numbers in every measurement of one metric."""
    for record in load_records(folder)[0]:
        measurements = tuple(dataclasses.replace(m, extra=m.extra | more(m)) if m.metric == metric else m
                             for m in record.measurements)
        save_record(dataclasses.replace(record, measurements=measurements, media={}, curves={}), tmp_path)
    return gather(tmp_path).groups[0]


def test_the_bound_of_t_steps_has_a_column_of_its_own_beside_table_4(demo_results, tmp_path):
    group = with_extra(demo_results, tmp_path, "bits_per_token", lambda m: {
        "kind": "bound_continuous" if m.bound else "exact",
        "bound_T": {"bits": 5.25, "standard_error": 0.01} if m.bound else None})
    for text in (csv_text(table4(group)), markdown(table4(group)), markdown(summary(group))):
        assert "Bits / token, T steps" in text and "5.25" in text
    assert "bound_T: an upper bound" in markdown(table4(group)) and "bound_infinity" in markdown(table4(group))


@pytest.mark.parametrize("told", [None, 5, {}, {"bits": "x"}, {"bits": float("nan")}, {"bits": True}])
def test_a_bound_of_t_steps_that_is_no_number_is_none(bits, told):
    assert bound_of_steps(dataclasses.replace(bits, extra={"bound_T": told})) is None


def test_memorisation_of_the_old_rule_says_so_and_of_todays_does_not(demo_results, tmp_path):
    old = markdown(summary(gather(demo_results).groups[0]))
    assert "measured by a rule since found weak" in old
    new = {"rule": "tail of relative nearness"}
    for metric in ("memorised_share", "memorisation_auc"):
        group = with_extra(demo_results if metric == "memorised_share" else tmp_path, tmp_path, metric, lambda m: new)
    assert "since found weak" not in markdown(summary(group))


def test_no_other_column_is_superseded(bits):
    assert superseded("bits_per_token", [bits]) == ""
