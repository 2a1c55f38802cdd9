"""What a process of its own sees of a data set: nothing is imported there yet, and its hashes are salted otherwise.

    before, after = seen(splits), elsewhere("my_package.data:Mine", config).seen
    difference(before, after)                # "" if nothing differs

Every process of a sweep opens the data set for itself, so what it holds must not depend on the process. Nothing here
imports torch, so that it can be told whether the data set does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from bench import registry
from bench.config import DatasetConfig
from bench.data.arrays import spread_indices
from bench.data.base import ImageData, Splits
from bench.errors import InputError

LOOKED = 16   # images of a split that are looked at, spread over it


@dataclass(frozen=True)
class Seen:
    """The fingerprint of Splits, and of each split in words how many images it has and the hash of some."""

    fingerprint: str
    train: str
    validation: str


@dataclass(frozen=True)
class Answer:
    """seen: None where it was not asked, because the class is not found there, or where the data set raised an error.

    imports_torch: whether torch was loaded once `check` had returned.
    """

    seen: Seen | None = None
    imports_torch: bool = False
    not_found: str = ""
    error: str = ""


def chosen(side: ImageData) -> list[int]:
    """Indices of the images looked at, the first and the last among them."""
    return spread_indices(len(side), LOOKED).tolist()


def seen(splits: Splits) -> Seen:
    """What two openings of the same data have in common."""
    return Seen(str(splits.fingerprint), _described(splits.train), _described(splits.validation))


def difference(before: Seen, after: Seen) -> str:
    """What differs, in words; "" if nothing does."""
    pairs = {name: (old, asdict(after)[name]) for name, old in asdict(before).items()}
    return ", ".join(f"{name} was {old} and became {new}" for name, (old, new) in pairs.items() if old != new)


def elsewhere(target: str, config: DatasetConfig) -> Answer:
    """Ask another process. target: package.module:Name of the data set's class."""
    salt = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"   # another than here, where it is mostly random
    places = os.pathsep.join(place or os.getcwd() for place in sys.path)
    done = subprocess.run([sys.executable, "-m", "bench.testing.another_process"], capture_output=True, text=True,
                          input=json.dumps({"target": target, "config": asdict(config)}),
                          env={**os.environ, "PYTHONPATH": places, "PYTHONHASHSEED": salt})
    if done.returncode != 0:
        return Answer(error=(done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    answer = json.loads(done.stdout.splitlines()[-1])
    return Answer(**{**answer, "seen": Seen(**answer["seen"]) if answer["seen"] else None})


def main() -> None:
    """One question on standard input, its answer on standard output; what the data set itself prints is no answer."""
    question = json.load(sys.stdin)
    with redirect_stdout(sys.stderr):
        answer = _answer(question["target"], DatasetConfig(**question["config"]))
    print(json.dumps(asdict(answer)))


def _answer(target: str, config: DatasetConfig) -> Answer:
    try:
        cls: Any = registry.resolve("datasets", target)
    except InputError as error:
        return Answer(not_found=str(error))
    try:
        dataset = cls()
        dataset.check(config)
        imports_torch = "torch" in sys.modules
        return Answer(seen(dataset.open(config)), imports_torch)
    except Exception as error:   # the plug-in's own, whatever it is
        return Answer(error=f"{type(error).__name__}: {error}")


def _described(side: ImageData) -> str:
    if not len(side):
        return "no images"
    pixels = np.ascontiguousarray(side.images(chosen(side)))
    return f"{len(side):,} images ({sha256(pixels.tobytes()).hexdigest()[:12]})"


if __name__ == "__main__":
    main()
