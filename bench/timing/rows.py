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
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from threadpoolctl import threadpool_info
from torch import Tensor
from torch.nn import functional as F

from bench import registry
from bench.assets.cache import asset_status
from bench.assets.weights import cifar10_arrays, lpips_model
from bench.config import PriorTrainingConfig
from bench.data.arrays import ArrayImages
from bench.data.base import ImageData
from bench.metrics.embedding_cache import Candidates, open_candidates
from bench.metrics.frechet import ReferenceStatistics, fid, fid_to, fid_torch_fidelity
from bench.metrics.inception import InceptionCompat, inception_oracle
from bench.metrics.kernel import kid
from bench.metrics.lpips_embedding import LpipsEmbedding, full_precision
from bench.metrics.neighbours import nearest
from bench.metrics.prdc import prdc, prdc_reference
from bench.metrics.speed import Laps, forget_peak_memory, peak_memory_gb, take_turns
from bench.training.loop import PriorTask
from priors.base import Draws
from priors.linear import linear
from priors.reference import naive_absorbing_sample, naive_autoregressive_sample, textbook_logits
from vq.reference import naive_decode, naive_encode, naive_training_step, textbook_copy

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

    naive, ours: in `unit`, lower is better, medians of `rounds`.  target, stretch: the ratio naive / ours to reach.
    gflop: of ours, for its share of the measured GEMM peak.  note: what a reader must know.
    memory_gb: the most this process held while ours ran (on CUDA: the most allocated).
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
    memory_gb: float | None = None

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
EVERY = 16   # of the textbook's steps one is timed where all would take minutes


def autoregressive_rows(settings: Settings) -> Iterator[Cell]:
    """Whole samplings with the key-value cache against the whole prefix for every token, or for every 16th, scaled."""
    cases = [(SMALL, 1, 8.0, 16.0, "all"), (SMALL, 16, 40.0, 60.0, "some"), (PAPER, 1, 10.0, 15.0, "some")]
    for size, batch, target, stretch, share in _shrunk(settings, cases):
        prior = _prior("autoregressive", size, settings)

        def textbook(tokens: Tensor, prior: Any = prior) -> Tensor:
            return textbook_logits(prior.net, tokens)

        def sample(logits: Callable[[Tensor], Tensor], batch: int = batch, size: _Size = size) -> Tensor:
            with torch.inference_mode():
                return naive_autoregressive_sample(logits, batch, size.num_tokens, adjust=_identity,
                                                   draws=_draws(settings))

        def ours(prior: Any = prior, batch: int = batch) -> Tensor:
            return prior.sample(batch, sampler=prior.Sampler(), draws=_draws(settings)).tokens

        tokens = ours()   # also the warm-up; the textbook's own first call matters little to its many
        loop = _Loop(sample, textbook, _draws(settings), every=1 if share == "all" else EVERY)
        naive = loop.some(tokens, codes=size.codes, last_alone=True)
        laps = _turns({"naive": naive, "ours": ours}, settings, warmup=0)
        yield _timed("ar", f"AR, {size.label}, batch {batch}", laps, settings, target, stretch, naive_scale=loop.every,
                     gflop=_forward_gflop(size, batch, batch * size.num_tokens),
                     note=loop.note or _same(laps["naive"].results[0], tokens))


