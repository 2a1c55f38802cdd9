"""Frechet distance between Gaussians fitted to features, in float64 (Heusel et al. 2017, arXiv 1706.08500).

    result = fid(fake, real)              # result.value, result.standard_error, result.fid_infinity
    reference = cached_reference(real, folder)    # the real half, once: its root serves every later `fid_to`

FID = |mu - nu|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^1/2, with ddof 1.  The last trace is the nuclear norm of X F', where
X'X = S1 (centred fake features / sqrt(n-1)) and F is any root of S2, F'F = S2.  With both sides of full rank F is the
Cholesky factor and the trace the sum of root eigenvalues of F S1 F' ("eigen"); otherwise it is the sum of singular
values of X F' itself ("nuclear"), which keeps the digits that squaring would lose.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy.linalg import blas, eigvalsh, lapack

from bench.metrics.checks import check_features, check_one
from bench.metrics.frechet_expansion import expand
from bench.store import files

BLOCK = 1024   # images read at a time; small enough for the cache, large enough for the product's kernels
INFINITY = "FID without its bias of order 1/n; what is left of the bias is unknown, so no interval"
NO_INFINITY = "fewer images than feature dimensions: the order-1/n correction would remove only part of the bias"


@dataclass(frozen=True)
class FrechetResult:
    """value: FID at this n.  standard_error: of `value`, by influence functions, both sides counted; None where
    unproven (`note` says why).  fid_infinity: `value` without its bias of order 1/n.
    influence_fake (n,), influence_real (m,): what each image adds, mean zero, for paired differences; empty where no
    uncertainty was asked for.
    method: "eigen" or "nuclear".  infinity_note: what fid_infinity is worth, or why there is none.
    """

    value: float
    n: int
    n_real: int
    method: str
    standard_error: float | None = None
    fid_infinity: float | None = None
    note: str = ""
    infinity_note: str = ""
    influence_fake: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False)
    influence_real: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False)


@dataclass(frozen=True)
class ReferenceStatistics:
    """The real half of the distance.

    mean: (D,).  factor: (r, D) with factor' factor = S2: a root of it (r = D), or the centred features / sqrt(n-1)
    where n <= D.  trace: of S2.  All float64.
    """

    mean: np.ndarray
    factor: np.ndarray
    trace: float
    n: int

    @classmethod
    def of(cls, features: np.ndarray) -> ReferenceStatistics:
        """From (n, D) features; n >= 2."""
        check_one(features, side="real", least=2)
        mean, covariance = moments(features)
        n, num_dimensions = features.shape
        factor = root_of(covariance) if n > num_dimensions else _centred(features, mean) / np.sqrt(n - 1)
        return cls(mean, factor, float(np.trace(covariance)), n)

    @classmethod
    def from_moments(cls, mean: np.ndarray, covariance: np.ndarray, n: int) -> ReferenceStatistics:
        """From published statistics (mu, sigma), where the features themselves are not at hand."""
        return cls(mean, root_of(covariance), float(np.trace(covariance)), n)

    @property
    def has_full_rank(self) -> bool:
        return self.n > len(self.mean)

    def save(self, path: str | Path) -> None:
        """Write everything to one .npz, whole, and its sha256 beside it."""
        with files.keeping(Path(path)) as stream:
            np.savez(stream, mean=self.mean, factor=self.factor, trace=self.trace, n=self.n)

    @classmethod
    def load(cls, path: str | Path) -> ReferenceStatistics:
        with np.load(path, allow_pickle=False) as file:
            return cls(file["mean"], file["factor"], float(file["trace"]), int(file["n"]))


def fid(fake: np.ndarray, real: np.ndarray, *, uncertainty: bool = True) -> FrechetResult:
    """FID of (n, D) fake against (m, D) real features.

    uncertainty: also standard error and FID-infinity (about the cost of the value again).
    Raises InputError for NaN, unequal dimensions or types, and fewer than two images a side.
    """
    check_features(fake, real, least=2)
    return fid_to(ReferenceStatistics.of(real), fake, real=real if uncertainty else None)


def fid_to(reference: ReferenceStatistics, fake: np.ndarray, *, real: np.ndarray | None = None) -> FrechetResult:
    """FID of fake features against cached statistics; with the real features also its uncertainty."""
    check_one(fake, side="fake", least=2)
    mean, covariance = moments(fake)
    eigen = len(fake) > fake.shape[1] and reference.has_full_rank
    if eigen or real is not None:
        values, vectors = _spectrum(covariance, reference, with_vectors=real is not None)
    if eigen:
        roots = np.sqrt(np.clip(values, 0, None))
    else:
        roots = np.linalg.svd(_centred(fake, mean) @ reference.factor.T, compute_uv=False) / np.sqrt(len(fake) - 1)
    difference = mean - reference.mean
    value = difference @ difference + np.trace(covariance) + reference.trace - 2 * roots.sum()
    result = FrechetResult(float(value), len(fake), reference.n, "eigen" if eigen else "nuclear")
    if real is None:
        return result
    expansion = expand(fake, real, mean, covariance, reference, values, vectors)
    return replace(result, standard_error=expansion.standard_error,
                   influence_fake=expansion.influence_fake, influence_real=expansion.influence_real,
                   fid_infinity=result.value - expansion.bias if eigen else None,
                   infinity_note=INFINITY if eigen else NO_INFINITY)


def cached_reference(real: np.ndarray, folder: str | Path) -> ReferenceStatistics:
    """The reference half of (m, D) features, taken once and kept in `folder` under a hash of their bytes."""
    digest = hashlib.sha256(f"{real.shape} {real.dtype}".encode())
    for i in range(0, len(real), BLOCK):
        digest.update(np.ascontiguousarray(real[i:i + BLOCK]).tobytes())
    path = Path(folder) / f"frechet-{digest.hexdigest()[:32]}.npz"
    reference = files.read(path, ReferenceStatistics.load)
    if reference is None:
        reference = ReferenceStatistics.of(real)
        reference.save(path)
    return reference


def frechet_distance(mean1: np.ndarray, covariance1: np.ndarray, mean2: np.ndarray, covariance2: np.ndarray) -> float:
    """FID of two Gaussians given by their moments, (D,) and (D, D)."""
    root = symmetric_root(covariance2)
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ covariance1 @ root), 0, None)).sum()
    return float(np.square(mean1 - mean2).sum() + np.trace(covariance1) + np.trace(covariance2) - 2 * cross)


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and covariance (D, D) with ddof 1, in float64, of (n, D) features read in blocks."""
    n, num_dimensions = features.shape
    mean = sum(features[i:i + BLOCK].sum(axis=0, dtype=np.float64) for i in range(0, n, BLOCK)) / n
    scatter = np.zeros((num_dimensions, num_dimensions), order="F")
    for i in range(0, n, BLOCK):
        centred = _centred(features[i:i + BLOCK], mean)
        scatter = blas.dsyrk(1.0, centred.T, beta=1.0, c=scatter, lower=1, overwrite_c=1)   # adds in place
    scatter /= n - 1
    return mean, _mirrored(scatter)


