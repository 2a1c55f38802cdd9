"""Files other programs understand: reference statistics (.npz with mu and sigma) and samples (PNG folder, .npz).

    write_statistics("cifar10-train.npz", features, extractor)      # mu, sigma as pytorch-fid and ADM name them
    reference = read_statistics("cifar10-train.npz", num_images=50_000).reference()
    export_png("samples/", images); export_npz("samples.npz", images)          # arr_0: (n, H, W, 3) uint8
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from bench.data.base import ImageData
from bench.errors import InputError
from bench.metrics.features import Extractor
from bench.metrics.frechet import ReferenceStatistics, moments
from bench.store.files import replacing

READ_AT_ONCE = 500


@dataclass(frozen=True)
class SavedStatistics:
    """mu (D,) and sigma (D, D) float64 of n images; extractor, weights and resize are "" where the file is silent."""

    mu: np.ndarray
    sigma: np.ndarray
    n: int
    extractor: str = ""
    weights: str = ""
    resize: str = ""

    def reference(self) -> ReferenceStatistics:
        """Ready for `fid_to`."""
        return ReferenceStatistics.from_moments(self.mu, self.sigma, self.n)


def write_statistics(path: str | Path, features: np.ndarray, extractor: Extractor) -> None:
    """Mean and covariance (ddof 1, float64) of (n, D) features, with what they were taken with."""
    mu, sigma = moments(features)
    with replacing(Path(path)) as stream:
        np.savez(stream, mu=mu, sigma=sigma, n=len(features), extractor=extractor.name, weights=extractor.weights,
                 resize=extractor.resize)


def read_statistics(path: str | Path, *, num_images: int | None = None) -> SavedStatistics:
    """Statistics of ours, or of any .npz with `mu` and `sigma`; those of others do not say how many images they saw.

    num_images: needed where the file has no `n`, and must agree with it where it has.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            saved = {key: file[key] for key in file.files}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable .npz of statistics: {error}") from None
    if not {"mu", "sigma"} <= set(saved):
        raise InputError(f"{path} has {sorted(saved)}, expected mu and sigma")
    mu, sigma = saved["mu"].astype(np.float64), saved["sigma"].astype(np.float64)
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)) or not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise InputError(f"{path}: mu has shape {mu.shape} and sigma {sigma.shape}; expected (D,) and (D, D), finite")
    n = int(saved["n"]) if "n" in saved else num_images
    if n is None or (num_images is not None and n != num_images):
        raise InputError(f"{path}: its number of images is {saved.get('n', 'not stated')}, asked for {num_images}; "
                         "say how many images these statistics are of")
    return SavedStatistics(mu, sigma, n, *(str(saved.get(key, "")) for key in ("extractor", "weights", "resize")))


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
