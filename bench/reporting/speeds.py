"""Whether sampling is faster: from records that time both sides in turn in one process, and from nothing else.

    finding = is_faster(group, results_dir, contest=CONTESTS[0])     # a Finding, or why there is none

Seconds of two runs differ by what else the machine did. Rounds that took turns share that, so each gives one ratio, and
the median of the ratios is judged.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.records import Measurement, Record
from bench.reporting.choice import AUTOREGRESSIVE, DIFFUSION, fair_pair, half_rows, plain_rows
from bench.reporting.estimates import Estimate, median_interval
from bench.reporting.numbers import number
from bench.reporting.rows import Group, Row
from bench.reporting.verdicts import Finding

MEASURED_BY = "`python -m bench.speed claims results_dir=<this folder>`"
LEAST_ROUNDS = 7
"""Of a comparison that a verdict may rest on: the fewest whose range is a 95% interval of the median, and one more."""
TIME_RATIO = "time an image, ours / theirs,"
Mode = Literal["seconds_per_image", "images_per_second"]


@dataclass(frozen=True)
class Contest:
    """One claim about speed. ours, theirs: what of the rows' samplers is set for it; mode: one image or batches."""

    key: str
    text: str
    mode: Mode
    ours: Mapping[str, Any]
    theirs: Mapping[str, Any]


FASTEST: tuple[dict[str, Any], dict[str, Any]] = {"method": "event"}, {"cache": True}
AS_PUBLISHED: tuple[dict[str, Any], dict[str, Any]] = {"method": "loop"}, {"cache": False}
CONTESTS = (
    Contest("speed", "At half the steps, one image is sampled faster than by autoregressive sampling with a key-value "
            "cache.", "seconds_per_image", *FASTEST),
    Contest("speed-published", "At half the steps, one image is sampled faster than by autoregressive sampling, both "
            "as published: the printed loop, no key-value cache.", "seconds_per_image", *AS_PUBLISHED),
    Contest("throughput", "At half the steps, batches are sampled faster than by autoregressive sampling with a "
            "key-value cache.", "images_per_second", *FASTEST),
    Contest("throughput-published", "At half the steps, batches are sampled faster than by autoregressive sampling, "
            "both as published: the printed loop, no key-value cache.", "images_per_second", *AS_PUBLISHED),
)


@dataclass(frozen=True)
class Timing:
    """One side's measurement and the record it is in. seconds: an image, round by round."""

    record: Record
    measurement: Measurement

    @property
    def seconds(self) -> list[float]:
        rounds = [float(value) for value in self.measurement.extra.get("rounds", ())]
        if self.measurement.metric == "seconds_per_image":
            return rounds
        return [1 / value if value else 0.0 for value in rounds]

    @property
    def conditions(self) -> tuple[Any, Any]:
        """Timings of other threads or another device are of another contest."""
        return self.measurement.extra.get("device"), self.measurement.extra.get("threads")


def pair_of(group: Group) -> tuple[Row, Row] | None:
    """The rows whose speeds the claims are about: half the steps, and the autoregressive prior beside them."""
    return fair_pair(half_rows(group), plain_rows(group, AUTOREGRESSIVE))


def is_faster(group: Group, results_dir: Path, *, contest: Contest) -> Finding | str:
    """The median ratio of the seconds of both sides, round by round; below 1 is faster."""
    pair = pair_of(group)
    if pair is None:
        return f"No {DIFFUSION} row with at most half of the full number of steps beside {AUTOREGRESSIVE}."
    found = [timings for record in group.timings if (timings := both_sides(record, pair, contest))]
    if not found:
        return f"{pair[0].label} and {pair[1].label} were never timed in turn in one process."
    latest = found[-1]
    alike = [timings for timings in found if timings[0].conditions == latest[0].conditions]
    estimate = over_processes([paired_ratio(ours.seconds, theirs.seconds) for ours, theirs in alike])
    return Finding(contest.mode, f"{pair[0].label} against {pair[1].label}, {_named(contest)}", estimate, pair,
                   "", border=1.0, ratio=TIME_RATIO,
                   shown=_remark(*latest, estimate, alike=len(alike), left_out=len(found) - len(alike)),
                   measured_by=tuple(ours.record.id for ours, _ in alike))


