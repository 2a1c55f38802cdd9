"""Encoded images decoded on demand, and the look at every one of them that finds the corrupt ones beforehand.

    files = open_files(Path("photos.zip"))
    inventory = take_inventory(files)              # decodes everything once, then remembers
    data = FileImages(files, files.names, resolution=64, resize="antialias")
    data.images([0, 1])                            # (2, 3, 64, 64) uint8
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench.data import pixels
from bench.data.files import Files
from bench.data.threads import in_threads
from bench.errors import InputError
from bench.store.cache import cache_root
from bench.store.files import keep_json, read


class FileImages:
    """One split of encoded images, decoded by a few threads when asked for."""

    def __init__(self, files: Files, names: Sequence[str], *, resolution: int, resize: str | pixels.Resizer):
        self.files, self.names = files, names
        self.resolution, self.resize = resolution, resize

    def __len__(self) -> int:
        return len(self.names)

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n, 3, H, W) uint8 in the order of the indices.  Raises InputError naming up to ten corrupt images."""
        names = [self.names[int(i)] for i in indices]
        out = np.empty((len(names), 3, self.resolution, self.resolution), np.uint8)

        def load(item: tuple[int, str]) -> tuple[str, str] | None:
            position, name = item
            try:
                out[position] = pixels.decode(self.files.read(name), resolution=self.resolution, resize=self.resize)
            except (pixels.CorruptImage, OSError) as error:
                return name, str(error)
            return None

        corrupt = dict(filter(None, in_threads(load, list(enumerate(names)))))
        if corrupt:
            raise corrupt_error(self.files.path, corrupt)
        return out


@dataclass(frozen=True)
class Inventory:
    """What a look at every image found. digest: of the sound ones. corrupt: name -> reason."""

    digest: str
    corrupt: dict[str, str]


def take_inventory(files: Files, *, decode: bool = True) -> Inventory:
    """Decode every image once, to find the corrupt ones, and remember the answer while no file changes.

    decode: False for published sets too large to read at every start: the digest alone; what is corrupt is then an
        error when it is met.
    """
    memo = cache_root() / "datasets" / f"{files.stamp()}-{pixels.CHECK_VERSION}{'' if decode else '-listed'}.json"
    if (found := read(memo, lambda path: Inventory(**json.loads(path.read_text())))) is not None:
        return found
    corrupt: dict[str, str] = {}
    if decode:
        reasons = in_threads(lambda name: _reason(files, name), files.names, label="checking images")
        corrupt = dict(filter(None, reasons))
    sound = [name for name in files.names if name not in corrupt] if corrupt else files.names
    found = Inventory(files.digest(sound), corrupt)
    keep_json(memo, asdict(found))
    return found


def corrupt_error(path: Path, corrupt: dict[str, str]) -> InputError:
    """The error that names the first ten."""
    shown = "\n".join(f"  {name}: {reason}" for name, reason in sorted(corrupt.items())[:10])
    more = f"\n  and {len(corrupt) - 10} more" if len(corrupt) > 10 else ""
    return InputError(f"{len(corrupt)} corrupt image(s) in {path}:\n{shown}{more}\n"
                      "Repair or remove them, or set dataset.on_corrupt=skip (what is skipped is recorded).")


def _reason(files: Files, name: str) -> tuple[str, str] | None:
    try:
        pixels.check_decodes(files.read(name))
    except (pixels.CorruptImage, OSError) as error:
        return name, str(error)
    return None


