"""docs/reliability.md: what was done on purpose, how often, and what became of it."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.store.files import write_text
from tests.faults.campaign import Counts

PACKAGES = ("torch", "numpy", "safetensors", "hydra-core", "pillow")
HEAD = """# Reliability

What happens when it is killed, when files are damaged, when the disk is full, and when it is given nonsense. Written by
`python -m tests.faults {arguments}`; a fault is reproduced by the seed and the number of its case
(`only=kills seed=0 case=17`). What each part does stands at the top of its file in [tests/faults](../tests/faults).

{date}, commit {commit}, Python {python}, {versions}.

| part | what is done | cases | what must not happen, and how often it did |
|:--|:--|--:|:--|
"""


def write_page(path: Path, found: Sequence[Counts], arguments: Sequence[str]) -> None:
    write_text(path, page(found, [argument for argument in arguments if not argument.startswith("out=")]))


def page(found: Sequence[Counts], arguments: Sequence[str]) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    text = HEAD.format(arguments=" ".join(arguments), date=f"{datetime.now(UTC):%Y-%m-%d}", commit=_commit(),
                       python=platform.python_version(), versions=versions)
    for counts in found:
        faults = ", ".join(f"{kind}: {len(counts.faults.get(kind, ()))}" for kind in counts.part.faults)
        text += f"| {counts.part.name} | {counts.part.title} | {counts.cases:,} | {faults} |\n"
    text += "\nWhere they struck:\n"
    for counts in found:
        struck = ", ".join(f"{where} ({num})" for where, num in sorted(counts.struck.items())).replace("|", "\\|")
        text += f"\n- {counts.part.name}: {struck or 'nowhere'}"
        text += "".join(f"\n  - case {number}: {kind}" for kind, cases in counts.faults.items() for number, _ in cases)
    return text + "\n"


def _commit() -> str:
    try:
        return subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=Path(__file__).parent, text=True,
                              capture_output=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
