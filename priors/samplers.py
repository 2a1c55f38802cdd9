"""Decoding loops over a callable that gives logits, so that a table of probabilities samples as well as a network.

    by_events(predict, tokens, reveal, uniforms, mask=K, adjust=Adjust())   # absorbing diffusion, exact

Every token value is chosen by the inverse transform of a uniform handed in, so two samplers given the same uniforms and
the same reveal steps return the same tokens. The algorithms as first published stand in priors.reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from priors.base import UNKNOWN, Draws, Sample, inverse_cdf
from priors.guidance import of_images

Predict = Callable[[Tensor, Tensor], Tensor]
"""(tokens (A, N), positions (A, R)) -> logits (A, R, K)."""


@dataclass(frozen=True)
class Adjust:
    """Logits as the sampler wants them: divided by temperature, then top-k, then top-p (Holtzman et al. 2020)."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        logits = logits.float()
        if self.temperature != 1.0:
            logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            smallest = logits.topk(self.top_k, -1).values[..., -1:]
            logits = logits.masked_fill(logits < smallest, -torch.inf)
        if self.top_p is not None and self.top_p < 1.0:
            logits = keep_top_p(logits, self.top_p)
        return logits


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Minus infinity outside the smallest set of likeliest classes that holds at least probability top_p."""
    ordered, index = logits.sort(-1, descending=True)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities   # held by the likelier classes
    return torch.empty_like(logits).scatter_(-1, index, ordered.masked_fill(before >= top_p, -torch.inf))


@dataclass(frozen=True)
class Event:
    """One call of the network: the images in it and what each reveals.

    images: (A,) int64, or None for all.  positions: (A, R), padded by repeating a revealed position.
    rows, slots: (M,) which entries of positions are real.
    """

    images: Tensor | None
    positions: Tensor
    rows: Tensor
    slots: Tensor


def by_events(
    predict: Predict, tokens: Tensor, reveal: Tensor, uniforms: Tensor, *, mask: int, adjust: Adjust
) -> Sample:
    """Reveal tokens from the highest step down, calling the network only for images that reveal something.

    The network does not see t, so a step that reveals no token of an image changes nothing and needs no evaluation.
    Image i's e-th distinct step goes into call e, which keeps the batch full.
    tokens: (B, N), known tokens or UNKNOWN; reveal: (B, N) int64, the step of each unknown token; uniforms: (B, N).
    """
    unknown = tokens == UNKNOWN
    state = tokens.masked_fill(unknown, mask)
    evaluations = torch.zeros(len(tokens), dtype=torch.int64)
    for event in plan_events(reveal, unknown):
        images = slice(None) if event.images is None else event.images.to(state.device)
        positions = event.positions.to(state.device)
        logits = of_images(predict, event.images)(state[images], positions)[event.rows, event.slots]   # (M, K)
        chosen_images = event.rows if event.images is None else event.images[event.rows]
        chosen_positions = event.positions[event.rows, event.slots]
        values = inverse_cdf(adjust(logits), uniforms[chosen_images, chosen_positions])
        state[chosen_images.to(state.device), chosen_positions.to(state.device)] = values
        evaluations[chosen_images.unique()] += 1
    return Sample(state, evaluations, evaluations * tokens.shape[1])


def plan_events(reveal: Tensor, unknown: Tensor) -> Iterator[Event]:
    """The calls of `by_events`, in order, from (B, N) reveal steps of the unknown tokens; planned on the CPU."""
    unknown = unknown.cpu()
    steps, order = reveal.cpu().masked_fill(~unknown, -1).sort(dim=1, descending=True, stable=True)   # known ones last
    fresh = torch.ones_like(unknown)
    fresh[:, 1:] = steps[:, 1:] != steps[:, :-1]
    number = fresh.cumsum(1) - 1   # (B, N) which event each token of `order` belongs to
    number[steps < 0] = unknown.shape[1]
    calls = int(number[steps >= 0].max()) + 1 if unknown.any() else 0
    for call in range(calls):
        here = number == call
        images = here.any(1).nonzero().squeeze(1)
        counts = here[images].sum(1)
        first = here[images].int().argmax(1)
        slots = torch.arange(int(counts.max()))
        real = slots < counts.unsqueeze(1)   # (A, R)
        index = first.unsqueeze(1) + torch.where(real, slots, 0)
        rows, columns = real.nonzero(as_tuple=True)
        everyone = len(images) == len(unknown)
        yield Event(None if everyone else images, order[images].gather(1, index), rows, columns)


def by_confidence(
    predict: Predict, tokens: Tensor, counts: Tensor, num_steps: Tensor, *, mask: int, adjust: Adjust, noise: float,
    draws: Draws,
) -> Sample:
    """MaskGIT: predict every masked token, keep the most confident, as many as the schedule says (Chang et al. 2022).

    counts: (B, n + 1) int64, how many stay masked before each step and after the last; num_steps: (B,), each image's
    own number of steps, up to n.  Confidence is log p(chosen token) + noise * (share of its steps still to come) *
    Gumbel: the noise falls linearly whatever the schedule of counts, as in the published code.
    """
    unknown = tokens == UNKNOWN
    state = tokens.masked_fill(unknown, mask)
    evaluations = torch.zeros(len(tokens), dtype=torch.int64, device=tokens.device)
    counts, num_steps = counts.to(tokens.device), num_steps.to(tokens.device)
    for step, (before, after) in enumerate(zip(counts.T[:-1], counts.T[1:], strict=True), start=1):   # (B,) each
        uniforms, gumbel_uniforms = draws.uniform(*tokens.shape), draws.uniform(*tokens.shape)
        images = (after < before).nonzero().squeeze(1)
        if not len(images):
            continue
        hidden = state[images] == mask
        positions = hidden.int().argsort(dim=1, descending=True, stable=True)[:, : int(hidden.sum(1).max())]   # (A, R)
        logits = adjust(of_images(predict, images)(state[images], positions))   # (A, R, K)
        values = inverse_cdf(logits, uniforms.to(state.device)[images].gather(1, positions))
        confidence = logits.log_softmax(-1).gather(-1, values.unsqueeze(-1)).squeeze(-1)
        gumbel = -(-gumbel_uniforms.to(state.device)[images].gather(1, positions).clamp(1e-20).log()).log()
        to_come = ((num_steps[images] - step) / num_steps[images]).clamp(min=0)   # share of the steps
        confidence = confidence + noise * to_come.unsqueeze(1) * gumbel
        confidence = confidence.masked_fill(~hidden.gather(1, positions), -torch.inf)
        rank = confidence.argsort(dim=1, descending=True, stable=True).argsort(1)
        keep = rank < (before - after)[images].unsqueeze(1)
        rows, slots = keep.nonzero(as_tuple=True)
        state[images[rows], positions[rows, slots]] = values[rows, slots]
        evaluations[images] += 1
    evaluations = evaluations.cpu()
    return Sample(state, evaluations, evaluations * tokens.shape[1])


def by_remasking(
    predict: Callable[[Tensor], Tensor],
    tokens: Tensor,
    steps: list[int],
    timesteps: int,
    *,
    mask: int,
    adjust: Adjust,
    draws: Draws,
) -> Sample:
    """For t in `steps`: mask the image anew with probability t/T, refill every masked token (official `sample_mlm`).

    predict: tokens (B, N) -> logits (B, N, K).  Known tokens are never masked.
    """
    unknown = tokens == UNKNOWN
    state = tokens.masked_fill(unknown, mask)
    for t in steps:
        masked = (draws.uniform(*tokens.shape).to(state.device) < t / timesteps) & unknown
        state = state.masked_fill(masked, mask)
        values = draws.categorical(adjust(predict(state)))
        state = torch.where(state == mask, values, state)
    evaluations = torch.full((len(tokens),), len(steps), dtype=torch.int64)
    return Sample(state, evaluations, evaluations * tokens.shape[1])


def remasking_steps(timesteps: int, num_steps: int) -> list[int]:
    """T = t_1 > ... > t_n = 1, evenly spaced and truncated to integers, as the official sampler has them."""
    return [int(t) for t in reversed(torch.linspace(1, timesteps, num_steps).int().tolist())]


def autoregressive(
    extend: Callable[[Tensor | None, int], Tensor], known: Tensor, *, adjust: Adjust, draws: Draws
) -> Tensor:
    """One token at a time, in sequence order; leading known tokens are fed at once: (B, N) -> (B, N) without UNKNOWN.

    extend(tokens, start): logits (B, K) of the token after those fed, as Transformer.extend has them.
    """
    state = known.clone()
    num_tokens = known.shape[1]
    prefix = int(known_prefixes(known).min())
    fed, start = (state[:, :prefix] if prefix else None), 0
    for i in range(prefix, num_tokens):
        values = draws.categorical(adjust(extend(fed, start)))
        state[:, i] = torch.where(known[:, i] == UNKNOWN, values, known[:, i])
        fed, start = state[:, i : i + 1], i + 1
    return state


def known_prefixes(known: Tensor) -> Tensor:
    """(B,) how many tokens of each image are known before its first unknown one."""
    return (known != UNKNOWN).long().cumprod(1).sum(1)
