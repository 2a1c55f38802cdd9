"""KID within each class, and its mean: are samples of a class like real images of that class (cf. DeVries et al. 2019)?

An FID per class is not offered: its covariances need more images than features (2,048 of Inception) in every class,
else they are rank-deficient and the number tells of the number of images. KID is unbiased at every number.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bench.metrics.base import Evidence
from bench.metrics.columns import Column, columns
from bench.metrics.features import OfFeatures
from bench.metrics.intervals import normal_interval
from bench.metrics.kernel import KernelResult, kid
from bench.records import Measurement

COLUMN = "kid_per_class"
LEAST = 3   # images of a class a side, for the jackknife
LEAST_FOR_INTERVAL = 10   # the same, for an interval whose coverage was measured


@dataclass
class KernelDistancePerClass(OfFeatures):
    """Registry name "kid_per_class": of a run with condition=class, its reconstructions and real images."""

    name: str = COLUMN
    columns: dict[str, Column] = field(default_factory=lambda: columns(COLUMN))
    depends_on: tuple[str, ...] = ("protocol",)
    conditions: tuple[str, ...] = ("class",)

    def applies(self, evidence: Evidence) -> bool:
        return evidence.labels is not None and evidence.judged_as is not None

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        labels, judged_as, column = evidence.labels, evidence.judged_as, self.columns[COLUMN]
        assert labels is not None and judged_as is not None
        if evidence.protocol.reference:
            return [self._hole(evidence, "against statistics of a file, which do not tell one class from another")]
        fake_classes, real_classes = labels.validation[judged_as], _classes_of_real(evidence)
        classes = np.unique(labels.validation)
        counts = [(int((fake_classes == c).sum()), int((real_classes == c).sum())) for c in classes]
        least = int(np.argmin([min(pair) for pair in counts]))
        name, (fakes, reals) = labels.names[classes[least]], counts[least]
        fewest, told = min(fakes, reals), f"class '{name}' has {fakes} judged and {reals} real images"
        if fewest < LEAST:
            return [self._hole(evidence, f"{told}: expected at least {LEAST} of each class; raise protocol.num_fake or "
                                         "protocol.num_real")]
        fake, real = evidence.features("fake"), evidence.features("real")
        found = {labels.names[c]: kid(fake[fake_classes == c], real[real_classes == c]) for c in classes}
        value, error = mean_of(list(found.values()))
        reason = f"{told}: below {LEAST_FOR_INTERVAL} no interval is sound" if fewest < LEAST_FOR_INTERVAL else ""
        low, high = (None, None) if reason else normal_interval(value, error)
        by_class = {name: [result.value, result.standard_error] for name, result in found.items()}
        return [Measurement(COLUMN, value, evidence.protocol_id, n=len(fake), ci_low=low, ci_high=high,
                            standard_error=error, better=column.better, note=reason,
                            extra={"num_real": len(real), "classes": by_class})]

    def _hole(self, evidence: Evidence, reason: str) -> Measurement:
        return Measurement(COLUMN, None, evidence.protocol_id, better=self.columns[COLUMN].better, note=reason)


def mean_of(classes: list[KernelResult]) -> tuple[float, float]:
    """The mean and its standard error: no image is in two classes, so their errors are independent."""
    errors = np.array([result.standard_error for result in classes])
    return float(np.mean([result.value for result in classes])), float(np.sqrt(np.square(errors).sum()) / len(classes))


def _classes_of_real(evidence: Evidence) -> np.ndarray:
    """Of the protocol's real images, in the order of their features."""
    assert evidence.labels is not None and evidence.real_indices is not None
    of_split = evidence.labels.train if evidence.protocol.real_split == "train" else evidence.labels.validation
    return of_split[evidence.real_indices]
