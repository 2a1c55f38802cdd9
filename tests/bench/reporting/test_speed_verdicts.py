"""Speed is judged from samplers that took turns in one process, and from nothing else."""

import dataclasses

import pytest

from bench.records import load_record
from bench.reporting.claims import ledger
from bench.reporting.estimates import median_interval
from bench.reporting.render import csv_text, markdown
from bench.reporting.rows import gather
from bench.reporting.speeds import CONTESTS
from bench.reporting.tables import summary

ROUNDS = (1.0, 1.02, 0.98, 1.01, 0.99, 1.03, 0.97)


@pytest.fixture
def compared(synthetic, tmp_path):
    """write(ours, theirs, ...): a comparison of the two rows that stand in the folder."""
    records = [synthetic.make_record(tmp_path, "prior", synthetic.spec_of(name, steps=steps),
                                     [synthetic.measurement("fid", 200.0, 1.0, "demo-x")], created=name)
               for name, steps in (("absorbing", 32), ("autoregressive", None))]

    def write(event, cached, loop=(9.0,) * 7, uncached=(9.0,) * 7, **more):
        seconds = {("ours", "event"): event, ("theirs", "cached"): cached, ("ours", "loop"): loop,
                   ("theirs", "uncached"): uncached}
        return synthetic.speed_comparison(tmp_path, {k: list(v) for k, v in seconds.items()}, ours=records[0],
                                          theirs=records[1], **{"created": "2026-02", **more})

    return write


def times(factor, rounds=ROUNDS):
    return [factor * second for second in rounds]


def verdicts(root):
    return {v.claim.key: v for v in ledger(gather(root).groups[0], root)}


@pytest.mark.parametrize("n, low, high", [(6, 1, 6), (7, 1, 7), (9, 2, 8), (15, 4, 12)])
def test_the_interval_of_a_median_lies_between_the_ranks_of_the_sign_test(n, low, high):
    assert median_interval(range(1, n + 1)) == (low, high)


def test_five_values_tell_no_interval_of_their_median():
    assert median_interval([1, 2, 3, 4, 5]) is None


@pytest.mark.parametrize("factor, expected", [(0.5, "replicated"), (2.0, "not replicated"), (1.0, "inconclusive")])
def test_a_verdict_is_that_of_the_paired_ratios(compared, tmp_path, factor, expected):
    slow_then_fast = [k * second for k, second in zip((3, 3, 2, 1, 1, 1, 1), ROUNDS, strict=True)]
    ours = [factor * s * (1 + e) for s, e in zip(slow_then_fast, (.1, -.1, .05, -.05, .02, -.02, 0), strict=True)]
    compared(ours, slow_then_fast)
    assert verdicts(tmp_path)["speed"].verdict == expected
    assert verdicts(tmp_path)["speed"].value == pytest.approx(factor)


def test_separate_timings_of_two_runs_are_no_verdict(synthetic, tmp_path):
    for prior, rounds in (("absorbing", [1.0, 1.1, 1.2]), ("autoregressive", [3.0, 3.1, 3.3])):
        timing = synthetic.measurement("seconds_per_image", rounds[1], 0.01, "demo-x", extra={"rounds": rounds})
        spec = synthetic.spec_of(prior, steps=32 if prior == "absorbing" else None)
        synthetic.make_record(tmp_path, "prior", spec, [timing], created=prior)
    verdict = verdicts(tmp_path)["speed"]
    assert verdict.verdict == "not run" and "python -m bench.speed claims results_dir=" in verdict.reason


def test_one_image_and_batches_with_cache_and_as_published_are_four_verdicts(compared, tmp_path):
    compared(times(0.5), times(1.0), loop=times(3.0), uncached=times(2.0))
    found = verdicts(tmp_path)
    assert {key: found[key].verdict for key in (c.key for c in CONTESTS)} == {
        "speed": "replicated", "speed-published": "not replicated", "throughput": "replicated",
        "throughput-published": "not replicated"}


def test_throughput_is_judged_in_seconds_an_image_at_each_sides_batch(compared, tmp_path):
    compared(times(0.5), times(1.0))
    verdict = verdicts(tmp_path)["throughput"]
    assert verdict.value == pytest.approx(0.5) and verdict.effect == "time an image, ours / theirs, 0.50"
    assert "2.00 times as fast: 10.0 images/s in batches of 32 against 5.0" in verdict.reason


