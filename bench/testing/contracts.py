"""What the checks of every kind of plug-in share: how a fault is raised, and what an Options dataclass must do."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from priors.base import Unsupported

Note = str | None
"""What a check returns: None where the fact holds, or why it could not be asked."""


class CheckFailed(AssertionError):
    """A plug-in breaks the contract; the message says what was expected and what was found.

    report: what else was found, where all checks were run.
    """

    def __init__(self, message: str, report: Any = None):
        super().__init__(message)
        self.report = report


def require(holds: bool, found: str) -> None:
    if not holds:
        raise CheckFailed(found)


def of_the_loss(check: Callable[[Any], Note]) -> Callable[[Any], Note]:
    """A check of the training loss, which a frozen prior does not have: its reason is noted."""
    @functools.wraps(check)
    def asked(case: Any) -> Note:
        try:
            return check(case)
        except Unsupported as reason:
            require(bool(str(reason)), "Unsupported was raised without a reason")
            return f"training_loss is not supported: {reason}"
    return asked


def first_line(function: Callable[..., Any]) -> str:
    return (function.__doc__ or function.__name__).splitlines()[0]


def built(cls: type, name: str) -> Any:
    """cls.Options() or cls.Sampler(). Raises CheckFailed where the class has none or it has no defaults."""
    if not hasattr(cls, name):
        raise CheckFailed(f"{cls.__name__} has no {name}: expected a frozen dataclass, empty if nothing can be set")
    try:
        return getattr(cls, name)()
    except TypeError as error:
        raise CheckFailed(f"{cls.__name__}.{name}() cannot be built ({error}): every field needs a default") from error


def check_dataclass(cls: type, name: str) -> Note:
    """A frozen dataclass of plain values whose own checks refuse what makes no sense; notes what takes any text."""
    options: Any = getattr(cls, name, None)
    parameters: Any = getattr(options, "__dataclass_params__", None)
    require(parameters is not None and parameters.frozen,
            f"{cls.__name__}.{name} is {options!r}: expected a class decorated with @dataclass(frozen=True)")
    try:
        json.dumps(dataclasses.asdict(options()))
    except TypeError as error:
        raise CheckFailed(f"{name}() cannot be written to a record: {error}") from error
    free = []
    for field in dataclasses.fields(options):
        value = _nonsense_like(getattr(options(), field.name))
        if value is None:
            continue
        try:
            options(**{field.name: value})
        except (TypeError, ValueError):
            continue
        if isinstance(value, str):
            free.append(field.name)
            continue
        raise CheckFailed(f"{name}({field.name}={value!r}) was accepted: __post_init__ should raise ValueError")
    return f"{name} takes any text as {', '.join(free)}: if it is a choice, let __post_init__ refuse others" if free \
        else None


def _nonsense_like(default: Any) -> Any:
    """A value of the same type that no option means; None where there is no telling."""
    if isinstance(default, bool):
        return None
    return {int: -(10**9), float: math.nan, str: "<nonsense>"}.get(type(default))


@contextmanager
def unchanged(what: str, tensor: Tensor) -> Iterator[None]:
    """The block must not write into this tensor of the caller's."""
    before = tensor.clone()
    yield
    require(torch.equal(before, tensor), f"{what} that were passed in came back changed: work on a copy")
