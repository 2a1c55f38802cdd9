"""bench.speed: its options, its table and its rows at toy sizes. Nothing here looks at a time."""

import io
import json

import pandas as pd
import pytest
import torch
from rich.console import Console

from bench.errors import InputError
from bench.speed import ROW_NAMES, Options, main, parse, render
from bench.timing.priors import (
    Size,
    TextbookLoop,
    forward_gflop,
    textbook_bound,
    textbook_t_step_bound,
    trained_toy,
)
from bench.timing.rows import ROWS
from bench.timing.turns import Settings, Timing
from priors.base import Draws
from priors.reference import naive_autoregressive_sample


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def results_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def cells(name):
    return list(ROWS[name](Settings(quick=True)))


def test_every_advertised_row_exists():
    assert tuple(ROWS) == ROW_NAMES


def test_options_are_key_value():
    assert parse(["rows=ar,elbo", "quick=true", "rounds=3"]) == Options(rows=("ar", "elbo"), quick=True, rounds=3)


@pytest.mark.parametrize("argument, hint", [
    ("row=ar", "Did you mean 'rows'"), ("rows=arr", "Did you mean 'ar'"), ("quick=yes", "true or false"),
    ("rounds=0", "at least 1"), ("rounds=two", "at least 1"), ("quick", "key=value"),
    ("out=speed.txt", "ending in .json")])
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


def test_lossless_decodings_say_how_often_they_called_the_network():
    found = cells("lossless")
    assert {cell.what.split(", ")[0] for cell in found} == {"autoregressive", "any_order"}
    for cell in found:
        calls, of, num_tokens = cell.note.split()[:3]
        assert cell.ratio > 0 and 1 <= float(calls) <= int(num_tokens) == 16


def test_the_tokenizer_s_rows_agree_with_the_textbook():
    training, encoding, decoding = cells("tokenizer")
    assert float(training.note.split()[-1]) < 1e-4
    assert "; 0 of " in encoding.note and int(decoding.note.split()[-3]) <= 1


def test_fid_and_prdc_rows_check_their_output_against_the_oracle():
    assert float(cells("fid")[0].note.split()[-1]) < 1e-5
    assert cells("prdc")[0].note == "largest difference 0"


def test_neighbours_run_without_any_download(monkeypatch):
    monkeypatch.setattr("bench.timing.metrics.asset_status", lambda name: type("Status", (), {"ready": False}))
    first, cached = cells("neighbours")
    assert first.naive == cached.naive and "scaled up" in first.note


def test_a_row_without_its_weights_is_a_hole_with_its_reason(monkeypatch):
    missing = type("Status", (), {"ready": False, "message": "missing"})
    monkeypatch.setattr("bench.timing.metrics.asset_status", lambda name: missing)
    cell, = cells("inception")
    assert cell.ratio is None and cell.note == "not run: missing"


def test_the_textbook_bound_estimates_what_the_prior_bounds():
    prior, tokens = trained_toy(Size("toy", side=4, codes=32, width=32, layers=1), Settings(quick=True))
    with torch.inference_mode():
        naive = torch.stack([textbook_bound(prior, tokens, 16, Draws.seeded("a", i)) for i in range(40)])
        ours = torch.stack([prior.nll(tokens, draws=Draws.seeded("b", i), budget=9).nats for i in range(10)])
    error = float(naive.mean(1).std()) / 40**0.5
    assert abs(float(naive.mean() - ours.mean())) < 4 * error


def test_the_textbook_t_step_bound_estimates_what_the_prior_bounds():
    prior, tokens = trained_toy(Size("toy", side=4, codes=32, width=32, layers=1), Settings(quick=True))
    with torch.inference_mode():
        naive = torch.stack([textbook_t_step_bound(prior, tokens, 16, Draws.seeded("a", i)) for i in range(40)])
        ours = torch.stack([prior.nll(tokens, draws=Draws.seeded("b", i), budget=16).nats for i in range(10)])
    error = float(naive.mean(1).std()) / 40**0.5
    assert abs(float(naive.mean() - ours.mean())) < 4 * error


def test_the_elbo_rows_compare_estimates_of_the_same_bound():
    for cell in cells("elbo"):
        gap, _, error = cell.note.split()[3:6]
        assert abs(float(gap)) < 5 * float(error) and cell.ratio > 1


def test_a_part_of_the_textbook_s_loop_runs_the_steps_the_whole_loop_would():
    answer, seen = torch.randint(0, 5, (2, 8)), []

    def sample(logits):
        return naive_autoregressive_sample(logits, 2, 8, adjust=lambda x: x, draws=Draws.seeded(0))

    def network(state):
        seen.append(state)
        return torch.zeros(*state.shape, 5)

    TextbookLoop(sample, network, Draws.seeded(0), every=4).some(answer, codes=5, last_alone=True)()
    assert [state.shape[1] for state in seen] == [3, 7]
    assert all((state[:, :-1] == answer[:, :state.shape[1] - 1]).all() for state in seen)


def test_the_work_of_an_evaluation_counts_matrices_and_attention():
    size = Size("one", side=1, codes=3, width=2, layers=1)
    assert forward_gflop(size, 1, 1) == pytest.approx(2e-9 * (12 * 4 + 2 * 3 + 2 * 2))


def test_the_table_shows_ratio_aim_and_share_of_the_peak():
    cell = Timing("ar", "AR, toy", 10.0, 2.0, 4.0, 8.0, gflop=50.0)
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
    assert stored["conditions"] == {"dtype": "float32", "compiled": False, "threads": 1, "device": "cpu",
                                    "clock": "CPU"}


def test_the_csv_beside_it_holds_spread_memory_and_conditions(tmp_path):
    assert main(["rows=evaluation", "quick=true", "rounds=2", f"out={tmp_path / 'speed.json'}"]) == 0
    row = pd.read_csv(tmp_path / "speed.csv").iloc[0]
    assert row.ours_lowest <= row.ours <= row.ours_highest and row.memory_gb > 0
    assert row["threads"] == 1 and row["dtype"] == "float32"


def test_without_a_name_the_table_goes_where_results_go():
    assert Options().path.as_posix() == "results/runs/speed/speed.json"
    assert Options(quick=True).path.as_posix() == "results/runs/speed/quick.json"


def test_an_interruption_keeps_and_prints_the_lines_that_were_finished(monkeypatch, capsys, tmp_path):
    def interrupted(settings):
        yield Timing("ar", "AR, first", 4.0, 2.0)
        raise KeyboardInterrupt

    monkeypatch.setitem(ROWS, "ar", interrupted)
    assert main(["rows=ar,evaluation", "quick=true", "out=speed.json"]) == 130
    assert "2x" in capsys.readouterr().out
    assert [row["what"] for row in json.loads((tmp_path / "speed.json").read_text())["rows"]] == ["AR, first"]


def test_a_row_that_breaks_is_named_and_costs_only_itself(monkeypatch, capsys):
    def broken(settings):
        raise RuntimeError("no luck")
        yield

    monkeypatch.setitem(ROWS, "ar", broken)
    assert main(["rows=ar,evaluation", "quick=true"]) == 1
    printed = capsys.readouterr().out
    assert "failed: ar: RuntimeError: no luck" in printed and "one evaluation" in printed
