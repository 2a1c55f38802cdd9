"""Absorbing diffusion over token grids (Bond-Taylor et al. 2022, "Unleashing Transformers").

    prior = AbsorbingDiffusion(grid=(16, 16), codebook_size=1024, options=AbsorbingOptions(width=256, num_layers=6))
    prior.sample(4, sampler=AbsorbingSampler(steps=64), draws=Draws.seeded(0)).tokens   # (4, 256)

Tokens are replaced by a mask id, K, more and more of them until all are at t = T; the network, which does not see t,
predicts them back.
"""

from __future__ import annotations

import math
from functools import partial
from os import PathLike

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from priors import bounds, chain_rule, correctors, samplers, schedules
from priors.backbone import backbone
from priors.base import UNKNOWN, Draws, Likelihood, Sample, Unsupported
from priors.checks import check_known, check_tokens
from priors.conditions import Condition, check_condition, drop_conditions
from priors.guidance import Guidance, Predictor, guided
from priors.official import convert, read_state, timesteps_of
from priors.option_checks import check_choice, check_sampler
from priors.options import AbsorbingOptions, AbsorbingSampler
from priors.reference import naive_absorbing_sample
from priors.transformer import seeded_dropout


class AbsorbingDiffusion(nn.Module):
    """See the module; `calibrate` is needed only for sampler schedule="optimal"."""

    Options = AbsorbingOptions
    Sampler = AbsorbingSampler
    nats_by_masked: Tensor

    def __init__(self, *, grid: tuple[int, int], codebook_size: int, options: AbsorbingOptions):
        super().__init__()
        self.grid, self.codebook_size, self.options = (grid[0], grid[1]), codebook_size, options
        self.num_tokens = grid[0] * grid[1]
        self.timesteps = options.timesteps or self.num_tokens
        self.mask = codebook_size   # the id after the last code
        self.net = backbone(options, grid=grid, vocabulary=codebook_size + 1, num_classes=codebook_size)
        self.register_buffer("nats_by_masked", torch.full((self.num_tokens + 1,), torch.nan, dtype=torch.float64))

    def load_official(self, path: str | PathLike, *, layout: str) -> AbsorbingDiffusion:
        """Take the weights of a checkpoint of the paper's authors (layout "official"), of this prior's sizes and T."""
        check_choice("layout", layout, ("official",))
        state = read_state(path)
        if timesteps_of(state) not in (None, self.timesteps):
            raise ValueError(
                f"{path} was trained with T={timesteps_of(state)}, this prior has timesteps={self.timesteps}; "
                f"set timesteps={timesteps_of(state)}"
            )
        self.net.load_state_dict(convert(state, self.net, kind="absorbing"))
        return self

    def logits(self, tokens: Tensor, *, condition: Condition | None = None) -> Tensor:
        """(B, N) int64 in [0, K), with UNKNOWN or K where masked -> (B, N, K)."""
        tokens = tokens.masked_fill(tokens == UNKNOWN, self.mask)
        check_tokens(tokens, self.num_tokens, self.codebook_size + 1)
        return self.net(tokens, condition=self._checked(condition, len(tokens)))

    def logits_at(
        self, tokens: Tensor, positions: Tensor | None = None, *, condition: Condition | None = None
    ) -> Tensor:
        """`logits` at some positions alone (None: at all), unchecked: (B, N), (B, R) int64 -> (B, R, K).

        Any token can be had from any others.
        """
        return self.net(tokens.masked_fill(tokens == UNKNOWN, self.mask), condition=condition, at=positions)

    def _checked(self, condition: Condition | None, num: int) -> Condition | None:
        return check_condition(condition, self.options.condition, num, device=self.net.pos_emb.device)

    def training_loss(self, tokens: Tensor, *, condition: Condition | None = None, draws: Draws) -> Tensor:
        """The objective of the options, mean over images: mlm in nats, the others in bits a token."""
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        condition = self._checked(condition, len(tokens))
        if self.training:
            condition = drop_conditions(condition, self.options.dropped_conditions, draws=draws)
        t = draws.integers(1, self.timesteps + 1, len(tokens)).to(tokens.device)
        if self.options.mask_ratio == "cosine":
            t = schedules.cosine_times(t, self.timesteps)
        uniforms = draws.uniform(*tokens.shape).to(tokens.device)
        if self.options.mask_schedule == "random":
            masked = random_mask(uniforms, t, self.timesteps)
        else:
            masked = fixed_mask(uniforms.argsort(1), t, self.timesteps)
        with seeded_dropout(self, draws, len(tokens)):
            return self.masked_loss(tokens, masked, t, condition)

    def masked_loss(
        self, tokens: Tensor, masked: Tensor, t: Tensor, condition: Condition | None = None
    ) -> Tensor:
        """The objective for given masks (B, N) bool and times (B,)."""
        logits = self.net(tokens.masked_fill(masked, self.mask), condition=condition, where=masked)   # (M, K)
        cross_entropy = F.cross_entropy(logits.float(), tokens[masked], reduction="none")
        image = masked.nonzero()[:, 0]
        nats = cross_entropy.new_zeros(len(tokens)).index_add(0, image, cross_entropy)   # (B,)
        if self.options.objective == "mlm":
            return (nats / masked.sum(1).clamp(min=1)).mean()
        bits = nats / (self.num_tokens * math.log(2))
        return (elbo_weight(self.options, t, self.timesteps) * bits).mean()

    @torch.no_grad()
    def nll(
        self, tokens: Tensor, *, condition: Condition | None = None, draws: Draws, budget: int | None = None
    ) -> Likelihood:
        """Upper bound on the negative log-likelihood of each image, in nats (Eq. 6).

        tokens: (B, N) int64 in [0, K).  Without a budget: the sum over t as published, T evaluations, kind bound_T.
        With a budget of at least T: a low-variance estimate of that bound.  With less: a low-variance estimate of its
        limit of infinite T, which is lower, kind bound_continuous.
        """
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        score = self._scorer(tokens, self._checked(condition, len(tokens)))
        estimate, kind = bounds.bound(score, tokens, timesteps=self.timesteps, budget=budget, draws=draws)
        return Likelihood(estimate.nats, estimate.variance, kind, estimate.evaluations, estimate.by_unknown)

    @torch.no_grad()
    def random_order_nll(
        self, tokens: Tensor, *, condition: Condition | None = None, draws: Draws, budget: int
    ) -> Likelihood:
        """The limit of infinite T of that bound: the mean of `nll_in_order` over all orders, estimated in `budget`."""
        score = self._scorer(tokens, self._checked(condition, len(tokens)))
        estimate = bounds.continuous_bound(score, tokens, timesteps=self.timesteps, budget=budget, draws=draws)
        return Likelihood(estimate.nats, estimate.variance, "bound_continuous", estimate.evaluations,
                          estimate.by_unknown)

    def nll_in_order(
        self, tokens: Tensor, order: Tensor, *, condition: Condition | None = None
    ) -> Likelihood:
        """Negative log-likelihood of revealing one token at a time in `order`, (N,) or (B, N), exact by N evaluations.

        No bound on the diffusion, which reveals in a random order, but a distribution that the same network defines.
        """
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        logits_at = partial(self.logits_at, condition=self._checked(condition, len(tokens)))
        return chain_rule.exact(logits_at, tokens, order)

    def _scorer(self, tokens: Tensor, condition: Condition | None) -> bounds.Score:
        def score(masked: Tensor, wanted: Tensor) -> Tensor:
            logits = self.net(tokens.masked_fill(masked, self.mask), condition=condition, where=wanted)   # (M, K)
            nats = torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)
            nats[wanted] = F.cross_entropy(logits.float(), tokens[wanted], reduction="none").double()
            return nats

        return score

    @torch.no_grad()
    def calibrate(
        self, tokens: Tensor, *, condition: Condition | None = None, draws: Draws, num_levels: int = 64
    ) -> None:
        """Measure m_k, the mean nats of a masked token when k are masked, for sampler schedule="optimal".

        tokens: (B, N), held-out images.  m_k is measured at `num_levels` levels k, even in the square root of k because
        it bends most at small k, and interpolated; it is kept in the buffer `nats_by_masked` and so in the checkpoint.
        """
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        n, score = self.num_tokens, self._scorer(tokens, self._checked(condition, len(tokens)))
        levels = (torch.linspace(1, math.sqrt(n), min(num_levels, n)).square().round().long()).unique()
        measured = []
        for k in levels.tolist():
            ranks = draws.uniform(*tokens.shape).to(tokens.device).argsort(1).argsort(1)
            measured.append(float(score(ranks < k, ranks < k).sum(1).mean() / k))
        self.nats_by_masked[1:] = schedules.interpolate(levels, torch.tensor(measured, dtype=torch.float64), n)
        self.nats_by_masked[0] = 0.0

    @torch.inference_mode()
    def sample(
        self, num: int, *, sampler: AbsorbingSampler, known: Tensor | None = None,
        condition: Condition | None = None, draws: Draws,
    ) -> Sample:
        """Draw `num` images; `known` (num, N) holds tokens to keep and UNKNOWN where to fill, anywhere in the grid.

        Raises Unsupported for schedule="optimal" before `calibrate`.
        """
        check_sampler(sampler, AbsorbingSampler)
        tokens = check_known(known, num, self.num_tokens, self.codebook_size, device=self.net.pos_emb.device)
        predict = guided(
            self.logits_at, self._checked(condition, num), Guidance.of(sampler),
            progress=partial(given_share, mask=self.mask), num_prefix=self.options.num_prefix,
        )
        method = {"event": self._by_schedule, "loop": self._by_loop, "remask": self._by_remasking,
                  "remdm": self._by_correcting, "predictor_corrector": self._by_correcting}[sampler.method]
        return predict.counted(method(predict, tokens, sampler, draws))

    def _by_schedule(self, predict: Predictor, tokens: Tensor, sampler: AbsorbingSampler, draws: Draws) -> Sample:
        unknown = tokens == UNKNOWN
        num_unknown, num_steps = unknown.sum(1), self._num_steps(tokens, sampler)
        if not sampler.has_exact_counts:
            reveal = schedules.random_reveal_steps(
                sampler.schedule, draws.uniform(*tokens.shape), num_steps.unsqueeze(1).to(draws.device)
            )
            return self._reveal(predict, tokens, reveal, sampler, draws)
        each = list(zip(num_unknown.tolist(), num_steps.tolist(), strict=True))
        counts = {pair: self._masked_counts(sampler.schedule, *pair) for pair in set(each)}
        if sampler.order == "confidence":
            longest = max(len(c) for c in counts.values())
            table = torch.stack([F.pad(counts[pair], (0, longest - len(counts[pair]))) for pair in each])
            noise = 4.5 if sampler.confidence_noise is None else sampler.confidence_noise
            return samplers.by_confidence(
                predict, tokens, table, num_steps, mask=self.mask, adjust=adjust_of(sampler), noise=noise,
                draws=draws,
            )
        if sampler.order == "halton":
            priority = schedules.grid_order("halton", self.grid).argsort().expand(tokens.shape)
        else:
            priority = draws.uniform(*tokens.shape).argsort(1).cpu()
        ranks = priority.masked_fill(~unknown.cpu(), self.num_tokens).argsort(1).argsort(1)   # among the unknown
        reveal = torch.stack([schedules.exact_reveal_steps(r, counts[p]) for r, p in zip(ranks, each, strict=True)])
        return self._reveal(predict, tokens, reveal, sampler, draws)

    def _reveal(
        self, predict: Predictor, tokens: Tensor, reveal: Tensor, sampler: AbsorbingSampler, draws: Draws
    ) -> Sample:
        uniforms = draws.uniform(*tokens.shape)
        return samplers.by_events(
            predict, tokens, reveal, uniforms, mask=self.mask, adjust=adjust_of(sampler)
        )

    def _by_loop(self, predict: Predictor, tokens: Tensor, sampler: AbsorbingSampler, draws: Draws) -> Sample:
        steps = set(self._num_steps(tokens, sampler).tolist())
        if len(steps) > 1:
            raise Unsupported(
                f"method='loop' steps all images together, but `known` asks for {sorted(steps)} steps; "
                "use method='event'"
            )
        num_steps = steps.pop()
        state = naive_absorbing_sample(
            predict, tokens, mask=self.mask, steps=num_steps, adjust=adjust_of(sampler), draws=draws
        )
        evaluations = torch.full((len(tokens),), num_steps, dtype=torch.int64)
        return Sample(state, evaluations, evaluations * self.num_tokens)

    def _by_remasking(self, predict: Predictor, tokens: Tensor, sampler: AbsorbingSampler, draws: Draws) -> Sample:
        steps = samplers.remasking_steps(self.timesteps, sampler.steps or self.timesteps)
        return samplers.by_remasking(
            predict, tokens, steps, self.timesteps, mask=self.mask, adjust=adjust_of(sampler), draws=draws
        )

    def _by_correcting(self, predict: Predictor, tokens: Tensor, sampler: AbsorbingSampler, draws: Draws) -> Sample:
        levels = schedules.revealed_shares(sampler.schedule, self._num_steps(tokens, sampler))
        if sampler.method == "remdm":
            moves = correctors.remasking_moves(levels, sampler.remasking or "rescale", strength=sampler.strength)
        else:
            moves = correctors.predictor_corrector_moves(levels, sampler.corrector_steps or 1,
                                                         strength=sampler.strength)
        return correctors.by_remasking_kernel(
            predict, tokens, moves, mask=self.mask, adjust=adjust_of(sampler), draws=draws,
            by_confidence=sampler.remasking == "confidence",
        )

    def _num_steps(self, tokens: Tensor, sampler: AbsorbingSampler) -> Tensor:
        """(B,) int64: all steps for an empty image, a share of them for one that is partly known."""
        share = (tokens == UNKNOWN).sum(1).cpu().double() / self.num_tokens
        return ((sampler.steps or self.timesteps) * share).round().long().clamp(min=1)

    def _masked_counts(self, schedule: str, num_unknown: int, num_steps: int) -> Tensor:
        if schedule != "optimal":
            return schedules.masked_counts(schedule, num_unknown, num_steps)
        if self.nats_by_masked.isnan().any():
            raise Unsupported("schedule='optimal' needs measured nats: call prior.calibrate(tokens, draws=...) first")
        return schedules.optimal_counts(self.nats_by_masked.cpu(), num_unknown, num_steps)


