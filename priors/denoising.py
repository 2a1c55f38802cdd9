"""Diffusion of T steps with a network that predicts x_0: its bound, its training loss, its sampler.

Shared by VQ-Diffusion (Gu et al. 2022) and uniform diffusion (Austin et al. 2021, Hoogeboom et al. 2021), which differ
in their Corruption alone.  A denoiser is a function (x_t, t) -> logits of x_0: (B, N), (B,) -> (B, N, K).

    tokens, evaluations = ancestral(denoise, corruption, start, start_time, steps=25, draws=draws)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from priors.base import Draws, Likelihood
from priors.transitions import Corruption, kl_divergence

Denoiser = Callable[[Tensor, Tensor], Tensor]
Predict = Callable[[Tensor], Tensor]


def step_nats(denoise: Denoiser, corruption: Corruption, x_0: Tensor, t: Tensor, *, draws: Draws,
              dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Term t of the bound and the plain cross-entropy of x_0, each (B,) nats an image, with x_t drawn once.

    The term is KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)); at t = 1 that is -log p(x_0 | x_1) (Gu et al. 2022, Eq. 9).
    """
    x_t = corruption.corrupt(x_0, t, draws=draws)
    log_x_0 = denoise(x_t, t).to(dtype).log_softmax(-1)   # (B, N, K)
    log_p = corruption.log_posterior(log_x_0, x_t, s=t - 1, t=t)
    log_q = corruption.log_true_posterior(x_0, x_t, s=t - 1, t=t, dtype=dtype)
    cross_entropy = -log_x_0.gather(-1, x_0.unsqueeze(-1)).squeeze(-1)
    return kl_divergence(log_q, log_p).sum(-1), cross_entropy.sum(-1)


class SampledTime(nn.Module):
    """Times drawn where the bound's terms are large (Nichol & Dhariwal 2021, section 3.3; Gu et al. 2022).

    p(t) is proportional to the root mean square of term t, estimated by running averages that are buffers, so that a
    resumed training goes on exactly. Uniform until every t was seen more than `warmup` times; afterwards a tenth of the
    draws stays uniform, which bounds the weights 1 / p(t) by 10 T (Hesterberg 1995) where an estimate is stale.
    """

    def __init__(self, num_timesteps: int, *, importance: bool, decay: float = 0.9, warmup: int = 10):
        super().__init__()
        self.num_timesteps, self.importance, self.decay, self.warmup = num_timesteps, importance, decay, warmup
        if importance:
            self.register_buffer("mean_square", torch.zeros(num_timesteps, dtype=torch.float64))
            self.register_buffer("times_seen", torch.zeros(num_timesteps, dtype=torch.int64))

    def probabilities(self) -> Tensor:
        """(T,) float64, of t = 1..T."""
        uniform = torch.full((self.num_timesteps,), 1 / self.num_timesteps, dtype=torch.float64)
        if not self.importance:
            return uniform
        uniform = uniform.to(self.mean_square.device)
        root = self.mean_square.sqrt() + 1e-4   # the published code's floor
        is_warm = (self.times_seen > self.warmup).all()
        return torch.where(is_warm, 0.9 * root / root.sum() + 0.1 * uniform, uniform)

    def draw(self, num: int, *, draws: Draws) -> tuple[Tensor, Tensor]:
        """Times (num,) int64 in 1..T and their probabilities (num,) float64."""
        probabilities = self.probabilities()
        index = draws.categorical(probabilities.log().to(draws.device).expand(num, -1)).to(probabilities.device)
        return index + 1, probabilities[index]

    @torch.no_grad()
    def record(self, t: Tensor, nats: Tensor) -> None:
        """Take note of the terms (B,) seen at times (B,); several of one time count as their mean."""
        if not self.importance:
            return
        seen = nn.functional.one_hot(t - 1, self.num_timesteps)   # (B, T)
        counts = seen.sum(0)
        mean = (seen.double().T @ nats.double().square()) / counts.clamp(min=1)
        updated = self.decay * self.mean_square + (1 - self.decay) * mean
        self.mean_square.copy_(torch.where(counts > 0, updated, self.mean_square))
        self.times_seen.add_(counts)


def bound_loss(denoise: Denoiser, corruption: Corruption, time: SampledTime, tokens: Tensor, *, draws: Draws,
               auxiliary_weight: float, adaptive_auxiliary: bool, learn_time: bool) -> Tensor:
    """Training loss in bits per token, (): an unbiased estimate of the bound's T terms plus the weighted auxiliary term.

    The auxiliary term is the cross-entropy of x_0 (Gu et al. 2022, Eq. 11); adaptive: weighted 2 at t = 1 down to 1 at
    t = T, as the published code does. learn_time: whether this batch updates the estimates behind p(t).
    """
    t, probability = (value.to(tokens.device) for value in time.draw(len(tokens), draws=draws))
    nats, cross_entropy = step_nats(denoise, corruption, tokens, t, draws=draws, dtype=torch.float32)
    if learn_time:
        time.record(t, nats)
    weight = auxiliary_weight * (2 - (t - 1) / time.num_timesteps if adaptive_auxiliary else torch.ones_like(nats))
    total = (nats + weight * cross_entropy) / probability.to(nats.dtype)
    return total.mean() / (tokens.shape[1] * math.log(2))


