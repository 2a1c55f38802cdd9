"""The report's own options, in the grammar of every command: key=value, comma lists, quotes where a value needs them.

    parse(["results_dir=results/reference", "dataset=cifar10,digits"]).dataset   # ("cifar10", "digits")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from bench.errors import InputError
from bench.words import pairs_of, split_commas

LISTS = ("dataset", "protocol", "compare")
FLAGS = ("page", "figures", "check")


@dataclass(frozen=True)
class Options:
    """results_dir: where records are.  out: where the report goes.

    dataset, protocol: keep these only.  compare: two record ids (or unique beginnings) to set against each other.
    page, figures: leave out the HTML page, the figures.
    readme: refresh the results block of this file and do nothing else.  expected: likewise the file of expected scores.
    check: write nothing, fail if it is stale.
    """

    results_dir: str = "results/runs"
    out: str = "report"
    dataset: tuple[str, ...] = ()
    protocol: tuple[str, ...] = ()
    compare: tuple[str, ...] = ()
    page: bool = True
    figures: bool = True
    readme: str = ""
    expected: str = ""
    check: bool = False


def parse(arguments: Sequence[str]) -> Options:
    """Raises InputError for an unknown key (naming the nearest), a repeated one and a value of the wrong kind."""
    pairs = pairs_of(arguments, [f.name for f in fields(Options)])
    values = {key: _value(key, text) for key, text in pairs.items()}
    options = Options(**values)  # type: ignore[arg-type]
    if options.compare and len(options.compare) != 2:
        raise InputError(f"compare={','.join(options.compare)}: expected two record ids, as in compare=3f2a,9c41")
    if options.check and not options.readme and not options.expected:
        raise InputError("check=true checks a README or a file of expected scores: say which, as in readme=README.md "
                         "check=true or expected=results/expected/reference.csv check=true")
    if options.readme and options.expected:
        raise InputError("readme= and expected= are two commands: give one of them")
    return options


def _value(key: str, text: str) -> object:
    if key in FLAGS:
        if text.lower() not in ("true", "false"):
            raise InputError(f"{key}={text}: expected true or false")
        return text.lower() == "true"
    parts = split_commas(text)
    if not all(parts):
        raise InputError(f"{key}={text}: an empty value")
    if key in LISTS:
        return tuple(parts)
    if len(parts) > 1:
        raise InputError(f"{key}={text}: one value expected; a path with a comma needs quotes: \"{key}='{text}'\"")
    return parts[0]
