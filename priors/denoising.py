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

from priors.base import Draws, Likelihood, Unsupported
from priors.guidance import of_images
from priors.samplers import Adjust
from priors.transitions import Corruption, Posterior, kl_divergence

Denoiser = Callable[[Tensor, Tensor], Tensor]


def step_nats(denoise: Denoiser, corruption: Corruption, x_0: Tensor, t: Tensor, *, draws: Draws,
              dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Term t of the bound and the plain cross-entropy of x_0, each (B,) nats an image, with x_t drawn once.

    The term is KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), at t = 1 equal to -log p(x_0 | x_1) (Gu et al., Eq. 9).
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

    mean_square: Tensor
    times_seen: Tensor

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
        is_warm = self.times_seen.min() > self.warmup
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
        counts, squares = seen.sum(0), seen.double().T @ nats.double().square()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for total in (counts, squares):   # of all processes, so that they keep drawing from one p(t)
                torch.distributed.all_reduce(total)
        updated = self.decay * self.mean_square + (1 - self.decay) * squares / counts.clamp(min=1)
        self.mean_square.copy_(torch.where(counts > 0, updated, self.mean_square))
        self.times_seen.add_(counts)


def bound_loss(denoise: Denoiser, corruption: Corruption, time: SampledTime, tokens: Tensor, *, draws: Draws,
               auxiliary_weight: float, adaptive_auxiliary: bool, learn_time: bool) -> Tensor:
    """Training loss in bits per token, (): an unbiased estimate of the bound's T terms and the auxiliary term.

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


def bound_T(denoise: Denoiser, corruption: Corruption, tokens: Tensor, *, probabilities: Tensor, draws: Draws,
            budget: int | None) -> Likelihood:
    """-log p(x_0) <= KL(q(x_T | x_0) || p(x_T)) + the T terms, nats an image, x_t drawn at random.

    budget None: every t once. Below 2 T evaluations an image: t ~ `probabilities` (T,), in budget // 2 strata of equal
    probability, twice in each, weighted by 1 / p(t). From 2 T on: every t budget // T times. Always unbiased. The
    reported variance is unbiased where things are drawn twice; with every t drawn once it is the collapsed-strata
    estimate, which errs upwards (Cochran 1977). A budget of 1 is one random time, its variance unknown (nan).
    Raises ValueError if the budget is below 1.
    """
    num_timesteps = corruption.num_timesteps
    if budget is not None and budget < 1:
        raise ValueError(f"budget={budget}: expected at least 1 network evaluation an image, or none for all timesteps")
    if budget is None or budget >= 2 * num_timesteps:
        repeats = 1 if budget is None else budget // num_timesteps
        terms = _every_term(denoise, corruption, tokens, repeats, draws)   # (T, r, B)
    else:
        repeats = min(budget, 2)
        terms = _sampled_terms(denoise, corruption, tokens, budget // repeats, repeats, probabilities, draws)
    nats = terms.mean(1).sum(0) + tokens.shape[1] * corruption.start_kl().to(terms.device)
    variance = _collapsed_variance(terms[:, 0]) if repeats == 1 else terms.var(1).sum(0) / repeats
    return Likelihood(nats, variance, "bound_T", terms.shape[0] * repeats)


def ancestral(denoise: Denoiser, corruption: Posterior, start: Tensor, start_time: Tensor, *, steps: int, draws: Draws,
              adjust: Adjust, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """x_0 from x at start_time by `steps` strided steps x_s ~ sum over x_0 of q(x_s | x_t, x_0) p(x_0 | x_t).

    start (B, N) in [0, K], start_time (B,) in 0..T: each image's own times are spread evenly from there to 0.
    adjust: temperature, top-k and top-p (truncation sampling) of p(x_0). keep: (B, N) bool, positions never changed.
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
        log_x_0 = adjust(of_images(denoise, active)(x_t, t)).log_softmax(-1)   # (b, N, K)
        x_s = _categorical(corruption.log_posterior(log_x_0, x_t, s=s, t=t), draws)
        x[active] = x_s if keep is None else torch.where(keep[active], x_t, x_s)
        evaluations[active] += 1
    return x, evaluations


def spread_time(start_time: Tensor, step: int, steps: int) -> Tensor:
    """Step `step` of `steps` on the way from start_time to 0, rounded: (B,) int64."""
    return (start_time * step + steps // 2) // steps


def _categorical(log_p: Tensor, draws: Draws) -> Tensor:
    """Tokens, or the mask, (B, N) of (B, N, K + 1); the mask goes first so that rounding at the end never yields it."""
    num_states = log_p.shape[-1]
    return (draws.categorical(log_p.roll(1, -1).to(draws.device)).to(log_p.device) - 1) % num_states


def check_steps(steps: int | None, num_timesteps: int) -> int:
    """The number of sampling steps; None is one a timestep. Raises Unsupported above that."""
    if steps is not None and steps > num_timesteps:
        raise Unsupported(f"sampler.steps={steps}: expected at most the {num_timesteps} timesteps of the prior's "
                          "training; leave it out for all of them")
    return steps or num_timesteps


def _every_term(denoise: Denoiser, corruption: Corruption, tokens: Tensor, repeats: int, draws: Draws) -> Tensor:
    """Each term of the bound, drawn `repeats` times: (T, r, B) float64."""
    times = [torch.full((len(tokens),), t, device=tokens.device) for t in range(1, corruption.num_timesteps + 1)]
    return torch.stack([torch.stack([
        step_nats(denoise, corruption, tokens, t, draws=draws, dtype=torch.float64)[0] for _ in range(repeats)
    ]) for t in times])


def _sampled_terms(denoise: Denoiser, corruption: Corruption, tokens: Tensor, num_strata: int, repeats: int,
                   probabilities: Tensor, draws: Draws) -> Tensor:
    """Estimates whose sum over strata is that of all terms: (strata, r, B) float64, one evaluation each."""
    cdf = probabilities.cumsum(0)
    terms = torch.empty(num_strata, repeats, len(tokens), dtype=torch.float64, device=tokens.device)
    for stratum in range(num_strata):
        for repeat in range(repeats):
            position = (stratum + draws.uniform(len(tokens)).double()).to(cdf.device) / num_strata   # (B,)
            index = torch.searchsorted(cdf, position * cdf[-1], right=True).clamp(max=len(cdf) - 1)
            nats, _ = step_nats(denoise, corruption, tokens, index.to(tokens.device) + 1, draws=draws,
                                dtype=torch.float64)
            terms[stratum, repeat] = nats / (num_strata * probabilities[index].to(nats.device))
    return terms


def _collapsed_variance(values: Tensor) -> Tensor:
    """Variance of the sum of strata drawn once each, (T, B) -> (B,): neighbours stand in for repeats of one another."""
    if len(values) == 1:
        return torch.full_like(values[0], math.nan)
    groups = list(values.split(2))
    if len(groups) > 1 and len(groups[-1]) == 1:
        groups[-2:] = [torch.cat(groups[-2:])]
    return sum(len(group) * group.var(0) for group in groups)