def given_share(tokens: Tensor, positions: Tensor | None = None, *, mask: int) -> Tensor:
    """(B,) the share of tokens that are not masked."""
    return (tokens != mask).float().mean(1)


def adjust_of(sampler: AbsorbingSampler) -> samplers.Adjust:
    return samplers.Adjust(sampler.temperature, sampler.top_k, sampler.top_p)


def random_mask(uniforms: Tensor, t: Tensor, timesteps: int) -> Tensor:
    """Each token is masked with probability t/T: (B, N), (B,) -> (B, N) bool."""
    return uniforms < (t / timesteps).unsqueeze(1)


def fixed_mask(permutations: Tensor, t: Tensor, timesteps: int) -> Tensor:
    """The first max(1, round(t N / T)) tokens of each permutation (B, N) are masked: (B, N) bool."""
    num_tokens = permutations.shape[1]
    num_masked = (t * num_tokens / timesteps).round().clamp(min=1)
    first = torch.arange(num_tokens, device=t.device) < num_masked.unsqueeze(1)
    return torch.zeros_like(first).scatter(1, permutations, first)


def elbo_weight(options: AbsorbingOptions, t: Tensor, timesteps: int) -> Tensor:
    """(B,) weight of the summed cross-entropy at step t.

    elbo: T/t, so that the mean over t is the bound (Eq. 6).  reweighted_elbo: 1 - t/T as the published models were
    trained ("official"), or (T - t + 1)/T as Eq. 7 prints it ("eq7").  cross_entropy: 1.
    """
    if options.objective == "cross_entropy":
        return torch.ones_like(t)
    if options.objective == "elbo":
        return timesteps / t
    return (timesteps - t + (1 if options.weighting == "eq7" else 0)) / timesteps