def was_timed(group: Group, results_dir: Path) -> bool:
    """Whether records already tell the speeds of every contest."""
    return not any(isinstance(is_faster(group, results_dir, contest=contest), str) for contest in CONTESTS)


def both_sides(record: Record, pair: tuple[Row, Row], contest: Contest) -> tuple[Timing, Timing] | None:
    """Both sides of a contest in one record of enough rounds, timed alike; None if it lacks one of them."""
    sides = [_side(record, row, changes, contest.mode)
             for row, changes in zip(pair, (contest.ours, contest.theirs), strict=True)]
    ours, theirs = sides
    if ours is None or theirs is None or ours.conditions != theirs.conditions:
        return None
    is_sound = LEAST_ROUNDS <= len(ours.seconds) == len(theirs.seconds) and min(ours.seconds + theirs.seconds) > 0
    return (ours, theirs) if is_sound else None


def paired_ratio(ours: list[float], theirs: list[float]) -> Estimate:
    """Median of the ratios round by round, with the sign test's interval."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, high = median_interval(ratios) or (None, None)
    return Estimate(statistics.median(ratios), low, high,
                    f"median of {len(ratios)} rounds that took turns in one process, sign test")


def over_processes(estimates: list[Estimate]) -> Estimate:
    """The estimate of one process; of several their median, with an interval that holds all of theirs."""
    if len(estimates) == 1:
        return estimates[0]
    lows, highs = [e.low for e in estimates], [e.high for e in estimates]
    whole = None not in lows and None not in highs
    return Estimate(statistics.median(e.value for e in estimates),
                    min(low for low in lows if low is not None) if whole else None,
                    max(high for high in highs if high is not None) if whole else None,
                    f"from the lowest to the highest end of the intervals of {len(estimates)} processes")


def _side(record: Record, row: Row, changes: Mapping[str, Any], mode: Mode) -> Timing | None:
    """The record's timing of this row's weights and sampler, with these changes."""
    keys = {(r.provenance.get("artefacts") or {}).get("prior", {}).get("key") for r in row.records} - {None}
    sampler = {key: value for key, value in row.spec.get("sampler", {}).items() if key != "seed"} | dict(changes)
    for index, side in enumerate(record.spec.get("sides", ())):
        own = side.get("sampler", {})
        if side.get("prior") in keys and all(own.get(key) == value for key, value in sampler.items()):
            return next((Timing(record, m) for m in record.measurements
                         if m.metric == mode and m.extra.get("side") == index), None)
    return None


def _remark(ours: Timing, theirs: Timing, estimate: Estimate, *, alike: int, left_out: int) -> str:
    """The ratio of all processes that are alike, the amounts of the latest, and how many others do not count."""
    medians = [statistics.median(timing.seconds) for timing in (ours, theirs)]
    batches = [timing.measurement.extra.get("batch") for timing in (ours, theirs)]
    if ours.measurement.metric == "seconds_per_image":
        amounts = f"{number(medians[0], 4)} s against {number(medians[1], 4)} s, batch {batches[0]}"
    else:
        amounts = (f"{number(1 / medians[0], 1)} images/s in batches of {batches[0]} against "
                   f"{number(1 / medians[1], 1)} in batches of {batches[1]}, the best of those tried")
    device, threads = ours.conditions
    if alike > 1:
        amounts = f"in the latest of {alike} processes {amounts}"
    others = f"; {left_out} of other threads or another device left out" if left_out else ""
    return (f"{number(1 / estimate.value, 2)} times as fast: {amounts}; {threads} thread(s) of {device}, prior only"
            f"{others}")


def _named(contest: Contest) -> str:
    return ", ".join(f"{key}={str(value).lower()}" for key, value in (*contest.ours.items(), *contest.theirs.items()))
