"""FID, PRDC, neighbours and Inception features against the packages whose numbers ours must equal; how they scale."""

from __future__ import annotations

import gc
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.assets.cache import asset_status
from bench.assets.weights import cifar10_arrays, lpips_model
from bench.data.arrays import ArrayImages
from bench.data.base import ImageData
from bench.memory import forget_peak_memory, peak_memory_gb
from bench.metrics.embedding_cache import Candidates, open_candidates
from bench.metrics.frechet import ReferenceStatistics, fid, fid_to, fid_torch_fidelity
from bench.metrics.inception import InceptionCompat, inception_oracle
from bench.metrics.kernel import kid
from bench.metrics.lpips_embedding import LpipsEmbedding, full_precision
from bench.metrics.neighbours import nearest
from bench.metrics.prdc import prdc, prdc_reference
from bench.timing.turns import Settings, TimedLaps, Timing, blas_kernels, in_turn, seconds_of, timed


def prdc_rows(settings: Settings) -> Iterator[Timing]:
    """Blocked precision / recall / density / coverage against the prdc package on random 2048-d features."""
    num, dimensions = (300, 64) if settings.quick else (10_000, 2048)
    fake, real = _features(num, dimensions, seed=1), _features(num, dimensions, seed=2)
    seconds: dict[str, TimedLaps] = {}
    memory, outputs = {}, {}
    for name, method in (("ours", lambda: prdc(fake, real, k=5)), ("naive", lambda: prdc_reference(fake, real, k=5))):
        gc.collect()
        forget_peak_memory("cpu")
        before = peak_memory_gb("cpu")
        seconds |= in_turn({name: method}, Settings(), warmup=0)
        memory[name], outputs[name] = seconds[name].peaks_gb[0] - before, seconds[name].results[0]
    names = ("precision", "recall", "density", "coverage")
    gap = max(abs(getattr(outputs["ours"], n) - getattr(outputs["naive"], n)) for n in names)
    what = f"PRDC {num:,} x {num:,}, {dimensions}-d"
    yield timed("prdc", f"{what}: time", seconds, settings, 4, None, gflop=3 * 2e-9 * num**2 * dimensions,
                note=f"largest difference {gap:.1g}")
    yield Timing("prdc", f"{what}: extra memory", memory["naive"], memory["ours"], 4, None, "GB")


def fid_rows(settings: Settings) -> Iterator[Timing]:
    """FID after features against torch-fidelity: with the reference's root kept, and from nothing."""
    num, dimensions = (100, 64) if settings.quick else (5_000, 2048)
    fake, real = _features(num, dimensions, seed=1), _features(num, dimensions, seed=2)
    reference = ReferenceStatistics.of(real)
    laps = in_turn({"naive": lambda: fid_torch_fidelity(fake, real), "ours": lambda: fid_to(reference, fake).value,
                    "from nothing": lambda: fid_to(ReferenceStatistics.of(real), fake).value}, settings, warmup=0)
    gap = abs(laps["ours"].results[0] / laps["naive"].results[0] - 1)
    what = f"FID after features, N={num:,}, {dimensions}-d"
    yield timed("fid", f"{what}, reference kept", laps, settings, 5, 10,
                note=f"{blas_kernels()}; relative difference {gap:.1g}")
    yield timed("fid", f"{what}, both sides anew", laps, settings, None, None, ours="from nothing")


def neighbour_rows(settings: Settings) -> Iterator[Timing]:
    """LPIPS nearest neighbours against one pair at a time; the pairwise time is that of some pairs, scaled up."""
    queries, count, pairs = (4, 40, 4) if settings.quick else (64, 5000, 64)
    images = ArrayImages(_photographs(queries + count))
    asked, candidates = images.images(range(queries)), ArrayImages(images.images(range(queries, queries + count)))
    embedding = LpipsEmbedding(_lpips(), resolution=64, device=settings.device)
    with tempfile.TemporaryDirectory() as folder:
        def search(caches: Path | None) -> Any:
            return nearest(asked, _opened(embedding, candidates, count, caches), top_k=min(10, count))

        search(Path(folder))   # fills the cache
        laps = in_turn({"naive": lambda: _pairwise(embedding, asked, candidates, pairs),
                        "ours": lambda: search(None), "cached": lambda: search(Path(folder))}, settings)
    scale = queries * count / pairs
    what = f"LPIPS neighbours, {queries} x {count:,} at 64 px"
    note = f"pairwise time scaled up from {pairs} pairs"
    yield timed("neighbours", f"{what}, first time", laps, settings, 50, 100, naive_scale=scale, note=note)
    yield timed("neighbours", f"{what}, cached", laps, settings, 1000, None, ours="cached", naive_scale=scale,
                note=note)


