"""What a value of the schema may be: a range, a choice, a text, a place. Stated beside each field in bench.config.

    steps: Annotated[int, Whole(1, of="steps")] = 1000

    check("prior.training.steps", -4, Whole(1, of="steps"))     # InputError: value, expectation, way out
    for key, rule in rules_of(RunSpec): print(key, rule.expected)

Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import math
import re
import stat
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bench.errors import InputError, did_you_mean

MOST = 10**9   # images, steps, bytes of a batch: what is larger is a typing error
SHOWN = 60     # characters of a refused value


class Rule(Protocol):
    """expected: completes "expected ..."."""

    @property
    def expected(self) -> str: ...

    def holds(self, value: Any) -> bool: ...


@dataclass(frozen=True)
class Number:
    """A finite number of [low, high]; an open end is excluded. null: what null means, where it is allowed."""

    low: float
    high: float = float(MOST)
    of: str = ""
    null: str = ""
    low_open: bool = False
    high_open: bool = False

    @property
    def expected(self) -> str:
        least = f"{'above' if self.low_open else 'at least'} {self.low:g}"
        most = f"{'below' if self.high_open else 'at most'} {self.high:g}"
        return f"a {self._kind()}, {least} and {most}{_or_null(self.null)}"

    def holds(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        inside = self.low <= value <= self.high and math.isfinite(value)
        return inside and not (self.low_open and value == self.low or self.high_open and value == self.high)

    def _kind(self) -> str:
        of = f" of {self.of}" if self.of else ""
        return f"{'positive ' if self.low >= 1 or self.low == 0 and self.low_open else ''}number{of}"


@dataclass(frozen=True)
class Whole(Number):
    """A whole number from low to high."""

    high: float = MOST

    @property
    def expected(self) -> str:
        span = (f"{self.low:,} to {self.high:,}" if self.high <= 10_000 else
                f"at least {self.low:,} and at most {self.high:,}")
        return f"a {self._kind()}, whole, {span}{_or_null(self.null)}"

    def holds(self, value: Any) -> bool:
        return isinstance(value, int) and super().holds(value)


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def expected(self) -> str:
        return f"one of {', '.join(self.words)}"

    def holds(self, value: Any) -> bool:
        return value in self.words


@dataclass(frozen=True)
class Text:
    """Printable text of one line. pattern: what all of it must look like, said in `means`."""

    means: str = "a text of one line"
    pattern: str = r".*\S.*"
    null: str = ""

    @property
    def expected(self) -> str:
        return self.means + _or_null(self.null)

    def holds(self, value: Any) -> bool:
        return isinstance(value, str) and value.isprintable() and re.fullmatch(self.pattern, value) is not None


@dataclass(frozen=True)
class Place:
    """A path, where there need be nothing yet; what is there must be of a kind that can be read without hanging.

    kinds: "file", "folder" or both. words: values that are no path. made: the folder is ours to make.
    """

    kinds: tuple[str, ...]
    words: tuple[str, ...] = ()
    null: str = ""
    made: bool = False

    @property
    def expected(self) -> str:
        kinds = " or ".join({"file": "a regular file", "folder": "a folder"}[kind] for kind in self.kinds)
        words = f"{', '.join(self.words)} or " if self.words else ""
        where = ", or a new one inside a folder" if self.made else ""
        return f"{words}the path of {kinds}{where} (no device, pipe or socket){_or_null(self.null)}"

    def holds(self, value: Any) -> bool:
        if not Text().holds(value):
            return False
        if value in self.words:
            return True
        path = Path(value)
        try:
            if self.made:   # the folder, or the nearest one above it that is there
                while not path.exists() and path != path.parent:
                    path = path.parent
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return True   # whoever reads it says that nothing is there
        except (OSError, ValueError):
            return False
        return stat.S_ISREG(mode) and "file" in self.kinds or stat.S_ISDIR(mode) and "folder" in self.kinds


@dataclass(frozen=True)
class Several:
    """A list whose items all obey one rule. length: how many (None: any number)."""

    item: Rule
    length: int | None = None

    @property
    def expected(self) -> str:
        return f"a list of {self.length or 'values'}, each {self.item.expected}"

    def holds(self, value: Any) -> bool:
        return (isinstance(value, list | tuple) and (self.length is None or len(value) == self.length)
                and all(map(self.item.holds, value)))


@dataclass(frozen=True)
class Plain:
    """Names with plain values, whatever they are: finite numbers, texts, true and false, null, lists of these.

    Whoever takes them (a plug-in's own dataclass, SLURM) says which names and values it knows.
    """

    expected: str = "names with plain values: finite numbers, texts of one line, true, false, null, and lists of these"

    def holds(self, value: Any) -> bool:
        return isinstance(value, dict) and all(isinstance(name, str) and is_plain(item) for name, item in value.items())


def is_plain(value: Any) -> bool:
    """Whether a value is null, a flag, a finite number, a printable text, or a list or mapping of these."""
    if isinstance(value, dict):
        return all(isinstance(name, str) and is_plain(item) for name, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    if isinstance(value, str):
        return value.isprintable()
    return value is None or isinstance(value, bool | int) or isinstance(value, float) and math.isfinite(value)


def rules_of(schema: type, prefix: str = "") -> Iterator[tuple[str, type, Rule | None]]:
    """Every key of a schema of dataclasses: its dotted name, its type and its rule (None: it states none)."""
    hints = typing.get_type_hints(schema, include_extras=True)
    for field in dataclasses.fields(schema):
        kind, rule = _split(hints[field.name])
        if dataclasses.is_dataclass(kind):
            yield from rules_of(typing.cast(type, kind), f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, kind, rule


def check(key: str, value: Any, rule: Rule) -> None:
    """Raise InputError, with the value, the expectation and the way out, unless the rule holds."""
    if rule.holds(value):
        return
    if isinstance(rule, Plain) and isinstance(value, dict):
        for name, item in value.items():
            if not is_plain(item):
                written = f"{key.removesuffix('options')}{name}" if key.endswith(".options") else f"{key}: {name}"
                raise InputError(f"{written}={shown(item)}: expected a finite number, a text of one line, true, "
                                 "false, null, or a list of these.")
    if isinstance(rule, Choice) and isinstance(value, str):
        raise InputError(f"{key}={shown(value)}: {did_you_mean(value, rule.words)}")
    raise InputError(f"{key}={shown(value)}: expected {rule.expected}. Leave it out for what the preset says.")


def check_all(schema: type, values: dict[str, Any], prefix: str = "") -> None:
    """Raise InputError for the first value of a nested mapping that breaks the rule of its field."""
    hints = typing.get_type_hints(schema, include_extras=True)
    for field in dataclasses.fields(schema):
        if field.name not in values:
            continue
        value, (kind, rule) = values[field.name], _split(hints[field.name])
        if dataclasses.is_dataclass(kind):
            if not isinstance(value, dict):
                raise InputError(f"{prefix}{field.name}={shown(value)}: a group of keys; set them one by one, as "
                                 f"{prefix}{field.name}.{dataclasses.fields(kind)[0].name}=...")
            check_all(typing.cast(type, kind), value, f"{prefix}{field.name}.")
        elif rule is not None and not (value is None and type(None) in typing.get_args(kind)):
            check(prefix + field.name, value, rule)


NODE = re.compile(r"\$\{[\w.]+\}")   # an interpolation of another key, such as ${seed}


def refuse_resolvers(argument: str) -> None:
    """Raise InputError for an interpolation that reads anything but another key: records must not hold a secret."""
    if "${" in NODE.sub("", argument):
        raise InputError(f"'{shown(argument)}': expected interpolations of other keys alone, such as ${{seed}}; the "
                         "environment and other resolvers are not read, since records would keep what they say. Let "
                         "the shell insert the value: key=\"$NAME\".")


def shown(value: Any) -> str:
    """A refused value, as it would be written, not longer than a line."""
    text = "null" if value is None else str(value)
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _split(hint: Any) -> tuple[Any, Rule | None]:
    """The type and the rule of Annotated[type, rule]."""
    if typing.get_origin(hint) is typing.Annotated:
        kind, rule = typing.get_args(hint)[:2]
        return kind, rule
    return hint, None


def _or_null(null: str) -> str:
    return f", or null for {null}" if null else ""


class Checked:
    """Raises InputError for a value that breaks the rule of its field, however the dataclass is made."""

    def __post_init__(self) -> None:
        check_all(type(self), {name: value for name, value in vars(self).items() if not isinstance(value, Checked)},
                  f"{type(self).__name__}.")