def absorbing_rows(settings: Settings) -> Iterator[Cell]:
    """Whole samplings, one evaluation a reveal event, against the full network at every step, or every 16th, scaled."""
    cases = [(SMALL, 1, 256, 2.5, 3.0, "all"), (SMALL_8, 4, 256, 6.0, 7.0, "all"), (PAPER, 1, 256, 1.7, 1.95, "some")]
    for size, batch, steps, target, stretch, share in _shrunk(settings, cases):
        prior = _prior("absorbing", size, settings)
        unknown = torch.full((batch, size.num_tokens), -1, device=settings.device)

        def textbook(tokens: Tensor, prior: Any = prior) -> Tensor:
            return textbook_logits(prior.net, tokens)

        def sample(logits: Callable[[Tensor], Tensor], prior: Any = prior, steps: int = steps,
                   unknown: Tensor = unknown) -> Tensor:
            with torch.inference_mode():
                return naive_absorbing_sample(logits, unknown, mask=prior.mask, steps=steps, adjust=_identity,
                                              draws=_draws(settings))

        def ours(steps: int = steps, prior: Any = prior, batch: int = batch) -> Any:
            return prior.sample(batch, sampler=prior.Sampler(steps=steps), draws=_draws(settings))

        tokens = ours(steps=min(steps, 16)).tokens   # also the warm-up
        loop = _Loop(sample, textbook, _draws(settings), every=1 if share == "all" else EVERY)
        naive = loop.some(tokens, codes=size.codes, last_alone=False)
        few = replace(settings, rounds=settings.rounds if share == "all" else 1)   # minutes a round
        laps = _turns({"naive": naive, "ours": ours}, few, warmup=0)
        evaluations = laps["ours"].results[0].network_evaluations.double()
        counts = f"{float(evaluations.mean()):.0f} of {steps} evaluations an image"
        yield _timed("absorbing", f"absorbing T={steps}, {size.label}, batch {batch}", laps, few, target, stretch,
                     gflop=_revealing_gflop(size, int(evaluations.sum())), naive_scale=loop.every,
                     note="; ".join(filter(None, [counts, loop.note])))


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
    """Variance of both bounds' estimates at equal network evaluations, for a toy prior trained here on toy grids."""
    size = _Size("toy", side=4 if settings.quick else 8, codes=32, width=64, layers=2)
    prior, tokens = _trained_toy(size, settings)
    timesteps, repeats = prior.timesteps, 4 if settings.quick else 24

    def repeated(name: str, estimate: Callable[[Draws], Tensor]) -> Tensor:
        with torch.inference_mode():
            return torch.stack([estimate(Draws.seeded(name, repeat)) for repeat in range(repeats)])   # (repeats, B)

    steps = repeated("steps", lambda draws: prior.nll(tokens, draws=draws, budget=timesteps).nats)
    whole = repeated("continuous", lambda draws: prior.nll(tokens, draws=draws, budget=timesteps // 2).nats)
    at, half = f"at {timesteps} evaluations, {size.num_tokens} tokens", timesteps // 2
    yield _variances(f"T-step bound {at}, against t ~ U{{1..T}}", steps, 15, 25, repeated(
        "random t", lambda draws: _textbook_t_step_bound(prior, tokens, timesteps, draws)))
    yield _variances(f"T-step bound {at}, against every t once", steps, None, None, repeated(
        "published", lambda draws: prior.nll(tokens, draws=draws).nats))
    yield _variances(f"continuous bound at {half} evaluations, against u ~ U[0, 1]", whole, 15, 25, repeated(
        "textbook", lambda draws: _textbook_bound(prior, tokens, half, draws)))


def _variances(what: str, ours: Tensor, target: float | None, stretch: float | None, naive: Tensor) -> Cell:
    """ours, naive: (repeats, B) nats of one bound; their mean variance over images, and that their means agree."""
    of_naive, of_ours = float(naive.var(0).mean()), float(ours.var(0).mean())
    gap, error = float(naive.mean() - ours.mean()), math.sqrt((of_naive + of_ours) / ours.numel())
    return Cell("elbo", f"ELBO variance, {what}", of_naive, of_ours, target, stretch, "variance",
                note=f"means differ by {gap:.3f} +- {error:.3f} nats of {float(ours.mean()):.1f}")


def prdc_rows(settings: Settings) -> Iterator[Cell]:
    """Blocked precision / recall / density / coverage against the prdc package on random 2048-d features."""
    num, dimensions = (300, 64) if settings.quick else (10_000, 2048)
    fake, real = _features(num, dimensions, seed=1), _features(num, dimensions, seed=2)
    seconds: dict[str, _Timed] = {}
    memory, outputs = {}, {}
    for name, method in (("ours", lambda: prdc(fake, real, k=5)), ("naive", lambda: prdc_reference(fake, real, k=5))):
        gc.collect()
        forget_peak_memory("cpu")
        before = peak_memory_gb("cpu")
        seconds |= _turns({name: method}, Settings(), warmup=0)
        memory[name], outputs[name] = seconds[name].peaks_gb[0] - before, seconds[name].results[0]
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
    yield _timed("fid", f"{what}, reference kept", laps, settings, 5, 10,
                 note=f"{blas_kernels()}; relative difference {gap:.1g}")
    yield _timed("fid", f"{what}, both sides anew", laps, settings, None, None, ours="from nothing")


def neighbour_rows(settings: Settings) -> Iterator[Cell]:
    """LPIPS nearest neighbours against one pair at a time; the pairwise time is that of some pairs, scaled up."""
    queries, count, pairs = (4, 40, 4) if settings.quick else (64, 5000, 64)
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
        with torch.inference_mode(), full_precision():   # as ours: TF32 would be another function
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
    task = PriorTask(models["ours"], PriorTrainingConfig())
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


def tokenizer_rows(settings: Settings) -> Iterator[Cell]:
    """A training step with LPIPS, discriminator and adaptive weight, encoding and decoding, of the small VQGAN."""
    batch, ours, perceptual = *_vqgan(settings), _lpips().to(settings.device)
    textbook, images = textbook_copy(ours), torch.from_numpy(_photographs(batch)).to(settings.device)
    step = naive_training_step(textbook, perceptual=perceptual, learning_rate=1e-4)
    task = ours.trainable(perceptual=perceptual, learning_rate=1e-4, betas=(0.9, 0.999))

    def optimize(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    laps = _turns({"naive": lambda: step(images, _draws(settings)),
                   "ours": lambda: float(task.update(images, 0, _draws(settings), optimize)["loss"])}, settings)
    gap = abs(laps["ours"].results[0] - laps["naive"].results[0])
    yield _timed("tokenizer", f"VQGAN training step, batch {batch}", laps, settings, None, None,
                 note=f"{_rate(laps['ours'], batch, settings)}; losses differ by {gap:.1g}")
    textbook.load_state_dict(ours.eval().state_dict())
    textbook.eval()
    tokens = ours.encode(images)
    laps = _turns({"naive": lambda: naive_encode(textbook, images), "ours": lambda: ours.encode(images)}, settings)
    differing = int((laps["ours"].results[0] != laps["naive"].results[0]).sum())
    yield _timed("tokenizer", f"VQGAN encoding, batch {batch}", laps, settings, None, None,
                 note=f"{_rate(laps['ours'], batch, settings)}; {differing} of {tokens.numel()} tokens differ")
    laps = _turns({"naive": lambda: naive_decode(textbook, tokens), "ours": lambda: ours.decode(tokens)}, settings)
    gap = int((laps["ours"].results[0].int() - laps["naive"].results[0].int()).abs().max())
    yield _timed("tokenizer", f"VQGAN decoding, batch {batch}", laps, settings, None, None,
                 note=f"{_rate(laps['ours'], batch, settings)}; largest difference {gap} of 255")


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
        for name, laps in _turns(methods, replace(settings, rounds=1), warmup=0).items():   # a trend needs no median
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
    from bench.store.store import Store

    with tempfile.TemporaryDirectory() as folder:
        spec = compose(["preset=smoke", "dataset=digits", "metrics.names=[nll]", f"results_dir='{folder}/results'",
                        f"device={settings.device}"])

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
    "tokenizer": tokenizer_rows,
    "scaling": scaling_rows,
    "pipeline": pipeline_rows,
}


def gemm_peak(device: str, *, sizes: tuple[int, ...] = (512, 1024, 2048), tries: int = 5) -> float:
    """The best of some float32 matrix products, in GFLOP/s: CPU time on a CPU, wall clock on CUDA.

    Of torch's and of the kernels that ours uses, which may be twice as fast: a share is of what the core can do.
    """
    best = 0.0
    for size in sizes:
        left, right = torch.randn(2, size, size, device=device).unbind()
        methods: dict[str, Callable[[], Any]] = {"product": partial(torch.matmul, left, right),
                                                 "linear": partial(F.linear, left, right),
                                                 "ours": partial(linear, left, right)}
        for laps in take_turns(methods, rounds=tries, warmup=2, device=device).values():
            best = max(best, 2e-9 * size**3 / min(_seconds(laps, Settings(device=device))))
    return best


def blas_kernels() -> str:
    """Which kernels numpy's BLAS chose here: float64 times of both sides depend on them."""
    kinds = {f"{info['internal_api']} {info.get('architecture', '')}".strip() for info in threadpool_info()
             if info["user_api"] == "blas"}
    return ", ".join(sorted(kinds)) or "unknown BLAS"


@dataclass
class _Timed(Laps):
    """Laps, and the peak memory of each."""

    peaks_gb: list[float] = field(default_factory=list)


def _turns(methods: dict[str, Callable[[], Any]], settings: Settings, *, warmup: int = 1) -> dict[str, _Timed]:
    timed = {name: _Timed() for name in methods}

    def watched(name: str) -> Any:
        forget_peak_memory(settings.device)
        result = methods[name]()
        timed[name].peaks_gb.append(peak_memory_gb(settings.device))
        return result

    laps = take_turns({name: partial(watched, name) for name in methods}, rounds=settings.rounds, warmup=warmup,
                      device=settings.device)
    for name, lap in laps.items():
        timed[name].wall, timed[name].cpu, timed[name].results = lap.wall, lap.cpu, lap.results
    return timed


@dataclass
class _Loop:
    """A textbook sampling loop, whole or every `every`-th of its steps, whose time is then to be scaled by `every`.

    sample: the loop over a `logits` callable.  logits: the slow network.
    """

    sample: Callable[[Callable[[Tensor], Tensor]], Tensor]
    logits: Callable[[Tensor], Tensor]
    draws: Draws
    every: int = 1

    @property
    def note(self) -> str:
        return f"textbook: 1 of {self.every} steps timed, scaled up" if self.every > 1 else ""

    def some(self, answer: Tensor, *, codes: int, last_alone: bool) -> Callable[[], Any]:
        """The whole loop, or the network and the draw at states that lie `every` steps apart and lead to `answer`."""
        if self.every == 1:
            return partial(self.sample, self.logits)
        states: list[Tensor] = []

        def known(state: Tensor) -> Tensor:
            states.append(state.clone())
            tokens = answer[:, state.shape[1] - 1:state.shape[1]] if last_alone else answer
            return torch.full((*tokens.shape, codes), -torch.inf, device=state.device).scatter(2, tokens[..., None], 0)

        self.sample(known)

        def run() -> None:
            with torch.inference_mode():
                for state in states[self.every // 2::self.every]:
                    logits = self.logits(state)
                    self.draws.categorical(logits[:, -1] if last_alone else logits)

        return run


def _same(theirs: Tensor, ours: Tensor) -> str:
    differing = int((theirs != ours).sum())
    return "same tokens" if differing == 0 else f"{differing} tokens differ"


def _seconds(laps: Laps, settings: Settings) -> list[float]:
    return laps.wall if settings.device.startswith("cuda") else laps.cpu


def _timed(row: str, what: str, laps: dict[str, _Timed], settings: Settings, target: float | None,
           stretch: float | None, *, ours: str = "ours", naive_scale: float = 1.0, gflop: float | None = None,
           gflop_naive: float | None = None, note: str = "") -> Cell:
    rounds = {"naive": [naive_scale * s for s in _seconds(laps["naive"], settings)],
              "ours": _seconds(laps[ours], settings)}
    return Cell(row, what, statistics.median(rounds["naive"]), statistics.median(rounds["ours"]), target, stretch,
                gflop=gflop, gflop_naive=gflop_naive, note=note, rounds=rounds, memory_gb=max(laps[ours].peaks_gb))


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


def _vqgan(settings: Settings) -> tuple[int, Any]:
    """A batch size, and the registered VQGAN of the small preset's sizes with random weights, its discriminator on."""
    small = dict(channels=32, channel_multipliers=(1, 2, 4), norm_groups=16, disc_channels=32)
    toy = dict(channels=8, channel_multipliers=(1, 2), norm_groups=4, disc_channels=8)
    cls = registry.resolve("tokenizers", "vqgan")
    options = cls.Options(num_res_blocks=1, attention_resolutions=(), embedding_dim=32, codebook_size=256,
                          perceptual_net="alex", perceptual_resolution=64, disc_start_step=0, disc_layers=2,
                          **(toy if settings.quick else small))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = cls(options=options, resolution=32)
        torch.nn.init.normal_(model.quantizer.embedding.weight)   # so that images have more than one code
    return 2 if settings.quick else 16, model.to(settings.device).train()


def _rate(laps: Laps, batch: int, settings: Settings) -> str:
    return f"{batch / statistics.median(_seconds(laps, settings)):.1f} images/s"


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


def _textbook_t_step_bound(prior: Any, tokens: Tensor, evaluations: int, draws: Draws) -> Tensor:
    """The T-step bound as a mean over t ~ U{1..T} of T CE_t / t, as in training. -> (B,)."""
    total = torch.zeros(len(tokens), dtype=torch.float64)
    for _ in range(evaluations):
        t = draws.integers(1, prior.timesteps + 1, len(tokens)).unsqueeze(1)
        masked = draws.uniform(*tokens.shape) < t / prior.timesteps
        nats = F.cross_entropy(prior.logits(tokens.masked_fill(masked, prior.mask)).transpose(1, 2), tokens,
                               reduction="none")
        total += prior.timesteps * (nats * masked).sum(1).double() / t.squeeze(1)
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
