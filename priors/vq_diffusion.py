"""VQ-Diffusion: mask-and-replace diffusion over tokens, with a network that predicts x_0 from x_t and t.

Gu et al. 2022, "Vector Quantized Diffusion Model for Text-to-Image Synthesis", a text being prepended, as for every
prior here, not cross-attended; strided sampling uses the composite posterior (the published code applies the one-step
posterior to a stride); purity and guidance: Tang et al. 2022.

    prior = VQDiffusion(grid=(16, 16), codebook_size=1024, options=VQDiffusionOptions())
    prior.sample(4, sampler=VQDiffusionSampler(steps=25), draws=Draws.seeded(0)).tokens   # (4, 256) int64
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from priors.backbone import backbone
from priors.base import UNKNOWN, Draws, Likelihood, Sample
from priors.checks import check_known, check_tokens
from priors.conditions import Condition, check_condition, drop_conditions
from priors.denoising import Denoiser, SampledTime, ancestral, bound_loss, bound_T, check_steps, spread_time
from priors.guidance import Guidance, guided, of_images
from priors.option_checks import check_sampler
from priors.samplers import Adjust
from priors.transformer import seeded_dropout
from priors.transition_options import VQDiffusionOptions, VQDiffusionSampler
from priors.transitions import Corruption


class VQDiffusion(nn.Module):
    """A prior over (h, w) grids of K codes; x_t holds ids in [0, K], K being the mask, which no sample ever holds."""

    Options = VQDiffusionOptions
    Sampler = VQDiffusionSampler

    def __init__(self, *, grid: tuple[int, int], codebook_size: int, options: VQDiffusionOptions):
        super().__init__()
        self.grid, self.codebook_size, self.options = tuple(grid), codebook_size, options
        self.num_tokens = grid[0] * grid[1]
        self.mask = codebook_size   # the id after the last code
        self.net = backbone(options, grid=grid, vocabulary=codebook_size + 1, num_classes=codebook_size,
                            time_conditioned=True)
        self.corruption = Corruption.mask_and_replace(
            num_timesteps=options.timesteps, codebook_size=codebook_size, final_mask=options.final_mask
        )
        self.time = SampledTime(options.timesteps, importance=options.importance_sampling)

    def denoise(self, x_t: Tensor, t: Tensor, *, condition: Condition | None = None) -> Tensor:
        """Logits of x_0: (B, N) in [0, K], (B,) in 1..T -> (B, N, K)."""
        return self.net(x_t, t) if condition is None else self.net(x_t, t, condition=condition)

    def _checked(self, condition: Condition | None, num: int) -> Condition | None:
        return check_condition(condition, self.options.condition, num, device=self.corruption.mask_bar.device)

    def logits(self, tokens: Tensor, *, condition: Condition | None = None) -> Tensor:
        """Logits of x_0 at the time that matches each image's share of masks.

        (B, N) int64 in [0, K), with UNKNOWN or K where masked -> (B, N, K).
        """
        tokens = tokens.masked_fill(tokens == UNKNOWN, self.mask)
        check_tokens(tokens, self.num_tokens, self.codebook_size + 1)
        t = self.matching_time(tokens == self.mask).clamp(min=1)
        return self.denoise(tokens, t, condition=self._checked(condition, len(tokens)))

    def training_loss(self, tokens: Tensor, *, condition: Condition | None = None, draws: Draws) -> Tensor:
        """The bound plus the auxiliary term, bits per token, one random time an image: (B, N) -> ()."""
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        condition = self._checked(condition, len(tokens))
        if self.training:
            condition = drop_conditions(condition, self.options.dropped_conditions, draws=draws)
        with seeded_dropout(self, draws, len(tokens)):
            return bound_loss(
                partial(self.denoise, condition=condition), self.corruption, self.time, tokens, draws=draws,
                learn_time=self.training, auxiliary_weight=self.options.auxiliary_weight,
                adaptive_auxiliary=self.options.adaptive_auxiliary,
            )

    @torch.no_grad()
    def nll(self, tokens: Tensor, *, condition: Condition | None = None, draws: Draws,
            budget: int | None = None) -> Likelihood:
        """Upper bound on the negative log-likelihood of each image, in nats (Gu et al. 2022, Eq. 9), kind bound_T.

        tokens: (B, N) int64 in [0, K). budget: None is the sum over all T, otherwise see `bound_T`.
        Raises ValueError if a token is outside the codebook or the budget is below 1.
        """
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        denoise = partial(self.denoise, condition=self._checked(condition, len(tokens)))
        return bound_T(
            denoise, self.corruption, tokens, probabilities=self.time.probabilities(), draws=draws, budget=budget
        )

    @torch.no_grad()
    def sample(self, num: int, *, sampler: VQDiffusionSampler, known: Tensor | None = None,
               condition: Condition | None = None, draws: Draws) -> Sample:
        """Draw `num` images by the reverse process; tokens (num, N) int64 in [0, K).

        known: (num, N), tokens to keep and UNKNOWN elsewhere. Known tokens stand clean and the chain starts at the time
        when as many tokens are masked as are unknown, the absorbing prior's rule; exact in the limit of no replacement.
        """
        check_sampler(sampler, self.Sampler)
        steps = check_steps(sampler.steps, self.corruption.num_timesteps)
        denoise = guided(
            self.denoise, self._checked(condition, num), Guidance.of(sampler), num_prefix=self.options.num_prefix,
            progress=lambda x_t, t: 1 - t / self.corruption.num_timesteps,
        )
        start, start_time, keep = self._start(num, known, draws)
        adjust = Adjust(sampler.temperature, sampler.top_k, sampler.top_p)
        if sampler.method == "purity":
            start = torch.where(keep, start, self.mask)
            tokens, evaluations = purity_sampling(
                denoise, self.corruption, start, start_time, steps=steps, draws=draws, adjust=adjust,
                purity_weight=sampler.purity_weight or 0.0,
            )
        else:
            tokens, evaluations = ancestral(
                denoise, self.corruption, start, start_time, steps=steps, draws=draws, adjust=adjust, keep=keep
            )
        evaluations = evaluations.cpu()
        return denoise.counted(Sample(tokens, evaluations, evaluations * self.num_tokens))

    def matching_time(self, masked: Tensor) -> Tensor:
        """The first time by which this share of tokens is masked: (B, N) bool -> (B,) int64, 0 where none is."""
        share = masked.double().mean(1).clamp(max=float(self.corruption.mask_bar[-1]))
        return torch.searchsorted(self.corruption.mask_bar, share)

    def _start(self, num: int, known: Tensor | None, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """x at the start, each image's start time and the positions to keep."""
        device = self.corruption.mask_bar.device
        if known is None:
            logits = self.corruption.start_logits().float().to(draws.device)
            x = draws.categorical(logits.expand(num, self.num_tokens, -1)).to(device)
            return x, torch.full_like(x[:, 0], self.corruption.num_timesteps), torch.zeros_like(x, dtype=torch.bool)
        known = check_known(known, num, self.num_tokens, self.codebook_size, device=device)
        keep = known != UNKNOWN
        return torch.where(keep, known, self.mask), self.matching_time(~keep), keep


