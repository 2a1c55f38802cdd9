"""Does the model copy its training set? A check printed beside precision and recall, which a copy passes perfectly.

How near each sample is to its nearest training image, for how near training images are to it at all (see copy_search),
is compared with the same of held-out images (after Meehan et al. 2020, "A non-parametric test to detect data-copying"):
a model that has learned the distribution comes as near as fresh images do. Where the row has a tokenizer, training and
held-out images pass through it too, so that the blur all its samples share neither hides a copy nor makes one.

Only the far tail speaks of copying: the samples nearer than all but TAIL of the held-out images. Near-duplicates are
part of it: about 3% of CIFAR-10's test images have one in its training set (Barz and Denzler 2020). A fresh draw from
this data set would repeat training images just as often, so only an excess over that rate is evidence of copying.

    compare(sample_nearness, held_out_nearness).flagged
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from scipy.optimize import brentq
from scipy.stats import betabinom, binom, mannwhitneyu, rankdata

from bench.config import RunSpec
from bench.data.arrays import SubsetImages, spread, spread_indices
from bench.data.base import ImageData
from bench.errors import InputError
from bench.metrics.base import Evidence, positions_seen
from bench.metrics.columns import columns
from bench.metrics.copy_search import copy_candidates, nearness, seen_by_samples
from bench.metrics.embedding_cache import Candidates
from bench.metrics.intervals import wilson_interval
from bench.records import Measurement
from bench.store import files

QUERIES = 2000
"""The most samples judged: with so many, 2% of copies are seen; with the demo's 500, 3%."""
HELD_OUT = 4000
"""The most held-out images: with twice as many, no smaller share of copies would be seen (500 samples)."""
SEARCHED = 200_000
"""The most of the images trained on that are searched; copies of any others are not seen, and that is said."""
RULE = "tail of relative nearness"
"""Stands in every record: those without it were measured by an earlier rule, which missed 5% of copies."""
TAIL = 0.005
SIGNIFICANCE = 0.001
POWER = 0.9
Z = 1.959964


@dataclass(frozen=True)
class Comparison:
    """share: of samples nearer to the training set than all but TAIL of the held-out images; expected: without copying.

    closer: probability that a sample is nearer to the training set than a held-out image (0.5 without copying).
    p_share, p_closer: one-sided, exact (order statistics) and Mann-Whitney.  flagged: p_share is below SIGNIFICANCE.
    detectable: the smallest share of verbatim copies that would have been flagged with probability POWER if no other
        sample came near the training set; above 1 where none would have been.
    """

    share: float
    expected: float
    share_interval: tuple[float, float]
    threshold: float
    p_share: float
    closer: float
    closer_interval: tuple[float, float]
    p_closer: float
    flagged: bool
    detectable: float


class Memorisation:
    """Registry name "memorisation"."""

    name = "memorisation"
    columns = columns("memorised_share", "memorisation_auc")
    depends_on = ("protocol",)

    def applies(self, evidence: Evidence) -> bool:
        return True

    def assets(self, spec: RunSpec) -> set[str]:
        return {f"lpips-{spec.protocol.neighbours_net}"}

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        fake, validation = evidence.images("fake"), evidence.images("validation")
        if len(fake) == 0 or len(validation) == 0:
            reason = f"{len(fake)} samples and {len(validation)} held-out images: both are needed"
            return [Measurement(column, None, evidence.protocol_id, note=reason) for column in self.columns]
        searched = SubsetImages(evidence.images("train"), spread(positions_seen(evidence), SEARCHED))
        candidates = copy_candidates(evidence, seen_by_samples(searched, evidence))
        fresh = held_out_images(evidence)
        judged = SubsetImages(fake, np.arange(min(QUERIES, len(fake))))
        samples = nearness(judged, candidates, evidence.progress)
        result = compare(samples, _kept(fresh, candidates, evidence))
        return self._measurements(evidence, result, len(samples), len(fresh), candidates)

    def _measurements(self, evidence: Evidence, result: Comparison, samples: int, held_out: int,
                      candidates: Candidates) -> list[Measurement]:
        searched = candidates.count / len(positions_seen(evidence))
        detectable = result.detectable / searched   # a copy of an image outside the search is not seen
        shared = {"rule": RULE, "flagged": result.flagged, "held_out": held_out, "candidates": candidates.count,
                  "searched_share": searched, "detectable_copy_rate": detectable if detectable <= 1 else None,
                  "held_out_images": "reconstructed" if evidence.tokenizer is not None else "as they are"}
        verdict = f"{'copies training images' if result.flagged else 'no sign of copying'}; {_seen(detectable)}"
        return [
            Measurement("memorised_share", result.share, evidence.protocol_id, n=samples,
                        ci_low=result.share_interval[0], ci_high=result.share_interval[1],
                        standard_error=math.sqrt(result.share * (1 - result.share) / samples),
                        unit="share of samples",
                        note=f"{verdict}; {result.expected:.4f} expected; interval given the held-out threshold",
                        extra=shared | {"expected": result.expected, "p_value": result.p_share,
                                        "threshold": result.threshold}),
            Measurement("memorisation_auc", result.closer, evidence.protocol_id, n=samples,
                        ci_low=result.closer_interval[0], ci_high=result.closer_interval[1], unit="probability",
                        note="0.5 expected; less where samples look unlike any photograph, more where they are "
                             "featureless: no verdict on copying, which memorised_share gives",
                        extra=shared | {"p_value": result.p_closer}),
        ]


