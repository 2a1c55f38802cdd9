"""docs/reliability.md: what was done on purpose, how often, and what became of it."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.store.files import write_text
from tests.faults.campaign import Counts

ORDER = ("kills", "damages", "surroundings", "locked", "commands", "files")
PACKAGES = ("torch", "numpy", "safetensors", "hydra-core", "pillow")
HEAD = """# Reliability

What happens when it is killed, when files are damaged, when the disk is full or read-only, and when it is given
nonsense. Written by `python -m tests.faults out=docs/reliability.md`, which makes anew the rows of the parts it runs; a
fault is reproduced by the seed and the number of its case (`only=kills seed=0 case=17`). What each part does stands at
the top of its file in [tests/faults](../tests/faults/__main__.py).

| part | what is done | cases | what must not happen, and how often it did | run with | by |
|:--|:--|--:|:--|:--|:--|
"""
STRUCK = "\nWhere they struck:\n"


def write_page(path: Path, found: Sequence[Counts], arguments: Sequence[str]) -> None:
    """Rows of other parts that stand there already stay as they are."""
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    write_text(path, page(found, [argument for argument in arguments if not argument.startswith("out=")], before))


def page(found: Sequence[Counts], arguments: Sequence[str], before: str = "") -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    by = f"{datetime.now(UTC):%Y-%m-%d}, commit {_commit()}, Python {platform.python_version()}, {versions}"
    parts = _parts(before)
    for counts in found:
        faults = ", ".join(f"{kind}: {len(counts.faults.get(kind, ()))}" for kind in counts.part.faults)
        row = (f"| {counts.part.name} | {counts.part.title} | {counts.cases:,} | {faults} | "
               f"`{' '.join(arguments) or 'no arguments'}` | {by} |")
        struck = ", ".join(f"{where} ({num})" for where, num in sorted(counts.struck.items())).replace("|", "\\|")
        where = f"- {counts.part.name}: {struck or 'nowhere'}"
        where += "".join(f"\n  - case {number}: {kind}" for kind, cases in counts.faults.items() for number, _ in cases)
        parts[counts.part.name] = row, where
    rows, places = zip(*(parts[name] for name in sorted(parts, key=ORDER.index)), strict=True)
    return HEAD + "".join(f"{row}\n" for row in rows) + STRUCK + "".join(f"\n{place}" for place in places) + "\n"


def _parts(text: str) -> dict[str, tuple[str, str]]:
    """Part -> (its row, where it struck) of a page that was written before."""
    table, _, places = text.partition(STRUCK)
    rows = {found[1]: found[0] for found in re.finditer(r"^\| (?!part )(\w+) \| .*$", table, re.MULTILINE)}
    struck = {found[1]: found[0].rstrip() for found in
              re.finditer(r"^- (\w+): .*(?:\n  - .*)*", places, re.MULTILINE)}
    return {name: (row, struck[name]) for name, row in rows.items() if name in struck}


def _commit() -> str:
    try:
        return subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=Path(__file__).parent, text=True,
                              capture_output=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