def test_fewer_than_seven_rounds_are_no_comparison(compared, tmp_path):
    compared(times(0.5)[:6], times(1.0)[:6])
    assert verdicts(tmp_path)["speed"].verdict == "not run"


def test_the_record_of_the_comparison_is_the_one_behind_the_verdict(compared, tmp_path):
    record = compared(times(0.5), times(1.0))
    assert verdicts(tmp_path)["speed"].records == (record.id,)


def test_of_other_weights_a_comparison_says_nothing(synthetic, tmp_path, compared):
    record = compared(times(0.5), times(1.0))
    sides = [side | {"prior": "another"} for side in record.spec["sides"]]
    synthetic.save_record(dataclasses.replace(record, spec=record.spec | {"sides": sides}), tmp_path)
    assert verdicts(tmp_path)["speed"].verdict == "not run"


def test_two_processes_that_disagree_settle_nothing(compared, tmp_path):
    compared(times(0.9), times(1.0))
    assert verdicts(tmp_path)["speed"].verdict == "replicated"
    compared(times(1.1), times(1.0), created="2026-03")
    verdict = verdicts(tmp_path)["speed"]
    assert verdict.verdict == "inconclusive" and "the intervals of 2 processes" in verdict.reason
    assert "1.00 times as fast: in the latest of 2 processes 1.100" in verdict.reason


def test_processes_with_other_threads_are_not_joined(compared, tmp_path):
    compared(times(1.1), times(1.0), threads=1)
    compared(times(0.9), times(1.0), created="2026-03", threads=2)
    verdict = verdicts(tmp_path)["speed"]
    assert verdict.verdict == "replicated" and "in one process" in verdict.reason and "2 thread(s)" in verdict.reason
    assert "; 1 of other threads or another device left out" in verdict.reason


def test_a_round_of_less_than_no_time_is_no_measurement(compared, tmp_path):
    compared([-0.1, *times(0.5)[1:]], times(1.0))
    assert verdicts(tmp_path)["speed"].verdict == "not run"


def test_a_comparison_is_a_sound_record_and_no_row(compared, tmp_path):
    record = compared(times(0.5), times(1.0))
    assert load_record(tmp_path / "records" / f"{record.id}.json") == record
    book = gather(tmp_path)
    assert record.id in book.records and len(book.groups) == 1 and len(book.groups[0].rows) == 2


def timed(synthetic, root, prior, seconds, threads, *, seed=0):
    extra = {"rounds": times(seconds), "threads": threads, "device": "two quiet cores"}
    synthetic.make_record(root, "prior", synthetic.spec_of(prior, sampling_seed=seed, steps=8 if prior == "uniform"
                                                           else None),
                          [synthetic.measurement("seconds_per_image", seconds, None, "demo-x", extra=extra)],
                          created=f"{prior}{seed}")


def test_timings_of_other_threads_are_marked_and_do_not_compete(synthetic, tmp_path):
    for prior, seconds, threads in (("unigram", 1.0, 1), ("autoregressive", 2.0, 2), ("uniform", 3.0, 2)):
        timed(synthetic, tmp_path, prior, seconds, threads)
    table = summary(gather(tmp_path).groups[0])
    column = next(c for c in table.columns if c.key == "seconds_per_image")
    assert [row.label for row in table.rows if table.is_best(row, column)] == ["autoregressive"]
    assert "| 1.000 (1 thread) |" in markdown(table) and "(2 threads)" not in markdown(table)
    assert "1.0" in csv_text(table)


def test_a_mean_of_timings_is_of_one_number_of_threads(synthetic, tmp_path):
    for seed, (seconds, threads) in enumerate(((1.0, 2), (3.0, 2), (50.0, 1))):
        timed(synthetic, tmp_path, "unigram", seconds, threads, seed=seed)
    cell = gather(tmp_path).groups[0].rows[0].cells["seconds_per_image"]
    assert cell.value == pytest.approx(2.0) and "1 of 3 timings are left out: 1 thread" in cell.note
