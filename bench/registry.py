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

KINDS = {   # what a class of each kind must have, as far as a class shows it
    "priors": ("Options", "sample"), "tokenizers": ("Options", "encode", "decode"), "datasets": ("check", "open"),
    "metrics": ("applies", "__call__"), "extractors": ("__call__",)}
MISSING = object()


def names(kind: str) -> list[str]:
    """Registered names of one kind, sorted."""
    return sorted({point.name for point in _points(kind)})


def is_registered(kind: str, name: str) -> bool:
    return any(point.name == name for point in _points(kind))


def target_of(kind: str, name: str) -> str:
    """`package.module:Name` behind a name, without importing it; "" if there is none."""
    return name if ":" in name else next((f"{p.module}:{p.attr}" for p in _points(kind) if p.name == name), "")


def origin_of(kind: str, name: str) -> str:
    """The distribution that registered a name; "" if there is none."""
    return next((point.dist.name for point in _points(kind) if point.name == name and point.dist), "")


def resolve(kind: str, name: str) -> Any:
    """The object a name stands for. Raises InputError, with the nearest valid name, if there is none."""
    if ":" in name:
        return _checked(kind, name, load_dotted(name))
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


def load_dotted(path: str, *, missing: Any = MISSING) -> Any:
    """The object that package.module:Name stands for, or `missing` if the module has none. Raises InputError."""
    module_name, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *attribute.split(".")]):
        raise InputError(f"'{path}': expected package.module:Name, such as my_package.prior:Mine.")
    try:
        value: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(f"cannot import '{module_name}' of '{path}': {error}. "
                         "Is its folder on PYTHONPATH, or its package installed here?") from error
    except (Exception, SystemExit) as error:   # whatever the module does when imported
        raise InputError(f"importing '{module_name}' of '{path}' failed: {type(error).__name__}: {error}. "
                         f"`python -c 'import {module_name}'` shows where.") from error
    try:
        for part in attribute.split("."):
            value = getattr(value, part)
    except AttributeError:
        if missing is not MISSING:
            return missing
        public = [name for name in vars(value) if not name.startswith("_")] if hasattr(value, "__dict__") else []
        raise InputError(f"'{module_name}' has no '{attribute}'. {did_you_mean(attribute, public)}") from None
    return value


def _checked(kind: str, path: str, value: Any) -> Any:
    """The object, if it is a class that can be of this kind; else InputError."""
    wanted = KINDS[kind]
    if not isinstance(value, type):
        raise InputError(f"'{path}' is a {type(value).__name__}, no {kind[:-1]}: expected a class with "
                         f"{', '.join(wanted)}. Give package.module:Name of one.")
    if lacking := [name for name in wanted if not hasattr(value, name)]:
        raise InputError(f"'{path}' is no {kind[:-1]}: it lacks {', '.join(lacking)}. Give package.module:Name of a "
                         "class that has them.")
    return value
