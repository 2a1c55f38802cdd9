"""Files other programs understand: reference statistics (.npz with mu and sigma) and samples (PNG folder, .npz).

    write_statistics("cifar10-train.npz", features, extractor)      # mu, sigma: the names of pytorch-fid and others
    reference = read_statistics("cifar10-train.npz").reference()
    export_png("samples/", images); export_npz("samples.npz", images)          # arr_0: (n, H, W, 3) uint8

`python -m bench.export` writes them; `protocol.reference=` reads statistics (`reference_of`).
"""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bench.config import ProtocolConfig
from bench.data.base import ImageData
from bench.data.npz import BROKEN, read_header
from bench.data.regular import check_regular
from bench.errors import InputError
from bench.metrics.features import Extractor, extractor_identity, resolve_extractor
from bench.metrics.frechet import ReferenceStatistics, moments
from bench.store.files import replacing

READ_AT_ONCE = 500
MOST_DIMENSIONS = 1 << 14
ROUNDING = 1e-6   # of the largest entry: how far from symmetric and positive a covariance may be
LARGEST = 1e100   # beyond it squares overflow
MEANT = {"mu": ("mu", "fid_mu", "fid/mu", "fid.mu"), "sigma": ("sigma", "fid_sigma", "fid/sigma", "fid.sigma")}
"""Names of mean and covariance: pytorch-fid's, clean-fid's and ADM's, and those of EDM2's `fid` entry, flattened."""
TEXTS = ("extractor", "weights", "resize")


@dataclass(frozen=True)
class SavedStatistics:
    """mu (D,) and sigma (D, D) float64 of n images (None where the file is silent); "" for other silences."""

    mu: np.ndarray
    sigma: np.ndarray
    n: int | None
    extractor: str = ""
    weights: str = ""
    resize: str = ""

    def reference(self) -> ReferenceStatistics:
        """Ready for `fid_to`; its n is 0 where the file does not say."""
        return ReferenceStatistics.from_moments(self.mu, self.sigma, self.n or 0)


def write_statistics(path: str | Path, features: np.ndarray, extractor: Extractor) -> None:
    """Mean and covariance (ddof 1, float64) of (n, D) features, with what they were taken with."""
    mu, sigma = moments(features)
    with replacing(Path(path)) as stream:
        np.savez(stream, mu=mu, sigma=sigma, n=len(features), extractor=extractor.name, weights=extractor.weights,
                 resize=extractor.resize)


def read_statistics(path: str | Path, *, num_images: int | None = None) -> SavedStatistics:
    """Statistics of ours, or of any .npz with `mu` and `sigma` (pytorch-fid, clean-fid, ADM, an entry of EDM2's).

    Headers are judged before anything is loaded, and nothing is unpickled.
    num_images: how many images they are of, where the file is silent; must agree with it where it is not.
    Raises InputError for what cannot be read, and for what is no mean and covariance.
    """
    path = Path(path)
    check_regular(path, f"statistics {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()
                       if info.filename.endswith(".npy")}
            chosen = {part: next((name for name in names if name in members), "") for part, names in MEANT.items()}
            if not all(chosen.values()):
                raise InputError(_lacking(path, archive, members))
            mu = _array(path, archive, members[chosen["mu"]], dimensions=1)
            sigma = _array(path, archive, members[chosen["sigma"]], dimensions=2)
            n = int(_array(path, archive, members["n"], dimensions=0)) if "n" in members else None
            texts = [_text(path, archive, members[name]) if name in members else "" for name in TEXTS]
    except BROKEN as error:
        raise InputError(f"{path} is not a readable .npz of statistics: {' '.join(str(error).split())}. Write one with "
                         "np.savez(path, mu=mu, sigma=sigma).") from None
    _check_moments(path, mu, sigma)
    if num_images is not None and n not in (None, num_images):
        raise InputError(f"{path} is of {n} images, and {num_images} were given: expected the same. Leave the number "
                         "out.")
    extractor, weights, resize = texts
    return SavedStatistics(mu, sigma, n if n is not None else num_images, extractor, weights, resize)


