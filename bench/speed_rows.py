"""The rows of `python -m bench.speed`: each times the textbook algorithm and ours, in turn, in this process.

A row is a function from Settings to Cells. The textbook algorithms are priors.reference and the packages whose numbers
ours must equal: torch-fidelity, prdc, lpips. What is random here is seeded; nothing is trained but a toy prior.

    for cell in ROWS["ar"](Settings(quick=True)):
        print(cell.what, cell.ratio)
"""

from __future__ import annotations

import gc
import math
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench import registry
from bench.assets import asset_status, cifar10_arrays, lpips_model
from bench.config import TrainingConfig
from bench.data.base import ImageData
from bench.metrics.embedding_cache import Candidates, open_candidates
from bench.metrics.frechet import ReferenceStatistics, fid, fid_to, fid_torch_fidelity
from bench.metrics.inception import InceptionCompat, inception_oracle
from bench.metrics.kernel import kid
from bench.metrics.lpips_embedding import LpipsEmbedding
from bench.metrics.neighbours import nearest
from bench.metrics.prdc import prdc, prdc_reference
from bench.metrics.speed import Laps, forget_peak_memory, peak_memory_gb, take_turns
from bench.sources import ArrayImages
from bench.trainer import PriorTask
from priors.base import Draws
from priors.reference import naive_absorbing_sample, naive_autoregressive_sample, textbook_logits

Unit = Literal["s", "GB", "variance"]


@dataclass(frozen=True)
class Settings:
    """quick: toy sizes, to see that every row runs.  rounds: turns each method takes after one warm-up.

    device: CPU rows are timed in CPU-seconds, which a busy machine hardly changes; CUDA rows by the wall clock.
    """

    quick: bool = False
    rounds: int = 1
    device: str = "cpu"


@dataclass(frozen=True)
class Cell:
    """One line of the table.

    naive, ours: in `unit`, lower is better.  target, stretch: the ratio naive / ours to reach.
    gflop: of ours, for its share of the measured GEMM peak.  note: what a reader must know.
    """

    row: str
    what: str
    naive: float | None
    ours: float | None
    target: float | None = None
    stretch: float | None = None
    unit: Unit = "s"
    gflop: float | None = None
    gflop_naive: float | None = None
    note: str = ""
    rounds: dict[str, list[float]] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        return self.naive / self.ours if self.naive is not None and self.ours else None


@dataclass(frozen=True)
class _Size:
    """Of a prior. `label` is how performance tables name it."""

    label: str
    side: int = 16
    codes: int = 1024
    width: int = 256
    layers: int = 6

    @property
    def num_tokens(self) -> int:
        return self.side**2


SMALL = _Size("16x16, width 256 x 6")
SMALL_8 = _Size("8x8, width 256 x 6", side=8)
PAPER = _Size("16x16, 512 x 24 (77M)", width=512, layers=24)
TOY = _Size("toy", side=4, codes=32, width=32, layers=2)


def autoregressive_rows(settings: Settings) -> Iterator[Cell]:
    """Whole samplings with the key-value cache against the whole prefix for every token."""
    cases = [(SMALL, 1, 8.0, 16.0), (SMALL, 16, 40.0, 60.0), (PAPER, 1, 10.0, 15.0)]
    for size, batch, target, stretch in _shrunk(settings, cases):
        prior = _prior("autoregressive", size, settings)

        def naive(prior: Any = prior, size: _Size = size, batch: int = batch) -> Tensor:
            with torch.inference_mode():
                return naive_autoregressive_sample(lambda tokens: textbook_logits(prior.net, tokens), batch,
                                                   size.num_tokens, adjust=_identity, draws=_draws(settings))

        def ours(prior: Any = prior, batch: int = batch) -> Tensor:
            return prior.sample(batch, sampler=prior.Sampler(), draws=_draws(settings)).tokens

        ours()   # the warm-up; the textbook's own first call matters little to its many
        laps = _turns({"naive": naive, "ours": ours}, settings, warmup=0)
        differing = int((laps["naive"].results[0] != laps["ours"].results[0]).sum())
        yield _timed("ar", f"AR, {size.label}, batch {batch}", laps, settings, target, stretch,
                     gflop=_forward_gflop(size, batch, batch * size.num_tokens),
                     note="same tokens" if differing == 0 else f"{differing} tokens differ")


