"""bench.speed: its options, its table and its rows at toy sizes. Nothing here looks at a time."""

import io
import json

import pytest
import torch
from rich.console import Console

from bench.errors import InputError
from bench.speed import ROW_NAMES, Options, main, parse, render
from bench.speed_rows import ROWS, Cell, Settings, _forward_gflop, _Size, _textbook_bound, _trained_toy
from priors.base import Draws


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def cells(name):
    return list(ROWS[name](Settings(quick=True)))


def test_every_advertised_row_exists():
    assert tuple(ROWS) == ROW_NAMES


def test_options_are_key_value():
    assert parse(["rows=ar,elbo", "quick=true", "rounds=3"]) == Options(rows=("ar", "elbo"), quick=True, rounds=3)


@pytest.mark.parametrize("argument, hint", [
    ("row=ar", "Did you mean 'rows'"), ("rows=arr", "Did you mean 'ar'"), ("quick=yes", "true or false"),
    ("rounds=0", "at least 1"), ("rounds=two", "at least 1"), ("quick", "key=value")])
def test_wrong_options_are_errors_that_name_the_right_ones(argument, hint):
    with pytest.raises(InputError, match=hint):
        parse([argument])


def test_an_option_given_twice_is_an_error():
    with pytest.raises(InputError, match="twice"):
        parse(["rounds=1", "rounds=2"])


def test_wrong_input_exits_with_two(capsys):
    assert main(["rows=nothing"]) == 2
    assert "Valid:" in capsys.readouterr().err


def test_the_cached_autoregressive_sampler_draws_the_textbook_s_tokens():
    assert [cell.note for cell in cells("ar")] == ["same tokens"]


@pytest.mark.parametrize("name", ["absorbing", "evaluation", "training", "tokenizer", "fid", "prdc"])
def test_a_row_runs_at_toy_size_and_has_a_ratio(name):
    timed = [cell for cell in cells(name) if cell.unit != "GB"]   # toy arrays fit into memory the process has already
    assert timed and all(cell.ratio > 0 for cell in timed)


def test_the_tokenizer_s_rows_agree_with_the_textbook():
    training, encoding, decoding = cells("tokenizer")
    assert float(training.note.split()[-1]) < 1e-4
    assert "; 0 of " in encoding.note and int(decoding.note.split()[-3]) <= 1


def test_fid_and_prdc_rows_check_their_output_against_the_oracle():
    assert float(cells("fid")[0].note.split()[-1]) < 1e-5
    assert cells("prdc")[0].note == "largest difference 0"


def test_neighbours_run_without_any_download(monkeypatch):
    monkeypatch.setattr("bench.speed_rows.asset_status", lambda name: type("Status", (), {"ready": False}))
    first, cached = cells("neighbours")
    assert first.naive == cached.naive and "scaled up" in first.note


def test_a_row_without_its_weights_is_a_hole_with_its_reason(monkeypatch):
    missing = type("Status", (), {"ready": False, "message": "missing"})
    monkeypatch.setattr("bench.speed_rows.asset_status", lambda name: missing)
    cell, = cells("inception")
    assert cell.ratio is None and cell.note == "not run: missing"


def test_the_textbook_bound_estimates_what_the_prior_bounds():
    prior, tokens = _trained_toy(_Size("toy", side=4, codes=32, width=32, layers=1), Settings(quick=True))
    with torch.inference_mode():
        naive = torch.stack([_textbook_bound(prior, tokens, 16, Draws.seeded("a", i)) for i in range(40)])
        ours = torch.stack([prior.nll(tokens, draws=Draws.seeded("b", i), budget=9).nats for i in range(10)])
    error = float(naive.mean(1).std()) / 40**0.5
    assert abs(float(naive.mean() - ours.mean())) < 4 * error


def test_the_work_of_an_evaluation_counts_matrices_and_attention():
    size = _Size("one", side=1, codes=3, width=2, layers=1)
    assert _forward_gflop(size, 1, 1) == pytest.approx(2e-9 * (12 * 4 + 2 * 3 + 2 * 2))


def test_the_table_shows_ratio_aim_and_share_of_the_peak():
    cell = Cell("ar", "AR, toy", 10.0, 2.0, 4.0, 8.0, gflop=50.0)
    console = Console(width=200, file=io.StringIO())
    console.print(render([cell], 100.0, Options()))
    text = console.file.getvalue()
    assert "5x" in text and "4x / 8x" in text and "25%" in text


def test_the_json_holds_what_the_table_shows(tmp_path, capsys):
    out = tmp_path / "speed.json"
    assert main(["rows=evaluation", "quick=true", f"out={out}"]) == 0
    stored = json.loads(out.read_text())
    row, = stored["rows"]
    assert row["ratio"] == pytest.approx(row["naive"] / row["ours"]) and stored["gemm_peak_gflops"] > 0
    assert str(out) in capsys.readouterr().out


def test_a_row_that_breaks_is_named_and_costs_only_itself(monkeypatch, capsys):
    def broken(settings):
        raise RuntimeError("no luck")
        yield

    monkeypatch.setitem(ROWS, "ar", broken)
    assert main(["rows=ar,evaluation", "quick=true"]) == 1
    printed = capsys.readouterr().out
    assert "failed: ar: RuntimeError: no luck" in printed and "one evaluation" in printed
