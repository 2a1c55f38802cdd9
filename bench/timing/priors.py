"""Sampling, one evaluation, and the bound's variance: ours against the textbook loops of priors.reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import kernels, registry
from bench.timing.turns import Settings, Timing, draws_of, in_turn, timed
from priors.base import Draws
from priors.reference import naive_absorbing_sample, naive_autoregressive_sample, textbook_logits


@dataclass(frozen=True)
class Size:
    """Of a prior. `label` is how performance tables name it."""

    label: str
    side: int = 16
    codes: int = 1024
    width: int = 256
    layers: int = 6

    @property
    def num_tokens(self) -> int:
        return self.side**2


SMALL = Size("16x16, width 256 x 6")
SMALL_8 = Size("8x8, width 256 x 6", side=8)
PAPER = Size("16x16, 512 x 24 (77M)", width=512, layers=24)
TOY = Size("toy", side=4, codes=32, width=32, layers=2)
EVERY = 16   # of the textbook's steps one is timed where all would take minutes


def autoregressive_rows(settings: Settings) -> Iterator[Timing]:
    """Whole samplings with the key-value cache against the whole prefix for every token, or for every 16th, scaled."""
    cases = [(SMALL, 1, 8.0, 16.0, "all"), (SMALL, 16, 40.0, 60.0, "some"), (PAPER, 1, 10.0, 15.0, "some")]
    for size, batch, target, stretch, share in shrunk(settings, cases):
        prior = new_prior("autoregressive", size, settings)

        def textbook(tokens: Tensor, prior: Any = prior) -> Tensor:
            return textbook_logits(prior.net, tokens)

        def sample(logits: Callable[[Tensor], Tensor], batch: int = batch, size: Size = size) -> Tensor:
            with torch.inference_mode():
                return naive_autoregressive_sample(logits, batch, size.num_tokens, adjust=_identity,
                                                   draws=draws_of(settings))

        def ours(prior: Any = prior, batch: int = batch) -> Tensor:
            return prior.sample(batch, sampler=prior.Sampler(), draws=draws_of(settings)).tokens

        tokens = ours()   # also the warm-up; the textbook's own first call matters little to its many
        loop = TextbookLoop(sample, textbook, draws_of(settings), every=1 if share == "all" else EVERY)
        naive = loop.some(tokens, codes=size.codes, last_alone=True)
        laps = in_turn({"naive": naive, "ours": ours}, settings, warmup=0)
        yield timed("ar", f"AR, {size.label}, batch {batch}", laps, settings, target, stretch, naive_scale=loop.every,
                    gflop=forward_gflop(size, batch, batch * size.num_tokens),
                    note=loop.note or same_tokens(laps["naive"].results[0], tokens))


def absorbing_rows(settings: Settings) -> Iterator[Timing]:
    """Whole samplings, one evaluation a reveal event, against the full network at every step, or every 16th, scaled."""
    cases = [(SMALL, 1, 256, 2.5, 3.0, "all"), (SMALL_8, 4, 256, 6.0, 7.0, "all"), (PAPER, 1, 256, 1.7, 1.95, "some")]
    for size, batch, steps, target, stretch, share in shrunk(settings, cases):
        prior = new_prior("absorbing", size, settings)
        unknown = torch.full((batch, size.num_tokens), -1, device=settings.device)

        def textbook(tokens: Tensor, prior: Any = prior) -> Tensor:
            return textbook_logits(prior.net, tokens)

        def sample(logits: Callable[[Tensor], Tensor], prior: Any = prior, steps: int = steps,
                   unknown: Tensor = unknown) -> Tensor:
            with torch.inference_mode():
                return naive_absorbing_sample(logits, unknown, mask=prior.mask, steps=steps, adjust=_identity,
                                              draws=draws_of(settings))

        def ours(steps: int = steps, prior: Any = prior, batch: int = batch) -> Any:
            return prior.sample(batch, sampler=prior.Sampler(steps=steps), draws=draws_of(settings))

        tokens = ours(steps=min(steps, 16)).tokens   # also the warm-up
        loop = TextbookLoop(sample, textbook, draws_of(settings), every=1 if share == "all" else EVERY)
        naive = loop.some(tokens, codes=size.codes, last_alone=False)
        few = replace(settings, rounds=settings.rounds if share == "all" else 1)   # minutes a round
        laps = in_turn({"naive": naive, "ours": ours}, few, warmup=0)
        evaluations = laps["ours"].results[0].network_evaluations.double()
        counts = f"{float(evaluations.mean()):.0f} of {steps} evaluations an image"
        yield timed("absorbing", f"absorbing T={steps}, {size.label}, batch {batch}", laps, few, target, stretch,
                    gflop=_revealing_gflop(size, int(evaluations.sum())), naive_scale=loop.every,
                    note="; ".join(filter(None, [counts, loop.note])))


def evaluation_rows(settings: Settings) -> Iterator[Timing]:
    """One network evaluation at batch 1: the share of the GEMM peak is what these rows are about."""
    for size, target, stretch in shrunk(settings, [(SMALL, 0.75, 0.85), (PAPER, 0.80, 0.88)]):
        prior = new_prior("absorbing", size, settings)
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
        laps = in_turn(methods, settings)
        gflop = repeats * forward_gflop(size, 1, size.num_tokens)
        yield timed("evaluation", f"one evaluation, {size.label}", laps, settings, None, None, gflop=gflop,
                    gflop_naive=gflop, note=f"aim: {target:.0%} of peak, stretch {stretch:.0%}")


def elbo_rows(settings: Settings) -> Iterator[Timing]:
    """Variance of both bounds' estimates at equal network evaluations, for a toy prior trained here on toy grids."""
    size = Size("toy", side=4 if settings.quick else 8, codes=32, width=64, layers=2)
    prior, tokens = trained_toy(size, settings)
    timesteps, repeats = prior.timesteps, 4 if settings.quick else 24

    def repeated(name: str, estimate: Callable[[Draws], Tensor]) -> Tensor:
        with torch.inference_mode():
            return torch.stack([estimate(Draws.seeded(name, repeat)) for repeat in range(repeats)])   # (repeats, B)

    steps = repeated("steps", lambda draws: prior.nll(tokens, draws=draws, budget=timesteps).nats)
    whole = repeated("continuous", lambda draws: prior.nll(tokens, draws=draws, budget=timesteps // 2).nats)
    at, half = f"at {timesteps} evaluations, {size.num_tokens} tokens", timesteps // 2
    yield _variances(f"T-step bound {at}, against t ~ U{{1..T}}", steps, 15, 25, repeated(
        "random t", lambda draws: textbook_t_step_bound(prior, tokens, timesteps, draws)))
    yield _variances(f"T-step bound {at}, against every t once", steps, None, None, repeated(
        "published", lambda draws: prior.nll(tokens, draws=draws).nats))
    yield _variances(f"continuous bound at {half} evaluations, against u ~ U[0, 1]", whole, 15, 25, repeated(
        "textbook", lambda draws: textbook_bound(prior, tokens, half, draws)))


def shrunk(settings: Settings, cases: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The cases, or for a quick run the first one with a toy prior and its whole numbers (batch, steps) at most 8."""
    if not settings.quick:
        return cases
    first = (TOY, *cases[0][1:])
    return [tuple(min(value, 8) if isinstance(value, int) else value for value in first)]


def _variances(what: str, ours: Tensor, target: float | None, stretch: float | None, naive: Tensor) -> Timing:
    """ours, naive: (repeats, B) nats of one bound; their mean variance over images, and that their means agree."""
    of_naive, of_ours = float(naive.var(0).mean()), float(ours.var(0).mean())
    gap, error = float(naive.mean() - ours.mean()), math.sqrt((of_naive + of_ours) / ours.numel())
    return Timing("elbo", f"ELBO variance, {what}", of_naive, of_ours, target, stretch, "variance",
                note=f"means differ by {gap:.3f} +- {error:.3f} nats of {float(ours.mean()):.1f}")


@dataclass
class TextbookLoop:
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


def same_tokens(theirs: Tensor, ours: Tensor) -> str:
    differing = int((theirs != ours).sum())
    return "same tokens" if differing == 0 else f"{differing} tokens differ"


def new_prior(name: str, size: Size, settings: Settings) -> Any:
    """A registered prior with random weights, frozen."""
    cls = registry.resolve("priors", name)
    if settings.device == "cpu":
        kernels.settle(size.width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = cls(grid=(size.side, size.side), codebook_size=size.codes,
                    options=cls.Options(width=size.width, num_layers=size.layers, num_heads=8))
    return prior.to(settings.device).eval().requires_grad_(False)


def forward_gflop(size: Size, batch: int, positions: int) -> float:
    """Of pushing so many token positions through the backbone and its head, attention over all N keys counted."""
    matrices = size.layers * 12 * size.width**2 + size.width * size.codes
    attention = size.layers * 2 * size.width * size.num_tokens
    return 2e-9 * positions * (matrices + attention)


def _revealing_gflop(size: Size, evaluations: int) -> float:
    """Of evaluations whose last block computes keys and values alone, but for the few positions being revealed."""
    block = 12 * size.width**2 + 2 * size.width * size.num_tokens
    return 2e-9 * evaluations * size.num_tokens * ((size.layers - 1) * block + 2 * size.width**2)


def _identity(logits: Tensor) -> Tensor:
    return logits


def trained_toy(size: Size, settings: Settings, name: str = "absorbing") -> tuple[Any, Tensor]:
    """A small prior after some steps on blobs, on the CPU, and held-out blobs: (16, N)."""
    grids = _blobs(2016, size)
    prior = new_prior(name, size, Settings()).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(prior.parameters(), lr=2e-3)
    draws = Draws.seeded("toy")
    for _ in range(20 if settings.quick else 1000):
        loss = prior.training_loss(grids[draws.integers(0, 2000, 32)], draws=draws)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return prior.eval().requires_grad_(False), grids[2000:]


def _blobs(num: int, size: Size) -> Tensor:
    """(num, N) int64 grids that are smooth, so that neighbours tell much about a token."""
    noise = torch.randn(num, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    smooth = F.interpolate(noise, size=(size.side, size.side), mode="bicubic", align_corners=False)
    return ((smooth / 4 + 0.5).clamp(0, 0.999) * size.codes).long().flatten(1)


def textbook_bound(prior: Any, tokens: Tensor, evaluations: int, draws: Draws) -> Tensor:
    """The bound of infinite T as a mean over uniform times: mask with probability u, cross-entropy / u. -> (B,)."""
    total = torch.zeros(len(tokens), dtype=torch.float64)
    for _ in range(evaluations):
        share = draws.uniform(len(tokens), 1).clamp_min(1e-6)
        masked = draws.uniform(*tokens.shape) < share
        nats = F.cross_entropy(prior.logits(tokens.masked_fill(masked, prior.mask)).transpose(1, 2), tokens,
                               reduction="none")
        total += (nats * masked).sum(1).double() / share.squeeze(1)
    return total / evaluations


def textbook_t_step_bound(prior: Any, tokens: Tensor, evaluations: int, draws: Draws) -> Tensor:
    """The T-step bound as a mean over t ~ U{1..T} of T CE_t / t, as in training. -> (B,)."""
    total = torch.zeros(len(tokens), dtype=torch.float64)
    for _ in range(evaluations):
        t = draws.integers(1, prior.timesteps + 1, len(tokens)).unsqueeze(1)
        masked = draws.uniform(*tokens.shape) < t / prior.timesteps
        nats = F.cross_entropy(prior.logits(tokens.masked_fill(masked, prior.mask)).transpose(1, 2), tokens,
                               reduction="none")
        total += prior.timesteps * (nats * masked).sum(1).double() / t.squeeze(1)
    return total / evaluations
