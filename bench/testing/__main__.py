"""Check a prior, tokenizer, data set or metric of yours against the contract that the benchmark relies on.

All faults are told at once.

    python -m bench.testing prior=my_package.prior:Mine
    python -m bench.testing prior=my_package.prior:Mine prior.width=16 sampler.steps=4 grid=2x3 codebook_size=5
    python -m bench.testing vq=my_package:Tokenizer vq.levels=4 resolution=32
    python -m bench.testing dataset=my_package:Data dataset.resolution=16 dataset.path=photos
    python -m bench.testing metric=my_package:Metric,fid           # several, one after the other

prior.*, sampler.* and vq.* are fields of the class's own Options and Sampler: make what is big by default small.
dataset.* are those of bench.run, with no more than 128 training and 64 validation images unless they say otherwise.

Exit codes: 0 all checks passed, 1 some failed, 2 the input was wrong, 130 Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from bench import registry
from bench.command import run_command
from bench.compose import compose
from bench.errors import InputError
from bench.printable import clean
from bench.rules import Whole, check
from bench.schema import options_of
from bench.words import arguments_of, pairs_of, split_commas

if TYPE_CHECKING:
    from bench.testing import Report

KINDS = {"prior": "priors", "vq": "tokenizers", "dataset": "datasets", "metric": "metrics"}
SECTIONS = {"prior": ("prior", "Options"), "sampler": ("prior", "Sampler"), "vq": ("vq", "Options"),
            "dataset": ("dataset", "DatasetConfig")}
"""Section of keys -> the kind it belongs to, and the dataclass whose fields they are, the class's or bench.config's."""
SIZES = {"grid": ("prior", Whole(1, 64, of="cells")), "codebook_size": ("prior", Whole(2, 65_536, of="codes")),
         "resolution": ("vq", Whole(1, 4096, of="pixels"))}
"""Size -> the kind that is built with it, and what it may be."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run_command(arguments, doc=__doc__, work=check_all, needs_arguments=True)


def check_all(arguments: list[str]) -> int:
    """Check what the arguments name, print a report of each, and return the exit code."""
    options = [text for text in arguments if text.partition("=")[0].partition(".")[0] in SECTIONS
               and "." in text.partition("=")[0]]
    chosen = pairs_of([text for text in arguments if text not in options], (*KINDS, *SIZES))
    named = {kind: split_commas(chosen[kind]) for kind in KINDS if kind in chosen}
    if not named:
        raise InputError(f"nothing to check: expected {', '.join(f'{kind}=package.module:Name' for kind in KINDS)}.")
    sizes = _sizes(chosen, named)
    values = _values(options, named)
    found = [(kind, name, registry.resolve(KINDS[kind], name)) for kind, names in named.items() for name in names]
    keys = values.pop("dataset", {})
    cases = [(kind, cls, _arguments(kind, cls, values) | _config(kind, name, keys) | sizes.get(kind, {}))
             for kind, name, cls in found]
    return max([_checked(kind, cls, given) for kind, cls, given in cases])


def _checked(kind: str, cls: type, given: dict[str, Any]) -> int:
    from bench import testing
    checks: dict[str, Callable[..., Report]] = {
        "prior": testing.check_prior, "vq": testing.check_tokenizer, "dataset": testing.check_dataset,
        "metric": testing.check_metric}
    try:
        print(clean(str(checks[kind](cls, **given))))
    except testing.CheckFailed as fault:
        print(clean(str(fault.report or f"{cls.__name__}: cannot be checked\n  FAULT {fault}")))
        return 1
    return 0


def _arguments(kind: str, cls: Any, values: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """options= and sampler= of the check, where any of their fields was given."""
    given = {}
    for section, fields in values.items():
        belongs, name = SECTIONS[section]
        if belongs == kind:
            if not hasattr(cls, name):
                raise InputError(f"{section}.{next(iter(fields))}: {cls.__name__} has no {name}. Leave it out.")
            given[name.lower()] = options_of(getattr(cls, name), fields, section)
    return given


def _config(kind: str, name: str, keys: dict[str, Any]) -> dict[str, Any]:
    """config= of the check of a data set: what bench.run makes of the same keys at its smallest preset."""
    if kind != "dataset":
        return {}
    words = ["source=real", "preset=smoke", f"dataset={name}", *arguments_of((), {"dataset": keys})]
    return {"config": compose(words).dataset}


def _values(options: Sequence[str], named: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    """Section -> field -> value, of `prior.width=16` and its like, in the grammar of `bench.run`."""
    found: dict[str, dict[str, Any]] = {}
    for text in options:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as error:
            raise InputError(f"cannot read '{text}' ({str(error).splitlines()[0]}): expected key=value.") from None
        section, _, field = override.key_or_group.partition(".")
        if override.is_sweep_override() or override.is_delete() or override.is_add():
            raise InputError(f"'{text}': expected one value, as {section}.{field}=16.")
        if SECTIONS[section][0] not in named:
            raise InputError(f"{text}: no {SECTIONS[section][0]}= is being checked. Name one, or leave it out.")
        if field in found.setdefault(section, {}):
            raise InputError(f"{section}.{field} is given twice; give it once.")
        found[section][field] = override.value()
    return found


def _sizes(chosen: dict[str, str], named: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    """Kind -> arguments of its check, from grid=2x3, codebook_size=5 and resolution=32."""
    found: dict[str, dict[str, Any]] = {}
    for key in (key for key in SIZES if key in chosen):
        kind, rule = SIZES[key]
        if kind not in named:
            raise InputError(f"{key}={chosen[key]}: no {kind}= is being checked. Name one, or leave it out.")
        parts = chosen[key].split("x")
        if not all(part.isdecimal() for part in parts) or len(parts) != (2 if key == "grid" else 1):
            expected = "rows x columns, as 2x3" if key == "grid" else f"a number of {rule.of}"
            raise InputError(f"{key}={chosen[key]}: expected {expected}.")
        sizes = tuple(map(int, parts))
        for size in sizes:
            check(key, size, rule)
        found.setdefault(kind, {})[key] = sizes if key == "grid" else sizes[0]
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
