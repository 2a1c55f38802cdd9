"""Where a number came from: commit, versions, hardware, hashes."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("vq-prior-bench", "torch", "torchvision", "torch-fidelity", "lpips", "prdc", "numpy", "scipy", "pandas")

_kernels: dict[str, str] = {}


def utc_now() -> str:
    """ISO 8601 with microseconds, so that records sort by it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def sha256_of(path: Path) -> str:
    """Of a file, or of a folder: then of the names and hashes of its files."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        listing = "".join(f"{file.relative_to(path)}:{sha256_of(file)}\n" for file in files)
        return hashlib.sha256(listing.encode()).hexdigest()
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def provenance() -> dict[str, Any]:
    """{"git_commit", "git_dirty", "versions", "hardware"} of this process; "kernels" where it chose some."""
    return {**_found(), "kernels": dict(_kernels)} if _kernels else dict(_found())


def tell_kernels(**names: str) -> None:
    """Which kernels this process computes by from now on, by what they compute."""
    _kernels.update(names)


@cache
def _found() -> dict[str, Any]:
    return {**_git(), "versions": {name: found for name in PACKAGES if (found := _version(name))},
            "hardware": {"cpu": _cpu(), "cores": os.cpu_count(), "machine": platform.machine(),
                         "python": platform.python_version()}}


def _git() -> dict[str, Any]:
    folder = Path(__file__).parent
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=folder, capture_output=True, text=True)
        return {"git_commit": commit.stdout.strip(), "git_dirty": bool(dirty.stdout.strip())}
    except (OSError, subprocess.CalledProcessError):
        return {"git_commit": None, "git_dirty": None}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def content_id(value: Any, length: int = 16) -> str:
    """A short hash of any JSON-like value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:length]
