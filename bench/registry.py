"""One resolver for everything that plugs in: a registered name, or `package.module:Name`.

    resolve("priors", "absorbing")            # the class an entry point of group vq_prior_bench.priors names
    resolve("priors", "my_package.prior:Mine")

Built-ins register through the same entry points as third parties (pyproject.toml), so there is one mechanism.
"""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from bench.errors import InputError, did_you_mean

KINDS = ("priors", "tokenizers", "datasets", "metrics", "extractors")


def names(kind: str) -> list[str]:
    """Registered names of one kind, sorted."""
    return sorted({point.name for point in _points(kind)})


def is_registered(kind: str, name: str) -> bool:
    return any(point.name == name for point in _points(kind))


def target_of(kind: str, name: str) -> str:
    """`package.module:Name` behind a name, without importing it; "" if there is none."""
    return name if ":" in name else next((f"{p.module}:{p.attr}" for p in _points(kind) if p.name == name), "")


def resolve(kind: str, name: str) -> Any:
    """The object a name stands for. Raises InputError, with the nearest valid name, if there is none."""
    if ":" in name:
        return _load_dotted(name)
    for point in _points(kind):
        if point.name == name:
            return point.load()
    known = names(kind)
    if not known:
        raise InputError(f"no {kind} are registered: the distribution vq-prior-bench is not installed. "
                         "Run `pip install -e .` in its folder (or `make demo`).")
    raise InputError(f"unknown {kind[:-1]} '{name}'. {did_you_mean(name, known)} "
                     "Your own class works by its dotted path, as package.module:Name.")


def _points(kind: str) -> list[EntryPoint]:
    assert kind in KINDS, kind
    return list(entry_points(group=f"vq_prior_bench.{kind}"))


def _load_dotted(path: str) -> Any:
    module_name, _, attribute = path.partition(":")
    try:
        value: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(f"cannot import '{module_name}' of '{path}': {error}. "
                         "Is its folder on PYTHONPATH, or its package installed here?") from error
    try:
        for part in attribute.split("."):
            value = getattr(value, part)
    except AttributeError:
        public = [name for name in vars(value) if not name.startswith("_")] if hasattr(value, "__dict__") else []
        raise InputError(f"'{module_name}' has no '{attribute}'. {did_you_mean(attribute, public)}") from None
    return value
