"""LPIPS nearest neighbours: does a sample merely repeat a training image?

The paper's figure (Bond-Taylor et al. 2022, Sec. 4) shows each sample beside its nearest training images. LPIPS is a
squared Euclidean distance of embeddings (bench.metrics.lpips_embedding), so the search is a streamed matrix product
with a running top-k; a shortlist is then scored again by the lpips package's own layers. The shortlist provably holds
the true top-k: see `cutoff`.

    found = nearest(query_images, candidates, top_k=10, memory_gb=2.0)
    found.indices, found.distances                  # (Q, k) int64, (Q, k) float64, ascending
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.assets.weights import lpips_model
from bench.config import RunSpec
from bench.data.arrays import SubsetImages, spread_indices
from bench.errors import InputError
from bench.metrics.base import Evidence
from bench.metrics.columns import columns
from bench.metrics.embedding_cache import Block, Candidates, open_candidates, squared_norms_of
from bench.metrics.intervals import mean_error, student_interval
from bench.metrics.lpips_embedding import LpipsEmbedding, full_precision
from bench.provenance import content_id
from bench.records import Measurement
from bench.store import files

EXTRA = 8
"""Candidates kept beyond k while streaming; the search repeats with more if that proves too few."""
SAVE_EVERY_SECONDS = 20.0


@dataclass(frozen=True)
class Nearest:
    """indices: (Q, k) int64 into the candidates; distances: (Q, k) float64 LPIPS, ascending, ties by index.

    rescored: how many pairs the shortlist held in all; passes: how often the candidates were streamed.
    """

    indices: np.ndarray
    distances: np.ndarray
    rescored: int
    passes: int


@dataclass
class _Running:
    """The best candidates so far of each query, and the largest rounding error and norm seen."""

    squared: Tensor     # (Q, S) float32, approximate LPIPS, ascending
    indices: Tensor     # (Q, S) int64, -1 where nothing was found yet
    error: float = 0.0
    norm: float = 0.0
    next_candidate: int = 0


class NearestNeighbours:
    """Registry name "neighbours": mean and minimum LPIPS of each sample to its nearest training image."""

    name = "neighbours"
    columns = columns("lpips_nearest_mean", "lpips_nearest_min")
    depends_on = ("protocol",)

    def applies(self, evidence: Evidence) -> bool:
        return True

    def assets(self, spec: RunSpec) -> set[str]:
        return {f"lpips-{spec.protocol.neighbours_net}"}

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        protocol = evidence.protocol
        fake = evidence.images("fake")
        queries = fake.images(range(min(protocol.neighbours_queries, len(fake))))
        candidates = training_candidates(evidence)
        if candidates.count < protocol.neighbours_top_k:
            reason = (f"{candidates.count} training images are fewer than protocol.neighbours_top_k="
                      f"{protocol.neighbours_top_k}")
            return [Measurement(column, None, evidence.protocol_id, unit="LPIPS", note=reason)
                    for column in self.columns]
        found = nearest(queries, candidates, top_k=protocol.neighbours_top_k, memory_gb=evidence.settings.memory_gb,
                        workspace=evidence.workspace, progress=evidence.progress)
        leave_figure(evidence, queries, candidates, found)
        return self._measurements(evidence, found, candidates.count)

    def _measurements(self, evidence: Evidence, found: Nearest, count: int) -> list[Measurement]:
        first = found.distances[:, 0]
        error = mean_error(first) if len(first) > 1 else None
        low, high = student_interval(first.mean(), error, degrees=len(first) - 1) if error is not None else (None, None)
        train = spread_indices(len(evidence.images("train")), evidence.protocol.neighbours_candidates)
        extra = {"net": evidence.protocol.neighbours_net, "resolution": evidence.protocol.neighbours_resolution,
                 "candidates": count, "train_indices": train[found.indices].tolist(),
                 "distances": [[round(float(d), 6) for d in row] for row in found.distances]}
        return [
            Measurement("lpips_nearest_mean", float(first.mean()), evidence.protocol_id, n=len(first),
                        standard_error=error, ci_low=low, ci_high=high, unit="LPIPS",
                        note="" if error is not None else "one query: no interval", extra=extra),
            Measurement("lpips_nearest_min", float(first.min()), evidence.protocol_id, n=len(first), unit="LPIPS",
                        note="an extreme value: no interval"),
        ]


def training_candidates(evidence: Evidence) -> Candidates:
    """The protocol's candidates: `neighbours_candidates` training images spread evenly (None: all of them)."""
    protocol, train = evidence.protocol, evidence.images("train")
    if len(train) == 0:
        raise InputError("the training split is empty, so it has no nearest neighbours. Check dataset.path.")
    chosen = spread_indices(len(train), protocol.neighbours_candidates)
    fingerprint = evidence.fingerprints.get("train")
    embedding = LpipsEmbedding(lpips_model(protocol.neighbours_net), resolution=protocol.neighbours_resolution,
                               device=evidence.device)
    return open_candidates(embedding, SubsetImages(train, chosen), count=len(chosen),
                           fingerprint=fingerprint and content_id([fingerprint, len(chosen)]),
                           caches=evidence.caches, disk_gb=evidence.settings.cache_gb)


