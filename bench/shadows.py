"""Whether a file of the current folder hides a package of ours: `python -m` looks there first.

    check_shadows()      # InputError: /home/me/vq.py hides the package vq ...

A `bench.py` hides this module too, and Python then says that `bench` is no package; the command `vq-prior-bench` looks
in the current folder last and is safe from all of them. The published numbers are found beside `bench`, not by a name.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

from bench.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("bench", "priors", "vq")


def check_shadows() -> None:
    """Raise InputError unless the packages that belong to this one are those beside it."""
    for name in PACKAGES:
        found = _place_of(name)
        if found and found.parent != ROOT:
            raise InputError(f"{found} hides the package '{name}' of vq-prior-bench, which lies in {ROOT / name}. "
                             "Start from another folder, rename it, or use the command vq-prior-bench.")


def come_last(say: Callable[[str], None]) -> None:
    """Let the current folder, where plug-ins may lie, be looked at last, here and in processes started from here."""
    folder = Path.cwd()
    hidden = [name for name in PACKAGES
              if (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file()]
    if hidden and folder.resolve() != ROOT:
        os.environ["PYTHONSAFEPATH"] = "1"
        say(f"this folder has a {' and a '.join(hidden)} of its own; those of vq-prior-bench are used.")
    if not {"", str(folder)} & set(sys.path):
        sys.path.append(str(folder))


def _place_of(name: str) -> Path | None:
    """The folder or file that `import name` takes."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return None
    places = list(spec.submodule_search_locations or ()) or [spec.origin or ""]
    return Path(places[0]).resolve()
