"""The paper's autoregressive baseline: the same transformer with a causal mask, one token at a time.

    prior = Autoregressive(grid=(16, 16), codebook_size=1024, options=AutoregressiveOptions(width=256, num_layers=6))
    prior.sample(4, sampler=AutoregressiveSampler(), draws=Draws.seeded(0)).tokens   # (4, 256)
"""

from __future__ import annotations

import math
from os import PathLike

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from priors import jacobi, samplers, schedules
from priors.backbone import backbone
from priors.base import UNKNOWN, Draws, Likelihood, NatsByUnknown, Sample, Unsupported
from priors.checks import check_known, check_order, check_tokens
from priors.conditions import Condition, check_condition, drop_conditions
from priors.guidance import Guidance, Predictor, combine, guided
from priors.official import convert, read_state
from priors.option_checks import check_choice, check_sampler
from priors.options import AutoregressiveOptions, AutoregressiveSampler
from priors.transformer import seeded_dropout


class Autoregressive(nn.Module):
    """p(x) = prod_i p(x_i | x_<i) (Eq. 1), the order of i being the walk of the options."""

    Options = AutoregressiveOptions
    Sampler = AutoregressiveSampler
    order: Tensor
    rank: Tensor

    def __init__(self, *, grid: tuple[int, int], codebook_size: int, options: AutoregressiveOptions):
        super().__init__()
        self.grid, self.codebook_size, self.options = (grid[0], grid[1]), codebook_size, options
        self.num_tokens = grid[0] * grid[1]
        order = schedules.grid_order(options.order, self.grid)
        self.mask = codebook_size   # an id after the last code, of training with input_mask
        self.net = backbone(
            options, grid=grid, vocabulary=codebook_size + (options.input_mask > 0), num_classes=codebook_size,
            causal=True, order=order,
        )
        self.register_buffer("order", order, persistent=False)   # sequence -> raster
        self.register_buffer("rank", order.argsort(), persistent=False)   # raster -> sequence

    def load_official(self, path: str | PathLike, *, layout: str) -> Autoregressive:
        """Take the weights of a checkpoint of the paper's authors (layout "official"), of this prior's sizes."""
        check_choice("layout", layout, ("official",))
        if self.options.order != "raster":
            raise ValueError(f"order={self.options.order!r}: the official models generate in raster order; use that")
        if self.options.input_mask:
            raise ValueError(
                f"input_mask={self.options.input_mask}: the official models know no mask; leave it out"
            )
        self.net.load_state_dict(convert(read_state(path), self.net, kind="autoregressive"))
        return self

    def logits(self, tokens: Tensor, *, condition: Condition | None = None) -> Tensor:
        """(B, N) int64 -> (B, N, K); the logits of a token depend only on the tokens before it in the walk."""
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        return self.net(tokens[:, self.order], condition=self._checked(condition, len(tokens)))[:, self.rank]

    def _checked(self, condition: Condition | None, num: int) -> Condition | None:
        return check_condition(condition, self.options.condition, num, device=self.net.pos_emb.device)

    def training_loss(self, tokens: Tensor, *, condition: Condition | None = None, draws: Draws) -> Tensor:
        """Mean cross-entropy in bits a token; draws only for what training hides: dropout, masks, conditions."""
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        condition = self._checked(condition, len(tokens))
        if self.training:
            condition = drop_conditions(condition, self.options.dropped_conditions, draws=draws)
        sequence = tokens[:, self.order]
        seen = self._masked_input(sequence, draws)
        with seeded_dropout(self, draws, len(tokens)):
            logits = self.net(seen, condition=condition)
        return F.cross_entropy(logits.flatten(0, 1).float(), sequence.flatten()) / math.log(2)

    def _masked_input(self, sequence: Tensor, draws: Draws) -> Tensor:
        """The tokens that training shows, (B, N), some of them masked if the options say so."""
        if not (self.training and self.options.input_mask):
            return sequence
        masked = draws.uniform(*sequence.shape).to(sequence.device) < self.options.input_mask
        return sequence.masked_fill(masked, self.mask)

    @torch.no_grad()
    def nll(
        self, tokens: Tensor, *, condition: Condition | None = None, draws: Draws, budget: int | None = None
    ) -> Likelihood:
        """Negative log-likelihood of each image in nats, exact by one network evaluation, so any budget is enough."""
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        sequence = tokens[:, self.order]
        logits = self.net(sequence, condition=self._checked(condition, len(tokens))).float()
        nats = F.cross_entropy(logits.transpose(1, 2), sequence, reduction="none").double()   # (B, N)
        by_unknown = NatsByUnknown(nats.flip(1), torch.ones_like(nats))   # the last of the walk has one unknown: itself
        return Likelihood(nats.sum(1), torch.zeros_like(nats[:, 0]), "exact", 1, by_unknown)

    def nll_in_order(
        self, tokens: Tensor, order: Tensor, *, condition: Condition | None = None
    ) -> Likelihood:
        """`nll`, where `order` is the walk of the options; Unsupported for every other one."""
        order = check_order(order, *tokens.shape).to(self.order.device)
        if not torch.equal(order, self.order.expand_as(order)):
            raise Unsupported(f"an autoregressive prior has a likelihood in its own order, {self.options.order}, alone")
        return self.nll(tokens, condition=condition, draws=Draws.seeded(0))

    def random_order_nll(
        self, tokens: Tensor, *, condition: Condition | None = None, draws: Draws, budget: int
    ) -> Likelihood:
        """Unsupported."""
        raise Unsupported(f"an autoregressive prior has a likelihood in its own order, {self.options.order}, alone")

    @torch.inference_mode()
    def sample(
        self, num: int, *, sampler: AutoregressiveSampler, known: Tensor | None = None,
        condition: Condition | None = None, draws: Draws,
    ) -> Sample:
        """Draw `num` images; tokens of `known` (num, N) that are not UNKNOWN are kept.

        Raises Unsupported where a known token comes after an unknown one in the walk, and for method="jacobi" of a
        prior with a condition.
        """
        check_sampler(sampler, AutoregressiveSampler)
        known = check_known(known, num, self.num_tokens, self.codebook_size, device=self.net.pos_emb.device)
        known = known[:, self.order]
        prefix = samplers.known_prefixes(known)
        if ((known != UNKNOWN).sum(1) > prefix).any():
            raise Unsupported(
                f"an autoregressive prior generates in {self.options.order} order and cannot honour a known token "
                "after an unknown one"
            )
        predict = guided(
            self.net, self._checked(condition, num), Guidance.of(sampler), progress=self._drawn_share
        )   # num_prefix is in `costs`: with a cache a condition is read once
        adjust = samplers.Adjust(sampler.temperature, sampler.top_k, sampler.top_p)
        if sampler.method == "jacobi":
            return self._by_jacobi(known, sampler, adjust, draws)
        extend = self._cached_extend(num, predict) if sampler.cache else self._uncached_extend(num, predict)
        tokens = samplers.autoregressive(extend, known, adjust=adjust, draws=draws)
        spent = costs(num, self.num_tokens, int(prefix.min()), cached=sampler.cache, num_prefix=self.options.num_prefix)
        return predict.counted(Sample(tokens[:, self.rank], *spent))

    def _by_jacobi(
        self, known: Tensor, sampler: AutoregressiveSampler, adjust: samplers.Adjust, draws: Draws
    ) -> Sample:
        if self.options.condition is not None:   # even where none is given: the network was trained with its null
            raise Unsupported("method='jacobi' guesses without a condition, and this prior was made with one; use "
                              "method='sequential'")
        noise = jacobi.gumbel_noise(draws, len(known), self.num_tokens, self.codebook_size).to(known.device)
        evaluate = jacobi.evaluator(self.net, len(known), cached=sampler.cache)
        tokens, *spent = jacobi.jacobi(
            evaluate, known, noise, window=sampler.jacobi_window, adjust=adjust, cached=sampler.cache
        )
        return Sample(tokens[:, self.rank], *spent)

    def _drawn_share(self, tokens: Tensor) -> Tensor:
        """(B,) the share of tokens drawn before the last position of (B, n), the one to be drawn."""
        return torch.full((len(tokens),), (tokens.shape[1] - 1) / self.num_tokens, device=tokens.device)

    def _cached_extend(self, num: int, predict: Predictor):
        cache = self.net.new_cache(2 * num if predict.asks_twice else num)

        def extend(tokens: Tensor | None, start: int) -> Tensor:
            if not predict.asks_twice:
                return self.net.extend(tokens, start, cache, condition=predict.asked)
            num_fed = 0 if tokens is None else tokens.shape[1]
            num_drawn = start + num_fed - (start > 0)   # the start token comes first
            twice = None if tokens is None else tokens.repeat(2, 1)
            both = self.net.extend(twice, start, cache, condition=predict.asked)
            conditional, unconditional = both.chunk(2)
            return combine(conditional, unconditional, predict.guidance.at(torch.tensor(num_drawn / self.num_tokens)))

        return extend

    def _uncached_extend(self, num: int, predict: Predictor):
        """Every call pushes the whole prefix through the network again."""
        last = torch.zeros(num, 1, dtype=torch.int64, device=self.order.device)   # dropped by a causal network
        fed: list[Tensor] = []

        def extend(tokens: Tensor | None, start: int) -> Tensor:
            fed.extend([] if tokens is None else [tokens])
            return predict(torch.cat([*fed, last], 1))[:, -1]

        return extend


def costs(
    num: int, num_tokens: int, prefix: int, *, cached: bool, num_prefix: int = 0
) -> tuple[Tensor, Tensor]:
    """(num,) network evaluations and token-forwards: N of them with a cache, without one i + 1 for token i.

    num_prefix: positions of a condition, which come on top, once or every time.
    """
    evaluations = num_tokens - prefix
    forwards = num_tokens if cached else sum(range(prefix + 1, num_tokens + 1))
    forwards += num_prefix if cached else num_prefix * evaluations
    return torch.full((num,), evaluations), torch.full((num,), forwards if evaluations else 0)
