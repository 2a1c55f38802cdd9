"""What is kept, how big it is, and what may go.

    python -m bench.store ls | du | gc [work=true]
"""

from __future__ import annotations

import shutil
import sys
from contextlib import suppress
from pathlib import Path

from bench.errors import InputError, did_you_mean
from bench.store.leases import is_alive
from bench.store.store import Store

LEFTOVERS = (".tmp.", ".damaged.", ".replaced.", ".lease")
RESUMABLE = (".work", ".status.json")


def main(arguments: list[str]) -> int:
    """ls: every artefact; du: bytes a stage; gc: remove what damaged and killed builds left; gc work=true: also what
    interrupted work needs to go on from where it was.
    """
    commands = {"ls": ls, "du": du, "gc": gc, "gc work=true": lambda store: gc(store, work=True)}
    given = " ".join(arguments)
    if given not in commands:
        print(f"usage: python -m bench.store ls|du|gc [work=true]. {did_you_mean(given, commands)}", file=sys.stderr)
        return InputError.exit_code
    commands[given](Store())
    return 0


def ls(store: Store) -> None:
    for artefact in store.artefacts():
        manifest = artefact.manifest
        size = sum(entry["size"] for entry in manifest["files"])
        print(f"{manifest['stage']:<12} {manifest['key']}  {size / 1e6:9.1f} MB  {manifest['wall_seconds']:8.1f} s  "
              f"{manifest['built_at']}")


def du(store: Store) -> None:
    for stage in sorted(path for path in store.root.glob("*") if path.is_dir()):
        size = sum(path.stat().st_size for path in stage.rglob("*") if path.is_file())
        print(f"{stage.name:<12} {size / 1e6:10.1f} MB")


def gc(store: Store, *, work: bool = False) -> None:
    """Remove, and name, what no living process needs; what an interrupted build resumes from only with `work`."""
    freed = kept = 0
    for path in sorted(store.root.glob("*/*")):
        key = path.name.lstrip(".").split(".")[0]
        marks = LEFTOVERS + RESUMABLE if work else LEFTOVERS
        hidden = path.name.startswith(".")   # half an atomic write
        if is_alive(path.with_name(f"{key}.lease")):
            continue
        size = _bytes_of(path)
        if hidden or any(mark in path.name for mark in marks):
            print(f"removing {path.parent.name}/{path.name} ({size / 1e6:.1f} MB)")
            freed += size
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        elif any(mark in path.name for mark in RESUMABLE):
            kept += size
    print(f"freed {freed / 1e6:.1f} MB in {store.root}")
    if kept:
        print(f"kept {kept / 1e6:.1f} MB that interrupted work resumes from; `gc work=true` removes it as well")


def _bytes_of(path: Path) -> int:
    total = 0
    for file in [path, *path.rglob("*")]:
        with suppress(OSError):
            total += file.lstat().st_size if not file.is_dir() else 0
    return total


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