def _mirrored(lower: np.ndarray) -> np.ndarray:
    """The symmetric matrix of a lower triangle, written over it; tile by tile, which the cache likes."""
    for i in range(0, len(lower), 256):
        j = i + 256
        lower[i:j, j:] = lower[j:, i:j].T
        tile = lower[i:j, i:j]
        tile += np.tril(tile, -1).T
    return lower


def root_of(covariance: np.ndarray) -> np.ndarray:
    """(D, D) F with F'F = S: the upper Cholesky factor, or the symmetric root of a singular matrix."""
    try:
        return np.ascontiguousarray(np.linalg.cholesky(covariance).T)    # its transpose is what LAPACK reads
    except np.linalg.LinAlgError:
        return symmetric_root(covariance)


def symmetric_root(covariance: np.ndarray) -> np.ndarray:
    """S^1/2 of a symmetric positive semi-definite (D, D) matrix; eigenvalues below zero are rounding and count as 0."""
    values, vectors = np.linalg.eigh(covariance)
    quarter = vectors * np.clip(values, 0, None) ** 0.25
    return quarter @ quarter.T


def fid_torch_fidelity(fake: np.ndarray, real: np.ndarray) -> float:
    """The oracle: torch-fidelity's own statistics and eigenvalues on the same features."""
    from bench.assets.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    import torch
    from torch_fidelity import metric_fid

    halves = [metric_fid.fid_features_to_statistics(torch.from_numpy(np.ascontiguousarray(x))) for x in (fake, real)]
    return metric_fid.fid_statistics_to_metric(*halves, verbose=False)[metric_fid.KEY_METRIC_FID]


def _spectrum(covariance: np.ndarray, reference: ReferenceStatistics, *,
              with_vectors: bool) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (r,) ascending of F S1 F', and its eigenvectors (r, r), or none (0, 0)."""
    factor = reference.factor
    if np.array_equal(factor.shape, covariance.shape) and not np.tril(factor, -1).any():
        product, _ = lapack.dsygst(covariance, factor.T, itype=2, lower=1)   # F S1 F' for triangular F: half the work
    else:
        product = factor @ covariance @ factor.T
    if with_vectors:
        values, vectors = np.linalg.eigh(product, UPLO="L")
        return values, vectors
    values = eigvalsh(product, lower=True, overwrite_a=True, check_finite=False, driver="evd")
    return values, np.empty((0, 0))


def _centred(features: np.ndarray, mean: np.ndarray) -> np.ndarray:
    centred = features.astype(np.float64)
    centred -= mean
    return centred
