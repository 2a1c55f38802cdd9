"""Features of images: the extractors by name, one pass over an image set, and resumable shards on disk.

    extractor = resolve_extractor("inception-v3-compat", device="cpu")
    features = extract(images, extractor)                      # (n, 2048) float32
    extract_to(folder, images, extractor, fingerprint=key)     # the same in shards, resumable, by several jobs
    features = load_features(folder)                           # one memory map

An extractor is anything registered under `vq_prior_bench.extractors`, `package.module:Name`, or a torchvision model:
`torchvision:resnet50` (published weights, already downloaded) or `torchvision:resnet50:/path/to/weights.pth`; or a
model folder of transformers, `dinov2:/models/dinov2-large` or `clip:/models/clip`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bench import registry
from bench.data.base import ImageData
from bench.errors import BenchError, InputError
from bench.metrics.extractor_names import folder_of
from bench.store import files

if TYPE_CHECKING:
    from bench.config import RunSpec
    from bench.metrics.base import Evidence

DEFAULT = "inception-v3-compat"
MANIFEST = "features.json"
MERGED = "features.npy"
TORCHVISION = "torchvision:"


class Extractor(Protocol):
    """What the registry names; constructed with `device=`.

    name: as the protocol names it.  num_features: D.  resize: how images reach its input size.
    weights: a sha256 of its weights, so that caches know them; stated on the class it is part of the protocol's id
        and of the features' key, and must be where the weights behind one name can change.
    assets: on the class, where there are any: names of `bench.assets.catalogue` of what it reads.
    """

    name: str
    num_features: int
    resize: str
    weights: str
    device: torch.device

    def __call__(self, images: Tensor) -> Tensor:
        """(b, 3, H, W) uint8 -> (b, D) float32 on `device`; an image's features do not depend on its batch."""


def resolve_extractor(name: str, *, device: str | torch.device = "cpu") -> Extractor:
    """The extractor of that name. Raises InputError if there is none or its weights are absent."""
    if name.startswith(TORCHVISION):
        from bench.metrics.torchvision_features import TorchvisionExtractor

        return TorchvisionExtractor(name.removeprefix(TORCHVISION), device=device)
    if folder_of(name):
        from bench.metrics.transformers_features import TransformersExtractor

        return TransformersExtractor(name, device=device)
    return registry.resolve("extractors", name)(device=device)


def extractor_assets(name: str) -> set[str]:
    """Names of the assets that the extractor of that name reads; torchvision's weights are a file's."""
    if name.startswith(TORCHVISION) or folder_of(name):
        return set()
    return set(getattr(registry.resolve("extractors", name), "assets", ()))


class OfFeatures:
    """What metrics of the protocol's features share: every row has them, and they read the extractor's weights."""

    def applies(self, evidence: Evidence) -> bool:
        return True

    def assets(self, spec: RunSpec) -> set[str]:
        return extractor_assets(spec.protocol.extractor)


def extractor_identity(extractor: Extractor) -> dict[str, Any]:
    """What makes features comparable: name, weights, resize, number of features."""
    return {"extractor": extractor.name, "weights": extractor.weights, "resize": extractor.resize,
            "num_features": extractor.num_features}


def extract(images: ImageData, extractor: Extractor | str, *, batch_size: int = 50, start: int = 0,
            stop: int | None = None, device: str | None = None,
            progress: Callable[[int], None] = lambda done: None) -> np.ndarray:
    """(stop - start, D) float32 features of images[start:stop].

    device: where an extractor given by name runs (default cpu); one given as an object says so itself, and naming
    another device is an error.  progress: called with the number of images just done.
    """
    extractor = _built(extractor, device)
    stop = len(images) if stop is None else stop
    if not 0 <= start <= stop <= len(images) or batch_size < 1:
        raise InputError(f"images {start}..{stop} of {len(images)} in batches of {batch_size}; "
                         "expected a range inside the set and a batch of at least 1")
    features = np.empty((stop - start, extractor.num_features), np.float32)
    for first in range(start, stop, batch_size):
        last = min(first + batch_size, stop)
        batch = torch.from_numpy(np.ascontiguousarray(images.images(np.arange(first, last))))
        features[first - start:last - start] = extractor(batch).cpu().numpy()
        progress(last - first)
    if not np.isfinite(features).all():
        raise BenchError(f"extractor {extractor.name} gave NaN or infinity for images {start}..{stop}: its weights are "
                         "damaged, or its input range is not uint8 0..255")
    return features


