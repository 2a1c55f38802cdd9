"""Every key of a command line: its type, default, range and meaning, read from the dataclasses that check it.

    python -m bench.run keys=true                  # all of them
    python -m bench.run prior=absorbing --help     # those of one prior and its sampler, as this command sets them
    python -m bench.keys docs/keys.md              # the same as a page

A field's line stands in its class's docstring, as `name: what it is` or `one, two: what both are`. Torch-free.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import textwrap
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from types import UnionType
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import registry
from bench.command import run_command
from bench.compose import compose, expand
from bench.config import RunSpec
from bench.config.models import ModelConfig
from bench.errors import InputError
from bench.listing import KINDS, OURS, choices_of
from bench.printable import cell
from bench.rules import rules_of
from bench.schema import schema_of
from bench.words import GROUPS

COMPOSED = ("autoencoder", "sampler", "vq.options", "prior.options", "prior.recipe")
"""Made of other keys; refused on a command line."""
GROUP_LINES = {"dataset": "the images", "vq": "the tokenizer", "prior": "the model of tokens that is judged",
               "condition": "what it is told of each image", "sampler": "how it is sampled",
               "protocol": "what is compared with what",
               "launcher": "where the work runs", "preset": "sizes and budgets of everything"}
DOOR = (("keys", "true or false", "print this list"),
        ("list", f"one of {', '.join(KINDS)}", "print what there is of a kind"),
        ("config", "the path of a YAML file", "read key: value pairs; what the command line says goes before them"),
        ("config_out", "the path of a YAML file", "keep this command's pairs there, for config="),
        ("config_dir", "the path of a folder", "choose launchers, protocols, presets ... from its files too"),
        ("rebuild", "stages and metrics", "build these anew, and what is made of them"),
        ("json", "true or false", "print plan, status or summary as JSON"))
"""What a command line may hold besides the keys of a run."""


@dataclass(frozen=True)
class Key:
    """One key. default: as it would be written; expected: its type and range; line: what it is."""

    name: str
    default: str
    expected: str
    line: str


def sections(arguments: Sequence[str] = (), *, built_in: bool = False) -> dict[str, list[Key]]:
    """Title -> keys: those of every run, then those of each registered tokenizer and prior; defaults as composed.

    built_in: leave out what other packages register.
    """
    def names(kind: str) -> list[str]:
        return [name for name in registry.names(kind) if not built_in or registry.origin_of(kind, name) == OURS]

    spec = compose(arguments)
    found = {"Groups": list(groups(spec)), "A run": list(keys_of_run(spec))}
    for name in names("tokenizers"):
        chosen = [] if name == spec.vq.name else [f"vq={name}", "vq.layout=native"]   # a layout asks for a checkpoint
        found[f"vq={name}"] = list(options(compose(chosen), "vq"))
    for name in names("priors"):
        found[f"prior={name}"] = keys_of_prior(compose([f"prior={name}"]))
    return found


def sections_of(arguments: Sequence[str]) -> dict[str, list[Key]]:
    """Title -> keys of the prior and tokenizer that the arguments choose, with the values this command gives them.

    Of a sweep, one section for each prior in it.
    """
    found: dict[str, list[Key]] = {}
    for spec in (request.spec for request in expand(arguments, announce=lambda text: None)):
        found.setdefault(f"prior={spec.prior.entry}", keys_of_prior(spec))
        found.setdefault(f"vq={spec.vq.entry}", list(options(spec, "vq")))
    found["every run"] = [Key("...", "", "", "further keys: python -m bench.run keys=true")]
    return dict(sorted(found.items(), key=lambda item: not item[0].startswith("prior=")))


def groups(spec: RunSpec) -> Iterator[Key]:
    """The keys that choose a whole file of conf/, or a class by its name."""
    chosen = {"dataset": spec.dataset.name, "vq": "both", "prior": spec.prior.name, "condition": spec.condition.name,
              "sampler": "default",
              "protocol": spec.protocol.name, "launcher": spec.launcher.name, "preset": spec.dataset.default_preset}
    for group in GROUPS:
        own = ", or package.module:Name" if group in ("dataset", "vq", "prior") else ""
        yield Key(group, chosen[group], f"one of {', '.join(choices_of(group))}{own}", GROUP_LINES[group])


def keys_of_run(spec: RunSpec) -> Iterator[Key]:
    """The keys of every run, whatever its models."""
    for name, kind, rule in rules_of(RunSpec):
        if name not in COMPOSED:
            owner, field = _owner(name)
            value = reduce(getattr, name.split("."), spec)
            yield Key(name, written(value), rule.expected if rule else described(kind), lines_of(owner).get(field, ""))
    yield Key("sampler.seed", written(spec.sampler["seed"]), "a whole number", "seed of sampling")


def keys_of_prior(spec: RunSpec) -> list[Key]:
    """The options of the spec's prior, and of its sampler."""
    return [*options(spec, "prior"), *options(spec, "sampler")]