def compare(samples: np.ndarray, held_out: np.ndarray) -> Comparison:
    """Nearness to the training set (0: a copy) of n samples and m held-out images, both 1-d -> Comparison.

    Raises InputError if either is empty or not finite.
    """
    for name, values in (("sample", samples), ("held-out", held_out)):
        if len(values) == 0 or not np.isfinite(values).all():
            raise InputError(f"{len(values)} {name} distances, {int((~np.isfinite(values)).sum())} of them not finite: "
                             "expected at least one and all finite. Are the LPIPS weights sound (bench.doctor)?")
    n, m = len(samples), len(held_out)
    rank = max(1, int(TAIL * (m + 1)))
    threshold = float(np.sort(held_out)[rank - 1])
    below = int((samples < threshold).sum())
    p_share = float(betabinom.sf(below - 1, n, rank, m - rank + 1))   # exact: uniform order statistics
    closer = probability_closer(samples, held_out)
    p_closer = float(mannwhitneyu(samples, held_out, alternative="less").pvalue)
    return Comparison(below / n, rank / (m + 1), wilson_interval(below / n, n), threshold, p_share, closer,
                      newcombe(closer, n, m), p_closer, p_share < SIGNIFICANCE,
                      detectable_share(n, m) if threshold > 0 else math.inf)   # nothing is nearer than a copy


@cache
def detectable_share(n: int, m: int) -> float:
    """Smallest share of n samples below the tail threshold of m held-out images that is flagged with probability POWER.

    It counts those samples alone, so it does not depend on how near the others come. inf where n is too small for any.
    """
    rank = max(1, int(TAIL * (m + 1)))
    counts = np.arange(n + 1)
    flagged = counts[betabinom.sf(counts - 1, n, rank, m - rank + 1) < SIGNIFICANCE]
    if len(flagged) == 0:
        return math.inf
    needed = int(flagged[0])
    return float(brentq(lambda share: binom.sf(needed - 1, n, share) - POWER, 0.0, 1.0))


def _seen(detectable: float) -> str:
    if detectable > 1:
        return "with so few images none could have been seen"
    return f"verbatim copies of {math.ceil(1000 * detectable) / 1000:.1%} would have been seen with {POWER:.0%} power"


def probability_closer(samples: np.ndarray, held_out: np.ndarray) -> float:
    """P(sample < held-out), ties counted half: the area under the ROC curve."""
    n, m = len(samples), len(held_out)
    ranks = rankdata(np.concatenate([samples, held_out]))[:n]
    return float(1 - (ranks.sum() - n * (n + 1) / 2) / (n * m))


def newcombe(auc: float, n: int, m: int) -> tuple[float, float]:
    """95% score interval of P(X < Y) from n and m values (Newcombe 2006, method 5): sound at 0 and 1 as well."""
    pairs = (n + m) / 2 - 1

    def distance(theta: float) -> float:
        spread = 1 + pairs * (1 - theta) / (2 - theta) + pairs * theta / (1 + theta)
        return (auc - theta) ** 2 - Z * Z * theta * (1 - theta) * spread / (n * m)

    tiny = 1e-12
    low = 0.0 if auc <= tiny else float(brentq(distance, 0.0, auc - tiny * auc))
    high = 1.0 if auc >= 1 - tiny else float(brentq(distance, auc + tiny * (1 - auc), 1.0))
    return low, high


def held_out_images(evidence: Evidence) -> ImageData:
    """At most HELD_OUT validation images, through the tokenizer if there is one.

    They are chosen among those that the real and reconstruction rows do not judge, so that no image is compared with
    itself, unless these rows judge them all.
    """
    validation = evidence.images("validation")
    everything = np.arange(len(validation))
    unjudged = np.setdiff1d(everything, spread_indices(len(validation), evidence.protocol.num_fake))
    pool = unjudged if len(unjudged) else everything
    return seen_by_samples(SubsetImages(validation, pool[spread_indices(len(pool), HELD_OUT)]), evidence)


def _kept(fresh: ImageData, candidates: Candidates, evidence: Evidence) -> np.ndarray:
    """Nearness of the held-out images, kept where the candidates' embeddings are: every prior of a table shares it."""
    measured = partial(nearness, fresh, candidates, evidence.progress)
    known = evidence.fingerprints.get("validation")
    if candidates.folder is None or known is None:
        return measured()
    key = hashlib.sha256(repr((known, len(fresh), evidence.protocol.num_fake, candidates.count)).encode())
    path = candidates.folder / f"held-out-{key.hexdigest()[:16]}.npy"
    values = files.read(path, np.load)
    if values is None:
        values = measured()
        with files.keeping(path) as stream:
            np.save(stream, values)
    return values

