"""FLD, authenticity and C_T as metrics of a run: what needs features of training and of held-out images as well.

    measurements = FeatureLikelihood()(evidence)

Training images are those that the prior was trained on, as many as the protocol's reference has: that reference itself
where it is of the training split and the prior saw all of that. Held-out ones are those that the real and
reconstruction rows do not judge, so that no image is held against itself. Features beyond the protocol's own are taken
once and kept in the caches of all runs.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np

from bench.data.arrays import SubsetImages, spread, spread_indices
from bench.metrics.base import Evidence, positions_seen
from bench.metrics.checks import all_rows_equal
from bench.metrics.columns import Column, columns
from bench.metrics.copying import LEAST_SAMPLES, LEAST_TRAINING, TooFew, authenticity, copying_score
from bench.metrics.feature_likelihood import LEAST, MOST, fld
from bench.metrics.features import OfFeatures, extract_to, extractor_identity, load_features, resolve_extractor
from bench.records import Measurement

LEAST_HELD_OUT = 50
"""Fewer give neither scale nor distances to go by; a prior's row then takes those as well that real rows judge."""
COPIES = 1000.0   # FLD above which the authors' code warns of memorised samples


class FeatureLikelihood(OfFeatures):
    """Registry name "fld": FLD and its train-test gap."""

    name = "fld"
    columns = columns("fld", "fld_gap")
    depends_on = ("protocol",)

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        held_out, reason = held_out_features(evidence)
        if held_out is None:
            return holes(self.columns, evidence, reason)
        fake, train = spread(evidence.features("fake"), MOST), spread(training_features(evidence), MOST)
        if min(len(fake), len(train)) < LEAST:
            return holes(self.columns, evidence, f"{len(fake)} samples and {len(train)} training images: "
                         f"{LEAST} of each are needed")
        result = fld(fake, train, held_out)
        shares, told = searched(train, evidence)
        extra = shares | {"num_held_out": result.num_held_out}
        more = extra | {"error_over_held_out_images": result.error_over_images}
        note = "no interval: none is shown to cover how the fit moves with samples and training images"
        if result.value > COPIES:
            note = f"samples repeat training images: above {COPIES:g} its size means nothing"
        return [Measurement("fld", result.value, evidence.protocol_id, n=result.n, better=self.columns["fld"].better,
                            note=f"{note}; {told}", extra=more),
                Measurement("fld_gap", result.gap, evidence.protocol_id, n=result.n,
                            better=self.columns["fld_gap"].better, extra=extra,
                            note="far below 0: samples lie nearer to training images than to held-out ones")]


class Copying(OfFeatures):
    """Registry name "copying": authenticity and C_T."""

    name = "copying"
    columns = columns("authenticity", "copying_score")
    depends_on = ("protocol",)

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        fake, train = spread(evidence.features("fake"), MOST), training_features(evidence)
        if len(train) < LEAST_TRAINING:
            return holes(self.columns, evidence, f"{len(train)} training images: {LEAST_TRAINING} are needed")
        return [self._authenticity(fake, train, evidence), self._score(fake, train, evidence)]

    def _authenticity(self, fake: np.ndarray, train: np.ndarray, evidence: Evidence) -> Measurement:
        found, (extra, told) = authenticity(fake, train), searched(train, evidence)
        return Measurement("authenticity", found.share, evidence.protocol_id, n=found.n, ci_low=found.interval[0],
                           ci_high=found.interval[1], unit=self.columns["authenticity"].unit,
                           better=self.columns["authenticity"].better, extra=extra,
                           note=f"interval over new samples against this training set; {told}")

    def _score(self, fake: np.ndarray, train: np.ndarray, evidence: Evidence) -> Measurement:
        held_out, reason = held_out_features(evidence)
        if held_out is not None and (len(fake) <= LEAST_SAMPLES or all_rows_equal(train)):
            held_out, reason = None, f"{len(fake)} samples: C_T needs more than {LEAST_SAMPLES}, and images that differ"
        (extra, told), score = searched(train, evidence), None
        if held_out is not None:
            try:
                score = copying_score(fake, train, held_out)
            except TooFew as lack:
                reason = str(lack)
        note = reason or f"a z-score: about standard normal without copying, far below 0 with it; {told}"
        return Measurement("copying_score", score, evidence.protocol_id, n=len(fake), note=note,
                           better=self.columns["copying_score"].better, extra=extra)


def training_features(evidence: Evidence) -> np.ndarray:
    """(m, D) float32 of images that the prior was trained on: as many as the protocol's reference has, at most."""
    real = evidence.features("real")
    if evidence.seen is None and evidence.protocol.real_split == "train":
        return real
    return _features_of(evidence, "train", spread(positions_seen(evidence), len(real)))


def held_out_features(evidence: Evidence, *, least: int = LEAST_HELD_OUT) -> tuple[np.ndarray | None, str]:
    """(h, D) float32 of at most 10,000 validation images, or None and the reason."""
    num = len(evidence.images("validation"))
    judged = spread_indices(num, evidence.protocol.num_fake)
    pool = np.setdiff1d(np.arange(num), judged)
    if len(pool) < least and evidence.role in ("prior", "source"):
        pool = np.arange(num)
    if len(pool) < least:
        return None, f"{len(pool)} held-out images are left beside {len(judged)} that are judged: {least} are needed"
    chosen = pool[spread_indices(len(pool), min(MOST, len(evidence.features("real"))))]
    return _features_of(evidence, "validation", chosen), ""


def _features_of(evidence: Evidence, split: Literal["train", "validation"], chosen: np.ndarray) -> np.ndarray:
    extractor = resolve_extractor(evidence.protocol.extractor, device=evidence.device)
    fingerprint = f"{evidence.fingerprints[split]} {hashlib.sha256(chosen.astype('<i8').tobytes()).hexdigest()}"
    key = hashlib.sha256(f"{fingerprint} {sorted(extractor_identity(extractor).items())}".encode()).hexdigest()[:32]
    folder = evidence.caches / f"features-{key}"
    evidence.progress(f"features of {len(chosen)} {split} images")
    extract_to(folder, SubsetImages(evidence.images(split), chosen), extractor, fingerprint=fingerprint,
               batch_size=evidence.settings.feature_batch_size)
    return np.array(load_features(folder))


def searched(train: np.ndarray, evidence: Evidence) -> tuple[dict[str, float], str]:
    """How many of the images that the prior was trained on are looked at, for the record and in words.

    A copy of another is not seen.
    """
    seen = len(positions_seen(evidence))
    part = f"{len(train):,} of the" if len(train) < seen else "all"
    return {"num_train": len(train), "searched_share": len(train) / seen}, f"{part} {seen:,} training images searched"


def holes(columns: dict[str, Column], evidence: Evidence, reason: str) -> list[Measurement]:
    return [Measurement(name, None, evidence.protocol_id, unit=column.unit, better=column.better, note=reason)
            for name, column in columns.items()]