def absorbing_rows(settings: Settings) -> Iterator[Cell]:
    """Whole samplings, one evaluation a reveal event, against the full network at every step."""
    cases = [(SMALL, 1, 256, 2.5, 3.0), (SMALL_8, 4, 256, 6.0, 7.0), (PAPER, 1, 256, 1.7, 1.95)]
    for size, batch, steps, target, stretch in _shrunk(settings, cases):
        prior = _prior("absorbing", size, settings)
        unknown = torch.full((batch, size.num_tokens), -1, device=settings.device)

        def naive(prior: Any = prior, steps: int = steps, unknown: Tensor = unknown) -> Tensor:
            with torch.inference_mode():
                return naive_absorbing_sample(lambda tokens: textbook_logits(prior.net, tokens), unknown,
                                              mask=prior.mask, steps=steps, adjust=_identity, draws=_draws(settings))

        def ours(prior: Any = prior, steps: int = steps, batch: int = batch) -> Any:
            return prior.sample(batch, sampler=prior.Sampler(steps=steps), draws=_draws(settings))

        ours()   # the warm-up
        laps = _turns({"naive": naive, "ours": ours}, settings, warmup=0)
        evaluations = laps["ours"].results[0].network_evaluations.double()
        yield _timed("absorbing", f"absorbing T={steps}, {size.label}, batch {batch}", laps, settings, target, stretch,
                     gflop=_revealing_gflop(size, int(evaluations.sum())),
                     note=f"{float(evaluations.mean()):.0f} of {steps} evaluations an image")


def evaluation_rows(settings: Settings) -> Iterator[Cell]:
    """One network evaluation at batch 1: the share of the GEMM peak is what these rows are about."""
    for size, target, stretch in _shrunk(settings, [(SMALL, 0.75, 0.85), (PAPER, 0.80, 0.88)]):
        prior = _prior("absorbing", size, settings)
        tokens = torch.full((1, size.num_tokens), prior.mask, device=settings.device)
        repeats = 1 if settings.quick else 8

        def repeated(evaluate: Callable[[], Tensor], repeats: int = repeats) -> Callable[[], None]:
            def run() -> None:
                with torch.inference_mode():
                    for _ in range(repeats):
                        evaluate()
            return run

        methods = {"naive": repeated(partial(textbook_logits, prior.net, tokens)),
                   "ours": repeated(partial(prior.net, tokens))}
        laps = _turns(methods, settings)
        gflop = repeats * _forward_gflop(size, 1, size.num_tokens)
        yield _timed("evaluation", f"one evaluation, {size.label}", laps, settings, None, None, gflop=gflop,
                     gflop_naive=gflop, note=f"aim: {target:.0%} of peak, stretch {stretch:.0%}")


def elbo_rows(settings: Settings) -> Iterator[Cell]:
    """Variance of the bound's estimate at equal network evaluations, for a toy prior trained here on toy grids."""
    size = _Size("toy", side=4 if settings.quick else 8, codes=32, width=64, layers=2)
    prior, tokens = _trained_toy(size, settings)
    budget, repeats = (9, 4) if settings.quick else (32, 24)   # below T = N, where the bound is the continuous one
    naive, ours, spent = [], [], 0
    with torch.inference_mode():
        for repeat in range(repeats):
            likelihood = prior.nll(tokens, draws=Draws.seeded("elbo", repeat), budget=budget)
            ours.append(likelihood.nats)
            spent = likelihood.network_evaluations
            naive.append(_textbook_bound(prior, tokens, spent, Draws.seeded("textbook", repeat)))
    gap = float(torch.stack(naive).mean() - torch.stack(ours).mean())
    error = math.sqrt(float(torch.stack(naive).var(0).mean() + torch.stack(ours).var(0).mean())
                      / (repeats * len(tokens)))
    yield Cell("elbo", f"ELBO variance at {spent} evaluations, {size.num_tokens} tokens",
               float(torch.stack(naive).var(0).mean()), float(torch.stack(ours).var(0).mean()), 15, 25, "variance",
               note=f"means differ by {gap:.3f} +- {error:.3f} nats of {float(torch.stack(ours).mean()):.1f}")


