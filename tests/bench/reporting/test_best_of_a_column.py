"""Who is bold, against whom, and on how many images."""

import csv
from pathlib import Path

from bench import report
from bench.metrics.columns import COLUMNS
from bench.records import Measurement
from bench.reporting.compare import comparison
from bench.reporting.paper import paper_tables, table1
from bench.reporting.render import csv_text, latex, markdown
from bench.reporting.rows import Cell, gather
from bench.reporting.tables import NO_DIVERSITY, Column, Table, TableRow, headline, summary

ROOT = Path(__file__).parents[3]


def table_of(synthetic, root, rows):
    """rows: (prior, measurement, more of its spec); each is a record of its own."""
    for index, (prior, found, more) in enumerate(rows):
        synthetic.make_record(root, "prior", synthetic.spec_of(prior, **more), [found], created=f"2026-01-{index:02d}")
    return summary(gather(root).groups[0])


def column_of(table, key):
    return next(column for column in table.columns if column.key == key)


def best_of(table, key):
    return [row.label for row in table.rows if table.is_best(row, column_of(table, key))]


def measured(metric, value, error=None, **more):
    interval = {} if error is None else {"ci_low": value - 1.96 * error, "ci_high": value + 1.96 * error}
    return Measurement(metric, value, "demo-x", **{"n": 500, "standard_error": error, **interval, **more})


def test_rows_that_the_best_does_not_beat_beyond_chance_are_bold_with_it(synthetic, tmp_path):
    table = table_of(synthetic, tmp_path, [("autoregressive", measured("fid", 100.0, 2.0), {}),
                                           ("unigram", measured("fid", 103.0, 2.0), {}),
                                           ("uniform", measured("fid", 130.0, 2.0), {"steps": 8})])
    assert best_of(table, "fid") == ["autoregressive", "unigram"]


def test_nothing_is_bold_where_the_best_beats_nobody_beyond_chance(synthetic, tmp_path):
    table = table_of(synthetic, tmp_path, [("unigram", measured("precision", 0.87, 0.11), {}),
                                           ("autoregressive", measured("precision", 0.70, 0.04), {})])
    assert best_of(table, "precision") == []


def test_nothing_is_bold_where_the_metric_calls_nothing_better(synthetic, tmp_path):
    table = table_of(synthetic, tmp_path, [("unigram", measured("memorised_share", 0.0, 0.001, better="lower"), {}),
                                           ("autoregressive", measured("memorised_share", 0.4, 0.01), {})])
    assert best_of(table, "memorised_share") == [] and column_of(table, "memorised_share").better == "none"


def test_values_without_any_interval_are_not_told_apart_unless_they_are_counts(synthetic, tmp_path):
    fid = table_of(synthetic, tmp_path / "fid", [("unigram", measured("fid", 90.0), {}),
                                                 ("autoregressive", measured("fid", 100.0), {})])
    counts = table_of(synthetic, tmp_path / "counts", [("unigram", measured("network_evaluations", 0.0), {}),
                                                       ("autoregressive", measured("network_evaluations", 64.0), {})])
    assert best_of(fid, "fid") == [] and best_of(counts, "network_evaluations") == ["unigram"]


def test_an_error_of_zero_is_not_taken_from_a_share_whose_interval_is_wider(synthetic, tmp_path):
    empty = Measurement("recall", 0.0, "demo-x", n=20, ci_low=0.0, ci_high=0.16, standard_error=0.0)
    table = table_of(synthetic, tmp_path, [("unigram", empty, {}),
                                           ("autoregressive", measured("recall", 0.05, 0.01, n=20), {})])
    assert best_of(table, "recall") == []


def test_published_numbers_are_bold_as_they_stand():
    column = Column("fid", "FID", "published", "lower")
    rows = tuple(TableRow(name, {"fid": Cell("fid", value, printed=str(value))}) for name, value in
                 (("a", 4.07), ("b", 5.58)))
    table = Table("t", "t", "model", (column,), rows)
    assert [table.is_best(row, column) for row in rows] == [True, False]


TWO_TOKENIZERS = [("autoregressive", {"codebook_size": 125, "channel_multipliers": [1, 2, 2, 4]}),
                  ("autoregressive", {"codebook_size": 16})]


