"""The scores one should see: made from committed records, and set beside what was measured, in sigmas."""

import csv
import dataclasses
import json
import math
from pathlib import Path

import pytest

from bench import report, run
from bench.compose import expand
from bench.data.foreign import as_written
from bench.records import load_records, save_record
from bench.reporting import expected, expected_views
from bench.reporting.expected import Side, comparisons, scores_of, sigmas
from bench.reporting.rows import Row, gather, groups_of

ROOT = Path(__file__).parents[3]


def shifted(records, by, *, metric="fid", tag="again"):
    """The records of another machine: new ids, one metric moved."""
    return [dataclasses.replace(record, id=f"{record.id[:30]}-{tag}", measurements=tuple(
        dataclasses.replace(m, value=m.value + by, ci_low=m.ci_low + by, ci_high=m.ci_high + by)
        if m.metric == metric and m.ci_low is not None else m for m in record.measurements)) for record in records]


@pytest.fixture(scope="module")
def scores(demo_results):
    return scores_of(gather(demo_results))


@pytest.fixture(scope="module")
def records(demo_results):
    return [record for record in load_records(demo_results)[0] if record.role != "speed comparison"]


@pytest.fixture
def with_scores(scores, monkeypatch):
    monkeypatch.setattr(expected, "expected", lambda: scores)


