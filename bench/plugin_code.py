"""Which code stands behind a class from elsewhere, so that an edited plug-in never returns the numbers of the old one.

    marked("priors", "absorbing")                  # "absorbing": ours, whose stages have versions of their own
    marked("priors", "my_package.prior:Mine")      # "my_package.prior:Mine+code:5f0c9d1e2a3b4c5d"

The mark is a hash of the module's source and of whatever it imports from beside it: its own package, or, for modules
that are not installed, the folder they lie in. Installed libraries, data files and names put together at run time are
not looked at. A class that declares `version = "2"` is marked by that instead: then its author says what changes
numbers. The files are found and read without being imported.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import registry
from bench.errors import InputError
from bench.provenance import content_id

if TYPE_CHECKING:
    from bench.store.store import Artefact, Recipe

OURS = ("bench", "priors", "vq")
ROOT = Path(__file__).resolve().parent.parent
MARK = re.compile(r'([^\s+"]+)\+((?:code|version):[^\s+"@]+)')


def marked(kind: str, name: str) -> str:
    """The name as keys and records have it: with the mark of its code, unless it is one of ours."""
    target = registry.target_of(kind, name)
    if not target or is_ours(target):
        return name
    declared = getattr(registry.resolve(kind, name), "__dict__", {}).get("version")
    if isinstance(declared, str | int) and not isinstance(declared, bool):
        if not re.fullmatch(r'[^\s+"@]+', str(declared)):
            raise InputError(f"{target} declares version={declared!r}: expected a number or a word, such as '2.1'.")
        return f"{name}+version:{declared}"
    return f"{name}+code:{content_id(sources_of(target))}"


def is_ours(target: str) -> bool:
    """Whether `package.module:Name` lies in this distribution."""
    top = target.partition(":")[0].split(".")[0]
    path = _location(top) if top in OURS else None
    return path is not None and path.resolve().parent == ROOT


def sources_of(target: str) -> dict[str, str]:
    """Path below the folder of the top package -> source, of `package.module:Name` and what it imports from there."""
    module = target.partition(":")[0]
    top = _location(module.split(".")[0])
    if top is None:
        raise InputError(f"{target}: the source of its module is not found, so that nobody could tell when it changes. "
                         "Put the class into a file, or let it declare a `version`.")
    base, only = top.parent, (module.split(".")[0] if _is_installed(top) else None)
    found: dict[Path, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name.split(".")[0] in OURS and base.resolve() == ROOT or only and name.split(".")[0] != only:
            continue
        for path, package in _files(base, name):
            if path not in found:
                found[path] = path.read_text(errors="replace")
                waiting += _imports(found[path], package)
    return {str(path.relative_to(base)): text for path, text in sorted(found.items())}


def what_changed(recipe: Recipe, artefacts: Iterable[Artefact]) -> str:
    """Which plug-in's code is no more that of the last artefact of the same recipe, and since when; "" if none."""
    text = _text(recipe.config, recipe.inputs)
    marks = dict(MARK.findall(text))
    if not marks:
        return ""
    earlier = [a for a in artefacts if a.manifest["stage"] == recipe.stage
               and _settings(a.manifest["config"]) == _settings(recipe.config)]
    for artefact in sorted(earlier, key=lambda a: a.manifest["built_at"], reverse=True):
        before = dict(MARK.findall(_text(artefact.manifest["config"], artefact.manifest["inputs"])))
        changed = [name for name, mark in marks.items() if before.get(name, mark) != mark]
        if changed:
            return f"code of {' and '.join(changed)} changed since {artefact.manifest['built_at'][:19]}: rebuilding"
    return ""


def _text(config: Any, inputs: Iterable[str]) -> str:
    return json.dumps([config, list(inputs)], default=str)


def _settings(config: dict[str, Any]) -> str:
    """The configuration without marks and what follows from them."""
    plain = {key: value for key, value in config.items() if key != "protocol_id"}
    return MARK.sub(r"\1", json.dumps(plain, sort_keys=True, default=str))


def _location(top: str) -> Path | None:
    """The file of a top-level module, or the folder of a package, which is not imported for that."""
    loaded = getattr(sys.modules.get(top), "__file__", None)
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:   # a module without a spec, such as __main__
        return Path(loaded) if loaded else None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin) if spec.origin and Path(spec.origin).is_file() else None


def _is_installed(top: Path) -> bool:
    folders = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
    return top.parent.name in ("site-packages", "dist-packages") or str(top.parent) in folders


def _files(base: Path, name: str) -> Iterator[tuple[Path, str]]:
    """Every file that importing `a.b.c` runs and that lies below base, each with the package its imports are of."""
    folder, parts = base, name.split(".")
    for index, part in enumerate(parts):
        package = ".".join(parts[:index + 1])
        if (init := folder / part / "__init__.py").is_file():
            yield init, package
        elif (file := folder / f"{part}.py").is_file():
            yield file, ".".join(parts[:index])
            return
        folder = folder / part


def _imports(source: str, package: str) -> Iterator[str]:
    """The modules a source may import, relative ones made absolute; names after `from` may be modules as well."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".") if package else []
            above = parents[:len(parents) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" if origin else alias.name for alias in node.names)