def test_bits_of_two_tokenizers_never_compete(synthetic, tmp_path):
    table = table_of(synthetic, tmp_path, [(prior, measured("bits_per_token", bits, 0.01, extra={"kind": "exact"}),
                                            {"vq_options": options})
                                           for (prior, options), bits in zip(TWO_TOKENIZERS, (5.0, 3.0), strict=True)])
    assert best_of(table, "bits_per_token") == []


def test_bits_of_an_image_stand_beside_bits_of_tokens_of_two_tokenizers(synthetic, tmp_path):
    rows = [(prior, measured("bits_per_token", bits, 0.01), {"vq_options": options})
            for (prior, options), bits in zip(TWO_TOKENIZERS, (5.0, 3.0), strict=True)]
    table = headline(table_of(synthetic, tmp_path, rows))
    assert sorted(row.cells["bits_per_image"].value for row in table.rows) == [16 * 5.0, 64 * 3.0]
    assert column_of(table, "bits_per_image").title == "Bits / image"


def test_within_one_tokenizer_fewer_bits_are_best(synthetic, tmp_path):
    table = table_of(synthetic, tmp_path, [(prior, measured("bits_per_token", bits, 0.01, extra={"kind": "exact"}), {})
                                           for prior, bits in (("autoregressive", 5.0), ("unigram", 7.0))])
    assert best_of(table, "bits_per_token") == best_of(table, "bits_per_image") == ["autoregressive"]
    assert "bits_per_image" not in {column.key for column in headline(table).columns}


def test_an_upper_bound_does_not_compete_with_exact_values(synthetic, tmp_path):
    table = table_of(synthetic, tmp_path, [
        ("autoregressive", measured("bits_per_token", 5.0, 0.01, extra={"kind": "exact"}), {}),
        ("absorbing", measured("bits_per_token", 6.0, 0.01, bound="upper", extra={"kind": "bound_T"}), {"steps": 8})])
    assert best_of(table, "bits_per_token") == []
    text = markdown(table)
    assert "bound_T: an upper bound" in text and ") exact" in text
    assert "bound_T" in csv_text(table) and "exact" in csv_text(table)


def test_a_cell_of_another_n_than_its_column_carries_its_own(synthetic, tmp_path):
    table = table_of(synthetic, tmp_path, [("autoregressive", measured("fid", 100.0, 2.0, n=100), {}),
                                           ("unigram", measured("fid", 130.0, 2.0, n=100), {}),
                                           ("uniform", measured("fid", 60.0, 2.0, n=40), {"steps": 8})])
    assert column_of(table, "fid").title == "FID@100"
    assert "60.0@40 ± 3.9" in markdown(table) and "60.0@40" in latex(table) and "100.0@" not in markdown(table)
    assert [line["measured FID@100 n"] for line in csv.DictReader(csv_text(table).splitlines())] == ["100", "40", "100"]


def test_numbers_of_another_n_do_not_compete(synthetic, tmp_path):
    table = table_of(synthetic, tmp_path, [("autoregressive", measured("fid", 100.0, 2.0, n=100), {}),
                                           ("unigram", measured("fid", 130.0, 2.0, n=100), {}),
                                           ("uniform", measured("fid", 60.0, 2.0, n=40), {"steps": 8})])
    assert best_of(table, "fid") == ["autoregressive"]


def test_precision_carries_n_only_where_n_differs(synthetic, tmp_path):
    table = table_of(synthetic, tmp_path, [("autoregressive", measured("precision", 0.7, 0.02, n=100), {}),
                                           ("unigram", measured("precision", 0.6, 0.02, n=40), {})])
    assert column_of(table, "precision").title == "Precision@100" and "0.600@40" in markdown(table)


def fidelity_of(synthetic, root, recalls):
    """A table of one unigram row, first in precision, and one autoregressive row, by the recall of each."""
    for index, (prior, precision, recall) in enumerate((("unigram", 0.9, recalls[0]),
                                                        ("autoregressive", 0.7, recalls[1]))):
        found = [measured("precision", precision, 0.01), measured("density", precision, 0.01), recall]
        synthetic.make_record(root, "prior", synthetic.spec_of(prior), found, created=f"2026-01-{index:02d}")
    return summary(gather(root).groups[0])


