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
from priors.base import UNKNOWN, Draws, Likelihood, Sample, Unsupported
from priors.checks import check_known, check_tokens
from priors.official import convert, read_state
from priors.options import AutoregressiveOptions, AutoregressiveSampler, check_choice, check_sampler
from priors.transformer import Transformer, seeded_dropout


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
        self.net = Transformer(
            num_tokens=self.num_tokens,
            vocabulary=codebook_size,
            num_classes=codebook_size,
            width=options.width,
            num_layers=options.num_layers,
            num_heads=options.num_heads,
            causal=True,
            dropout=options.dropout,
        )
        order = schedules.grid_order(options.order, self.grid)
        self.register_buffer("order", order, persistent=False)   # sequence -> raster
        self.register_buffer("rank", order.argsort(), persistent=False)   # raster -> sequence

    def load_official(self, path: str | PathLike, *, layout: str) -> Autoregressive:
        """Take the weights of a checkpoint of the paper's authors (layout "official"), of this prior's sizes."""
        check_choice("layout", layout, ("official",))
        if self.options.order != "raster":
            raise ValueError(f"order={self.options.order!r}: the official models generate in raster order; use that")
        self.net.load_state_dict(convert(read_state(path), self.net, kind="autoregressive"))
        return self

    def logits(self, tokens: Tensor) -> Tensor:
        """(B, N) int64 -> (B, N, K); the logits of a token depend only on the tokens before it in the walk."""
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        return self.net(tokens[:, self.order])[:, self.rank]

    def training_loss(self, tokens: Tensor, *, draws: Draws) -> Tensor:
        """Mean cross-entropy in bits a token; draws nothing unless there is dropout."""
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        sequence = tokens[:, self.order]
        with seeded_dropout(self, draws, len(tokens)):
            logits = self.net(sequence)
        return F.cross_entropy(logits.flatten(0, 1).float(), sequence.flatten()) / math.log(2)

    @torch.no_grad()
    def nll(self, tokens: Tensor, *, draws: Draws, budget: int | None = None) -> Likelihood:
        """Negative log-likelihood of each image in nats, exact by one network evaluation, so any budget is enough."""
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        sequence = tokens[:, self.order]
        logits = self.net(sequence).float()
        nats = F.cross_entropy(logits.transpose(1, 2), sequence, reduction="none").double().sum(1)
        return Likelihood(nats, torch.zeros_like(nats), "exact", 1)

    @torch.inference_mode()
    def sample(
        self, num: int, *, sampler: AutoregressiveSampler, known: Tensor | None = None, draws: Draws
    ) -> Sample:
        """Draw `num` images; tokens of `known` (num, N) that are not UNKNOWN are kept.

        Raises Unsupported where a known token comes after an unknown one in the walk.
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
        adjust = samplers.Adjust(sampler.temperature, sampler.top_k, sampler.top_p)
        if sampler.method == "jacobi":
            noise = jacobi.gumbel_noise(draws, num, self.num_tokens, self.codebook_size).to(known.device)
            evaluate = jacobi.evaluator(self.net, num, cached=sampler.cache)
            tokens, *cost = jacobi.jacobi(evaluate, known, noise, window=sampler.jacobi_window, adjust=adjust)
            return Sample(tokens[:, self.rank], *cost)
        extend = self._cached_extend(num) if sampler.cache else self._uncached_extend(num)
        tokens = samplers.autoregressive(extend, known, adjust=adjust, draws=draws)
        return Sample(tokens[:, self.rank], *self._cost(num, int(prefix.min()), sampler.cache))

    def _cached_extend(self, num: int):
        cache = self.net.new_cache(num)

        def extend(tokens: Tensor | None, start: int) -> Tensor:
            return self.net.extend(tokens, start, cache)

        return extend

    def _uncached_extend(self, num: int):
        """Every call pushes the whole prefix through the network again."""
        last = torch.zeros(num, 1, dtype=torch.int64, device=self.order.device)   # dropped by a causal network
        fed: list[Tensor] = []

        def extend(tokens: Tensor | None, start: int) -> Tensor:
            fed.extend([] if tokens is None else [tokens])
            return self.net(torch.cat([*fed, last], 1))[:, -1]

        return extend

    def _cost(self, num: int, prefix: int, cached: bool) -> tuple[Tensor, Tensor]:
        """(num,) network evaluations and token-forwards: N of them with a cache, without one i + 1 for token i."""
        evaluations = self.num_tokens - prefix
        forwards = self.num_tokens if cached else sum(range(prefix + 1, self.num_tokens + 1))
        forwards = forwards if evaluations else 0
        return torch.full((num,), evaluations), torch.full((num,), forwards)
