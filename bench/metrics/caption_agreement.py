"""Does a sample look like training images whose captions are like its own? Obedience to captions without a CLIP.

Of each sample the training image is found that it looks most like, and the caption of that image compared with the one
the sample was drawn for: the cosine of both captions' features, averaged over their positions, under the run's frozen
text encoder. Looks are compared as in copy_search, by LPIPS at 64 pixels or fewer; the images too are as the row's
tokenizer shows them. Two numbers stand beside it in the record:

    held_out    the same of real held-out images and their own captions: what samples drawn like real images reach
    chance      the same samples and the captions of their training images dealt out anew: what disobedience reaches

It sees whether captions move samples towards images of like captions, as far as the training set has such. It does not
see what LPIPS takes for alike (colour, texture and layout come before what is shown), what the encoder takes for alike
(counts, and who does what to whom), or whether a sample is any good: copies of training images score best of all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.config import RunSpec
from bench.data.arrays import SubsetImages, spread_indices
from bench.data.base import ImageData
from bench.metrics.base import Evidence
from bench.metrics.columns import columns
from bench.metrics.copy_search import copy_candidates, nearest_candidates, seen_by_samples
from bench.metrics.intervals import mean_error, student_interval
from bench.metrics.memorisation import SEARCHED
from bench.records import Measurement

COLUMN = "caption_agreement"
MOST_HELD_OUT = 1_000   # images


class CaptionAgreement:
    """Registry name "caption_agreement": of samples of a run with condition=text, of reconstructions and real images.

    The interval is that of a mean over samples, given the training set.
    """

    name = COLUMN
    columns = columns(COLUMN)
    conditions = ("text",)
    depends_on = ("protocol",)

    def applies(self, evidence: Evidence) -> bool:
        return evidence.captions is not None and evidence.judged_as is not None

    def assets(self, spec: RunSpec) -> set[str]:
        return {f"lpips-{spec.protocol.neighbours_net}"}

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        captions, judged_as, column = evidence.captions, evidence.judged_as, self.columns[COLUMN]
        assert captions is not None and judged_as is not None
        told = np.flatnonzero([bool(captions.validation[image]) for image in judged_as])
        if len(told) < 2:
            return [Measurement(COLUMN, None, evidence.protocol_id, n=len(told), unit=column.unit, better=column.better,
                                note=f"{len(told)} of the judged images have a caption: 2 are needed")]
        compared = _comparison(evidence)
        own, found = compared(SubsetImages(evidence.images("fake"), told), judged_as[told])
        cosines = (own * found).sum(1)
        value, error = float(cosines.mean()), mean_error(cosines)
        low, high = student_interval(value, error, degrees=len(told) - 1)
        return [Measurement(COLUMN, value, evidence.protocol_id, n=len(told), standard_error=error, ci_low=low,
                            ci_high=high, unit=column.unit, better=column.better,
                            extra={"chance": chance(own, found), **_of_held_out(evidence, compared)})]


def chance(own: np.ndarray, found: np.ndarray) -> float:
    """The mean cosine of each caption and every other sample's training image: (n, D) unit rows each, n > 1.

    Exactly, without drawing: the sum over all pairs is the product of two sums.
    """
    n = len(own)
    return float((own.sum(0) @ found.sum(0) - (own * found).sum()) / (n * (n - 1)))


Compared = Callable[[ImageData, np.ndarray], tuple[np.ndarray, np.ndarray]]


def _comparison(evidence: Evidence) -> Compared:
    """Images (n) and the held-out images (n,) whose captions they have -> (n, D) unit features of these captions, and
    of the captions of the training images they look most like; 0 for one without."""
    means = evidence.caption_means
    assert means is not None
    train = evidence.images("train")
    searched = spread_indices(len(train), SEARCHED)
    candidates = copy_candidates(evidence, seen_by_samples(SubsetImages(train, searched), evidence))

    def compared(images: ImageData, told_as: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        nearest = searched[nearest_candidates(images, candidates, evidence.progress)]
        return _unit(means("validation", told_as)), _unit(means("train", nearest))

    return compared


def _of_held_out(evidence: Evidence, compared: Compared) -> dict[str, object]:
    """The ceiling: real held-out images, as the tokenizer shows them, under their own captions."""
    captions, held_out = evidence.captions, evidence.images("validation")
    assert captions is not None
    told = np.flatnonzero([bool(caption) for caption in captions.validation])
    chosen = told[spread_indices(len(told), MOST_HELD_OUT)]
    own, found = compared(seen_by_samples(SubsetImages(held_out, chosen), evidence), chosen)
    return {"held_out": float((own * found).sum(1).mean()), "num_held_out": len(chosen),
            "held_out_images": "reconstructed" if evidence.tokenizer is not None else "as they are"}


def _unit(rows: np.ndarray) -> np.ndarray:
    """(n, D) float64 rows at unit length; a row of 0 stays."""
    rows = rows.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
