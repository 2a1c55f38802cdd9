"""Two runs against each other, and the README's block."""

import pytest

from bench.errors import BenchError, InputError
from bench.report import main
from bench.reporting import glance
from bench.reporting.compare import compare
from bench.reporting.readme import BEGIN, END, block, check, refresh
from bench.reporting.rows import gather
from bench.reporting.tables import summary


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


MARK = ("<!-- glance:begin dataset={dataset} protocol={protocol}\nrows: {rows}\ncolumns: fid | kid\n"
        "verdicts: {name} -->\n")


def glance_of(book, rows="absorbing, 64 steps | autoregressive", **changed):
    group = book.groups[0]
    facts = {"dataset": group.dataset, "protocol": group.heading, "name": group.protocol_name, **changed}
    return f"# Title\n{MARK.format(rows=rows, **facts)}stale\n{glance.END}\ntail\n"


def test_a_first_look_has_the_rows_and_columns_its_mark_names(book, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(glance_of(book))
    assert refresh(readme, book, command="c") and not refresh(readme, book, command="c")
    text = readme.read_text()
    assert "stale" not in text and text.endswith(f"{glance.END}\ntail\n") and BEGIN not in text
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in table[:3]] == ["| row", "| absorbing, 64 steps", "| autoregressive"]
    assert "KID" in table[0] and "Recall" not in table[0]


def test_a_first_look_may_have_every_row_and_no_verdict(book):
    text = glance.replaced(glance_of(book, rows="all", name="none"), book, "page.md")
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len([row for row in summary(book.groups[0]).rows]) and "claim of the paper" not in text


def test_a_page_may_hold_several_first_looks(book):
    first, second = glance_of(book, name="none"), glance_of(book, rows="unigram", name="none")
    text = glance.replaced(f"{first}between\n{second}", book, "page.md")
    assert text.split("between\n") == [glance.replaced(part, book, "page.md") for part in (first, second)]
    with pytest.raises(InputError, match="one line"):
        glance.replaced(first + second.replace(glance.END, ""), book, "page.md")


def test_a_first_look_says_of_each_claim_what_the_long_tables_say(book):
    short, long = glance.replaced(glance_of(book), book, "README.md"), block(book, "c")
    claims = [line for line in short.splitlines() if "**" in line and line.startswith("| ") and ", FID" in line]
    assert claims
    for line in claims:
        claim, said = line.strip("| ").split(" | ", 1)
        words = said.strip("| ").split("**")[1]
        assert any(claim in row and f"**{words}**" in row for row in long.splitlines())


@pytest.mark.parametrize("changed, words", [
    ({"rows": "absorbing, 63 steps"}, "Did you mean"), ({"protocol": "other"}, "there are"),
    ({"dataset": "other"}, "there are")])
def test_a_first_look_at_what_is_not_there_is_wrong_input(changed, words, book):
    with pytest.raises(InputError, match=words):
        glance.replaced(glance_of(book, **changed), book, "README.md")


def test_a_mark_that_cannot_be_read_is_wrong_input(book):
    for text in (glance_of(book).replace("rows:", "row:"), glance_of(book).replace(glance.END, ""),
                 glance_of(book).replace("columns: fid | kid", "columns: fid | kidd")):
        with pytest.raises(InputError):
            glance.replaced(text, book, "README.md")
