"""What a command line of `bench.run` holds besides the keys of a run, and files of such keys.

    door, rest = split_off(["config=sweep.yaml", "sampler.steps=8", "json=true"])
    door.json, rest            # True, [what sweep.yaml says, then sampler.steps=8]

A file is a YAML mapping from keys to values. A text is what would stand behind `key=`, so `8,16` is swept over; a YAML
list is one value; nested mappings are dotted keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.errors import InputError
from bench.rules import Place, check
from bench.store.files import write_text
from bench.words import written_value

FLAGS, TEXTS = ("keys", "json"), ("config", "config_out", "list")
HELP = ("help", "-h", "--help")
OURS = (*FLAGS, *TEXTS)
LOOKS = ("plan", "status")   # they tell what to do now, and do not belong in a file
MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class Door:
    """keys: print the key reference.  help: those of the models asked for.  list: print what there is of a kind.

    json: plan, status or summary for machines.  config_out: where the pairs of this command are to be kept.
    """

    keys: bool = False
    help: bool = False
    list: str = ""
    json: bool = False
    config: str = ""
    config_out: str = ""


def split_off(arguments: Sequence[str]) -> tuple[Door, list[str]]:
    """The door's own words, and the keys of runs: those of the file first, so that the command line wins.

    Raises InputError for a value of the wrong kind, a word given twice, and a file that is none of keys and values.
    """
    found: dict[str, Any] = {}
    rest = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if argument == "--keys":
            key, equals, value = "keys", "=", "true"
        if argument in HELP:
            found["help"] = True
        elif equals and key in OURS:
            if key in found:
                raise InputError(f"{key}={value}: {key} is given twice.")
            found[key] = _value(key, value)
        else:
            rest.append(argument)
    door = Door(**found)
    return door, [*(read(Path(door.config)) if door.config else []), *rest]


def read(path: Path) -> list[str]:
    """The pairs of a file as arguments. Raises InputError for anything else."""
    check("config", str(path), Place(("file",)))
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"config={path}: {path.stat().st_size:,} bytes, expected a short list of keys and values.")
        held = yaml.load(path.read_text(encoding="utf-8"), Loader=_OneOfEach)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"config={path}: cannot be read ({error}). Name a YAML file of key: value pairs.") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"config={path}: no YAML ({' '.join(str(error).split())[:200]}). Write key: value, one a line."
                         ) from None
    if not isinstance(held, Mapping) or not held:
        raise InputError(f"config={path}: expected key: value pairs, one a line, such as prior: absorbing.")
    arguments = [f"{key}={value}" for key, value in _pairs(held, path)]
    for argument in arguments:
        key = argument.partition("=")[0]
        if key in (*OURS, "rebuild"):
            raise InputError(f"config={path}: {key} belongs on the command line, not in a file.")
    return arguments


def keep(path: str, arguments: Iterable[str], *, command: str) -> None:
    """Write the pairs, so that config= gives the same runs. Raises InputError if another file stands there."""
    pairs = {key: value for key, _, value in (text.partition("=") for text in arguments) if key not in LOOKS}
    text = f"# {command}\n" + yaml.safe_dump(pairs, sort_keys=False, allow_unicode=True, width=10_000)
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"config_out={path}: {target.parent} is no folder. Make it, or name another file.")
    if target.exists() and (not target.is_file() or _pairs_of(target) != pairs):
        raise InputError(f"config_out={path}: something else is there. Name a new file.")
    if not target.exists():
        write_text(target, text)


def _pairs_of(path: Path) -> object:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) if path.stat().st_size <= MOST_BYTES else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None


def _pairs(held: Mapping[Any, Any], path: Path, prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in held.items():
        if not isinstance(name, str):
            raise InputError(f"config={path}: {name!r} is no key; keys are texts such as sampler.steps.")
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _pairs(value, path, f"{key}.")
        else:
            yield key, value if isinstance(value, str) else written_value(key, value)


def _value(key: str, text: str) -> object:
    if key in FLAGS:
        if text.lower() not in ("true", "false"):
            raise InputError(f"{key}={text}: expected true or false.")
        return text.lower() == "true"
    if not text:
        raise InputError(f"{key}=: expected a value.")
    return text


class _OneOfEach(yaml.SafeLoader):
    """YAML in which a key given twice is an error, and so are aliases: a few can stand for any number of values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias, such as *name: write the value itself")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"{key} is given twice")
        return super().construct_mapping(node, deep)
