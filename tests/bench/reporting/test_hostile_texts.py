"""Labels, notes and names that others chose are shown in every file of a report and obeyed in none."""

import csv
import dataclasses
import io
import re
import unicodedata

import pytest
from rich.console import Console

from bench import report, run
from bench.printable import clean, last_line, one_line
from bench.records import load_records, save_record
from bench.reporting.escaping import csv_cell, markdown_text, tex_label, tex_text
from bench.reporting.figures import Drawing
from bench.reporting.paper_figures import curves_of
from bench.reporting.pictures import pictures_of
from bench.reporting.render import terminal
from bench.reporting.rows import gather
from bench.reporting.tables import summary

HOSTILE = ("[/x] [bold]b[/bold] [link=https://example.com]l[/link]", r"$\bad{$ and $x_1$", '=HYPERLINK("x")', "+1+1",
           "-2+3", "@SUM(1)", "\x1b[2J\x1b]0;title\x07", "first\nsecond\r\nthird", "right\u202eto left\u2066",
           "_hidden",
           "50% of_{x} & #1 ~ ^ \\end{table}", "</script><script>alert(1)</script>",
           "a|b ![p](https://example.com/p.png)",
           "\x9b31m \x85 \u2028", "[0pt] after a line's end", "é 猫")


def steers(text):
    """The characters of a text that control a terminal or turn the direction of writing."""
    return {c for c in text if unicodedata.category(c) == "Cc" and c != "\n" or unicodedata.bidirectional(c) in
            ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI")}


@pytest.fixture(scope="module")
def hostile_results(synthetic, tmp_path_factory):
    """Records whose every text is hostile: sources, priors, data sets, protocols, notes, reasons and options."""
    root = tmp_path_factory.mktemp("hostile")
    for number, text in enumerate(HOSTILE):
        steps = {"options": {"objective": text}, "dataset": f"{text} set" if number % 2 else "cifar10"}
        for count in (8, 16):
            measured = [synthetic.measurement("fid", 9.0 + count, 1.0, f"id {text}", note=text),
                        synthetic.measurement("seconds_per_image", 1 / count, .001, f"id {text}", unit=text),
                        synthetic.measurement(f"metric {text}", None, None, f"id {text}", note=text)]
            synthetic.make_record(root, "prior", synthetic.spec_of(text, steps=count, **steps), measured, label=text,
                                  created=f"{number:02}-{count}", media=("samples",), curve_end=6.0)
        synthetic.make_record(root, "source", synthetic.spec_of(None), [synthetic.measurement("fid", 5.0, .1, "demo")],
                              created=f"{number:02}", label=text)
        synthetic.make_record(root, "prior", synthetic.spec_of(text, steps=9), [], created=f"{number:02}-failed",
                              status="failed", message=f"Traceback\n{text}\nError: {text}", label=text)
    return root


@pytest.fixture(scope="module")
def written(hostile_results, tmp_path_factory):
    """The folder of its report, figures apart."""
    out = tmp_path_factory.mktemp("report")
    assert report.main([f"results_dir={hostile_results}", f"out={out}", "figures=false"]) == 0
    return out


def test_no_file_of_a_report_holds_a_character_that_steers(written):
    files = [path for path in written.rglob("*") if path.is_file()]
    assert len(files) > 50
    assert {path.name: steers(path.read_text("utf-8")) for path in files if steers(path.read_text("utf-8"))} == {}


def test_the_terminal_is_not_steered_and_shows_brackets_as_text(hostile_results, tmp_path, capsys):
    report.main([f"results_dir={hostile_results}", f"out={tmp_path}", "figures=false", "page=false"])
    told = "".join(capsys.readouterr())
    assert steers(told) == set() and "[/x]" in told and "[link=" in told


def test_a_table_of_a_terminal_takes_no_markup(hostile_results):
    console = Console(file=io.StringIO(), width=400, force_terminal=True, color_system=None)
    for group in gather(hostile_results).groups:
        console.print(terminal(summary(group)))
    text = console.file.getvalue()
    assert "[bold]b[/bold]" in text and "\x1b]8" not in text


def test_the_summary_of_runs_takes_no_markup_and_no_control_characters(hostile_results, capsys):
    records = [dataclasses.replace(record, label=text, message=f"Error: {text}")   # as runs give them
               for record, text in zip(load_records(hostile_results)[0], HOSTILE, strict=False)]
    run.print_summary(records)
    told = capsys.readouterr().out
    assert steers(told) == set() and "[/x]" in told


def test_no_text_in_a_csv_begins_a_formula(written):
    for path in written.rglob("*.csv"):
        with path.open(newline="") as file:
            for text in (text for line in csv.reader(file) for text in line if len(text) > 1):
                assert text[0] not in "=+-@" or re.fullmatch(r"[+-][\d.]+(e[+-]?\d+)?", text), path


def test_numbers_of_a_csv_stay_numbers():
    assert [csv_cell(value) for value in (-1.5, 3, None, "-1.5", "-", "+2", "=1", " =1", "-x", "@x", "a=b")] == \
        [-1.5, 3, None, "-1.5", "-", "+2", "'=1", "' =1", "'-x", "'@x", "a=b"]


def test_a_markdown_table_keeps_its_cells_and_fetches_nothing(written):
    for path in (written / "tables").glob("summary-*.md"):
        table = [line for line in path.read_text().splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1, path
        assert "<script" not in path.read_text() and "](http" not in path.read_text()


@pytest.mark.parametrize("text", HOSTILE)
def test_latex_gets_no_command_and_no_argument_from_a_text(text):
    bare = re.sub(r"\\text(backslash|asciitilde|asciicircum)\{\}|\\texttt\{U\+[0-9A-F]{4,}\}|\$[^$]*\$|\\[&%$#_{}]|"
                  r"\{[][*]\}", "", tex_text(text))
    assert not set(bare) & set("\\&%$#_{}~^[]*")
    assert re.fullmatch("[A-Za-z0-9-]*", tex_label(text))


def test_every_figure_is_drawn_with_dollars_as_dollars(hostile_results):
    texts, drawings = set(), 0
    for group in gather(hostile_results).groups:
        for item in (*curves_of(group, hostile_results), *pictures_of(group, hostile_results)):
            if isinstance(item, Drawing):
                found = item.figure.findobj(lambda artist: hasattr(artist, "get_parse_math"))
                assert [artist.get_text() for artist in found if artist.get_text() and artist.get_parse_math()] == []
                texts |= {artist.get_text() for artist in found}
                drawings += 1
    assert drawings > 20 and any(r"$\bad{$" in text for text in texts) and not any(map(steers, texts))


def test_the_page_has_its_own_two_scripts_and_its_policy(written):
    page = (written / "index.html").read_text("utf-8")
    assert page.count("<script") == 2 and 'http-equiv="Content-Security-Policy"' in page
    assert 'type="application/json" id="data"' in page and "[/x]" in page


def test_a_damaged_file_of_a_hostile_name_is_named_without_its_control_characters(hostile_results, tmp_path, capsys):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "\x1b[2J\u202e[red]evil.json").write_text("[]")
    record = load_records(hostile_results)[0][0]
    save_record(dataclasses.replace(record, media={}, curves={}), tmp_path)
    assert report.main([f"results_dir={tmp_path}", f"out={tmp_path / 'out'}", "figures=false"]) == 1
    told = capsys.readouterr().err + (tmp_path / "out" / "index.html").read_text("utf-8")
    assert steers(told) == set() and "[red]evil.json" in told


def test_a_name_longer_than_file_systems_allow_makes_a_short_file_name(synthetic, tmp_path):
    for name in ("猫" * 199, "///", "a" * 199 + "b"):
        synthetic.make_record(tmp_path, "source", synthetic.spec_of(None, dataset=name), created=name[:5],
                              measurements=[synthetic.measurement("fid", 1.0, .1, name)])
    assert report.main([f"results_dir={tmp_path}", f"out={tmp_path / 'out'}"]) == 0
    assert len({group.slug for group in gather(tmp_path).groups}) == 3


def test_clean_keeps_lines_and_one_line_keeps_none():
    assert clean("a\r\nb\x1bc\td\u202e\ud800") == "a\nb\ufffdc\td\ufffd\ufffd"
    assert one_line("a\r\nb\tc\u2028d") == "a b c d"
    assert last_line("Traceback\n  at\nError: no\x07\n\n") == "Error: no\ufffd" and last_line("") == ""
    assert markdown_text("a|b\nc <b> <= 3") == "a\\|b c &lt;b> <= 3"