def inception_rows(settings: Settings) -> Iterator[Timing]:
    """Inception features against torch-fidelity's extractor as it comes."""
    status = asset_status("inception")
    if not status.ready:
        yield Timing("inception", "Inception features", None, None, 1.7, 2.5, note=f"not run: {status.message}")
        return
    num = 2 if settings.quick else 50
    images = torch.from_numpy(_photographs(num)).to(settings.device)
    oracle, extractor = inception_oracle().to(settings.device), InceptionCompat(device=settings.device)

    def naive() -> Tensor:
        with torch.inference_mode(), full_precision():   # as ours: TF32 would be another function
            return oracle(images)[0]

    laps = in_turn({"naive": naive, "ours": lambda: extractor(images)}, settings)
    gap = float((laps["naive"].results[0] - laps["ours"].results[0]).abs().max())
    yield timed("inception", f"Inception features of {num} images", laps, settings, 1.7, 2.5,
                note=f"largest difference {gap:.1g}; {num / statistics.median(seconds_of(laps['ours'], settings)):.1f} "
                     "images/s")


def scaling_rows(settings: Settings) -> Iterator[Timing]:
    """What each metric after features costs as N grows: ours alone, on random 2048-d features and photographs."""
    sizes, dimensions = ((50, 100), 64) if settings.quick else ((1000, 2000, 4000, 8000), 2048)
    embedding = LpipsEmbedding(_lpips(), resolution=64)
    costs: dict[str, list[float]] = {}
    for num in sizes:
        fake, real = _features(num, dimensions, seed=1), _features(num, dimensions, seed=2)
        images = ArrayImages(_photographs(num + 8))

        def neighbours(images: ArrayImages = images, num: int = num) -> Any:
            return nearest(images.images(range(num, num + 8)), _opened(embedding, images, num, None), top_k=5)

        methods: dict[str, Callable[[], Any]] = {
            "FID": partial(fid, fake, real), "KID": partial(kid, fake, real), "PRDC": partial(prdc, fake, real, k=5),
            "neighbours of 8 images": neighbours}
        for name, laps in in_turn(methods, replace(settings, rounds=1), warmup=0).items():   # a trend needs no median
            seconds = statistics.median(laps.cpu)
            costs.setdefault(name, []).append(seconds)
            grew = f"{seconds / costs[name][-2]:.2g} times the row above" if len(costs[name]) > 1 else ""
            yield Timing("scaling", f"{name}, N={num:,}", None, seconds, note=grew)


def _features(num: int, dimensions: int, *, seed: int) -> np.ndarray:
    """(num, D) float32, positive and with a falling spectrum like the features of a network."""
    mixing = np.random.default_rng(0).normal(size=(dimensions, dimensions)).astype(np.float32)
    strengths = 1 / np.arange(1, dimensions + 1, dtype=np.float32)
    factors = np.random.default_rng(seed).normal(size=(num, dimensions)).astype(np.float32)
    return np.maximum((factors * strengths) @ mixing, 0)


def _photographs(num: int) -> np.ndarray:
    """(num, 3, 32, 32) uint8: CIFAR-10's where it is at hand, else smooth noise."""
    if asset_status("cifar10").ready:
        train = np.load(cifar10_arrays().train, mmap_mode="r")
        return np.ascontiguousarray(train[:num].transpose(0, 3, 1, 2))
    noise = torch.rand(num, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    return (F.interpolate(noise, size=(32, 32), mode="bicubic").clamp(0, 1) * 255).byte().numpy()


def _lpips() -> Any:
    """The real metric where its weights are at hand, else one with a random trunk: the work is the same."""
    if asset_status("lpips-alex").ready:
        return lpips_model("alex")
    from bench.assets.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    import lpips

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")   # lpips calls torchvision through arguments that are deprecated
        torch.manual_seed(0)
        return lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval().requires_grad_(False)


def _opened(embedding: LpipsEmbedding, images: ImageData, count: int, caches: Path | None) -> Candidates:
    return open_candidates(embedding, images, count=count, fingerprint=None if caches is None else "speed",
                           caches=caches or Path(), disk_gb=1.0)


def _pairwise(embedding: LpipsEmbedding, queries: np.ndarray, candidates: ArrayImages, pairs: int) -> list[float]:
    """The published search: one pair of prepared images at a time through the whole network."""
    left, right = embedding.prepare(queries[:1]), embedding.prepare(candidates.images(range(pairs)))
    with torch.inference_mode():
        return [float(embedding.model(left, image.unsqueeze(0))) for image in right]
