"""Two runs against each other, and the README's block."""

import pytest

from bench.errors import BenchError, InputError
from bench.report import main
from bench.reporting.compare import compare
from bench.reporting.readme import BEGIN, END, block, check, refresh
from bench.reporting.rows import gather


def record_of(book, label, group=0):
    return next(row for row in book.groups[group].rows if row.label == label).records[0].id


@pytest.fixture(scope="module")
def book(demo_results):
    return gather(demo_results)


def test_a_comparison_is_paired_and_says_who_is_better(book):
    table = compare(book, record_of(book, "absorbing, 64 steps"), record_of(book, "autoregressive"))
    fid = next(row for row in table.rows if row.label == "FID")
    assert fid.cells["verdict"].printed == "B better"
    assert fid.cells["seeds"].printed == "1 training, 3 sampling"
    assert fid.cells["difference"].value == pytest.approx(fid.cells["a"].value - fid.cells["b"].value)


def test_a_bound_and_an_exact_value_are_no_contest(book):
    table = compare(book, record_of(book, "absorbing, 64 steps"), record_of(book, "autoregressive"))
    bits = next(row for row in table.rows if row.label == "Bits / token")
    assert bits.cells["verdict"].printed == "two kinds of likelihood"


def test_a_unique_beginning_of_an_id_is_enough(book):
    one, two = record_of(book, "absorbing, 64 steps"), record_of(book, "unigram")
    assert compare(book, one[:8], two[:8]).rows == compare(book, one, two).rows


def test_runs_under_different_protocols_are_not_compared(troubled_results):
    book = gather(troubled_results)
    with pytest.raises(InputError, match="only equal protocols"):
        compare(book, record_of(book, "unigram", 0), record_of(book, "unigram", 1))


def test_two_seeds_of_one_configuration_are_not_compared(book):
    runs = next(row for row in book.groups[0].rows if row.label == "unigram").records
    with pytest.raises(InputError, match="seeds alone"):
        compare(book, runs[0].id, runs[1].id)


def test_an_unknown_record_exits_2(demo_results, tmp_path, capsys):
    assert main([f"results_dir={demo_results}", f"out={tmp_path}", "compare=zzz,yyy"]) == 2
    assert "no record 'zzz'" in capsys.readouterr().err


def test_the_readme_block_is_made_from_records_and_nothing_else_changes(book, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n{BEGIN}\nstale\n{END}\ntail\n")
    assert refresh(readme, book, command="the command") is True
    text = readme.read_text()
    assert text.startswith(f"# Title\n{BEGIN}\n") and text.endswith(f"{END}\ntail\n")
    assert "autoregressive" in text and "**replicated**" in text and "stale" not in text
    assert refresh(readme, book, command="the command") is False


def test_the_readme_judges_what_was_run_and_names_the_rest_once(book):
    text = block(book, "c")
    assert "**not run**" not in text
    assert text.count("(Table 5)") == 1 and "(Table 5)" in text.split("Not run: ")[1]


def test_a_stale_readme_exits_1_and_says_how_to_refresh_it(demo_results, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\nstale\n{END}\n")
    arguments = [f"results_dir={demo_results}", f"readme={readme}"]
    assert main([*arguments, "check=true"]) == 1
    assert "python -m bench.report" in capsys.readouterr().err
    assert main(arguments) == 0
    assert main([*arguments, "check=true"]) == 0


def test_deleting_a_record_makes_the_readme_stale(synthetic, tmp_path):
    records = synthetic.write_demo(tmp_path / "runs", media=False)
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\n{END}\n")
    refresh(readme, gather(tmp_path / "runs"), command="c")
    (tmp_path / "runs" / "records" / f"{records[-1].id}.json").unlink()
    with pytest.raises(BenchError, match="stale"):
        check(readme, gather(tmp_path / "runs"), command="c")


def test_a_readme_without_markers_is_wrong_input(book, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n")
    with pytest.raises(InputError, match="results:begin"):
        refresh(readme, book, command="c")