def test_a_row_without_recall_is_never_best_in_precision_or_density_and_says_why(synthetic, tmp_path):
    none = Measurement("recall", 0.004, "demo-x", n=500, ci_low=0.0014, ci_high=0.0111)
    table = fidelity_of(synthetic, tmp_path, (none, measured("recall", 0.4, 0.02)))
    assert best_of(table, "precision") == best_of(table, "density") == []
    assert markdown(table).count("takes no part in what is best") == 1
    row, = (row for row in table.rows if row.label == "unigram")
    assert [table.remark(row, column_of(table, key)) != "" for key in ("precision", "density", "recall")] == [
        True, True, False]


def test_a_row_with_recall_is_best_in_precision_without_a_remark(synthetic, tmp_path):
    table = fidelity_of(synthetic, tmp_path, (measured("recall", 0.1, 0.02), measured("recall", 0.4, 0.02)))
    assert best_of(table, "precision") == best_of(table, "density") == ["unigram"]
    assert "no part" not in markdown(table) and "no part" not in latex(table)


COSTS = ("seconds_per_", "images_per_", "network_evaluations", "token_forwards")


def leads(table):
    """(column, its cell) of every quality in which the unigram prior is ahead of all rivals, or bold."""
    for column in (c for c in table.columns if c.better != "none" and c.block == "measured"):
        rivals = [row for row in table.rows if row.contest and (cell := row.cells.get(column.key))
                  and cell.value is not None and not cell.metric.startswith(COSTS)]
        best = (min if column.better == "lower" else max)([r.cells[column.key].value for r in rivals], default=None)
        for row in (r for r in rivals if r.source and r.source.name == "unigram"):
            if row.cells[column.key].value == best or table.is_best(row, column):
                yield row, column


def test_the_unigram_prior_of_the_committed_records_leads_no_quality_without_a_remark():
    for group in gather(ROOT / "results/reference").groups:
        for table in (summary(group), *paper_tables(group)):
            for row, column in leads(table):
                assert not table.is_best(row, column) and table.remark(row, column) == NO_DIVERSITY, (
                    table.name, column.title)


def test_in_the_paper_s_first_table_a_row_without_recall_is_not_best_either(synthetic, tmp_path):
    none = Measurement("recall", 0.004, "demo-x", n=500, ci_low=0.0014, ci_high=0.0111)
    fidelity_of(synthetic, tmp_path, (none, measured("recall", 0.4, 0.02)))
    table = table1(gather(tmp_path).groups[0])
    found = [(column.key, table.is_best(row, column), table.remark(row, column)) for row, column in leads(table)]
    assert found == [("measured:precision", False, NO_DIVERSITY), ("measured:density", False, NO_DIVERSITY)]


def test_a_comparison_calls_nobody_better_in_precision_where_recall_may_be_0(synthetic, tmp_path):
    none = Measurement("recall", 0.004, "demo-x", n=500, ci_low=0.0014, ci_high=0.0111)
    fidelity_of(synthetic, tmp_path, (none, measured("recall", 0.4, 0.02)))
    group, = gather(tmp_path).groups
    rows = {row.name: row for row in group.rows}
    said = {row.label: row.cells["verdict"].printed
            for row in comparison(group, rows["unigram"], rows["autoregressive"]).rows}
    assert said == {"Precision": "no contest: recall of A may be 0", "Density": "no contest: recall of A may be 0",
                    "Recall": "B better"}


def test_the_page_and_the_markdown_mark_it_and_explain_every_column(synthetic, tmp_path):
    none = Measurement("recall", 0.004, "demo-x", n=500, ci_low=0.0014, ci_high=0.0111)
    fidelity_of(synthetic, tmp_path / "results", (none, measured("recall", 0.4, 0.02)))
    assert report.main([f"results_dir={tmp_path / 'results'}", f"out={tmp_path}", "figures=false"]) == 0
    page = (tmp_path / "index.html").read_text()
    assert page.count(f'<abbr title="{NO_DIVERSITY}">*</abbr>') == 4   # precision and density, in two tables
    text = (tmp_path / "tables" / "summary-cifar10-demo.md").read_text()
    for name in ("precision", "recall", "density"):
        assert f"- {COLUMNS[name].title}: {COLUMNS[name].about}" in text
        assert f"<dt>{COLUMNS[name].title}</dt><dd>{COLUMNS[name].about}</dd>" in page
