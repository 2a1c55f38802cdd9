"""What there is of a kind: `list=priors` and its like. Nothing is imported but names, so it takes no time.

    python -m bench.run list=priors        # also datasets, tokenizers, metrics, protocols, presets, samplers
    entries("priors")[0].line              # what the class or its file in conf/ says first
"""

from __future__ import annotations

import ast
import importlib.util
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import registry
from bench.conf_files import ConfFiles
from bench.errors import InputError, did_you_mean
from bench.printable import cell

REGISTERED = {"priors": "prior", "datasets": "dataset", "metrics": "", "tokenizers": "vq"}
FILES = {"protocols": "protocol", "presets": "preset", "samplers": "sampler"}
KINDS = (*REGISTERED, *FILES)
OURS = "vq-prior-bench"
BUILT_IN = "built in"


@dataclass(frozen=True)
class Entry:
    """name: what to write; line: what it is; source: "built in", or the distribution that registered it."""

    name: str
    line: str
    source: str


def entries(kind: str) -> list[Entry]:
    """All of one kind, by name. Raises InputError for a kind there is none of, naming the nearest."""
    if kind in FILES:
        return [Entry(name, _comment(FILES[kind], name), BUILT_IN) for name in choices_of(FILES[kind])]
    if kind not in REGISTERED:
        raise InputError(f"list={kind}: {did_you_mean(kind, KINDS)}")
    return [Entry(name, _line(kind, name), _source(kind, name)) for name in registry.names(kind)]


def choices_of(group: str) -> list[str]:
    """The files of a group of conf/, without the one that stands for plug-ins."""
    return [name for name in ConfFiles().names(group) if name != "plugin"]


def first_comment(path: Path) -> str:
    """The first comment of a YAML file that is not Hydra's own, up to a command in it; "" if it has none."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        if text.startswith("# @"):
            continue
        if not text.startswith("#") or text.startswith("#  "):   # an indented line is a command
            break
        lines.append(text.removeprefix("#").strip())
    return " ".join(lines)


def first_line(target: str) -> str:
    """The first line of the docstring of `package.module:Name`, read from its source without importing it."""
    module, _, name = target.partition(":")
    try:
        spec = importlib.util.find_spec(module)
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8")) if spec and spec.origin else ast.Module([], [])
    except (ImportError, OSError, SyntaxError, ValueError):
        return ""
    node = next((node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name),
                None)
    text = (ast.get_docstring(node) if node else "") or ast.get_docstring(tree) or ""
    return " ".join(text.split("\n\n")[0].split())


def print_entries(kind: str, *, as_json: bool = False) -> int:
    """The table (or a list of `Entry`s as JSON) on standard output; returns the exit code."""
    if as_json:
        print(json.dumps([asdict(entry) for entry in entries(kind)], indent=1))
        return 0
    table = Table("name", "what it is", "from")
    for entry in entries(kind):
        table.add_row(cell(entry.name), cell(entry.line), cell(entry.source))
    console = Console()
    (console if console.is_terminal else Console(width=140)).print(table)
    return 0


def _line(kind: str, name: str) -> str:
    return _comment(REGISTERED[kind], name) or first_line(registry.target_of(kind, name))


def _comment(group: str, name: str) -> str:
    path = ConfFiles().find(group, name) if group else None
    return first_comment(path) if path else ""


def _source(kind: str, name: str) -> str:
    distribution = registry.origin_of(kind, name)
    return BUILT_IN if distribution == OURS else distribution