def prdc_rows(settings: Settings) -> Iterator[Cell]:
    """Blocked precision / recall / density / coverage against the prdc package on random 2048-d features."""
    num, dimensions = (300, 64) if settings.quick else (10_000, 2048)
    fake, real = _features(num, dimensions, seed=1), _features(num, dimensions, seed=2)
    seconds: dict[str, Laps] = {}
    memory, outputs = {}, {}
    for name, method in (("ours", lambda: prdc(fake, real, k=5)), ("naive", lambda: prdc_reference(fake, real, k=5))):
        gc.collect()
        forget_peak_memory("cpu")
        before = peak_memory_gb("cpu")
        seconds |= take_turns({name: method}, rounds=1, warmup=0, device="cpu")
        memory[name], outputs[name] = peak_memory_gb("cpu") - before, seconds[name].results[0]
    names = ("precision", "recall", "density", "coverage")
    gap = max(abs(getattr(outputs["ours"], n) - getattr(outputs["naive"], n)) for n in names)
    what = f"PRDC {num:,} x {num:,}, {dimensions}-d"
    yield _timed("prdc", f"{what}: time", seconds, settings, 4, None, gflop=3 * 2e-9 * num**2 * dimensions,
                 note=f"largest difference {gap:.1g}")
    yield Cell("prdc", f"{what}: extra memory", memory["naive"], memory["ours"], 4, None, "GB")


def fid_rows(settings: Settings) -> Iterator[Cell]:
    """FID after features against torch-fidelity: with the reference's root kept, and from nothing."""
    num, dimensions = (100, 64) if settings.quick else (5_000, 2048)
    fake, real = _features(num, dimensions, seed=1), _features(num, dimensions, seed=2)
    reference = ReferenceStatistics.of(real)
    laps = _turns({"naive": lambda: fid_torch_fidelity(fake, real), "ours": lambda: fid_to(reference, fake).value,
                   "from nothing": lambda: fid_to(ReferenceStatistics.of(real), fake).value}, settings, warmup=0)
    gap = abs(laps["ours"].results[0] / laps["naive"].results[0] - 1)
    what = f"FID after features, N={num:,}, {dimensions}-d"
    yield _timed("fid", f"{what}, reference kept", laps, settings, 5, 10, note=f"relative difference {gap:.1g}")
    yield _timed("fid", f"{what}, both sides anew", laps, settings, None, None, ours="from nothing")


def neighbour_rows(settings: Settings) -> Iterator[Cell]:
    """LPIPS nearest neighbours against one pair at a time; the pairwise time is that of some pairs, scaled up."""
    queries, count, pairs = (4, 40, 4) if settings.quick else (64, 2000, 64)
    images = ArrayImages(_photographs(queries + count))
    asked, candidates = images.images(range(queries)), ArrayImages(images.images(range(queries, queries + count)))
    embedding = LpipsEmbedding(_lpips(), resolution=64, device=settings.device)
    with tempfile.TemporaryDirectory() as folder:
        def search(caches: Path | None) -> Any:
            return nearest(asked, _opened(embedding, candidates, count, caches), top_k=min(10, count))

        search(Path(folder))   # fills the cache
        laps = _turns({"naive": lambda: _pairwise(embedding, asked, candidates, pairs),
                       "ours": lambda: search(None), "cached": lambda: search(Path(folder))}, settings)
    scale = queries * count / pairs
    what = f"LPIPS neighbours, {queries} x {count:,} at 64 px"
    note = f"pairwise time scaled up from {pairs} pairs"
    yield _timed("neighbours", f"{what}, first time", laps, settings, 50, 100, naive_scale=scale, note=note)
    yield _timed("neighbours", f"{what}, cached", laps, settings, 1000, None, ours="cached", naive_scale=scale,
                 note=note)


def inception_rows(settings: Settings) -> Iterator[Cell]:
    """Inception features against torch-fidelity's extractor as it comes."""
    status = asset_status("inception")
    if not status.ready:
        yield Cell("inception", "Inception features", None, None, 1.7, 2.5, note=f"not run: {status.message}")
        return
    num = 2 if settings.quick else 50
    images = torch.from_numpy(_photographs(num)).to(settings.device)
    oracle, extractor = inception_oracle().to(settings.device), InceptionCompat(device=settings.device)

    def naive() -> Tensor:
        with torch.inference_mode():
            return oracle(images)[0]

    laps = _turns({"naive": naive, "ours": lambda: extractor(images)}, settings)
    gap = float((laps["naive"].results[0] - laps["ours"].results[0]).abs().max())
    yield _timed("inception", f"Inception features of {num} images", laps, settings, 1.7, 2.5,
                 note=f"largest difference {gap:.1g}; {num / statistics.median(_seconds(laps['ours'], settings)):.1f} "
                      "images/s")