def extract_to(folder: str | Path, images: ImageData, extractor: Extractor | str, *, fingerprint: str,
               shard_size: int = 1000, batch_size: int = 50, job: int = 0, num_jobs: int = 1, device: str | None = None,
               progress: Callable[[int], None] = lambda done: None) -> int:
    """Write the features of `images` to `folder`, one file each `shard_size` images; finished files are kept.

    fingerprint: of the images' content; a folder that holds anything else (other images, extractor, weights, resize,
    shard size) is refused, never mixed.  Job j of `num_jobs` does every num_jobs-th shard.
    Returns how many images were computed now (0 when all were there).
    """
    extractor = _built(extractor, device)
    if shard_size < 1 or not 0 <= job < num_jobs:
        raise InputError(f"job {job} of {num_jobs}, shards of {shard_size}: expected 0 <= job < num_jobs, size >= 1")
    folder = Path(folder)
    manifest = {**extractor_identity(extractor), "fingerprint": fingerprint, "num_images": len(images),
                "shard_size": shard_size}
    _claim(folder, manifest)
    computed = 0
    for index, start in enumerate(range(0, len(images), shard_size)):
        path = folder / _shard_name(start)
        stop = min(start + shard_size, len(images))
        if index % num_jobs != job or _is_whole(path, (stop - start, extractor.num_features)):
            continue
        _save(path, extract(images, extractor, batch_size=batch_size, start=start, stop=stop, progress=progress))
        computed += stop - start
    return computed


def load_features(folder: str | Path) -> np.ndarray:
    """(n, D) float32 as a read-only memory map. Raises InputError naming what is missing."""
    folder = Path(folder)
    if not files.is_as_written(folder / MANIFEST):
        raise InputError(f"{folder} holds no features, or a damaged {MANIFEST}: expected it as extract_to writes it")
    manifest = files.read_json(folder / MANIFEST)
    n, size, width = manifest["num_images"], manifest["shard_size"], manifest["num_features"]
    merged = folder / MERGED
    if not _is_whole(merged, (n, width)):
        starts = range(0, n, size)
        missing = [s for s in starts if not _is_whole(folder / _shard_name(s), (min(size, n - s), width))]
        if missing:
            raise InputError(f"{folder} lacks {len(missing)} of {len(starts)} shards, the first at image {missing[0]}: "
                             "run extract_to again, it continues where it stopped")
        _merge(merged, [folder / _shard_name(s) for s in starts], (n, width))
    return np.load(merged, mmap_mode="r")


def _built(extractor: Extractor | str, device: str | None) -> Extractor:
    if isinstance(extractor, str):
        return resolve_extractor(extractor, device=device or "cpu")
    if device is not None and torch.device(device).type != torch.device(extractor.device).type:
        raise InputError(f"extractor {extractor.name} is on {extractor.device}, not on {device}: "
                         "name it, or resolve it for that device")
    return extractor


def _claim(folder: Path, manifest: dict[str, Any]) -> None:
    """Make the folder ours, or see that it already holds exactly this."""
    folder.mkdir(parents=True, exist_ok=True)
    found = files.read_json(folder / MANIFEST)
    if found is not None:
        different = sorted(key for key in manifest if found.get(key) != manifest[key])
        if different:
            lines = [f"{key} is {found.get(key)!r} there and {manifest[key]!r} here" for key in different]
            raise InputError(f"{folder} holds other features: {'; '.join(lines)}. Choose another folder")
        return
    for unknown in (folder / MERGED, *folder.glob("shard-*.npy")):
        files.remove(unknown)   # nothing says any more what these are features of
    files.keep_json(folder / MANIFEST, manifest)


def _shard_name(start: int) -> str:
    return f"shard-{start:08d}.npy"


def _is_whole(path: Path, shape: tuple[int, int]) -> bool:
    """Whether the file is there, as it was written, and of this shape."""
    found = files.read(path, lambda path: np.load(path, mmap_mode="r"))
    return found is not None and found.shape == shape and found.dtype == np.float32


def _save(path: Path, features: np.ndarray) -> None:
    with files.keeping(path) as stream:
        np.save(stream, features)


def _merge(path: Path, shards: list[Path], shape: tuple[int, int]) -> None:
    with files.keeping(path) as stream:
        whole = np.lib.format.open_memmap(stream.name, mode="w+", dtype=np.float32, shape=shape)
        done = 0
        for shard in shards:
            part = np.load(shard, mmap_mode="r")
            whole[done:done + len(part)] = part
            done += len(part)
        whole.flush()