def purity_sampling(denoise: Denoiser, corruption: Corruption, start: Tensor, start_time: Tensor, *, steps: int,
                    draws: Draws, adjust: Adjust, purity_weight: float) -> tuple[Tensor, Tensor]:
    """Reveal masked tokens a few at a time, positions drawn by purity (Tang et al. 2022, Algorithm 1, Eqs. 10-11).

    Purity of a position: probability of its likeliest token, relative to the purest position of the image.
    As many tokens stay masked at each time as the forward process leaves masked on average; revealed tokens stay.
    Returns tokens (B, N) and network evaluations (B,); a step that reveals nothing costs none.
    """
    mask_id = corruption.codebook_size
    x, evaluations = start.clone(), torch.zeros_like(start_time)
    num_unknown = (start == mask_id).sum(1)
    for step in range(steps, 0, -1):
        t, s = spread_time(start_time, step, steps), spread_time(start_time, step - 1, steps)
        stay = (num_unknown * corruption.mask_bar[s] / corruption.mask_bar[start_time.clamp(min=1)]).round().long()
        reveal = (x == mask_id).sum(1) - stay
        active = (reveal > 0).nonzero().squeeze(-1)
        if len(active) == 0:
            continue
        x_t = x[active]
        log_x_0 = adjust(of_images(denoise, active)(x_t, t[active])).log_softmax(-1)   # (b, N, K)
        purity = log_x_0.amax(-1).exp()
        purity = purity / purity.amax(1, keepdim=True)
        values = draws.categorical(((1 + purity_weight * purity).unsqueeze(-1) * log_x_0).to(draws.device)).to(x.device)
        chosen = _draw_positions(purity.masked_fill(x_t != mask_id, 0), reveal[active], draws)
        x[active] = torch.where(chosen, values, x_t)
        evaluations[active] += 1
    return x, evaluations


def _draw_positions(weights: Tensor, counts: Tensor, draws: Draws) -> Tensor:
    """`counts` (B,) positions without replacement by weight (B, N): (B, N) bool (exponential keys, Efraimidis 2006)."""
    waiting = -torch.log1p(-draws.uniform(*weights.shape).to(weights)) / weights   # of weight 0: never
    ranks = waiting.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    return ranks < counts.unsqueeze(1)
