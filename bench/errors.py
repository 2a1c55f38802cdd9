"""Errors the command line turns into exit codes: 2 for wrong input, 1 for work that failed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """Something failed while working; what was finished is kept."""

    exit_code = 1


class InputError(BenchError, ValueError):
    """The caller's input is wrong: the message names the value, the expectation and the way out."""

    exit_code = 2


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """A sentence that suggests the nearest valid name and lists all of them."""
    valid = sorted(valid)
    near = difflib.get_close_matches(name, valid, n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    return f"{hint}Valid: {', '.join(valid)}."