def nearest(queries: np.ndarray, candidates: Candidates, *, top_k: int, memory_gb: float = 2.0,
            workspace: Path | None = None, progress: Callable[[str], None] = lambda text: None) -> Nearest:
    """The exact top-k candidates of each query by LPIPS.

    queries: (Q, 3, H, W) uint8.  memory_gb: for everything beyond the inputs; queries are split to respect it.
    workspace: where an interrupted search leaves what it had, and a later one picks it up.
    Raises InputError if there are no queries, or fewer candidates than top_k.
    """
    if len(queries) == 0 or not 1 <= top_k <= candidates.count:
        raise InputError(f"top_k={top_k} of {candidates.count} candidates for {len(queries)} queries: expected at "
                         "least one query and 1 <= top_k <= candidates. Lower protocol.neighbours_top_k.")
    group = queries_per_pass(candidates, memory_gb)
    parts = [_nearest_group(queries[at:at + group], candidates, top_k, workspace, progress)
             for at in range(0, len(queries), group)]
    return Nearest(np.concatenate([p.indices for p in parts]), np.concatenate([p.distances for p in parts]),
                   sum(p.rescored for p in parts), max(p.passes for p in parts))


def queries_per_pass(candidates: Candidates, memory_gb: float) -> int:
    """How many queries one pass over the candidates serves.

    A query costs two float32 copies (features, embedding), a block at most three (embedding, its float16, what that
    stands for), a trunk forward about six (activations, pairs being compared).
    Raises InputError if not even one query fits.
    """
    dimension = candidates.embedding.dimension
    fixed = 3 * candidates.rows + 6 * candidates.embedding.batch
    group = int((memory_gb * 1e9 / (4 * dimension) - fixed) // 2)
    if group < 1:
        needed = 4e-9 * dimension * (fixed + 2)
        raise InputError(f"metrics.memory_gb={memory_gb}: LPIPS embeddings of {dimension} numbers need at least "
                         f"{needed:.2f} GB. Raise it, or lower protocol.neighbours_resolution.")
    return group


def _nearest_group(queries: np.ndarray, candidates: Candidates, top_k: int, workspace: Path | None,
                   progress: Callable[[str], None]) -> Nearest:
    features = candidates.embedding.features(queries)
    phi = candidates.embedding.flatten(features).sub_(candidates.centre)   # (Q, D)
    kept, passes = min(top_k + EXTRA, candidates.count), 0
    while True:
        passes += 1
        running = _stream(phi, candidates, kept, workspace, progress)
        keep = running.squared <= cutoff(running, phi, top_k)[:, None]   # (Q, kept)
        if kept == candidates.count or not bool(keep[:, -1].any()):
            break
        kept = min(4 * kept, candidates.count)   # ties: the shortlist may go on beyond what was kept
    indices, distances = rescore(features, running.indices.cpu(), keep.cpu(), candidates, top_k)
    return Nearest(indices, distances, int(keep.sum()), passes)


def cutoff(running: _Running, phi: Tensor, top_k: int) -> Tensor:
    """The approximate squared distance beyond which no candidate can be among the true top-k: -> (Q,).

    Let a_j approximate the squared distance d_j^2. Rounding a candidate to float16 moves it by at most e, so d_j
    is within e of its distance to the rounded one (triangle inequality), and a_j is within g of the square of that, g
    the error of a float32 dot product of length D: lambda sqrt(D) u |q||c|, a bound that fails with probability
    2 exp(-lambda^2 / 2) (Higham and Mary 2019, Thm 3.1). Then k candidates have d^2 <= (sqrt(a_(k) + g) + e)^2, and
    one with sqrt(a_j - g) - e above that root has k better ones. LPIPS itself is float32: s covers its own rounding.
    """
    unit, confidence, s = 2.0**-24, 8.0, 1e-5
    norms = squared_norms_of(phi).sqrt().float()   # (Q,)
    g = confidence * math.sqrt(phi.shape[1]) * unit * norms * running.norm + 1e-9   # (Q,)
    root = (running.squared[:, top_k - 1].clamp_min(0) + g).sqrt() * (1 + s) + 2 * running.error
    return root.square() + g


def _stream(phi: Tensor, candidates: Candidates, kept: int, workspace: Path | None,
            progress: Callable[[str], None]) -> _Running:
    """One pass over the candidates: the `kept` approximately nearest of each query."""
    resume = _Resume(workspace, phi, candidates, kept)
    running = resume.load()
    norms = squared_norms_of(phi)
    for block in candidates.blocks(running.next_candidate, progress=progress):
        _merge(running, phi, norms, block)
        resume.save_now_and_then(running)
    resume.forget()
    return running


def _merge(running: _Running, phi: Tensor, norms: Tensor, block: Block) -> None:
    """Fold a block's distances into the running top."""
    rows = block.vectors.to(phi.device).float()   # (b, D), scaled
    row_norms = block.squared_norms.to(phi.device)
    with full_precision():
        products = (phi @ rows.T).double() / block.scale   # (Q, b)
    squared = (norms[:, None] + row_norms - 2 * products).float()
    indices = torch.arange(block.start, block.start + len(rows), device=phi.device).expand_as(squared)
    squared, indices = torch.cat([running.squared, squared], 1), torch.cat([running.indices, indices], 1)
    order = squared.argsort(dim=1, stable=True)[:, :running.squared.shape[1]]
    running.squared, running.indices = squared.gather(1, order), indices.gather(1, order)
    running.error = max(running.error, float(block.errors.max()))
    running.norm = max(running.norm, float(row_norms.max()) ** 0.5)
    running.next_candidate = block.start + len(rows)


def rescore(left: list[Tensor], indices: Tensor, keep: Tensor, candidates: Candidates,
            top_k: int) -> tuple[np.ndarray, np.ndarray]:
    """LPIPS of every kept (query, candidate) pair by the package's layers, then the top-k: two (Q, k) arrays.

    left: features of the queries.  indices, keep: (Q, S), the shortlist and which of it counts.
    A candidate passes the trunk once for all the queries of a batch that it is a neighbour of.
    """
    embedding = candidates.embedding
    of_query, column = keep.nonzero(as_tuple=True)
    of_candidate = indices[of_query, column]
    exact = torch.full(keep.shape, math.inf, dtype=torch.float64)
    for chosen in _by_candidate(of_candidate, embedding.batch):
        unique, position = of_candidate[chosen].unique(return_inverse=True)
        right = embedding.features(candidates.images.images(unique.numpy()))
        pairs = embedding.distances([layer[of_query[chosen]] for layer in left], [layer[position] for layer in right])
        exact[of_query[chosen], column[chosen]] = pairs.double().cpu()
    order = np.lexsort((indices.numpy(), exact.numpy()))[:, :top_k]   # by distance, ties by index
    return np.take_along_axis(indices.numpy(), order, 1), np.take_along_axis(exact.numpy(), order, 1)


def _by_candidate(of_candidate: Tensor, batch: int) -> Iterator[Tensor]:
    """Positions of pairs, `batch` at a time, pairs of one candidate as close together as can be."""
    yield from of_candidate.argsort(stable=True).split(batch)


class _Resume:
    """The running top on disk, keyed by what is being searched."""

    def __init__(self, workspace: Path | None, phi: Tensor, candidates: Candidates, kept: int):
        self.path = None if workspace is None else workspace / f"neighbours-{_digest(phi, candidates, kept)}.npz"
        self.empty = _Running(torch.full((len(phi), kept), math.inf, device=phi.device),
                              torch.full((len(phi), kept), -1, device=phi.device))
        self.saved_at = time.monotonic()

    def load(self) -> _Running:
        found = None if self.path is None else files.read(self.path, self._parsed)
        return self.empty if found is None else found

    def save_now_and_then(self, running: _Running) -> None:
        if self.path is None or time.monotonic() - self.saved_at < SAVE_EVERY_SECONDS:
            return
        with files.keeping(self.path) as stream:
            np.savez(stream, squared=running.squared.cpu(), indices=running.indices.cpu(), error=running.error,
                     norm=running.norm, next_candidate=running.next_candidate)
        self.saved_at = time.monotonic()

    def forget(self) -> None:
        if self.path is not None:
            files.remove(self.path)

    def _parsed(self, path: Path) -> _Running:
        with np.load(path, allow_pickle=False) as stored:
            device = self.empty.squared.device
            squared, indices = (torch.from_numpy(stored[name]).to(device) for name in ("squared", "indices"))
            return _Running(squared, indices, float(stored["error"]), float(stored["norm"]),
                            int(stored["next_candidate"]))


def _digest(phi: Tensor, candidates: Candidates, kept: int) -> str:
    content = hashlib.sha256(repr((candidates.count, candidates.embedding.fingerprint, kept)).encode())
    for tensor in (phi, candidates.centre):
        content.update(tensor.cpu().numpy().tobytes())
    return content.hexdigest()[:16]


def leave_figure(evidence: Evidence, queries: np.ndarray, candidates: Candidates, found: Nearest) -> None:
    """The paper's figure: one row a sample, itself and then its neighbours, each labelled with its distance."""
    neighbours = candidates.images.images(found.indices.reshape(-1)).reshape(*found.indices.shape, *queries.shape[1:])
    tiles = np.concatenate([queries[:, None], neighbours], 1)   # (Q, 1 + k, 3, H, W)
    labels = [text for row in found.distances for text in ("sample", *(f"{d:.3f}" for d in row))]
    evidence.picture("neighbours", tiles.reshape(-1, *queries.shape[1:]), rows=len(queries),
                     columns=1 + found.indices.shape[1], labels=tuple(labels))