@pytest.mark.parametrize("folder", ["reference", "demo"])
def test_the_committed_scores_are_those_of_the_committed_records(folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    path = f"results/expected/{folder}.csv"
    expected.check(Path(path), gather(f"results/{folder}"),
                   command=f"python -m bench.report results_dir=results/{folder} expected={path}")


def test_each_number_is_expected_once():
    places = [(s.dataset, s.protocol, s.key, s.metric) for s in expected.expected()]
    assert len(places) == len(set(places)) > 100


def test_every_prior_that_the_preset_small_documents_has_expected_scores():
    known = {score.key for score in expected.expected()}
    for asked in expand(["preset=small", "prior=unigram,autoregressive,absorbing", "sampler.steps=8,16,32,64"],
                        announce=lambda text: None):
        row = Row("", "prior", "", "", "ok", spec=json.loads(json.dumps(as_written(asked.spec))))
        assert {expected.key_of(row), expected.key_of(row, selection="shared")} & known


def test_every_row_of_make_demo_has_expected_scores():
    lines = [line for line in (ROOT / "Makefile").read_text().splitlines() if "bench.run preset=demo" in line]
    known = {score.key for score in expected.expected()}
    asked = [one for line in lines
             for one in expand(line.split("bench.run ")[1].removesuffix(" && \\").split(), announce=lambda text: None)]
    assert len(lines) == 3 and len(asked) > 8
    for one in asked:
        row = Row("", "prior", "", "", "ok", spec=json.loads(json.dumps(as_written(one.spec))))
        assert expected.key_of(row) in known, one.overrides


def test_timings_are_expected_of_no_machine(scores):
    assert scores and not [score for score in scores if "second" in score.metric]


def test_a_file_of_scores_reads_back_as_it_was(scores, tmp_path):
    (tmp_path / "expected.csv").write_text(expected.text_of_scores(scores))
    read = expected.read_scores(tmp_path / "expected.csv")
    assert expected.text_of_scores(read) == expected.text_of_scores(scores)
    assert [dataclasses.replace(s, value=0, low=0, high=0, standard_error=0, scatter=0) for s in read] == \
        [dataclasses.replace(s, value=0, low=0, high=0, standard_error=0, scatter=0) for s in scores]


def test_the_expected_records_are_not_compared_with_themselves(records, scores):
    assert comparisons(groups_of(records), scores) == []


def test_the_same_numbers_again_are_as_expected(records, scores):
    found = comparisons(groups_of(shifted(records, 0)), scores)
    assert {c.verdict for c in found} == {"as expected"} and {c.sigmas for c in found} == {0.0}


def test_another_seed_is_compared_with_the_same_row(records, scores):
    moved = [dataclasses.replace(r, spec=r.spec | {"seed": 7}) for r in shifted(records, 0)]
    assert {c.row.key for c in comparisons(groups_of(moved), scores)} == {
        c.row.key for c in comparisons(groups_of(shifted(records, 0)), scores)}


def test_another_configuration_has_no_expected_scores(records, scores):
    moved = [dataclasses.replace(r, spec=r.spec | {"dataset": r.spec["dataset"] | {"resolution": 64}})
             for r in shifted(records, 0)]
    assert comparisons(groups_of(moved), scores) == []


def test_a_number_ten_sigmas_away_is_off_and_says_that_one_training_is_all_there_is(records, scores):
    error = 1.6 * math.sqrt(2)   # both sides', which every synthetic FID has
    fids = [c for c in comparisons(groups_of(shifted(records, 10 * error)), scores) if c.metric == "fid"]
    trained = [c for c in fids if c.row.role == "prior"]
    assert trained and all(c.verdict == "off" and c.sigmas == pytest.approx(10) for c in trained)
    assert all(c.words == f"off by +10.0 sigma; {expected.ONE_TRAINING}" for c in trained)
    assert all(not c.remark for c in fids if c.row.role == "real")   # which nothing was trained for


def test_errors_of_both_sides_add_in_squares():
    assert sigmas(Side(13.0, 3.0, 1, None), Side(3.0, 4.0, 1, None)) == (pytest.approx(2.0), False)


def test_without_an_error_equal_numbers_are_as_expected_and_others_cannot_be_told():
    assert sigmas(Side(64.0, None, 1, None), Side(64.0 + 1e-9, None, 1, None)) == (0.0, False)
    assert sigmas(Side(64.0, None, 1, None), Side(63.0, None, 1, None)) == (None, False)


def test_the_scatter_of_three_trainings_is_in_the_sigma_and_three_are_few():
    found, known = sigmas(Side(108.0, 0.1, 1, None), Side(100.0, 0.1, 3, 2.0))
    t = 8 / (2 * math.sqrt(1 + 1 / 3))   # of two degrees of freedom: P(|t| > 3.46) = 0.074
    assert known and t == pytest.approx(3.46, abs=0.01)
    assert found == pytest.approx(1.785, abs=0.01)   # a normal is as rare there


def test_two_trainings_tell_no_scatter_but_two_of_each_side_do():
    assert sigmas(Side(1.0, 1.0, 1, None), Side(0.0, 1.0, 2, 50.0))[1] is False
    assert sigmas(Side(1.0, 1.0, 2, 50.0), Side(0.0, 1.0, 2, 50.0))[1] is True


def test_trainings_that_agree_by_chance_leave_the_error_of_the_draws():
    assert sigmas(Side(4.0, 1.0, 3, 0.0), Side(0.0, 1.0, 3, 1e-6)) == (pytest.approx(4 / math.sqrt(2)), True)


def test_chance_alone_is_off_as_seldom_as_three_sigmas_are():
    import numpy as np

    rng, off = np.random.default_rng(0), 0
    for _ in range(4000):
        values = rng.normal(0, 2.0, 4)
        scatter = float(values[1:].std(ddof=1))
        found, _ = sigmas(Side(values[0], 1e-9, 1, None), Side(float(values[1:].mean()), 1e-9, 3, scatter))
        off += abs(found) > expected.BORDER
    assert off / 4000 < 0.006   # 0.0027 of a normal; with the plain ratio it would be a tenth


def test_a_likelihood_of_other_images_is_not_compared_and_says_why(records, scores):
    moved = [dataclasses.replace(r, measurements=tuple(
        dataclasses.replace(m, extra=m.extra | {"images": "scoring half"}) if m.metric == "bits_per_token" else m
        for m in r.measurements)) for r in shifted(records, 0)]
    told = [c for c in comparisons(groups_of(moved), scores) if c.metric == "bits_per_token"]
    assert told and {c.words for c in told} == {"not compared: scored on other held-out images"}


def test_weights_chosen_on_other_images_are_named(records, scores):
    def trained(record):
        prior = record.spec["prior"]
        return dataclasses.replace(record, spec=record.spec | {"prior": prior | {
            "training": prior["training"] | {"selection": "apart", "measure_at": "none", "patience": None}}})

    found = comparisons(groups_of([trained(record) for record in shifted(records, 0)]), scores)
    assert all((expected.OTHER_SELECTION in c.remark) == (c.row.role == "prior") for c in found)
    assert "prior.training.selection=shared" in " ".join(expected_views.notes(found))


def test_the_end_of_a_run_prints_measured_and_expected_with_a_verdict(records, with_scores, capsys):
    run.print_summary(shifted([r for r in records if r.spec["prior"]["name"] == "unigram"], 100))
    told = " ".join(capsys.readouterr().out.split())
    assert expected_views.TITLE in told and "off by sigma: FID +44.2" in told and expected.ONE_TRAINING in told
    assert "1 off" in told


def test_a_run_that_no_record_expects_prints_no_more_than_before(records, monkeypatch, capsys):
    monkeypatch.setattr(expected, "expected", lambda: ())
    run.print_summary(records)
    assert "expected" not in capsys.readouterr().out


def test_machines_read_the_expected_scores_of_each_run(records, with_scores):
    told = run.summaries_of(shifted(records, 0))
    fids = [line for record in told for line in record["expected"] if line["metric"] == "fid"]
    assert len(fids) == len([record for record in told if record["status"] == "ok"])
    assert {line["verdict"] for line in fids} == {"as expected"}
    json.dumps(told, allow_nan=False)


def test_the_report_has_a_table_of_them_in_csv_markdown_and_on_the_page(records, with_scores, tmp_path):
    for record in shifted(records, 100):
        save_record(dataclasses.replace(record, media={}, curves={}), tmp_path / "results")
    assert report.main([f"results_dir={tmp_path / 'results'}", f"out={tmp_path / 'out'}", "figures=false"]) == 0
    with (tmp_path / "out/tables/expected-cifar10-demo.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["verdict"] for line in lines if line["metric"] == "fid"} == {"off"}
    assert {line["verdict"] for line in lines if line["metric"] == "kid"} == {"as expected"}
    page = (tmp_path / "out/index.html").read_text()
    markdown = (tmp_path / "out/tables/expected-cifar10-demo.md").read_text()
    for text in (page, markdown):
        assert "with an expected score:" in text and "off by +" in text and "three are known" in text


def test_the_command_refreshes_the_file_and_says_when_it_is_stale(demo_results, tmp_path, capsys):
    command = [f"results_dir={demo_results}", f"expected={tmp_path / 'expected.csv'}"]
    assert report.main([*command, "check=true"]) == 1 and "stale" in capsys.readouterr().err
    assert report.main(command) == 0 and report.main([*command, "check=true"]) == 0
    assert report.main(command) == 0 and "was up to date" in " ".join(capsys.readouterr().out.split())


def test_a_folder_that_is_not_there_is_wrong_input(demo_results, tmp_path, capsys):
    assert report.main([f"results_dir={demo_results}", f"expected={tmp_path / 'none' / 'expected.csv'}"]) == 2
    assert "there is no folder" in " ".join(capsys.readouterr().err.split())
