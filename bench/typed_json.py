"""JSON that others wrote: read within bounds, and fitted to a dataclass whose annotations state types and ranges.

    Count = Annotated[int, Within(0, 10**6)]
    fit(Sheet, read_json(Path("sheet.json")), "sheet")     # raises Malformed: "sheet.rows is -1, expected 0 to 1e6"

Annotations may be str, int, float, bool, None, Any, Literal, unions, list, tuple, dict, dataclasses (closed: an unknown
field is an error) and TypedDicts (open: other keys may hold any JSON), each with the marks of this module.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import stat
import types
from dataclasses import MISSING, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from bench.printable import clean, one_line

MAX_BYTES = 64 * 2**20
MAX_DEPTH = 32
MAX_INTEGER = 2**64


class Malformed(ValueError):
    """The file is not what it should be; the message says where, what is there and what was expected."""


@dataclass(frozen=True)
class Within:
    """A number in [low, high]."""

    low: float
    high: float

    def problem(self, value: Any) -> str:
        return "" if self.low <= value <= self.high else f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class AtMost:
    """A text or list of at most so many characters or items."""

    length: int

    def problem(self, value: Any) -> str:
        return "" if len(value) <= self.length else f"at most {self.length:,} characters or items, not {len(value):,}"


@dataclass(frozen=True)
class Matches:
    """A text that a regular expression matches as a whole; `says` describes it."""

    pattern: str
    says: str

    def problem(self, value: Any) -> str:
        return "" if re.fullmatch(self.pattern, value) else self.says


@dataclass(frozen=True)
class Holds:
    """A dict that holds what this TypedDict declares, where it holds it."""

    kind: Any


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file. Raises Malformed for anything else (a FIFO is not waited for) and a larger one."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise Malformed("not a regular file")
        if facts.st_size > max_bytes:
            raise Malformed(f"{facts.st_size:,} bytes, expected at most {max_bytes:,}")
        return file.read(max_bytes)


def read_json(path: Path, *, max_bytes: int = MAX_BYTES) -> Any:
    """The value in a file: finite numbers, at most MAX_DEPTH levels, no character that steers a terminal.

    Raises Malformed, or OSError where the file cannot be opened.
    """
    try:
        return bounded(json.loads(read_bytes(path, max_bytes).decode("utf-8")))
    except RecursionError:
        raise Malformed(f"nested more than {MAX_DEPTH} levels deep") from None
    except Malformed:
        raise
    except ValueError as error:
        raise Malformed(f"not JSON in UTF-8: {error}") from None


def fit(kind: Any, value: Any, where: str) -> Any:
    """The value as an instance of an annotation. Raises Malformed."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        return _marked(fit(arguments[0], value, where), arguments[1:], where)
    if origin in (Union, types.UnionType):
        return None if value is None and types.NoneType in arguments else fit(arguments[0], value, where)
    if origin is Literal:
        return _expect(isinstance(value, str) and value in arguments, value, where, " or ".join(map(repr, arguments)))
    if dataclasses.is_dataclass(kind):
        return _instance(kind, _expect(isinstance(value, dict), value, where, "an object"), where)
    if is_typeddict(kind):
        hints = _hints(kind)
        _expect(isinstance(value, dict), value, where, "an object")
        return {key: fit(hints[key], held, f"{where}.{key}") if key in hints else held for key, held in value.items()}
    if (origin or kind) is dict:
        _expect(isinstance(value, dict), value, where, "an object")
        return {key: fit(arguments[1], held, f"{where}.{key}") for key, held in value.items()} if arguments else value
    if origin in (list, tuple):
        return _sequence(origin, arguments, value, where)
    if kind is float:
        return _expect(isinstance(value, (int, float)) and not isinstance(value, bool), value, where, "a number")
    return _expect(type(value) is kind, value, where, NAMES[kind])


NAMES = {str: "a text", int: "a whole number", bool: "true or false", types.NoneType: "null"}


def _instance(kind: Any, raw: dict[str, Any], where: str) -> Any:
    hints = _hints(kind)
    if unknown := sorted(set(raw) - set(hints)):
        raise Malformed(f"{where} has unknown fields: {_shown(unknown)}")
    required = {f.name for f in dataclasses.fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    if missing := sorted(required - set(raw)):
        raise Malformed(f"{where} lacks {', '.join(missing)}")
    return kind(**{key: fit(hints[key], value, f"{where}.{key}") for key, value in raw.items()})


def _sequence(origin: Any, arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    _expect(isinstance(value, (list, tuple)), value, where, "a list")
    if origin is tuple and arguments[-1] is not Ellipsis:
        _expect(len(value) == len(arguments), value, where, f"a list of {len(arguments)}")
        return tuple(fit(kind, value[i], f"{where}[{i}]") for i, kind in enumerate(arguments))
    return origin(fit(arguments[0], held, f"{where}[{i}]") for i, held in enumerate(value))


def _marked(value: Any, marks: tuple[Any, ...], where: str) -> Any:
    for mark in marks:
        if isinstance(mark, Holds):
            value = fit(mark.kind, value, where)
        elif problem := mark.problem(value):
            raise Malformed(f"{where} is {_shown(value)}, expected {problem}")
    return value


def _expect(holds: bool, value: Any, where: str, expected: str) -> Any:
    if not holds:
        raise Malformed(f"{where} is {_shown(value)}, expected {expected}")
    return value


def _shown(value: Any) -> str:
    text = one_line(repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


def bounded(value: Any, depth: int = MAX_DEPTH) -> Any:
    """The value with its texts cleaned. Raises Malformed for a number that is not finite and for one level too many."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, (dict, list)):
        if not depth:
            raise Malformed(f"nested more than {MAX_DEPTH} levels deep")
        return [bounded(held, depth - 1) for held in value] if isinstance(value, list) else \
            {clean(key): bounded(held, depth - 1) for key, held in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise Malformed(f"the number {value}, expected finite ones")
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise Malformed("a whole number beyond 64 bits")
    return value


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)
