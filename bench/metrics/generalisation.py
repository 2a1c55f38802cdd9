"""FLD, authenticity and C_T as metrics of a run: what needs features of training and of held-out images as well.

    measurements = FeatureLikelihood()(evidence)

Training images are the protocol's reference where that is the training split; held-out ones are those that the real and
reconstruction rows do not judge, so that no image is held against itself. Features beyond the protocol's own are taken
once and kept in the caches of all runs.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np

from bench.data.arrays import SubsetImages, spread_indices
from bench.metrics.base import Evidence
from bench.metrics.checks import all_rows_equal
from bench.metrics.columns import columns
from bench.metrics.copying import LEAST_SAMPLES, authenticity, copying_score
from bench.metrics.distances import spread
from bench.metrics.feature_likelihood import MOST, fld
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
            return [Measurement(column, None, evidence.protocol_id, better=info.better, note=reason)
                    for column, info in self.columns.items()]
        fake, train = spread(evidence.features("fake"), MOST), spread(training_features(evidence), MOST)
        result = fld(fake, train, held_out)
        extra = {"num_train": result.num_train, "num_held_out": result.num_held_out,
                 "searched_share": len(train) / len(evidence.images("train"))}
        note = "no interval: none is shown to cover how the fit moves with samples and training images"
        if result.value > COPIES:
            note = f"samples repeat training images: above {COPIES:g} its size means nothing"
        return [Measurement("fld", result.value, evidence.protocol_id, n=result.n, better=self.columns["fld"].better,
                            note=note, extra=extra | {"error_over_held_out_images": result.error_over_images}),
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
        return [self._authenticity(fake, train, evidence), self._score(fake, train, evidence)]

    def _authenticity(self, fake: np.ndarray, train: np.ndarray, evidence: Evidence) -> Measurement:
        found = authenticity(fake, train)
        return Measurement("authenticity", found.share, evidence.protocol_id, n=found.n, ci_low=found.interval[0],
                           ci_high=found.interval[1], unit=self.columns["authenticity"].unit,
                           better=self.columns["authenticity"].better, extra=_searched(train, evidence),
                           note="interval over new samples against this training set")

    def _score(self, fake: np.ndarray, train: np.ndarray, evidence: Evidence) -> Measurement:
        held_out, reason = held_out_features(evidence)
        if held_out is not None and (len(fake) <= LEAST_SAMPLES or all_rows_equal(train)):
            held_out, reason = None, f"{len(fake)} samples: C_T needs more than {LEAST_SAMPLES}, and images that differ"
        score = None if held_out is None else copying_score(fake, train, held_out)
        note = reason or "a z-score: about standard normal without copying, far below 0 with it"
        return Measurement("copying_score", score, evidence.protocol_id, n=len(fake), note=note,
                           better=self.columns["copying_score"].better, extra=_searched(train, evidence))


def training_features(evidence: Evidence) -> np.ndarray:
    """(m, D) float32 of training images: the protocol's reference, or as many as that has."""
    real = evidence.features("real")
    if evidence.protocol.real_split == "train":
        return real
    return _features_of(evidence, "train", spread_indices(len(evidence.images("train")), len(real)))


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


def _searched(train: np.ndarray, evidence: Evidence) -> dict[str, float]:
    """A copy of a training image outside the reference is not seen."""
    return {"num_train": len(train), "searched_share": len(train) / len(evidence.images("train"))}
