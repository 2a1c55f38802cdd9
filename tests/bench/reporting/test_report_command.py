"""python -m bench.report as a user meets it."""

import csv
import shutil
import subprocess
import sys

import pytest

from bench.report import main


def run(*arguments):
    return main([*arguments, "figures=false", "page=false"])


def test_it_writes_every_summary_as_csv_markdown_and_latex(troubled_results, tmp_path):
    assert run(f"results_dir={troubled_results}", f"out={tmp_path}") == 0
    names = {path.name for path in (tmp_path / "tables").glob("summary-*")}
    assert names == {f"summary-cifar10-{p}.{suffix}" for p in ("demo", "small") for suffix in ("csv", "md", "tex")}


def test_the_csv_holds_the_records_numbers_in_full(demo_results, tmp_path):
    run(f"results_dir={demo_results}", f"out={tmp_path}")
    with (tmp_path / "tables" / "summary-cifar10-demo.csv").open(newline="") as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    from bench.reporting.rows import gather
    expected = {row.label: row.cells["fid"].value for row in gather(demo_results).groups[0].rows}
    assert {label: float(row["measured FID@500"]) for label, row in rows.items()} == expected


def test_an_unknown_key_exits_2_and_names_the_nearest(capsys):
    assert run("result_dir=x") == 2
    assert "Did you mean 'results_dir'" in capsys.readouterr().err


@pytest.mark.parametrize("argument", ["results_dir", "page=maybe", "out=", "out=a,b", "compare=one"])
def test_a_wrong_value_exits_2(argument, capsys):
    assert main([argument]) == 2
    assert capsys.readouterr().err.startswith("error:")


def test_a_key_given_twice_exits_2(capsys):
    assert main(["out=a", "out=b"]) == 2


def test_a_quoted_path_may_hold_a_comma(demo_results, tmp_path):
    target = tmp_path / "a,b"
    assert run(f"results_dir={demo_results}", f"out='{target}'") == 0
    assert (target / "measurements.csv").is_file()


def test_a_damaged_record_is_named_and_exits_1(synthetic, demo_results, tmp_path, capsys):
    shutil.copytree(demo_results / "records", tmp_path / "results" / "records")
    synthetic.damage(tmp_path / "results")
    assert run(f"results_dir={tmp_path / 'results'}", f"out={tmp_path / 'report'}") == 1
    assert "deadbeef.json" in capsys.readouterr().err
    assert (tmp_path / "report" / "tables" / "summary-cifar10-demo.csv").is_file()


def test_the_same_records_give_the_same_files_byte_for_byte(synthetic, tmp_path):
    synthetic.write_demo(tmp_path / "runs", media=False)
    for name in ("one", "two"):
        main([f"results_dir={tmp_path / 'runs'}", f"out={tmp_path / name}"])
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(files) > 20
    assert [f for f in files if (tmp_path / "one" / f).read_bytes() != (tmp_path / "two" / f).read_bytes()] == []


def test_the_report_never_imports_torch():
    code = "import sys, bench.report, bench.reporting.figures, bench.reporting.pictures; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_what_an_earlier_report_left_is_removed_and_files_of_others_stay(troubled_results, tmp_path):
    out = tmp_path / "out"
    main([f"results_dir={troubled_results}", f"out={out}", "figures=false", "page=false"])
    (out / "tables" / "mine.csv").write_text("mine")
    before = {path.name for path in (out / "tables").iterdir()}
    main([f"results_dir={troubled_results}", f"out={out}", "figures=false", "page=false", "protocol=small"])
    after = {path.name for path in (out / "tables").iterdir()}
    assert {"mine.csv", "summary-cifar10-small.csv"} <= after
    assert before - after and not any("-demo" in name for name in after)


def test_figures_stay_where_a_report_was_told_to_make_none(synthetic, tmp_path):
    synthetic.write_demo(tmp_path / "runs", media=False)
    arguments = [f"results_dir={tmp_path / 'runs'}", f"out={tmp_path / 'out'}", "page=false"]
    main(arguments)
    drawn = sorted((tmp_path / "out" / "figures").iterdir())
    main([*arguments, "figures=false"])
    assert drawn and sorted((tmp_path / "out" / "figures").iterdir()) == drawn
