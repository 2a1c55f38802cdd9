"""What an option is when nobody sets it, so that a row is named by what makes it different and by nothing else.

    defaults_of(spec)["sampler.order"]     # "random"

Options of the built-in models come from their own dataclasses, sizes that all models of a preset share from the
record. Of a plug-in nothing is known: no module that a record names is ever imported.
"""

from __future__ import annotations

import importlib
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

BUILT_IN = ("priors.options", "vq.options")
SHARED = {"prior": "backbone", "vq": "autoencoder"}
"""Where a record keeps the sizes that the models of its preset share."""


def defaults_of(spec: dict[str, Any]) -> dict[str, Any]:
    """Flat, under the names of `identity`: {"sampler.order": "random", "prior.options.width": 128, ...}."""
    found: dict[str, Any] = {}
    for stage, shared in SHARED.items():
        module, _, prefix = str((spec.get(stage) or {}).get("schema") or "").partition(":")
        if module in BUILT_IN:
            schema = importlib.import_module(module)
            own = _fields(getattr(schema, f"{prefix}Options", None), f"{stage}.options.")
            sizes = {f"{stage}.options.{key}": value for key, value in (spec.get(shared) or {}).items()}
            found |= own | {key: value for key, value in sizes.items() if key in own}
            found |= _fields(getattr(schema, f"{prefix}Sampler", None), "sampler.")
    return found


def _fields(cls: Any, prefix: str) -> dict[str, Any]:
    return {f"{prefix}{field.name}": list(field.default) if isinstance(field.default, tuple) else field.default
            for field in (fields(cls) if is_dataclass(cls) else ()) if field.default is not MISSING}