def bound_T(denoise: Denoiser, corruption: Corruption, tokens: Tensor, *, draws: Draws,
            budget: int | None) -> Likelihood:
    """-log p(x_0) <= KL(q(x_T | x_0) || p(x_T)) + the T terms, nats an image, x_t drawn at random.

    budget None: every t once. Below T evaluations: budget // 2 strata of neighbouring times, two random times in each;
    from 2 T on: every t budget // T times. Unbiased in every case. The reported variance is unbiased where a stratum
    was drawn twice; with every t drawn once it is the collapsed-strata estimate, which errs upwards (Cochran 1977, 5A.12).
    Raises ValueError if the budget is below 2.
    """
    strata = _strata(corruption.num_timesteps, budget)
    values = []   # one (r, B) a stratum: estimates of its sum
    for first, last, repeats in strata:
        drawn = [_stratum_draw(denoise, corruption, tokens, first, last, draws=draws) for _ in range(repeats)]
        values.append(torch.stack(drawn))
    nats = torch.stack([value.mean(0) for value in values]).sum(0)
    nats = nats + tokens.shape[1] * corruption.start_kl().to(nats.device)
    spread = _collapsed_variance(torch.cat(values)) if strata[0][2] == 1 else sum(v.var(0) / len(v) for v in values)
    return Likelihood(nats, spread, "bound_T", sum(repeats for _, _, repeats in strata))


def ancestral(denoise: Denoiser, corruption: Corruption, start: Tensor, start_time: Tensor, *, steps: int, draws: Draws,
              predict: Predict, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """x_0 from x at start_time by `steps` strided steps x_s ~ sum over x_0 of q(x_s | x_t, x_0) p(x_0 | x_t).

    start (B, N) in [0, K], start_time (B,) in 0..T: each image's own times are spread evenly from there to 0.
    predict: logits -> log p(x_0), where temperature and truncation live. keep: (B, N) bool, positions never changed.
    Returns tokens (B, N) and the network evaluations of each image (B,); a step of no stride costs none.
    """
    x = start.clone()
    evaluations = torch.zeros_like(start_time)
    for step in range(steps, 0, -1):
        t, s = spread_time(start_time, step, steps), spread_time(start_time, step - 1, steps)
        active = (s < t).nonzero().squeeze(-1)
        if len(active) == 0:
            continue
        x_t, t, s = x[active], t[active], s[active]
        log_p = corruption.log_posterior(predict(denoise(x_t, t)), x_t, s=s, t=t)   # (b, N, K + 1)
        x_s = draws.categorical(log_p.to(draws.device)).to(x.device)
        x[active] = x_s if keep is None else torch.where(keep[active], x_t, x_s)
        evaluations[active] += 1
    return x, evaluations


def spread_time(start_time: Tensor, step: int, steps: int) -> Tensor:
    """Step `step` of `steps` on the way from start_time to 0, rounded: (B,) int64."""
    return (start_time * step + steps // 2) // steps


def predictor(*, temperature: float, top_p: float | None) -> Predict:
    """log p(x_0) of tempered logits; truncation keeps the likeliest tokens that hold probability top_p, and the first."""
    def predict(logits: Tensor) -> Tensor:
        log_x_0 = (logits.float() / temperature).log_softmax(-1)
        return log_x_0 if top_p is None else truncate(log_x_0, top_p)
    return predict


def truncate(log_p: Tensor, top_p: float) -> Tensor:
    """Truncation sampling (Gu et al. 2022, section 5.1; Tang et al. 2022): (..., K) -> (..., K), renormalised."""
    ordered, index = log_p.sort(-1, descending=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()   # probability of all likelier tokens
    ordered = ordered.masked_fill(before >= top_p, -math.inf)
    return torch.empty_like(log_p).scatter_(-1, index, ordered).log_softmax(-1)


def _strata(num_timesteps: int, budget: int | None) -> list[tuple[int, int, int]]:
    """(first t, last t, number of draws) of each stratum of 1..T."""
    if budget is not None and budget < 2:
        raise ValueError(f"budget={budget}: a bound with an error needs at least 2 network evaluations an image")
    repeats = 1 if budget is None else budget // num_timesteps
    if repeats:
        return [(t, t, repeats) for t in range(1, num_timesteps + 1)]
    num = budget // 2
    edges = [num_timesteps * i // num for i in range(num + 1)]
    return [(low + 1, high, 2) for low, high in zip(edges[:-1], edges[1:], strict=True)]


def _stratum_draw(denoise: Denoiser, corruption: Corruption, tokens: Tensor, first: int, last: int, *,
                  draws: Draws) -> Tensor:
    """An unbiased estimate of the terms first..last together, (B,) float64."""
    t = draws.integers(first, last + 1, len(tokens)).to(tokens.device)
    return (last - first + 1) * step_nats(denoise, corruption, tokens, t, draws=draws, dtype=torch.float64)[0]


def _collapsed_variance(values: Tensor) -> Tensor:
    """Variance of the sum of strata drawn once each, (T, B) -> (B,): neighbours stand in for repeats of one another."""
    groups = list(values.split(2))
    if len(groups) > 1 and len(groups[-1]) == 1:
        groups[-2:] = [torch.cat(groups[-2:])]
    return sum(len(group) * group.var(0) for group in groups)
