"""What the training loop trains, and a prior as such a task.

    train(PriorTask(prior, config), fetch, config, ...)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bench import selection
from bench.config.models import PriorTrainingConfig
from bench.errors import InputError
from priors.base import Draws, Unsupported
from priors.chain_rule import InOrder
from priors.schedules import grid_order

Optimize = Callable[[Tensor, Optimizer], None]


class Trainable(Protocol):
    """What the loop trains; by convention an nn.Module that holds everything with state.

    model: what is averaged, validated and published.
    """

    model: nn.Module

    def optimizers(self) -> list[Optimizer]:
        """One for a prior, two for a VQGAN; their learning rates are the peak ones."""

    def update(self, batch: Tensor, step: int, draws: Draws, optimize: Optimize) -> dict[str, Tensor]:
        """One step; `optimize(loss, optimizer)` does the backward pass and the update. Returns what to log."""

    def validate(self, model: nn.Module, batch: Tensor, draws: Draws) -> dict[str, Tensor]:
        """Means over one validation batch; the best checkpoint is the one with the lowest "loss"."""


class PriorTask(nn.Module):
    """A prior as a Trainable: one Adam, and the likelihood it reaches on held-out tokens as validation."""

    def __init__(self, prior: Any, config: PriorTrainingConfig):
        super().__init__()
        self.model: Any = prior
        self.config = config
        self.walk = _walk(prior, config.measure_order)

    def optimizers(self) -> list[Optimizer]:
        first, second = self.config.betas
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.config.learning_rate,
                                           betas=(first, second), weight_decay=self.config.weight_decay)
        return [self.optimizer]

    def update(self, batch: Tensor, step: int, draws: Draws, optimize: Optimize) -> dict[str, Tensor]:
        tokens, told = self._parts(batch)
        loss = self.model.training_loss(tokens, draws=draws, **told)
        optimize(loss, self.optimizer)
        return {"loss": loss.detach()}

    def validate(self, model: Any, batch: Tensor, draws: Draws) -> dict[str, Tensor]:
        """Bits per token, an upper bound where the prior has only that; the objective where it has no likelihood."""
        tokens, told = self._parts(batch)
        try:
            nats = model.nll(tokens, draws=draws, budget=selection.budget(self.config), **told).nats.mean()
        except Unsupported:
            return {"loss": model.training_loss(tokens, draws=draws, **told)}
        bits = nats / (tokens.shape[1] * math.log(2))
        return {"loss": bits, "bits_per_token": bits}

    def measure(self, model: Any, batch: Tensor, draws: Draws) -> tuple[Tensor, Tensor, str]:
        """Bits a token of each image (B,), their Monte-Carlo variance (B,), and the kind of likelihood."""
        tokens, told = self._parts(batch)
        if self.walk is not None:
            found = model.nll_in_order(tokens, self.walk.to(tokens.device), **told)
        else:
            found = model.nll(tokens, draws=draws, budget=self.config.measure_budget, **told)
        bits = tokens.shape[1] * math.log(2)
        return found.nats / bits, found.monte_carlo_variance / bits ** 2, found.kind

    def _parts(self, batch: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """The tokens (B, N) of a batch, and what the prior is told beside them."""
        return batch, {}


def _walk(prior: Any, order: str | None) -> Tensor | None:
    """(N,), an order to measure likelihoods in; InputError, before any training, where the prior has none in it."""
    if order is None:
        return None
    if not isinstance(prior, InOrder):
        raise InputError(f"prior.training.measure_order={order}: {type(prior).__name__} has no likelihood in an order "
                         "of one's choice. Leave it out.")
    device = next((weights.device for weights in prior.parameters()), None)   # type: ignore[attr-defined]
    walk = grid_order(order, prior.grid).to(device)   # type: ignore[attr-defined]
    try:
        prior.nll_in_order(torch.zeros_like(walk).unsqueeze(0), walk)
    except Unsupported as reason:
        raise InputError(f"prior.training.measure_order={order}: {reason}. Leave it out.") from None
    return walk


def flops_of_training(prior: Any) -> float:
    """Floating-point operations of the forward and backward pass of one training image, three times the forward's.

    Two for each weight of a linear layer and token, and 4 N width a layer and token for attention's two products,
    counted in full for a causal mask too, as is usual (Kaplan et al. 2020, Section 2.1).
    """
    tokens = prior.num_tokens
    weights = sum(module.weight.numel() for module in prior.modules() if isinstance(module, nn.Linear))
    options = getattr(prior, "options", None)   # a third party's prior need not keep them; its attention is not known
    width, layers = (getattr(options, name, 0) for name in ("width", "num_layers"))
    return 3.0 * tokens * (2 * weights + 4 * tokens * width * layers)