def training_rows(settings: Settings) -> Iterator[Cell]:
    """One optimisation step of the absorbing prior against the textbook network with every logit."""
    (size, batch), = _shrunk(settings, [(SMALL, 8)])
    tokens = torch.randint(size.codes, (batch, size.num_tokens), generator=torch.Generator().manual_seed(0))
    tokens = tokens.to(settings.device)
    models = {name: _prior("absorbing", size, settings).train().requires_grad_(True) for name in ("naive", "ours")}
    task = PriorTask(models["ours"], TrainingConfig())
    optimizers = {"naive": torch.optim.Adam(models["naive"].parameters(), lr=1e-3), "ours": task.optimizers()[0]}

    def step(name: str, loss: Callable[[], Tensor]) -> Callable[[], float]:
        def run() -> float:
            optimizers[name].zero_grad()
            value = loss()
            value.backward()
            optimizers[name].step()
            return float(value.detach())
        return run

    laps = _turns({"naive": step("naive", lambda: _textbook_loss(models["naive"], tokens, _draws(settings))),
                   "ours": step("ours", lambda: models["ours"].training_loss(tokens, draws=_draws(settings)))},
                  settings)
    yield _timed("training", f"training step, {size.label}, batch {batch}", laps, settings, 1.25, None,
                 gflop=3 * _forward_gflop(size, batch, batch * size.num_tokens))


def scaling_rows(settings: Settings) -> Iterator[Cell]:
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
        for name, laps in _turns(methods, settings, warmup=0).items():
            seconds = statistics.median(laps.cpu)
            costs.setdefault(name, []).append(seconds)
            grew = f"{seconds / costs[name][-2]:.2g} times the row above" if len(costs[name]) > 1 else ""
            yield Cell("scaling", f"{name}, N={num:,}", None, seconds, note=grew)


def pipeline_rows(settings: Settings) -> Iterator[Cell]:
    """A run of which every artefact exists already: what remains is the pipeline's own work."""
    status = asset_status("lpips-alex")
    if not status.ready:
        yield Cell("pipeline", "pipeline, everything cached", None, None, note=f"not run: {status.message}")
        return
    from bench.compose import compose
    from bench.pipeline import run
    from bench.store import Store

    with tempfile.TemporaryDirectory() as folder:
        spec = compose(["preset=smoke", "dataset=digits", "metrics.names=[nll]", f"results_dir='{folder}/results'"])

        def again() -> None:
            run(spec, store=Store(Path(folder) / "artefacts"), announce=lambda text: None)

        again()   # builds everything
        laps = _turns({"ours": again}, settings, warmup=0)
    yield Cell("pipeline", "pipeline, everything cached", None, statistics.median(laps["ours"].cpu),
               note="checks, loads and writes the record: all but the work itself")


ROWS: dict[str, Callable[[Settings], Iterator[Cell]]] = {
    "ar": autoregressive_rows,
    "absorbing": absorbing_rows,
    "evaluation": evaluation_rows,
    "elbo": elbo_rows,
    "prdc": prdc_rows,
    "fid": fid_rows,
    "neighbours": neighbour_rows,
    "inception": inception_rows,
    "training": training_rows,
    "scaling": scaling_rows,
    "pipeline": pipeline_rows,
}


def gemm_peak(device: str, *, sizes: tuple[int, ...] = (512, 1024, 2048), tries: int = 5) -> float:
    """The best of some float32 matrix products, in GFLOP/s: CPU time on a CPU, wall clock on CUDA."""
    best = 0.0
    for size in sizes:
        left, right = torch.randn(2, size, size, device=device).unbind()
        methods: dict[str, Callable[[], Any]] = {"product": partial(torch.matmul, left, right),
                                                 "linear": partial(F.linear, left, right)}
        for laps in take_turns(methods, rounds=tries, warmup=2, device=device).values():
            best = max(best, 2e-9 * size**3 / min(_seconds(laps, Settings(device=device))))
    return best


def _turns(methods: dict[str, Callable[[], Any]], settings: Settings, *, warmup: int = 1) -> dict[str, Laps]:
    return take_turns(methods, rounds=settings.rounds, warmup=warmup, device=settings.device)


def _seconds(laps: Laps, settings: Settings) -> list[float]:
    return laps.wall if settings.device.startswith("cuda") else laps.cpu