def options(spec: RunSpec, section: str) -> Iterator[Key]:
    """`vq.*`, `prior.*` or `sampler.*` of the class that the spec names, with the values that the spec has."""
    stage: ModelConfig = spec.vq if section == "vq" else spec.prior
    classes = schema_of(stage, "tokenizers" if section == "vq" else "priors")
    cls, values = (classes[1], spec.sampler) if section == "sampler" else (classes[0], stage.options)
    if cls is None:
        return
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    values = defaults | values   # options at their default may be left out of a specification
    for name, kind, rule in rules_of(cls):
        yield Key(f"{section}.{name}", written(values[name]), rule.expected if rule else described(kind),
                  lines_of(cls).get(name, ""))


def lines_of(cls: type) -> dict[str, str]:
    """Field -> its line in the docstring of the class, or of the class it comes from."""
    found: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if dataclasses.is_dataclass(owner) and owner.__doc__:
            found |= _documented(owner.__doc__, [field.name for field in dataclasses.fields(owner)])
    return found


def _documented(text: str, names: Sequence[str]) -> dict[str, str]:
    """What follows `name: ` or `one, two: `, up to the next such head, a heading or an empty line."""
    name = r"(?:" + "|".join(sorted(map(re.escape, names), key=len, reverse=True)) + r")(?: \([^)]*\))?"
    head = rf"(?<![\w.]){name}(?:,? (?:and )?{name})*:(?= )"
    flat = re.sub(r"\n\s*\n", " \0 ", text)
    parts = re.split(rf"({head})", re.sub(r"[ \n]+", " ", flat))
    found: dict[str, str] = {}
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        line = body.split("\0")[0].strip(" ;,.")
        for field in re.findall(r"(?<![\w(])\w+(?![\w)])", re.sub(r"\([^)]*\)", "", heading)):
            if field in names:
                found.setdefault(field, line)
    return found


def _owner(name: str) -> tuple[type, str]:
    """The dataclass that has the last part of a dotted key."""
    *parents, field = name.split(".")
    cls: type = RunSpec
    for parent in parents:
        cls = typing.get_type_hints(cls)[parent]
    return cls, field


def described(kind: Any) -> str:
    """A type in words: `int | None` is "a whole number, or null"."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
    parts = typing.get_args(kind) if isinstance(kind, UnionType) or typing.get_origin(kind) is typing.Union else (kind,)
    if typing.get_origin(kind) is typing.Literal:
        return f"one of {', '.join(map(str, parts))}"
    return ", or ".join(words.get(part, "a list" if typing.get_origin(part) in (tuple, list) else
                                  "names with values" if typing.get_origin(part) is dict else "a value")
                        for part in parts)


def written(value: Any) -> str:
    """A value as a command line would have it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{written(item)}" for key, item in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def print_keys(found: dict[str, list[Key]]) -> None:
    """Tables on standard output."""
    console = Console(width=160 if not sys.stdout.isatty() else None)
    for title, keys in found.items():
        table = Table("key", "default", "expected", "what it is", title=title, title_justify="left")
        for key in keys:
            table.add_row(cell(key.name), cell(key.default), cell(key.expected), cell(key.line))
        console.print(table)


def markdown(found: dict[str, list[Key]]) -> str:
    """The page docs/keys.md."""
    parts = [textwrap.dedent("""\
        # Keys

        <!-- made by: python -m bench.keys docs/keys.md -->

        What may stand on a command line of `python -m bench.run`, and in `bench.run(...)`. Defaults are those of
        `prior=absorbing dataset=cifar10 preset=small`; presets, data sets and samplers set others, and
        `python -m bench.run prior=... preset=... --help` shows what a command has.
        """), "\n## The command itself\n\n| key | expected | what it is |\n|:--|:--|:--|\n"]
    parts += [f"| `{name}` | {expected} | {line} |\n" for name, expected, line in DOOR]
    for title, keys in found.items():
        parts.append(f"\n## {title}\n\n| key | default | expected | what it is |\n|:--|:--|:--|:--|\n")
        parts += [f"| `{k.name}` | `{k.default}` | {_escaped(k.expected)} | {_escaped(k.line)} |\n" for k in keys]
    return "".join(parts)


def _escaped(text: str) -> str:
    return re.sub(r"([|<>*])", r"\\\1", text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or print the tables; returns the exit code."""
    return run_command(arguments, doc=__doc__, work=_work)


def _work(arguments: list[str]) -> int:
    if len(arguments) > 1:
        raise InputError(f"{' '.join(arguments)}: expected one path, such as docs/keys.md, or nothing.")
    if arguments:
        Path(arguments[0]).write_text(markdown(sections(built_in=True)), encoding="utf-8")
    else:
        print_keys(sections())
    return 0


if __name__ == "__main__":
    sys.exit(main())
