"""Two runs against one reference: the difference of every metric, with an interval, in one table.

    table = compare(Judged("absorbing", "naeem-1f", {0: features_a}), Judged("AR", "naeem-1f", {0: features_b}), real,
                    k=5)
    table[["metric", "difference", "ci_low", "ci_high", "verdict"]]

A difference has a smaller error than its two values: the real images are the same, so what they add cancels, and
images i of one seed are paired.  FID and KID pair their influence functions, density its jackknife groups, likelihoods
their validation images.  Precision, recall and coverage join the two runs' own intervals by their correlation over
common halves (Newcombe 1998; Zou & Donner 2008), for near 0 and 1 a symmetric interval covers too seldom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from bench.errors import InputError
from bench.metrics.checks import check_features
from bench.metrics.frechet import ReferenceStatistics, fid_to
from bench.metrics.intervals import (
    jackknife_error,
    mean_error,
    normal_interval,
    student_interval,
    wilson_interval,
)
from bench.metrics.kernel import kid
from bench.metrics.prdc import COLUMNS, NUM_GROUPS, NUM_HALVINGS, effective_num, prdc

BETTER = {"fid": "lower", "kid": "lower", "bits_per_token": "lower"} | dict.fromkeys(COLUMNS, "higher")
LEAST_SEEDS = 3   # for an interval over seeds


@dataclass(frozen=True)
class Judged:
    """What one run is compared by.

    features: seed -> (n, D) of its samples.  nats: seed -> (M,) negative log-likelihoods of the same validation images
    in the same order; likelihood: "exact" or the kind of bound; num_tokens: N, which turns nats into bits per token.
    """

    label: str
    protocol_id: str
    features: dict[int, np.ndarray] = field(default_factory=dict)
    nats: dict[int, np.ndarray] = field(default_factory=dict)
    likelihood: str = "exact"
    num_tokens: int = 0


def compare(a: Judged, b: Judged, real: np.ndarray | None = None, *, k: int = 5,
            memory_gb: float = 2.0) -> pd.DataFrame:
    """One row a metric: a, b, difference (a - b), its 95% interval, standard error, verdict, spread over seeds.

    ci_low, ci_high: over new images, for these models.  seed_ci_low, seed_ci_high: over seeds (three or more), which
    is the wider and right one where the seeds are of training.
    Raises InputError if the protocols, seeds or validation images of the two runs differ.
    """
    _check(a, b, real)
    rows = []
    if a.features and real is not None:
        rows += _distances(a, b, real) + _precision_recall(a, b, real, k=k, memory_gb=memory_gb)
    if a.nats:
        rows.append(_likelihoods(a, b))
    return pd.DataFrame(rows)


def paired_error(influence_a: list[np.ndarray], influence_b: list[np.ndarray], real_a: list[np.ndarray],
                 real_b: list[np.ndarray]) -> float:
    """Standard error of a mean over seeds of differences, from the influence of each image of each seed.

    Samples of different seeds are independent; the real images, common to all, are averaged over seeds first.
    """
    num_seeds = len(influence_a)
    fakes = 0.0
    for x, y in zip(influence_a, influence_b, strict=True):
        fakes += mean_error(x - y) ** 2 if len(x) == len(y) else mean_error(x) ** 2 + mean_error(y) ** 2
    reals = mean_error(np.mean(real_a, axis=0) - np.mean(real_b, axis=0)) ** 2
    return math.sqrt(fakes / num_seeds**2 + reals)


def _distances(a: Judged, b: Judged, real: np.ndarray) -> list[dict]:
    reference = ReferenceStatistics.of(real)
    rows = []
    for metric in ("fid", "kid"):
        results = [[fid_to(reference, run.features[s], real=real) if metric == "fid" else kid(run.features[s], real)
                    for s in sorted(run.features)] for run in (a, b)]
        error = paired_error(*([r.influence_fake for r in side] for side in results),
                             *([r.influence_real for r in side] for side in results))
        values = np.array([[r.value for r in side] for side in results])
        rows.append(_row(metric, a, values, error, _normal(values, error), n=results[0][0].n))
    return rows


def _precision_recall(a: Judged, b: Judged, real: np.ndarray, *, k: int, memory_gb: float) -> list[dict]:
    results = [[prdc(run.features[s], real, k=k, memory_gb=memory_gb) for s in sorted(run.features)] for run in (a, b)]
    rows = []
    for number, column in enumerate(COLUMNS):
        values = np.array([[getattr(r, column) for r in side] for side in results])
        error, interval = None, None
        if all(r.has_replicates for side in results for r in side):
            if column == "density":
                means = [np.mean([r.jackknife[:, number] for r in side], axis=0) for side in results]
                error = float(jackknife_error(means[0] - means[1]))
                interval = student_interval(values[0].mean() - values[1].mean(), error, degrees=NUM_GROUPS - 1)
            else:
                halves = [np.mean([r.halves[:, :, number] for r in side], axis=0) for side in results]
                num = len(values[0]) * results[0][0].n if column == "precision" else len(real)
                share_a, share_b = values.mean(axis=1)
                error, interval = _shares_difference(share_a, share_b, halves[0], halves[1], num)
        rows.append(_row(column, a, values, error, interval, n=results[0][0].n, note=results[0][0].note))
    return rows


def _shares_difference(a: float, b: float, halves_a: np.ndarray, halves_b: np.ndarray,
                       num: int) -> tuple[float, tuple[float, float]]:
    """Standard error and 95% interval of a - b from the spread and correlation of common halves (h, 2)."""
    gaps = [halves[:, 0] - halves[:, 1] for halves in (halves_a, halves_b)]
    if np.array_equal(gaps[0], gaps[1]):
        return 0.0, (a - b, a - b)
    norms = math.sqrt(np.square(gaps[0]).sum() * np.square(gaps[1]).sum())
    correlation = float(gaps[0] @ gaps[1] / norms) if norms > 0 else 0.0
    nums = [effective_num(halves, num) for halves in (halves_a, halves_b)]
    (low_a, high_a), (low_b, high_b) = (wilson_interval(share, n, degrees=NUM_HALVINGS)
                                        for share, n in zip((a, b), nums, strict=True))

    def joined(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x + y * y - 2 * correlation * x * y))

    errors = [math.sqrt(share * (1 - share) / n) for share, n in zip((a, b), nums, strict=True)]
    return joined(*errors), (a - b - joined(a - low_a, high_b - b), a - b + joined(high_a - a, b - low_b))


def _likelihoods(a: Judged, b: Judged) -> dict:
    nats = [np.stack([run.nats[s] for s in sorted(run.nats)]) for run in (a, b)]          # (seeds, M)
    unit = a.num_tokens * math.log(2)
    error = mean_error((nats[0] - nats[1]).mean(axis=0)) / unit
    note = "" if a.likelihood == b.likelihood else (
        f"{a.label} is {a.likelihood}, {b.label} is {b.likelihood}: the difference is not one of likelihoods")
    values = np.stack([x.mean(axis=1) for x in nats]) / unit
    return _row("bits_per_token", a, values, error, _normal(values, error), n=nats[0].shape[1], note=note)


def _normal(values: np.ndarray, error: float) -> tuple[float, float]:
    return normal_interval(values[0].mean() - values[1].mean(), error)


def _row(metric: str, a: Judged, values: np.ndarray, error: float | None, interval: tuple[float, float] | None, *,
         n: int, note: str = "") -> dict:
    """values: (2, seeds) of a and b."""
    differences = values[0] - values[1]
    difference = float(differences.mean())
    if error == 0:
        interval = None
        note = note or "both runs have the same value on every part of the images: no spread to make an interval of"
    low, high = interval or (None, None)
    seed_low = seed_high = None
    if len(differences) >= LEAST_SEEDS:
        seed_low, seed_high = student_interval(difference, mean_error(differences), degrees=len(differences) - 1)
    return {"metric": metric, "a": float(values[0].mean()), "b": float(values[1].mean()), "difference": difference,
            "ci_low": low, "ci_high": high, "standard_error": error, "better": BETTER[metric],
            "verdict": _verdict(BETTER[metric], low, high), "n": n, "num_seeds": len(differences),
            "seed_ci_low": seed_low, "seed_ci_high": seed_high, "protocol": a.protocol_id, "note": note}


def _verdict(better: str, low: float | None, high: float | None) -> Literal["a", "b", "undecided"]:
    """Which run is better, where the interval of a - b excludes zero."""
    if low is None or high is None or low <= 0 <= high:
        return "undecided"
    return "a" if (high < 0) == (better == "lower") else "b"


def _check(a: Judged, b: Judged, real: np.ndarray | None) -> None:
    if a.protocol_id != b.protocol_id:
        raise InputError(f"{a.label} was measured under {a.protocol_id} and {b.label} under {b.protocol_id}; "
                         "only equal protocols may be compared: measure both under one")
    for name in ("features", "nats"):
        seeds = [sorted(getattr(run, name)) for run in (a, b)]
        if seeds[0] != seeds[1]:
            raise InputError(f"{name} of {a.label} have seeds {seeds[0]} and those of {b.label} {seeds[1]}; "
                             "a paired comparison needs the same seeds")
    if not a.features and not a.nats:
        raise InputError(f"{a.label} and {b.label} have neither features nor nats to compare")
    if a.features and real is None:
        raise InputError("features are compared through the real images: pass their features as `real`")
    if real is not None:
        for features in [*a.features.values(), *b.features.values()]:
            check_features(features, real, least=3)
    for seed in a.nats:
        shapes = [np.shape(run.nats[seed]) for run in (a, b)]
        if shapes[0] != shapes[1] or len(shapes[0]) != 1 or shapes[0][0] < 2:
            raise InputError(f"nats of seed {seed} have shapes {shapes[0]} and {shapes[1]}; expected (images,) of the "
                             "same validation images, at least two")
        if not all(np.isfinite(run.nats[seed]).all() for run in (a, b)):
            raise InputError(f"nats of seed {seed} hold NaN or infinity")
    if a.nats and (a.num_tokens < 1 or a.num_tokens != b.num_tokens):
        raise InputError(f"num_tokens are {a.num_tokens} and {b.num_tokens}; expected one number of tokens an image")
