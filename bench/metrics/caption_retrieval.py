"""Does a sample show its caption, as a CLIP of the user's sees it? R-precision and CLIPScore, of text-to-image papers.

    python -m bench.run dataset=emoji condition=text protocol.clip=/models/clip metrics.names=[fid,caption_retrieval]

R-precision (Xu et al. 2018, AttnGAN; by CLIP: Park et al. 2021) is the share of samples whose own caption is nearer to
them in the joint space than all others of 10, or of 100: its own and others of held-out images, drawn at random once
and for all, so that two priors are asked the same. Captions that the CLIP reads alike count as one. Chance is 1/10 and
1/100.

CLIPScore (Hessel et al. 2021) is 2.5 max(cos, 0) of each pair, averaged. Captions stand as they are: the paper puts "A
photo depicts" before each, which emoji and drawings are not, so its numbers are not comparable with these.

Both say what one CLIP sees. It knows little of counts and places, and small images are far from what it was trained on:
real images, in a row of their own, say how far it can be trusted here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.data.arrays import SubsetImages
from bench.data.clip_encoder import ClipCaptions
from bench.data.encoder_files import BPE, CONFIG, TOKENIZER, WEIGHTS
from bench.metrics.base import Evidence
from bench.metrics.columns import columns, retrieval_column
from bench.metrics.features import extract
from bench.metrics.intervals import mean_error, normal_interval, wilson_interval
from bench.metrics.transformers_features import TransformersExtractor
from bench.records import Measurement

SCORE, WEIGHT = "clip_score", 2.5   # Hessel et al. 2021, Sec. 3
AMONG = (10, 100)   # captions, the own one included
SEED = 27182   # of the other captions, so that all rows have the same
BLOCK = 1024   # images compared at once with all captions


class CaptionRetrieval:
    """Registry name "caption_retrieval": of samples of a run with condition=text, reconstructions and real images."""

    name = "caption_retrieval"
    columns = columns(*map(retrieval_column, AMONG), SCORE)
    conditions = ("text",)
    depends_on = ("protocol",)

    def applies(self, evidence: Evidence) -> bool:
        return evidence.captions is not None and evidence.judged_as is not None

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        if evidence.protocol.clip is None:
            note = (f"no CLIP is given: protocol.clip=<folder> of a whole CLIP, with {WEIGHTS}, {CONFIG} and "
                    f"{TOKENIZER} (or {' and '.join(BPE)})")
            return [self._measurement(evidence, name, None, note=note) for name in self.columns]
        captions, judged_as = evidence.captions, evidence.judged_as
        assert captions is not None and judged_as is not None
        told = np.flatnonzero([bool(captions.validation[image]) for image in judged_as])
        if len(told) < 2:
            note = f"{len(told)} of the judged images have a caption: 2 are needed"
            return [self._measurement(evidence, name, None, note=note) for name in self.columns]
        pairs = _pairs(evidence, told)
        return [*(self._precision(evidence, pairs, num) for num in AMONG), self._score(evidence, pairs)]

    def _precision(self, evidence: Evidence, pairs: Pairs, num: int) -> Measurement:
        name, extra = retrieval_column(num), {"chance": 1 / num, "captions": pairs.num_captions}
        if pairs.num_captions < num:
            note = f"held-out images have {pairs.num_captions} different captions: {num} are needed"
            return self._measurement(evidence, name, None, note=note)
        hits = pairs.own > pairs.others[:, : num - 1].max(1)
        value, n = float(hits.mean()), len(hits)
        return self._measurement(evidence, name, value, n=n, standard_error=float(hits.std() / n**0.5),
                                 interval=wilson_interval(value, n), extra=extra)

    def _score(self, evidence: Evidence, pairs: Pairs) -> Measurement:
        scores, others = WEIGHT * np.maximum(pairs.own, 0), WEIGHT * np.maximum(pairs.others, 0)
        value, error = float(scores.mean()), mean_error(scores)
        low, high = normal_interval(value, error)
        extra = {"other_captions": float(others.mean()) if others.size else None, "weight": WEIGHT}
        return self._measurement(evidence, SCORE, value, n=len(scores), standard_error=error,
                                 interval=(max(low, 0.0), high), extra=extra)

    def _measurement(self, evidence: Evidence, name: str, value: float | None, *, note: str = "", n: int | None = None,
                     standard_error: float | None = None, interval: tuple[float, float] | None = None,
                     extra: Mapping[str, object] | None = None) -> Measurement:
        column, (low, high) = self.columns[name], interval or (None, None)
        return Measurement(name, value, evidence.protocol_id, n=n, ci_low=low, ci_high=high, unit=column.unit,
                           standard_error=standard_error, better=column.better, note=note, extra=dict(extra or {}))


@dataclass(frozen=True)
class Pairs:
    """Cosines of images with captions. own: (n,), with their own; others: (n, m), with m others each.

    num_captions: how many different captions they are drawn from.
    """

    own: np.ndarray
    others: np.ndarray
    num_captions: int


def _pairs(evidence: Evidence, told: np.ndarray) -> Pairs:
    """Of the judged images at the positions `told`, (n,), which have captions."""
    assert evidence.captions is not None and evidence.judged_as is not None and evidence.protocol.clip is not None
    folder, validation = Path(evidence.protocol.clip).expanduser(), evidence.captions.validation
    encoder = ClipCaptions.load(folder, evidence.device)
    texts, number = different(encoder, sorted(set(validation) - {""}))
    own = np.array([number[validation[image]] for image in evidence.judged_as[told]])
    images = extract(SubsetImages(evidence.images("fake"), told),
                     TransformersExtractor(f"clip:{folder}", device=evidence.device),
                     batch_size=evidence.settings.feature_batch_size)   # (n, P) at unit length
    return compare(images, encoder.embed(texts).numpy(), own)


def different(encoder: ClipCaptions, texts: list[str]) -> tuple[list[str], dict[str, int]]:
    """One text of each that the encoder tells apart, and of every text the number of its own.

    A CLIP reads small letters alone, and no more than its positions.
    """
    ids, _ = encoder.tokenize(texts, encoder.config.max_length)
    _, first, numbers = np.unique(ids.numpy(), axis=0, return_index=True, return_inverse=True)
    return [texts[i] for i in first], dict(zip(texts, numbers.reshape(-1).tolist(), strict=True))


def compare(images: np.ndarray, captions: np.ndarray, own: np.ndarray) -> Pairs:
    """(n, P) images, (m, P) different captions, all at unit length, and the caption of each image, (n,) -> Pairs."""
    others = drawn(own, len(captions), min(max(AMONG), len(captions)) - 1)
    ours, theirs = np.empty(len(images), np.float32), np.empty(others.shape, np.float32)
    for at in range(0, len(images), BLOCK):
        rows = slice(at, at + BLOCK)
        cosines = images[rows] @ captions.T   # (b, m)
        ours[rows] = np.take_along_axis(cosines, own[rows, None], 1)[:, 0]
        theirs[rows] = np.take_along_axis(cosines, others[rows], 1)
    return Pairs(ours, theirs, len(captions))


def drawn(own: np.ndarray, total: int, num: int) -> np.ndarray:
    """(n, num) int64: for each image `num` captions of `total`, different and not its own, settled by its position."""
    found = np.stack([np.random.default_rng([SEED, i]).choice(total - 1, num, replace=False) for i in range(len(own))])
    return found + (found >= own[:, None])
