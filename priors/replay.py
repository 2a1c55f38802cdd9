"""Draws that were recorded elsewhere, handed out again in call order.

    draws = ReplayedDraws([("rand", uniforms), ("categorical", tokens)])

Names are those of the torch functions that made them: rand and rand_like, randn, randint, randperm, categorical (or
multinomial where the record holds nothing nicer).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from priors.base import Draws


class ReplayedDraws(Draws):
    """Raises IndexError when the record is used up and ValueError when it holds another draw than the one asked for."""

    def __init__(self, record: Iterable[tuple[str, Tensor]]):
        super().__init__(torch.Generator())
        self.record = list(record)

    def uniform(self, *shape: int) -> Tensor:
        return self._next(("rand", "rand_like"), shape)

    def normal(self, *shape: int) -> Tensor:
        return self._next(("randn", "randn_like"), shape)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        return self._next(("randint",), shape)

    def permutation(self, n: int) -> Tensor:
        return self._next(("randperm",), (n,))

    def categorical(self, logits: Tensor) -> Tensor:
        """The recorded choice; torch's Categorical records a multinomial draw first, which says the same."""
        if [name for name, _ in self.record[:2]] == ["multinomial", "categorical"]:
            del self.record[0]
        return self._next(("categorical", "multinomial"), logits.shape[:-1])

    def _next(self, names: tuple[str, ...], shape: tuple[int, ...]) -> Tensor:
        if not self.record:
            raise IndexError(f"the record is used up: expected one more of {names} of shape {tuple(shape)}")
        name, value = self.record.pop(0)
        if name not in names or value.numel() != torch.Size(shape).numel():
            raise ValueError(
                f"the record holds {name} of shape {tuple(value.shape)}: expected {names} of shape {tuple(shape)}"
            )
        return value.reshape(shape)
