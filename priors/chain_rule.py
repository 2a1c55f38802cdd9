"""Exact likelihoods by the chain rule, of priors that can take the tokens of a grid in any order.

    log p_o(x) = sum_i log p(x_o(i) | x_o(1), ..., x_o(i-1))

    exact(prior.logits_at, tokens, schedules.grid_order("raster", (16, 16))).nats   # (B,), N network evaluations
    average_over_orders(prior.nll_in_order, tokens, num_orders=8, draws=Draws.seeded(0)).nats

Each order o defines a distribution of its own: that of drawing one token at a time in that order. Its likelihood is
exact. The mean of -log p_o over all orders is an upper bound on the negative log-likelihood of drawing in a random
order, and it is what the bound of an absorbing diffusion tends to as T grows (Hoogeboom et al. 2022, "Autoregressive
Diffusion Models").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from priors.base import UNKNOWN, Draws, Likelihood
from priors.checks import check_order
from priors.conditions import Condition


@runtime_checkable
class InOrder(Protocol):
    """A prior with a likelihood in an order that the caller chooses; Unsupported in one that it cannot take."""

    def nll_in_order(self, tokens: Tensor, order: Tensor, *, condition: Condition | None = None) -> Likelihood:
        """Exact negative log-likelihood of (B, N) tokens, taken in `order`, (N,) or (B, N) int64."""

    def random_order_nll(
        self, tokens: Tensor, *, condition: Condition | None = None, draws: Draws, budget: int
    ) -> Likelihood:
        """Its mean over all orders, estimated with at most `budget` network evaluations an image; an upper bound."""


@torch.no_grad()
def exact(logits_at: Callable[[Tensor, Tensor], Tensor], tokens: Tensor, order: Tensor) -> Likelihood:
    """Negative log-likelihood in nats of taking the tokens in `order`, by N network evaluations.

    logits_at: tokens (B, N) with UNKNOWN where hidden, positions (B, 1) -> logits (B, 1, K).  tokens: (B, N) int64.
    order: (N,) or (B, N) int64.  Raises ValueError unless it is one.
    """
    order = check_order(order, *tokens.shape).to(tokens.device).expand_as(tokens)
    hidden = torch.full_like(tokens, UNKNOWN)
    nats = torch.zeros(len(tokens), dtype=torch.float64, device=tokens.device)
    for i in range(tokens.shape[1]):
        position = order[:, i : i + 1]   # (B, 1)
        true = tokens.gather(1, position)
        logits = logits_at(hidden, position)[:, 0]   # (B, K)
        nats += F.cross_entropy(logits.float(), true[:, 0], reduction="none").double()
        hidden = hidden.scatter(1, position, true)
    return Likelihood(nats, torch.zeros_like(nats), "exact", tokens.shape[1])


def average_over_orders(
    nll_in_order: Callable[[Tensor, Tensor], Likelihood], tokens: Tensor, *, num_orders: int, draws: Draws
) -> Likelihood:
    """Mean nats over `num_orders` random orders, drawn anew for every image; unbiased for the mean over all orders.

    monte_carlo_variance is nan for a single order, which says nothing of the others.
    """
    orders = (random_orders(*tokens.shape, draws=draws).to(tokens.device) for _ in range(num_orders))
    found = [nll_in_order(tokens, order) for order in orders]
    nats = torch.stack([one.nats for one in found])   # (orders, B)
    variance = nats.var(0) / num_orders if num_orders > 1 else torch.full_like(nats[0], math.nan)
    return Likelihood(nats.mean(0), variance, "bound_continuous", sum(one.network_evaluations for one in found))


def random_orders(num_images: int, num_tokens: int, *, draws: Draws) -> Tensor:
    """(B, N) int64, a uniformly random order for every image."""
    return draws.uniform(num_images, num_tokens).argsort(1)