def _timed(row: str, what: str, laps: dict[str, Laps], settings: Settings, target: float | None,
           stretch: float | None, *, ours: str = "ours", naive_scale: float = 1.0, gflop: float | None = None,
           gflop_naive: float | None = None, note: str = "") -> Cell:
    rounds = {"naive": [naive_scale * s for s in _seconds(laps["naive"], settings)],
              "ours": _seconds(laps[ours], settings)}
    return Cell(row, what, statistics.median(rounds["naive"]), statistics.median(rounds["ours"]), target, stretch,
                gflop=gflop, gflop_naive=gflop_naive, note=note, rounds=rounds)


def _shrunk(settings: Settings, cases: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The cases, or for a quick run the first one with a toy prior and its whole numbers (batch, steps) at most 8."""
    if not settings.quick:
        return cases
    first = (TOY, *cases[0][1:])
    return [tuple(min(value, 8) if isinstance(value, int) else value for value in first)]


def _prior(name: str, size: _Size, settings: Settings) -> Any:
    """A registered prior with random weights, frozen."""
    cls = registry.resolve("priors", name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = cls(grid=(size.side, size.side), codebook_size=size.codes,
                    options=cls.Options(width=size.width, num_layers=size.layers, num_heads=8))
    return prior.to(settings.device).eval().requires_grad_(False)


def _forward_gflop(size: _Size, batch: int, positions: int) -> float:
    """Of pushing so many token positions through the backbone and its head, attention over all N keys counted."""
    matrices = size.layers * 12 * size.width**2 + size.width * size.codes
    attention = size.layers * 2 * size.width * size.num_tokens
    return 2e-9 * positions * (matrices + attention)


def _revealing_gflop(size: _Size, evaluations: int) -> float:
    """Of evaluations whose last block computes keys and values alone, but for the few positions being revealed."""
    block = 12 * size.width**2 + 2 * size.width * size.num_tokens
    return 2e-9 * evaluations * size.num_tokens * ((size.layers - 1) * block + 2 * size.width**2)


def _draws(settings: Settings) -> Draws:
    return Draws.seeded("bench.speed", device=settings.device)


def _identity(logits: Tensor) -> Tensor:
    return logits


def _trained_toy(size: _Size, settings: Settings) -> tuple[Any, Tensor]:
    """A small absorbing prior after some steps on blobs, and held-out blobs: (16, N)."""
    grids = _blobs(2016, size)
    prior = _prior("absorbing", size, Settings()).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(prior.parameters(), lr=2e-3)
    draws = Draws.seeded("toy")
    for _ in range(20 if settings.quick else 1000):
        loss = prior.training_loss(grids[draws.integers(0, 2000, 32)], draws=draws)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return prior.eval().requires_grad_(False), grids[2000:]


def _blobs(num: int, size: _Size) -> Tensor:
    """(num, N) int64 grids that are smooth, so that neighbours tell much about a token."""
    noise = torch.randn(num, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    smooth = F.interpolate(noise, size=(size.side, size.side), mode="bicubic", align_corners=False)
    return ((smooth / 4 + 0.5).clamp(0, 0.999) * size.codes).long().flatten(1)


def _textbook_bound(prior: Any, tokens: Tensor, evaluations: int, draws: Draws) -> Tensor:
    """The bound of infinite T as a mean over uniform times: mask with probability u, cross-entropy / u. -> (B,)."""
    total = torch.zeros(len(tokens), dtype=torch.float64)
    for _ in range(evaluations):
        share = draws.uniform(len(tokens), 1).clamp_min(1e-6)
        masked = draws.uniform(*tokens.shape) < share
        nats = F.cross_entropy(prior.logits(tokens.masked_fill(masked, prior.mask)).transpose(1, 2), tokens,
                               reduction="none")
        total += (nats * masked).sum(1).double() / share.squeeze(1)
    return total / evaluations


def _textbook_loss(prior: Any, tokens: Tensor, draws: Draws) -> Tensor:
    """Reweighted ELBO with logits at every position."""
    t = draws.integers(1, prior.timesteps + 1, len(tokens))
    masked = draws.uniform(*tokens.shape) < (t / prior.timesteps).unsqueeze(1)
    logits = textbook_logits(prior.net, tokens.masked_fill(masked, prior.mask))
    nats = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")
    return ((1 - t / prior.timesteps) * (nats * masked).sum(1)).mean() / (tokens.shape[1] * math.log(2))


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
    from bench.torchvision_compat import ensure_torchvision

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
