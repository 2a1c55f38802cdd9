"""Which run it is, how long the rest takes, and the table at the end with N, intervals, protocol and failures."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from bench import summary
from bench.compose import expand
from bench.launch import launch, pace
from bench.planning import Step, total_of
from bench.progress import duration
from bench.records import Measurement, Record
from bench.stages.base import Run, Stage
from bench.store.store import Recipe, Store

SMOKE = ["preset=smoke", "dataset=digits", "metrics.names=[nll]", "baselines=false"]


def record(label, *measurements, status="ok", message="", dataset="digits", name="failed-1"):
    spec = {"dataset": {"name": dataset}, "protocol": {"name": "demo"}, "results_dir": "results/mine"}
    return Record(name, "2026", "prior", label, spec, "", status, tuple(measurements), message=message)


def fid(value, half=None, *, n=2000, protocol="demo-1234abcd"):
    low, high = (None, None) if half is None else (value - half, value + half)
    return Measurement("fid", value, protocol, n=n, ci_low=low, ci_high=high, better="lower")


@pytest.mark.parametrize("seconds, words", [(0.2, "0 s"), (44.6, "45 s"), (89, "89 s"), (240, "4 min"),
                                            (4800, "1 h 20 min")])
def test_durations_are_told_as_one_says_them(seconds, words):
    assert duration(seconds) == words


def test_each_run_is_announced_with_its_number_and_label(monkeypatch):
    said = []
    monkeypatch.setattr(launch, "run_or_record_failure", lambda spec, passing: record("x"))
    specs = [run.spec for run in expand([*SMOKE, "prior=absorbing", "sampler.steps=4,16"], announce=said.append)]
    launch.launch(specs, console=SimpleNamespace(print=lambda text, **more: said.append(str(text))))
    assert said[0] == "run 1 of 2: absorbing, steps 4" and said[1].startswith("run 2 of 2: absorbing, steps 16 (")


def _paced(monkeypatch, trainings, *, seconds, estimates):
    """A sweep of so many runs: what each begins with, where every run takes `seconds` apart from its trainings."""
    said, now = [], [0.0]
    monkeypatch.setattr(pace, "label_of", lambda spec: f"run {spec}")
    monkeypatch.setattr(pace, "_trainings", lambda spec: [SimpleNamespace(key=key, recipe=key)
                                                          for key in trainings[spec]])
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(pace, "estimated_seconds", lambda built, stage: estimates.get(stage.key))
    done = {}
    monkeypatch.setattr(pace, "Store", lambda: SimpleNamespace(
        artefacts=lambda: [], state=lambda recipe: "cached" if recipe in done else "missing", find=done.get))
    sweep = pace.Pace(range(len(trainings)), said.append)
    for run in trainings:
        sweep.begin()
        new = [key for key in run if key not in done]
        done |= {key: SimpleNamespace(manifest={"wall_seconds": 1000.0}) for key in new}
        now[0] += seconds + 1000.0 * len(new)
        sweep.end()
    return said


def test_the_time_left_is_that_of_the_runs_left_and_of_trainings_shared_between_them_once(monkeypatch):
    said = _paced(monkeypatch, [["a"], ["b"], ["b"]], seconds=60, estimates={"b": 600})
    assert said == ["run 1 of 3: run 0", "run 2 of 3: run 1 (about 12 min left)", "run 3 of 3: run 2 (about 60 s left)"]


def test_a_training_of_which_nothing_is_known_makes_it_at_least_so_long(monkeypatch):
    assert "(at least 2 min left)" in _paced(monkeypatch, [[], ["b"], []], seconds=60, estimates={})[1]


def test_runs_that_end_in_any_order_are_counted(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
    tally = pace.Tally(2)
    now[0] = 120.0
    tally.end(record("unigram"))
    tally.end(record("absorbing", status="failed"))
    assert capsys.readouterr().err.splitlines() == ["1 of 2 runs ended: unigram: ok (about 2 min left)",
                                                    "2 of 2 runs ended: absorbing: failed"]


class _Part(Stage):
    """A stage of a test; it takes what the clock is moved by."""

    def __init__(self, name, needs=()):
        self.name, self.needs = name, needs

    def inputs(self, run):
        return self.needs

    def recipe(self, run):
        return Recipe(self.name, {}, (), 1)

    def build(self, run, out, work):
        for needed in self.needs:
            run.open(needed)
        (out / "made").write_text("")


def test_what_is_needed_is_said_and_built_before_what_needs_it(tmp_path):
    said, first = [], _Part("first")
    run = Run(None, store=Store(tmp_path), announce=said.append)
    run.obtain(_Part("last", (_Part("middle", (first,)), first)))
    assert [line.split()[1] for line in said if line.startswith("building")] == ["first", "middle", "last"]


def test_the_time_of_an_artefact_is_without_what_was_built_inside(tmp_path, monkeypatch):
    now, store = [0.0], Store(tmp_path)
    monkeypatch.setattr("bench.store.store.time.perf_counter", lambda: now[0])

    def inner(out, work):
        now[0] += 100.0
        (out / "made").write_text("")

    def outer(out, work):
        now[0] += 1.0
        store.obtain(Recipe("inner", {}, (), 1), inner)
        now[0] += 2.0
        (out / "made").write_text("")

    assert store.obtain(Recipe("outer", {}, (), 1), outer).manifest["wall_seconds"] == pytest.approx(3.0)
    assert store.find(Recipe("inner", {}, (), 1)).manifest["wall_seconds"] == pytest.approx(100.0)


def test_the_memory_of_an_artefact_is_without_what_was_built_inside(tmp_path, monkeypatch):
    held, peak, store = [1.0], [1.0], Store(tmp_path)   # gigabytes, of a machine whose memory is this list

    def hold(gigabytes):
        held[0] = gigabytes
        peak[0] = max(peak[0], gigabytes)

    monkeypatch.setattr("bench.store.store.peak_memory_gb", lambda device: peak[0])
    monkeypatch.setattr("bench.store.store.forget_peak_memory", lambda device: peak.__setitem__(0, held[0]))

    def inner(out, work):
        hold(9.0)
        hold(1.0)
        (out / "made").write_text("")

    def outer(out, work):
        hold(3.0)
        hold(1.0)
        store.obtain(Recipe("inner", {}, (), 1), inner)
        hold(2.0)
        (out / "made").write_text("")

    assert store.obtain(Recipe("outer", {}, (), 1), outer).manifest["peak_resident_gb"] == 3.0
    assert store.find(Recipe("inner", {}, (), 1)).manifest["peak_resident_gb"] == 9.0


def test_what_took_how_long_is_told_of_what_this_command_built(capsys):
    def made(key, seconds, built_at, peak=None):
        return {"key": key, "wall_seconds": seconds, "built_at": built_at, "peak_resident_gb": peak}

    tokenizer = made("a", 780.0, "2026-03-01T10:00:00", 1.25)
    one, two = (replace(record(name, fid(1.0)), provenance={"artefacts": {
        "tokenizer": tokenizer, "prior": made(name, 60.0, built_at, 2.04), "metric fid": {}}})
        for name, built_at in (("p", "2026-03-01T10:20:00"), ("q", "2026-02-28T10:00:00")))
    summary.print_summary([one, two], since="2026-03-01T09:00:00")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "tokenizer 1 13 min 1.2 GB" in lines and "prior 1 60 s 2.0 GB" in lines   # the other is of yesterday
    assert any(line.startswith("together") for line in lines)
    summary.print_summary([two], since="2026-03-02T09:00:00")
    assert "what took how long" not in capsys.readouterr().out


def test_a_plan_ends_in_a_total():
    steps = [Step("a", "1", "cached"), Step("b", "2", "missing", seconds=200.0), Step("c", "3", "missing")]
    assert total_of(steps) == ("To build before measuring: 2 stages, 1 in about 3 min, 1 unknown until one was built "
                               "here.")
    assert "what is left is to measure" in total_of(steps[:1])


def test_the_table_at_the_end_tells_n_interval_and_protocol(capsys):
    bits = Measurement("bits_per_token", 5.5581, "demo-1234abcd", n=500, bound="upper", ci_low=5.52, ci_high=5.596,
                       better="lower")
    summary.print_summary([record("absorbing", fid(88.91, 2.3), bits), record("of fewer", fid(90.0, 4.0, n=40))])
    told = capsys.readouterr().out
    for text in ("digits, protocol demo-1234abcd", "FID@2000 ↓", "88.9 ± 2.3", "<= 5.558 ± 0.038", "90.0@40 ± 4.0",
                 "bits/tok@500 ↓", "95% intervals"):
        assert text in told, told
    assert "KID" not in told   # which nothing measured


def test_a_failure_is_told_with_file_line_and_record(capsys):
    message = 'Traceback (most recent call last):\n  File "/a/b.py", line 3, in x\n    y()\n' \
              '  File "/c/d.py", line 14, in y\n    raise ValueError("bad")\nValueError: bad\n'
    summary.print_summary([record("unigram", fid(1.0)), record("mine", status="failed", message=message)])
    told = capsys.readouterr().out
    assert "mine: failed: ValueError: bad\n  at /c/d.py, line 14\n" in told
    assert "  the whole message: results/mine/records/failed-1.json" in told
    assert told.count("protocol demo") == 1   # in the table of those that asked for the same


def test_runs_of_different_protocols_stand_in_different_tables(capsys):
    summary.print_summary([record("a", fid(1.0)), record("b", fid(2.0, protocol="demo-ffff0000"))])
    assert capsys.readouterr().out.count(", protocol demo-") == 2


def test_a_metric_of_a_plug_in_has_its_column(capsys):
    mine = replace(fid(0.5), metric="brightness", unit="grey levels", better="none")
    summary.print_summary([record("a", mine)])
    assert "brightness@2000" in capsys.readouterr().out
