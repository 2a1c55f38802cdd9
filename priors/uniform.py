"""Diffusion towards uniform tokens, in two forms: the principled one and the one of a blog post.

d3pm: Austin et al. 2021 (D3PM-uniform), Hoogeboom et al. 2021 (multinomial diffusion): T steps, a bound, strides.
perturbation: A. Athorne's "VQ-VAE and transformers": x_a is an image with a random share of tokens resampled, x_b a
further 10% of them; the network learns x_a from x_b and refines uniform noise by being applied again and again.

    prior = UniformDiffusion(grid=(8, 8), codebook_size=256, options=UniformOptions(form="perturbation"))
    prior.sample(4, sampler=UniformSampler(steps=50, temperature=0.7), draws=Draws.seeded(0)).tokens   # (4, 64) int64
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from priors.backbone import backbone
from priors.base import UNKNOWN, Draws, Likelihood, Sample, Unsupported
from priors.checks import check_known, check_tokens
from priors.conditions import Condition, check_condition, drop_conditions
from priors.denoising import SampledTime, ancestral, bound_loss, bound_T, check_steps
from priors.guidance import Both, Guidance, GuidedPosterior, Predictor, guided
from priors.option_checks import check_sampler
from priors.samplers import Adjust
from priors.transformer import seeded_dropout
from priors.transition_options import UniformOptions, UniformSampler
from priors.transitions import Corruption

DEFAULT_TIMESTEPS = 100
DEFAULT_AUXILIARY_WEIGHT = 0.001   # D3PM's lambda for images
DEFAULT_PERTURBED_SHARE = 0.1   # the blog's 10%
DEFAULT_REFINEMENTS = 50


class UniformDiffusion(nn.Module):
    """A prior over (h, w) grids of K codes; there is no mask, x_t holds ids in [0, K)."""

    Options = UniformOptions
    Sampler = UniformSampler

    def __init__(self, *, grid: tuple[int, int], codebook_size: int, options: UniformOptions):
        super().__init__()
        self.grid, self.codebook_size, self.options = tuple(grid), codebook_size, options
        self.num_tokens = grid[0] * grid[1]
        self.is_d3pm = options.form == "d3pm"
        self.net = backbone(options, grid=grid, vocabulary=codebook_size, num_classes=codebook_size,
                            time_conditioned=self.is_d3pm)
        if self.is_d3pm:
            timesteps = options.timesteps or DEFAULT_TIMESTEPS
            self.corruption = Corruption.uniform(num_timesteps=timesteps, codebook_size=codebook_size)
            self.time = SampledTime(timesteps, importance=options.importance_sampling is not False)

    def denoise(self, x_t: Tensor, t: Tensor, *, condition: Condition | None = None) -> Tensor:
        """Logits of x_0, d3pm: (B, N), (B,) in 1..T -> (B, N, K)."""
        return self.net(x_t, t) if condition is None else self.net(x_t, t, condition=condition)

    def _checked(self, condition: Condition | None, num: int) -> Condition | None:
        return check_condition(condition, self.options.condition, num, device=next(self.parameters()).device)

    def logits(self, tokens: Tensor, *, condition: Condition | None = None) -> Tensor:
        """(B, N) -> (B, N, K): what cleaner tokens these came from (d3pm: as at the last step, t = 1)."""
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        condition = self._checked(condition, len(tokens))
        if self.is_d3pm:
            return self.denoise(tokens, tokens.new_ones(len(tokens)), condition=condition)
        return self.net(tokens, condition=condition)

    def training_loss(self, tokens: Tensor, *, condition: Condition | None = None, draws: Draws) -> Tensor:
        """Bits per token, (B, N) -> (): the bound and its auxiliary term, or the cross-entropy of x_a given x_b."""
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        condition = self._checked(condition, len(tokens))
        if self.training:
            condition = drop_conditions(condition, self.options.dropped_conditions, draws=draws)
        loss = self._d3pm_loss if self.is_d3pm else self._perturbation_loss
        with seeded_dropout(self, draws, len(tokens)):
            return loss(tokens, condition, draws)

    def _d3pm_loss(self, tokens: Tensor, condition: Condition | None, draws: Draws) -> Tensor:
        weight = self.options.auxiliary_weight
        return bound_loss(
            partial(self.denoise, condition=condition), self.corruption, self.time, tokens, draws=draws,
            learn_time=self.training, adaptive_auxiliary=False,
            auxiliary_weight=DEFAULT_AUXILIARY_WEIGHT if weight is None else weight,
        )

    def _perturbation_loss(self, tokens: Tensor, condition: Condition | None, draws: Draws) -> Tensor:
        x_a = self.perturb(tokens, draws.uniform(len(tokens)).to(tokens.device), draws=draws)
        share = self.options.perturbed_share or DEFAULT_PERTURBED_SHARE
        x_b = self.perturb(x_a, torch.full((len(tokens),), share, device=tokens.device), draws=draws)
        logits = self.net(x_b, condition=condition).float()   # (B, N, K)
        return nn.functional.cross_entropy(logits.flatten(0, 1), x_a.flatten()) / math.log(2)

    def perturb(self, tokens: Tensor, share: Tensor, *, draws: Draws) -> Tensor:
        """Resample each token of (B, N) uniformly with its image's probability (B,)."""
        chosen = draws.uniform(*tokens.shape).to(tokens.device) < share.unsqueeze(1)
        return torch.where(chosen, draws.integers(0, self.codebook_size, *tokens.shape).to(tokens.device), tokens)

    @torch.no_grad()
    def nll(self, tokens: Tensor, *, condition: Condition | None = None, draws: Draws,
            budget: int | None = None) -> Likelihood:
        """d3pm: upper bound on the negative log-likelihood of each image, in nats, kind bound_T (Austin et al., Eq. 1).

        tokens: (B, N) int64 in [0, K). budget: None is the sum over all T, otherwise see `bound_T`.
        Raises Unsupported in the perturbation form, ValueError for a token outside the codebook or a budget below 1.
        """
        if not self.is_d3pm:
            raise Unsupported("uniform diffusion in its perturbation form has no likelihood: it is trained to undo one "
                              "further perturbation and refines by repetition, which defines no density; use form=d3pm")
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        denoise = partial(self.denoise, condition=self._checked(condition, len(tokens)))
        return bound_T(
            denoise, self.corruption, tokens, probabilities=self.time.probabilities(), draws=draws, budget=budget
        )

    @torch.no_grad()
    def sample(self, num: int, *, sampler: UniformSampler, known: Tensor | None = None,
               condition: Condition | None = None, draws: Draws) -> Sample:
        """Draw `num` images from uniform noise; tokens (num, N) int64 in [0, K).

        known: (num, N), tokens to keep and UNKNOWN elsewhere: perturbation alone, held at every refinement.
        Raises Unsupported for known tokens in the d3pm form.
        """
        check_sampler(sampler, self.Sampler)
        predict = self._predictor(self._checked(condition, num), sampler)
        if self.is_d3pm and known is not None:
            raise Unsupported("uniform diffusion in its d3pm form cannot keep known tokens: at every time before the "
                              "last its network expects all tokens to be noisy, and cannot be told which are not")
        device = next(self.parameters()).device
        known = check_known(known, num, self.num_tokens, self.codebook_size, device=device)
        start = draws.integers(0, self.codebook_size, num, self.num_tokens).to(device)
        adjust = Adjust(sampler.temperature, sampler.top_k, sampler.top_p)
        if self.is_d3pm:
            tokens, evaluations = self._reverse(predict, start, sampler.steps, adjust, draws)
        else:
            tokens, evaluations = self._refine(predict, start, sampler.steps, adjust, known, draws)
        return predict.counted(Sample(tokens, evaluations, evaluations * self.num_tokens))

    def _predictor(self, condition: Condition | None, sampler: UniformSampler) -> Predictor:
        """Raises Unsupported, in the perturbation form, for guidance that grows on the way or of a posterior."""
        if not self.is_d3pm and sampler.guidance_of == "posterior":
            raise Unsupported("guidance_of='posterior': the perturbation form has no posterior; use 'x_0'")
        num_timesteps = self.corruption.num_timesteps if self.is_d3pm else 0
        predict = guided(
            self.denoise if self.is_d3pm else self.net, condition, Guidance.of(sampler),
            num_prefix=self.options.num_prefix,
            progress=(lambda x_t, t: 1 - t / num_timesteps) if self.is_d3pm else None,
        )
        return Both(**vars(predict)) if sampler.guidance_of == "posterior" else predict

    def _reverse(self, predict: Predictor, start: Tensor, steps: int | None, adjust: Adjust,
                 draws: Draws) -> tuple[Tensor, Tensor]:
        num_timesteps = self.corruption.num_timesteps
        corruption = GuidedPosterior(self.corruption, predict) if isinstance(predict, Both) else self.corruption
        tokens, evaluations = ancestral(
            predict, corruption, start, torch.full_like(start[:, 0], num_timesteps),
            steps=check_steps(steps, num_timesteps), adjust=adjust, draws=draws,
        )
        return tokens, evaluations.cpu()

    def _refine(self, predict: Predictor, start: Tensor, steps: int | None, adjust: Adjust, known: Tensor,
                draws: Draws) -> tuple[Tensor, Tensor]:
        """The blog's sampler: draw every token anew from the network's prediction, again and again."""
        steps = steps or DEFAULT_REFINEMENTS
        x = torch.where(known == UNKNOWN, start, known)
        for _ in range(steps):
            drawn = draws.categorical(adjust(predict(x)).to(draws.device)).to(x.device)
            x = torch.where(known == UNKNOWN, drawn, known)
        return x, torch.full((len(x),), steps, dtype=torch.int64)
