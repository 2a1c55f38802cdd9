"""Words of a command line: from Python's arguments to `key=value`, and from `key=value` to keys and texts.

    arguments_of(("prior=absorbing,autoregressive",), {"preset": "smoke", "sampler": {"steps": (8, 16)}})
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.errors import InputError, did_you_mean

GROUPS = ("dataset", "vq", "prior", "condition", "sampler", "protocol", "launcher", "preset")
"""Each chooses a file of conf/."""
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
RESERVED = ("true", "false", "null", "none", "nan", "inf", "on", "off", "yes", "no")


def arguments_of(texts: Sequence[str], keys: Mapping[str, Any]) -> list[str]:
    """The words of a command line.

    texts: as they would be typed after `python -m bench.run`, quotes included.
    keys: a nested mapping or dotted names. A tuple is swept over, as `8,16` is on a command line; a list is one value,
        as `[8,16]` is; a text is itself, whatever commas or spaces it holds.
    Raises InputError for a value that no command line could hold.
    """
    try:
        words = [word for text in texts for word in shlex.split(text)]
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"cannot read {texts!r} ({error}): expected texts such as 'prior=absorbing preset=smoke', "
                         "whose quotes are closed.") from None
    return [*words, *(f"{key}={written}" for key, written in _pairs(keys))]


def _pairs(keys: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in keys.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _pairs(value, f"{key}.")
        elif isinstance(value, tuple):
            if not value:
                raise InputError(f"{key}=(): expected at least one value to sweep over. Leave it out.")
            yield key, ",".join(written_value(key, item) for item in value)
        else:
            yield key, written_value(key, value)


def written_value(key: str, value: Any) -> str:
    """One value in the grammar of the command line."""
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str):
        if key in GROUPS and "," in value:
            raise InputError(f"{key}={value!r}: a text is one value. Sweep with a tuple, {key}="
                             f"{tuple(part.strip() for part in value.split(','))!r}.")
        return value if key in GROUPS or _is_word(value) else _quoted(value)
    if isinstance(value, list) and key not in GROUPS:
        return f"[{','.join(written_value(key, item) for item in value)}]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not isinstance(value, int) and math.isfinite(value):
        return repr(float(value))
    if isinstance(value, int):
        return str(int(value))
    hint = f"Sweep with a tuple, {key}={tuple(value)!r}." if isinstance(value, list) else "Give it as a text."
    raise InputError(f"{key}={value!r}: expected a text, a finite number, true, false or None, or a list or tuple of "
                     f"these. {hint}")


def _is_word(text: str) -> bool:
    return WORD.fullmatch(text) is not None and text.lower() not in RESERVED


def _quoted(text: str) -> str:
    """In Hydra's quotes, in which a backslash counts only before a quote (or at the end, which is one)."""
    escaped = re.sub(r"(\\*)(')", r"\1\1\\\2", text)
    tail = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{escaped[len(escaped) - tail:]}'"


def pairs_of(arguments: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """key -> text of `key=text` arguments. Raises InputError for anything else, an unknown key, and a repeated one."""
    found: dict[str, str] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals:
            raise InputError(f"{argument!r} is not key=value. Valid keys: {', '.join(names)}.")
        if key not in names:
            raise InputError(f"unknown key {key!r}. {did_you_mean(key, names)}")
        if key in found:
            raise InputError(f"{key} is given twice; give it once.")
        found[key] = text
    return found


def split_commas(text: str) -> list[str]:
    """Splits at commas outside quotes, and takes the quotes off: `a,'b,c'` -> ["a", "b,c"]."""
    parts, quote = [""], ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
            parts[-1] += "" if not quote else character
        elif character in "'\"":
            quote = character
        elif character == ",":
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]
