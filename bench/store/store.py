"""Content-addressed artefacts on disk: each is built once, by whichever process needs it first, and survives kills.

    store = Store()
    artefact = store.obtain(Recipe("tokens", config={...}, inputs=(tokenizer.key,)), build)
    artefact.path / "train"

    python -m bench.store ls | du | gc [work=true]

An artefact is a folder `<stage>/<key>/` with a manifest of its files; key is a hash of the recipe. Building happens in
a temporary folder that is fsynced and renamed, so an artefact is whole or absent. Beside it lie `<key>.work/`, where a
long build keeps what it needs to resume, `<key>.lease`, held by the process that builds, and `<key>.status.json`; and
`<key>.anew` if the artefact is to be rebuilt: it then counts as missing until the new one is published.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from bench.errors import BenchError
from bench.memory import forget_peak_memory, peak_memory_gb
from bench.provenance import content_id, provenance, sha256_of, utc_now
from bench.store.cache import cache_root
from bench.store.files import clear, digests_of, is_as_written, keeping, read_object, sync, write_json
from bench.store.leases import is_alive, lease

State = Literal["cached", "running", "queued", "failed", "missing"]
ANEW = ".anew"


class Interrupted(BenchError):
    """Asked to stop; what is needed to resume is on disk."""


@dataclass(frozen=True)
class Recipe:
    """What determines an artefact's content. version is raised whenever the stage's code changes what comes out."""

    stage: str
    config: dict[str, Any]
    inputs: tuple[str, ...] = ()
    version: int = 1

    @property
    def key(self) -> str:
        return content_id([self.stage, self.version, self.config, list(self.inputs)])


@dataclass(frozen=True)
class Artefact:
    """A finished folder and its manifest."""

    path: Path
    manifest: dict[str, Any] = field(repr=False)

    @property
    def key(self) -> str:
        return self.manifest["key"]


class Store:
    """Artefacts under one root, shared by any number of processes."""

    def __init__(self, root: str | Path | None = None):
        self.root = Path(root) if root else cache_root() / "artefacts"
        self._inside = 0.0   # seconds of what was built while the present one was
        self._peak = 0.0   # gigabytes, of the present one up to what was built meanwhile

    def find(self, recipe: Recipe) -> Artefact | None:
        """The artefact if it exists undamaged. A damaged one is moved aside with a message, and counts as missing."""
        return self._open(recipe.stage, recipe.key)

    def obtain(self, recipe: Recipe, build: Callable[[Path, Path], None], *,
               announce: Callable[[str], None] = lambda text: None) -> Artefact:
        """The artefact, built here unless it is there or another process builds it now.

        build(out, work): fills the empty folder `out`; `work` persists from one attempt to the next.
        Raises whatever `build` raises, after writing it to the status file.
        """
        said = False
        while True:
            if artefact := self.find(recipe):
                return artefact
            with lease(self._base(recipe).with_name(f"{recipe.key}.lease")) as mine:
                if not mine:
                    if not said:
                        announce(f"{recipe.stage} {recipe.key}: another process is building it, waiting")
                    said = True
                    self._wait(recipe)
                elif artefact := self.find(recipe):
                    return artefact
                else:
                    return self._build(recipe, build)

    def work_folder(self, recipe: Recipe) -> Path:
        """Where the recipe keeps what it needs to resume."""
        folder = self._base(recipe).with_name(f"{recipe.key}.work")
        if not folder.is_dir():
            clear(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def state(self, recipe: Recipe) -> State:
        """Read from the files alone, so every process gets the same answer."""
        base = self._base(recipe)
        with suppress(OSError, ValueError):
            _manifest(base)
            if not self.is_asked_anew(recipe):
                return "cached"
        if is_alive(base.with_name(f"{recipe.key}.lease")):
            return "running"
        status = self.status(recipe).get("state")
        return status if status in ("failed", "queued") else "missing"

    def status(self, recipe: Recipe) -> dict[str, Any]:
        """The last status written: {"state", "when", "host", "message", "attempts"}; {} if none."""
        try:
            return read_object(self._status_file(recipe))
        except (OSError, ValueError):
            return {}

    def set_status(self, recipe: Recipe, state: State, message: str = "") -> None:
        previous, path = self.status(recipe).get("attempts"), self._status_file(recipe)
        attempts = (previous if isinstance(previous, int) else 0) + (state == "running")
        if path.is_dir():
            clear(path)
        write_json(path,
                   {"state": state, "when": utc_now(), "host": socket.gethostname(), "pid": os.getpid(),
                    "message": message, "attempts": attempts})

    def artefacts(self) -> Iterator[Artefact]:
        """All finished artefacts, in no particular order; none that is incomplete or without a valid manifest."""
        for path in sorted(self.root.glob("*/*/manifest.json")):
            with suppress(OSError, ValueError):
                yield Artefact(path.parent, _manifest(path.parent))

    def is_sound(self, artefact: Artefact) -> bool:
        """Whether every file is as it was published; a damaged artefact is moved aside with a message."""
        return self._open(artefact.path.parent.name, artefact.path.name) is not None

    def ask_anew(self, artefact: Artefact) -> None:
        """Make every process treat it as missing until a new one has been built, which then replaces it."""
        _mark_of(artefact.path).touch()

    def is_asked_anew(self, recipe: Recipe) -> bool:
        return _mark_of(self._base(recipe)).exists()

    def keys_asked_anew(self) -> set[str]:
        return {path.name.removesuffix(ANEW) for path in self.root.glob(f"*/*{ANEW}")}

    def drop_work(self, recipe: Recipe) -> None:
        """Delete what an interrupted build would resume from, unless a process is building it now."""
        base = self._base(recipe)
        if not is_alive(base.with_name(f"{recipe.key}.lease")):
            shutil.rmtree(base.with_name(f"{recipe.key}.work"), ignore_errors=True)

    def _base(self, recipe: Recipe) -> Path:
        return self.root / recipe.stage / recipe.key

    def _status_file(self, recipe: Recipe) -> Path:
        return self._base(recipe).with_name(f"{recipe.key}.status.json")

    def _open(self, stage: str, key: str) -> Artefact | None:
        path = self.root / stage / key
        if not os.path.lexists(path) or _mark_of(path).exists():
            return None
        try:
            manifest = _manifest(path)
            damage = _damage(path, manifest)
        except (OSError, ValueError) as error:
            damage = f"no sound manifest: {error}"
        if not damage:
            return Artefact(path, manifest)
        aside = path.with_name(f"{key}.damaged.{uuid.uuid4().hex[:8]}")
        print(f"{stage} {key} is damaged ({damage}); it is set aside as {aside.name} and rebuilt.", file=sys.stderr)
        try:
            path.rename(aside)
        except OSError:
            pass   # another process was quicker
        return None

    def _build(self, recipe: Recipe, build: Callable[[Path, Path], None]) -> Artefact:
        base = self._base(recipe)
        out = base.with_name(f"{recipe.key}.tmp.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
        out.mkdir(parents=True)
        self.set_status(recipe, "running")
        began, around, peak_around = time.perf_counter(), self._inside, max(self._peak, peak_memory_gb("cpu"))
        self._inside = self._peak = 0.0
        forget_peak_memory("cpu")
        try:
            build(out, self.work_folder(recipe))
            manifest = {"stage": recipe.stage, "key": recipe.key, "version": recipe.version, "config": recipe.config,
                        "inputs": list(recipe.inputs), "wall_seconds": time.perf_counter() - began - self._inside,
                        "peak_resident_gb": round(max(self._peak, peak_memory_gb("cpu")), 3),
                        "built_at": utc_now(), "provenance": provenance(), "files": _listing(out)}
            with keeping(out / "manifest.json") as stream:
                stream.write(json.dumps(manifest, indent=1, default=str).encode())
            self._publish(out, base)
        except (Interrupted, KeyboardInterrupt, SystemExit):
            self.set_status(recipe, "queued", "interrupted; resumes where it was")
            raise
        except BaseException:
            if published := self._open(recipe.stage, recipe.key):
                return published   # this process slept, and another that took it for dead was quicker
            self.set_status(recipe, "failed", traceback.format_exc())
            raise
        finally:
            self._inside, self._peak = around + time.perf_counter() - began, peak_around
            forget_peak_memory("cpu")
            shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(base.with_name(f"{recipe.key}.work"), ignore_errors=True)
        clear(self._status_file(recipe))
        artefact = self._open(recipe.stage, recipe.key)
        if artefact is None:
            raise BenchError(f"{recipe.stage} {recipe.key} vanished right after it was published in {base}.")
        return artefact

    def _publish(self, out: Path, base: Path) -> None:
        for path in [*out.rglob("*"), out]:
            sync(path)
        replaced = base.with_name(f"{base.name}.replaced.{uuid.uuid4().hex[:8]}")
        if _mark_of(base).exists() and base.exists():
            base.rename(replaced)
        try:
            out.rename(base)
        except OSError:
            if not (base / "manifest.json").is_file():
                if replaced.exists():
                    replaced.rename(base)
                raise
        sync(base.parent)
        clear(_mark_of(base))
        shutil.rmtree(replaced, ignore_errors=True)

    def _wait(self, recipe: Recipe) -> None:
        held = self._base(recipe).with_name(f"{recipe.key}.lease")
        pause = 0.05
        while is_alive(held) and (self.is_asked_anew(recipe)
                                    or not (self._base(recipe) / "manifest.json").is_file()):
            time.sleep(pause)
            pause = min(1.0, pause * 1.5)


def _mark_of(base: Path) -> Path:
    return base.with_name(base.name + ANEW)


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a published artefact. Raises OSError or ValueError if it is not there or not this folder's."""
    path = folder / "manifest.json"
    manifest = read_object(path)
    if os.path.lexists(digests_of(path)) and not is_as_written(path):   # earlier versions wrote no sha256 of it
        raise ValueError("it is not as it was written")
    fields: dict[str, type | tuple[type, ...]] = {"stage": str, "key": str, "config": dict, "inputs": list,
                                                  "files": list, "wall_seconds": (int, float), "built_at": str}
    wrong = [name for name, kind in fields.items() if not isinstance(manifest.get(name), kind)]
    if wrong:
        raise ValueError(f"without a sound {', '.join(wrong)}")
    if (manifest["stage"], manifest["key"]) != (folder.parent.name, folder.name):
        raise ValueError(f"it is of {manifest['stage']} {manifest['key']}")
    for entry in manifest["files"]:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(name), kind) for name, kind
                                                  in (("name", str), ("size", int), ("sha256", str))):
            raise ValueError(f"it lists {entry!r}, expected name, size and sha256")
    return manifest


def _listing(folder: Path) -> list[dict[str, Any]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [{"name": str(path.relative_to(folder)), "size": path.stat().st_size, "sha256": sha256_of(path)}
            for path in files]


def _damage(folder: Path, manifest: dict[str, Any]) -> str:
    """What is wrong with a published folder, or ''. Each file is hashed once a process."""
    for entry in manifest["files"]:
        path = folder / entry["name"]
        try:
            status = path.stat()
        except OSError:
            return f"{entry['name']} is missing"
        if status.st_size != entry["size"]:
            return f"{entry['name']} has {status.st_size} bytes, expected {entry['size']}"
        if _hash_once(path, status.st_mtime_ns, status.st_size) != entry["sha256"]:
            return f"{entry['name']} does not have its sha256"
    return ""


@cache
def _hash_once(path: Path, mtime_ns: int, size: int) -> str:
    return sha256_of(path)
