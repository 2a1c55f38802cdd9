"""Extractors named by a folder of the user's weights: `dinov2:/models/dinov2-l`, `clip:/models/clip`.  Torch-free.

    folder_of("dinov2:/models/dinov2-l")       # Path("/models/dinov2-l"); None of another extractor's name
    weights_of(folder)                         # sha256 of configuration and weights
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from bench.errors import InputError
from bench.provenance import sha256_of

KINDS = ("dinov2", "clip")
FILES = ("config.json", "model.safetensors")


def folder_of(name: str) -> Path | None:
    """The folder behind `kind:/folder`, or None where the name is of another form."""
    kind, colon, path = name.partition(":")
    return Path(path).expanduser() if colon and kind in KINDS else None


def weights_of(folder: Path) -> str:
    """sha256 of both files.  Raises InputError where one is missing."""
    if absent := [name for name in FILES if not (folder / name).is_file()]:
        raise InputError(f"{folder} lacks {' and '.join(absent)}: expected a model as transformers saves it "
                         "(save_pretrained), with safetensors weights.")
    stamps = tuple((folder / name).stat().st_mtime_ns for name in FILES)
    return _hash(folder, stamps)


@functools.lru_cache(maxsize=16)
def _hash(folder: Path, stamps: tuple[int, ...]) -> str:
    return hashlib.sha256(" ".join(sha256_of(folder / name) for name in FILES).encode()).hexdigest()
