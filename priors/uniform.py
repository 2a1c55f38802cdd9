"""Diffusion towards uniform tokens, in three forms: of T steps, of continuous time, and the one of a blog post.

d3pm: Austin et al. 2021 (D3PM-uniform), Hoogeboom et al. 2021 (multinomial diffusion): T steps, a bound, strides.
udlm: Schiff et al. 2024: the bound of infinitely many steps, as many as asked for in sampling; priors/continuous.py.
    Duo (Sahoo et al. 2025) trains the same bound; its curriculum, a Gaussian relaxation of x_t, is left out.
perturbation: A. Athorne's "VQ-VAE and transformers": x_a is an image with a random share of tokens resampled, x_b a
further 10% of them; the network learns x_a from x_b and refines uniform noise by being applied again and again.

    prior = UniformDiffusion(grid=(8, 8), codebook_size=256, options=UniformOptions(form="perturbation"))
    prior.sample(4, sampler=UniformSampler(steps=50, temperature=0.7), draws=Draws.seeded(0)).tokens   # (4, 64) int64
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from priors.backbone import backbone
from priors.base import UNKNOWN, Draws, Likelihood, Sample, Unsupported
from priors.checks import check_known, check_tokens
from priors.conditions import Condition, check_condition, drop_conditions
from priors.continuous import Noise, bound_continuous, continuous_loss
from priors.denoising import SampledTime, ancestral, bound_loss, bound_T, check_steps
from priors.guidance import Both, Guidance, GuidedPosterior, Predictor, guided
from priors.option_checks import check_sampler
from priors.samplers import Adjust
from priors.transformer import seeded_dropout
from priors.transition_options import UniformOptions, UniformSampler
from priors.transitions import Corruption

DEFAULT_TIMESTEPS = 100   # of d3pm; of udlm in sampling, and network evaluations of its likelihood
DEFAULT_AUXILIARY_WEIGHT = 0.001   # D3PM's lambda for images
DEFAULT_PERTURBED_SHARE = 0.1   # the blog's 10%
DEFAULT_REFINEMENTS = 50
TIME_SCALE = 1000   # real times are told as if of so many steps, which the sinusoids of the backbone were made for


class UniformDiffusion(nn.Module):
    """A prior over (h, w) grids of K codes; there is no mask, x_t holds ids in [0, K)."""

    Options = UniformOptions
    Sampler = UniformSampler

    def __init__(self, *, grid: tuple[int, int], codebook_size: int, options: UniformOptions):
        super().__init__()
        self.grid, self.codebook_size, self.options = tuple(grid), codebook_size, options
        self.num_tokens = grid[0] * grid[1]
        self.is_diffusion = options.form != "perturbation"
        self.net = backbone(options, grid=grid, vocabulary=codebook_size, num_classes=codebook_size,
                            time_conditioned=self.is_diffusion)
        if options.form == "d3pm":
            timesteps = options.timesteps or DEFAULT_TIMESTEPS
            self.corruption = Corruption.uniform(num_timesteps=timesteps, codebook_size=codebook_size)
            self.time = SampledTime(timesteps, importance=options.importance_sampling is not False)
        if options.form == "udlm":
            self.noise = Noise(options.noise_schedule or "linear", codebook_size)

    def denoise(self, x_t: Tensor, t: Tensor, *, condition: Condition | None = None) -> Tensor:
        """Logits of x_0, d3pm: (B, N), (B,) in 1..T -> (B, N, K)."""
        return self.net(x_t, t) if condition is None else self.net(x_t, t, condition=condition)

    def predict(self, x_t: Tensor, t: Tensor, *, condition: Condition | None = None) -> Tensor:
        """Logits of what a token would be by the others, udlm: (B, N), (B,) real times in [0, 1] -> (B, N, K)."""
        return self.net(x_t, TIME_SCALE * t, condition=condition)

    def denoise_step(self, x_t: Tensor, i: Tensor, *, steps: int, condition: Condition | None = None) -> Tensor:
        """Logits of x_0 in a chain of so many steps, udlm: (B, N), (B,) in 1..steps -> (B, N, K).

        By Bayes p(x_0 | x_t) is proportional to x_theta(x_0) q(x_t | x_0): the others' opinion and the token's own. So
        guidance, temperature and truncation act on the prediction that they act on in the d3pm form.
        """
        t = i.double() / steps
        logits = self.predict(x_t, t, condition=condition)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        return logits.to(dtype) + self.noise.log_likelihood(x_t, t, dtype=dtype)

    def _checked(self, condition: Condition | None, num: int) -> Condition | None:
        return check_condition(condition, self.options.condition, num, device=next(self.parameters()).device)

    def logits(self, tokens: Tensor, *, condition: Condition | None = None) -> Tensor:
        """(B, N) -> (B, N, K): what cleaner tokens these came from (of a diffusion: as at the last step, t = 1)."""
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        condition = self._checked(condition, len(tokens))
        if not self.is_diffusion:
            return self.net(tokens, condition=condition)
        denoise, _ = self.chain(None)
        return denoise(tokens, tokens.new_ones(len(tokens)), condition=condition)

    def training_loss(self, tokens: Tensor, *, condition: Condition | None = None, draws: Draws) -> Tensor:
        """Bits per token, (B, N) -> (): the bound (d3pm: and its auxiliary term), or cross-entropy of x_a given x_b."""
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        condition = self._checked(condition, len(tokens))
        if self.training:
            condition = drop_conditions(condition, self.options.dropped_conditions, draws=draws)
        loss = {"d3pm": self._d3pm_loss, "udlm": self._udlm_loss, "perturbation": self._perturbation_loss}
        with seeded_dropout(self, draws, len(tokens)):
            return loss[self.options.form](tokens, condition, draws)

    def _d3pm_loss(self, tokens: Tensor, condition: Condition | None, draws: Draws) -> Tensor:
        weight = self.options.auxiliary_weight
        return bound_loss(
            partial(self.denoise, condition=condition), self.corruption, self.time, tokens, draws=draws,
            learn_time=self.training, adaptive_auxiliary=False,
            auxiliary_weight=DEFAULT_AUXILIARY_WEIGHT if weight is None else weight,
        )

    def _udlm_loss(self, tokens: Tensor, condition: Condition | None, draws: Draws) -> Tensor:
        return continuous_loss(partial(self.predict, condition=condition), self.noise, tokens, draws=draws)

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
        """Upper bound on the negative log-likelihood of each image, in nats.

        d3pm: kind bound_T (Austin et al. 2021, Eq. 1); budget None is the sum over all T, otherwise see `bound_T`.
        udlm: kind bound_continuous (Schiff et al. 2024); budget None is 100, see `bound_continuous`.
        tokens: (B, N) int64 in [0, K).
        Raises Unsupported in the perturbation form, ValueError for a token outside the codebook or a budget below 1.
        """
        if not self.is_diffusion:
            raise Unsupported("uniform diffusion in its perturbation form has no likelihood: it is trained to undo one "
                              "further perturbation and refines by repetition, which defines no density; use form=d3pm "
                              "or form=udlm")
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        condition = self._checked(condition, len(tokens))
        if self.options.form == "udlm":
            budget = DEFAULT_TIMESTEPS if budget is None else budget
            return bound_continuous(
                partial(self.predict, condition=condition), self.noise, tokens, budget=budget, draws=draws
            )
        return bound_T(
            partial(self.denoise, condition=condition), self.corruption, tokens, draws=draws, budget=budget,
            probabilities=self.time.probabilities(),
        )

    @torch.no_grad()
    def sample(self, num: int, *, sampler: UniformSampler, known: Tensor | None = None,
               condition: Condition | None = None, draws: Draws) -> Sample:
        """Draw `num` images from uniform noise; tokens (num, N) int64 in [0, K).

        known: (num, N), tokens to keep and UNKNOWN elsewhere: perturbation alone, held at every refinement.
        Raises Unsupported for known tokens in the d3pm and udlm forms.
        """
        check_sampler(sampler, self.Sampler)
        condition = self._checked(condition, num)
        network, corruption = self.chain(sampler.steps) if self.is_diffusion else (self.net, None)
        predict = self._predictor(network, corruption, condition, sampler)
        if self.is_diffusion and known is not None:
            raise Unsupported(f"uniform diffusion in its {self.options.form} form cannot keep known tokens: at every "
                              "time before the last its network expects all tokens to be noisy, and cannot be told "
                              "which are not")
        device = next(self.parameters()).device
        known = check_known(known, num, self.num_tokens, self.codebook_size, device=device)
        start = draws.integers(0, self.codebook_size, num, self.num_tokens).to(device)
        adjust = Adjust(sampler.temperature, sampler.top_k, sampler.top_p)
        if corruption is not None:
            tokens, evaluations = self._reverse(predict, corruption, start, sampler.steps, adjust, draws)
        else:
            tokens, evaluations = self._refine(predict, start, sampler.steps, adjust, known, draws)
        return predict.counted(Sample(tokens, evaluations, evaluations * self.num_tokens))

    def chain(self, steps: int | None) -> tuple[Callable[..., Tensor], Corruption]:
        """A denoiser and the chain it undoes: of d3pm that of training, of udlm one of so many steps (None: 100)."""
        if self.options.form == "d3pm":
            return self.denoise, self.corruption
        steps = steps or DEFAULT_TIMESTEPS
        corruption = self.noise.chain(steps).to(next(self.parameters()).device)
        return partial(self.denoise_step, steps=steps), corruption

    def _predictor(self, network: Callable[..., Tensor], corruption: Corruption | None, condition: Condition | None,
                   sampler: UniformSampler) -> Predictor:
        """Raises Unsupported, in the perturbation form, for guidance that grows on the way or of a posterior."""
        if corruption is None and sampler.guidance_of == "posterior":
            raise Unsupported("guidance_of='posterior': the perturbation form has no posterior; use 'x_0'")
        progress = None if corruption is None else lambda x_t, t: 1 - t / corruption.num_timesteps
        predict = guided(
            network, condition, Guidance.of(sampler), progress=progress, num_prefix=self.options.num_prefix
        )
        return Both(**vars(predict)) if sampler.guidance_of == "posterior" else predict

    def _reverse(self, predict: Predictor, corruption: Corruption, start: Tensor, steps: int | None, adjust: Adjust,
                 draws: Draws) -> tuple[Tensor, Tensor]:
        num_timesteps = corruption.num_timesteps
        tokens, evaluations = ancestral(
            predict, GuidedPosterior(corruption, predict) if isinstance(predict, Both) else corruption, start,
            torch.full_like(start[:, 0], num_timesteps), steps=check_steps(steps, num_timesteps), adjust=adjust,
            draws=draws,
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
