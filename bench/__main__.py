"""The commands, one line each.

    python -m bench                     # this list
    python -m bench run prior=absorbing preset=demo         # the same as python -m bench.run ...
    vq-prior-bench run prior=absorbing preset=demo          # the same, whatever files lie in the current folder
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from bench.command import run_command
from bench.errors import InputError, did_you_mean
from bench.printable import one_line
from bench.shadows import come_last

COMMANDS = {"run": "bench.run", "report": "bench.report", "edit": "bench.edit", "encode": "bench.encode",
            "export": "bench.export", "speed": "bench.speed", "doctor": "bench.doctor", "keys": "bench.keys",
            "testing": "bench.testing.__main__", "store": "bench.store.__main__", "assets": "bench.assets.__main__"}


def main(arguments: Sequence[str]) -> int:
    """List the commands, or run the one that is named; returns the exit code."""
    name, *rest = arguments or ["help"]
    if name in COMMANDS:
        return importlib.import_module(COMMANDS[name]).main(rest)
    return run_command([] if name in ("help", "-h", "--help") else [name], doc=__doc__, work=_list_commands)


def console_script() -> int:
    """`vq-prior-bench`: the same, with the current folder looked at last."""
    come_last(lambda text: Console(stderr=True).print(Text(one_line(text), style="dim"), soft_wrap=True))
    return main(sys.argv[1:])


def _list_commands(arguments: list[str]) -> int:
    if arguments:
        raise InputError(f"no command '{arguments[0]}'. {did_you_mean(arguments[0], COMMANDS)}")
    print("python -m bench.<command> ..., or vq-prior-bench <command> ...\n")
    for name, module in COMMANDS.items():
        print(f"  {name:<8} {what(module)}")
    print("\nWithout arguments, or with --help, each says what it takes.")
    return 0


def what(module: str) -> str:
    """The first line of a module's docstring, read without importing it."""
    path = Path(__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
