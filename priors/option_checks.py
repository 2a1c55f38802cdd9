"""Checks of options; an error names the value, the expectation and the way out. Torch-free, so that errors come early.

    check_integer("steps", 0, "leave it out")   # ValueError: steps=0: expected an integer of at least 1; leave it out

And the mark of options that came `later`.
"""

from __future__ import annotations

import math
from dataclasses import field, fields
from difflib import get_close_matches
from typing import Any


def later(default: Any) -> Any:
    """A field that came after keys of artefacts had been made: at its default it is part of none."""
    return field(default=default, metadata={"later": True})


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Raise ValueError unless these describe a distribution to sample from."""
    check_number("temperature", temperature, 0.0, math.inf, "use 1 for the model's own distribution", low_open=True)
    if top_k is not None:
        check_integer("top_k", top_k, "leave it out to keep every token")
    if top_p is not None:
        check_number("top_p", top_p, 0.0, 1.0, "leave it out to keep every token", low_open=True)


def check_integer(name: str, value: object, way_out: str, *, minimum: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name}={value!r}: expected an integer of at least {minimum}; {way_out}")


def check_number(
    name: str, value: object, low: float, high: float, way_out: str, *, low_open: bool = False, high_open: bool = False
) -> None:
    """Raise ValueError unless value is a finite number in [low, high], an open end excluded."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        if low < value < high or (value == low and not low_open) or (value == high and not high_open):
            return
    above = f"{'above' if low_open else 'of at least'} {low:g}"
    below = "" if high == math.inf else f" and {'below' if high_open else 'at most'} {high:g}"
    raise ValueError(f"{name}={value!r}: expected a number {above}{below}; {way_out}")


def check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r}: expected true or false")


def check_choice(name: str, value: object, choices: tuple) -> None:
    """Raise ValueError that lists the choices and the nearest of them."""
    if value in choices:
        return
    near = get_close_matches(str(value), [choice for choice in choices if choice is not None], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, choices))}{hint}")


def check_window(name: str, value: int | None, method: str, owner: str) -> None:
    """Raise ValueError unless `value` is None, or the number of tokens that the sampling method `owner` looks ahead."""
    if value is None:
        return
    check_integer(name, value, "leave it out for all tokens that are left")
    if method != owner:
        raise ValueError(f"{name}={value}: used by method={owner!r} alone, but method={method!r}; leave it out")


def check_sampler(sampler: object, expected: type) -> None:
    """Raise TypeError when a prior is given the sampler of another one."""
    if not isinstance(sampler, expected):
        names = ", ".join(field.name for field in fields(expected))
        raise TypeError(f"sampler={sampler!r}: expected a {expected.__name__}; its fields are {names}")