def reference_of(protocol: ProtocolConfig) -> SavedStatistics:
    """The statistics that `protocol.reference` names.

    Raises InputError as `read_statistics` does, and where they are not of the protocol's extractor: of another number
    of features, or, as far as they say, of another name, other weights or another resize.
    """
    saved = read_statistics(str(protocol.reference))
    ours = extractor_identity(resolve_extractor(protocol.extractor))
    theirs = {"extractor": saved.extractor, "weights": saved.weights, "resize": saved.resize,
              "num_features": len(saved.mu)}
    different = [f"{key} {value} and not {ours[key]}" for key, value in theirs.items() if value not in ("", ours[key])]
    if different:
        raise InputError(f"protocol.reference={protocol.reference} is not of the features of protocol.extractor="
                         f"{protocol.extractor}: it has {', '.join(different)}. Give statistics of the same extractor, "
                         "or set protocol.extractor to theirs.")
    return saved


def _lacking(path: Path, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> str:
    """What is wrong with a file without mean and covariance."""
    text = f"{path} holds {sorted(members)}, expected mu and sigma."
    if "fid" in members and _header(path, archive, members["fid"])[1].hasobject:
        text += (" Its `fid` is a Python object, which is never unpickled: write its parts with np.savez(path, "
                 "mu=fid['mu'], sigma=fid['sigma']).")
    return text


def _header(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of a member, which has to take the bytes that they come to.  Raises InputError if it does not."""
    shape, _, dtype, start = read_header(path, archive, info)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize != info.file_size - start:
        raise InputError(f"{path}: {info.filename} announces {dtype} {shape} and holds "
                         f"{info.file_size - start:,} bytes: the file is damaged.")
    return shape, dtype


def _array(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, *, dimensions: int) -> np.ndarray:
    """A member of numbers, float64."""
    shape, dtype = _header(path, archive, info)
    if dtype.kind not in "fiu" or len(shape) != dimensions or max(shape, default=0) > MOST_DIMENSIONS:
        raise InputError(f"{path}: {info.filename} is {dtype} {shape}, expected {dimensions}-dimensional numbers, at "
                         f"most {MOST_DIMENSIONS:,} a side.")
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False).astype(np.float64)


def _text(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> str:
    shape, dtype = _header(path, archive, info)
    if dtype.kind != "U" or shape or dtype.itemsize > 4 * 1000:
        raise InputError(f"{path}: {info.filename} is {dtype} {shape}, expected a short text.")
    with archive.open(info) as file:
        return str(np.lib.format.read_array(file, allow_pickle=False))


def _check_moments(path: Path, mu: np.ndarray, sigma: np.ndarray) -> None:
    if sigma.shape != (len(mu), len(mu)) or not len(mu) or not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise InputError(f"{path}: mu has shape {mu.shape} and sigma {sigma.shape}; expected (D,) and (D, D), finite")
    largest = np.abs(sigma).max()
    if max(largest, np.abs(mu).max()) > LARGEST:
        raise InputError(f"{path}: mu reaches {np.abs(mu).max():.1e} and sigma {largest:.1e}; expected features below "
                         f"{LARGEST:.0e}, of which distances can be taken.")
    if np.abs(sigma - sigma.T).max() > ROUNDING * largest or np.diag(sigma).min() < -ROUNDING * largest:
        raise InputError(f"{path}: sigma is no covariance: expected a symmetric matrix without negative variances.")


def export_png(folder: str | Path, images: ImageData) -> int:
    """One lossless 00000000.png an image, in order; files already there are kept. Returns how many were written."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [i for i in range(len(images)) if not (folder / f"{i:08d}.png").is_file()]
    for first in range(0, len(missing), READ_AT_ONCE):
        chosen = missing[first:first + READ_AT_ONCE]
        for i, pixels in zip(chosen, images.images(chosen), strict=True):
            with replacing(folder / f"{i:08d}.png") as stream:
                Image.fromarray(pixels.transpose(1, 2, 0)).save(stream, "PNG")
    return len(missing)


def export_npz(path: str | Path, images: ImageData) -> None:
    """All images as `arr_0`, (n, H, W, 3) uint8: the format of ADM's evaluation suite."""
    if not len(images):
        raise InputError("no images to export")
    parts = [images.images(range(first, min(first + READ_AT_ONCE, len(images)))).transpose(0, 2, 3, 1)
             for first in range(0, len(images), READ_AT_ONCE)]
    with replacing(Path(path)) as stream:
        np.savez(stream, arr_0=np.concatenate(parts))
