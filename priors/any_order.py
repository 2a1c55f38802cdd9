"""An autoregressive prior over any order of the tokens: the same causal transformer, told which position comes next.

    prior = AnyOrder(grid=(16, 16), codebook_size=1024, options=AnyOrderOptions(width=256, num_layers=6))
    prior.sample(4, sampler=AnyOrderSampler(order="halton"), draws=Draws.seeded(0)).tokens   # (4, 256)

p(x) = prod_i p(x_o(i) | x_o(<i), o(i)) for an order o (sigma-GPT: Pannatier et al. 2024; AO-GPT: Xue et al. 2025).
Element i of the sequence holds token x_o(i-1) with its own position; the position o(i) to predict shifts and scales
every LayerNorm (as AO-GPT does), so that the sequence is no longer than the image.

Beyond the autoregressive backbone it has 4 N C + 4 L C + 2 C parameters (L blocks of width C): 574,464 or 0.75% more
at the paper's sizes. Training follows uniformly random orders, raster order, or the one annealed to the other (RAR: Yu
et al. 2024), for which the prior counts its training steps in its own state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from priors import jacobi, samplers, schedules, speculative
from priors.autoregressive import costs
from priors.backbone import backbone
from priors.base import UNKNOWN, Draws, Likelihood, NatsByUnknown, Sample, Unsupported
from priors.chain_rule import average_over_orders, random_orders
from priors.checks import check_known, check_order, check_tokens
from priors.conditions import Condition, check_condition, drop_conditions
from priors.guidance import Guidance, Predictor, combine, guided
from priors.option_checks import check_sampler
from priors.options import AnyOrderOptions, AnyOrderSampler
from priors.transformer import normalise, seeded_dropout


class AnyOrder(nn.Module):
    """See the module. An order is (N,) or (1 or B, N) int64, raster positions in the order in which they are taken."""

    Options = AnyOrderOptions
    Sampler = AnyOrderSampler
    raster: Tensor
    steps_trained: Tensor

    def __init__(self, *, grid: tuple[int, int], codebook_size: int, options: AnyOrderOptions):
        super().__init__()
        self.grid, self.codebook_size, self.options = (grid[0], grid[1]), codebook_size, options
        self.num_tokens = grid[0] * grid[1]
        # First, so that a condition, which the network draws last, changes no other weight.
        self.target = TargetConditioning(self.num_tokens, options.width, options.num_layers)
        self.net = backbone(options, grid=grid, vocabulary=codebook_size, num_classes=codebook_size, causal=True)
        self.register_buffer("raster", torch.arange(self.num_tokens), persistent=False)
        if options.order == "annealed":
            self.register_buffer("steps_trained", torch.zeros((), dtype=torch.int64))

    def logits(self, tokens: Tensor, *, condition: Condition | None = None) -> Tensor:
        """(B, N) int64 -> (B, N, K); the logits of a token depend only on the tokens before it in raster order."""
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        condition = self._checked(condition, len(tokens))
        return self.net.head(self._hidden(tokens[:, :-1], self.raster.unsqueeze(0), condition))

    def _checked(self, condition: Condition | None, num: int) -> Condition | None:
        return check_condition(condition, self.options.condition, num, device=self.raster.device)

    def training_loss(self, tokens: Tensor, *, condition: Condition | None = None, draws: Draws) -> Tensor:
        """Mean cross-entropy in bits a token, each image in an order of its own as far as the options say so.

        An annealed prior in evaluation mode takes raster order, in which it ends.
        """
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        condition = self._checked(condition, len(tokens))
        if self.training:
            condition = drop_conditions(condition, self.options.dropped_conditions, draws=draws)
        order = self._order_of_training(len(tokens), draws)
        with seeded_dropout(self, draws, len(tokens)):
            return self._nats(tokens, order, condition).mean() / math.log(2)

    def _order_of_training(self, num: int, draws: Draws) -> Tensor:
        """(1 or num, N); counts a step of an annealed prior in training."""
        raster, kind = self.raster.unsqueeze(0), self.options.order
        if kind == "raster" or (kind == "annealed" and not self.training):
            return raster
        orders = random_orders(num, self.num_tokens, draws=draws).to(raster.device)
        if kind == "random":
            return orders
        share = max(0.0, 1 - int(self.steps_trained) / (self.options.annealed_over or 1))
        self.steps_trained += 1
        is_random = draws.uniform(num, 1).to(raster.device) < share
        return torch.where(is_random, orders, raster)

    def nll(
        self, tokens: Tensor, *, condition: Condition | None = None, draws: Draws, budget: int | None = None
    ) -> Likelihood:
        """Negative log-likelihood of each image in nats, exact for raster order, by one network evaluation.

        That is the law of the default sampler; `random_order_nll` is of sampler order="random".
        """
        return self.nll_in_order(tokens, self.raster, condition=condition)

    @torch.no_grad()
    def nll_in_order(self, tokens: Tensor, order: Tensor, *, condition: Condition | None = None) -> Likelihood:
        """The same of the tokens taken in another order, (N,) or (B, N), likewise exact by one evaluation.

        Raises Unsupported for a prior trained in raster order, alone or at the end.
        """
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        order = check_order(order, *tokens.shape).to(tokens.device)
        self._check_trained(order)
        nats = self._nats(tokens, order, self._checked(condition, len(tokens))).double()   # (B, N)
        by_unknown = NatsByUnknown(nats.flip(1), torch.ones_like(nats))   # the last has one unknown: itself
        return Likelihood(nats.sum(1), torch.zeros_like(nats[:, 0]), "exact", 1, by_unknown)

    def random_order_nll(
        self, tokens: Tensor, *, condition: Condition | None = None, draws: Draws, budget: int
    ) -> Likelihood:
        """The mean of -log p_o over random orders o, `budget` of them for each image: an upper bound on -log E_o[p_o].

        Its expectation is what the bound of an absorbing diffusion tends to (kind bound_continuous).
        """
        nll_in_order = partial(self.nll_in_order, condition=condition)
        return average_over_orders(nll_in_order, tokens, num_orders=budget, draws=draws)

    @torch.inference_mode()
    def sample(
        self, num: int, *, sampler: AnyOrderSampler, known: Tensor | None = None, condition: Condition | None = None,
        draws: Draws,
    ) -> Sample:
        """Draw `num` images; `known` (num, N) holds tokens to keep and UNKNOWN where to fill, anywhere in the grid.

        Known tokens come first in the order, so that the rest is drawn from the model's own conditional, given all of
        them.  Raises Unsupported where a prior trained in raster order, alone or at the end, has to take another.
        """
        check_sampler(sampler, AnyOrderSampler)
        known = check_known(known, num, self.num_tokens, self.codebook_size, device=self.raster.device)
        predict = guided(
            self._next_logits, self._checked(condition, num), Guidance.of(sampler),
            progress=lambda fed, order: torch.full((len(fed),), fed.shape[1] / self.num_tokens, device=fed.device),
        )   # num_prefix is in `costs`: with a cache a condition is read once
        order = known_first(self._walk(num, sampler, draws), known)
        self._check_trained(order)
        sequence = known.gather(1, order)
        adjust = samplers.Adjust(sampler.temperature, sampler.top_k, sampler.top_p)
        if sampler.method != "sequential":
            return predict.counted(self._from_fewer_calls(sequence, order, predict, sampler, adjust, draws))
        prefix = int(samplers.known_prefixes(sequence).min())
        extend = self._cached_extend(order, predict) if sampler.cache else self._uncached_extend(order, predict)
        drawn = samplers.autoregressive(extend, sequence, adjust=adjust, draws=draws)
        tokens = torch.empty_like(drawn).scatter(1, order, drawn)
        spent = costs(num, self.num_tokens, prefix, cached=sampler.cache, num_prefix=self.options.num_prefix)
        return predict.counted(Sample(tokens, *spent))

    def _from_fewer_calls(
        self, known: Tensor, order: Tensor, predict: Predictor, sampler: AnyOrderSampler, adjust: samplers.Adjust,
        draws: Draws,
    ) -> Sample:
        """Several positions a call, for the same law; known: (B, N) in the order of drawing."""
        noise = jacobi.gumbel_noise(draws, len(known), self.num_tokens, self.codebook_size).to(known.device)
        evaluate = speculative.Evaluator(self.net, self.target, order, predict, cached=sampler.cache)
        if sampler.method == "jacobi":
            decode = partial(jacobi.jacobi, window=sampler.jacobi_window)
        else:
            decode = partial(speculative.speculative, window=sampler.speculative_window)
        drawn, calls, pushed = decode(evaluate, known, noise, adjust=adjust, cached=sampler.cache)
        pushed += self.options.num_prefix * (calls.clamp(max=1) if sampler.cache else calls)
        return Sample(torch.empty_like(drawn).scatter(1, order, drawn), calls, pushed)

    def _walk(self, num: int, sampler: AnyOrderSampler, draws: Draws) -> Tensor:
        """(1 or num, N), the order in which an empty grid is filled."""
        if sampler.order == "random":
            return random_orders(num, self.num_tokens, draws=draws).to(self.raster.device)
        return schedules.grid_order(sampler.order, self.grid).to(self.raster.device).unsqueeze(0)

    def _check_trained(self, order: Tensor) -> None:
        if self.options.order != "random" and not torch.equal(order, self.raster.expand_as(order)):
            how = "in raster order alone" if self.options.order == "raster" else "with orders annealed to raster"
            raise Unsupported(
                f"this any-order prior was trained {how} (order={self.options.order!r}) and can take no other, such "
                "as one that begins with tokens known elsewhere; train it with order='random'"
            )

    def _nats(self, tokens: Tensor, order: Tensor, condition: Condition | None) -> Tensor:
        """(B, N) cross-entropies in the order (1 or B, N) in which the tokens are taken."""
        sequence = tokens.gather(1, order.expand_as(tokens))
        logits = self.net.head(self._hidden(sequence[:, :-1], order, condition))
        return F.cross_entropy(logits.float().transpose(1, 2), sequence, reduction="none")

    def _next_logits(self, fed: Tensor, order: Tensor, *, condition: Condition | None = None) -> Tensor:
        """(B, n) tokens, the first of `order` (B, n + 1) -> (B, K), of the last position of the order."""
        return self.net.head(self._hidden(fed, order, condition)[:, -1])

    def _hidden(self, fed: Tensor, order: Tensor, condition: Condition | None) -> Tensor:
        """(B, n) tokens, the first of `order` (1 or B, n + 1) -> (B, n + 1, C), of which the head predicts each one."""
        x, first = self._embed(fed, order[:, :-1], start=True, condition=condition), self.options.num_prefix
        shifts = self.target(order, first)
        for block in self.net.layers:
            x = block(x, next(shifts))
        return normalise(x, self.net.ln_f, next(shifts))[:, first:]

    def _embed(
        self, tokens: Tensor, positions: Tensor, *, start: bool, condition: Condition | None = None
    ) -> Tensor:
        """(B, n) tokens with their positions (1 or B, n) -> (B, n, C), or (B, M + n + 1, C) after a start token."""
        x = self.net.tok_emb(tokens) + self.net.pos_emb[0][positions]
        if start:
            x = torch.cat([self.net.start_tok.expand(len(tokens), -1, -1).to(x.dtype), x], 1)
            x = self.net.prepended(condition, x)
        return self.net.drop(x)

    def _cached_extend(self, order: Tensor, predict: Predictor):
        """As Transformer.extend: the logits of the token after those fed, element `start` being the first of them."""
        if not predict.asks_twice:
            return self._cached_logits(order, predict.asked)
        both = self._cached_logits(order.repeat(2, 1), predict.asked)

        def extend(tokens: Tensor | None, start: int) -> Tensor:
            num_drawn = start + (0 if tokens is None else tokens.shape[1]) - (start > 0)   # the start token comes first
            conditional, unconditional = both(None if tokens is None else tokens.repeat(2, 1), start).chunk(2)
            return combine(conditional, unconditional, predict.guidance.at(torch.tensor(num_drawn / self.num_tokens)))

        return extend

    def _cached_logits(self, order: Tensor, condition: Condition | None):
        cache = self.net.new_cache(len(order))

        def extend(tokens: Tensor | None, start: int) -> Tensor:
            fed = order[:, :0] if tokens is None else tokens
            before = max(0, start - 1)   # the start token is element 0, so element i holds the token before the i-th
            taken = order[:, before : before + fed.shape[1]]
            x = self._embed(fed, taken, start=start == 0, condition=condition)   # (B, n, C), or (B, M + n, C)
            prefix = 0 if start else self.options.num_prefix
            shifts = self.target(order[:, start : start + x.shape[1] - prefix], prefix)
            first = start + self.options.num_prefix if start else 0   # in the cache
            end = first + x.shape[1]
            several = end - first > 1
            seen = torch.ones(end - first, end, dtype=torch.bool, device=x.device).tril(first) if several else None
            for block, keys_values in zip(self.net.layers, cache, strict=True):
                x = block.extend(x, first, keys_values, seen, next(shifts))
            return self.net.head(normalise(x, self.net.ln_f, next(shifts))[:, -1])

        return extend

    def _uncached_extend(self, order: Tensor, predict: Predictor):
        """Every call pushes all tokens so far through the network again."""
        fed = order[:, :0]

        def extend(tokens: Tensor | None, start: int) -> Tensor:
            nonlocal fed
            fed = fed if tokens is None else torch.cat([fed, tokens], 1)
            return predict(fed, order[:, : fed.shape[1] + 1])

        return extend


class TargetConditioning(nn.Module):
    """(1 or B, n) positions to predict -> for each block (1 or B, 4, n, C), scale and shift of both LayerNorms; then
    (1 or B, 2, n, C) of the last one.

    A table of positions shared by all blocks, plus one of the block (adaLN-single: Chen et al. 2023).  Offsets of
    positions start as large as the normalised activations that they are added to: from zero, as a time's do, training
    first learns no more than frequencies (measured on 1,200 digits of 64 tokens, 0.41 bits a token after 500 steps
    against 0.32).
    """

    def __init__(self, num_tokens: int, width: int, num_layers: int):
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(num_tokens, 4, width))
        nn.init.normal_(self.positions.detach()[:, 1::2])   # of (scale, offset) of each LayerNorm
        self.blocks = nn.Parameter(torch.zeros(num_layers, 4, width))
        self.last = nn.Parameter(torch.zeros(2, width))

    def forward(self, positions: Tensor, num_prefix: int = 0) -> Iterator[Tensor]:
        """num_prefix: positions before these that predict nothing, those of a condition."""
        chosen = F.embedding(positions, self.positions.flatten(1)).unflatten(-1, (4, -1)).transpose(1, 2)
        if num_prefix:
            chosen = F.pad(chosen, (0, 0, num_prefix, 0))
        for block in self.blocks:
            yield chosen + block.unsqueeze(1)
        yield chosen[:, :2] + self.last.unsqueeze(1)


def known_first(order: Tensor, known: Tensor) -> Tensor:
    """(B, N) orders, from (1 or B, N) ones, with the positions that are known in (B, N) moved to the front."""
    order = order.expand_as(known)
    is_unknown = known.gather(1, order) == UNKNOWN
    return order.gather(1, is_unknown.long().argsort(dim=1, stable=True))
