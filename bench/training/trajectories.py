"""What a prior's likelihood does along one training: bits at log-spaced steps, image by image. Torch-free.

    trajectory = Trajectory.load(artefact.path / "trajectory.npz")
    trajectory.best()                        # index of the point that is best on the selection half
    trajectory.mean("scoring")               # (points,) bits a token on the other half

The held-out images are halved: the best point is chosen on one half and reported on the other, so that choosing adds no
optimism. Every point uses the same random draws, so differences along a trajectory have little Monte-Carlo error.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

FIRST_STEP = 100
POINTS_PER_OCTAVE = 3
MAX_BYTES = 256 * 2**20
SPLITS = ("train", "selection", "scoring")


def is_measured(step: int) -> bool:
    """Whether `step` lies on the grid round(100 * 2^(i / 3)), which does not depend on where a training ends."""
    octaves = np.log2(max(step, 1) / FIRST_STEP)
    nearest = round(FIRST_STEP * 2 ** (round(octaves * POINTS_PER_OCTAVE) / POINTS_PER_OCTAVE))
    return step >= FIRST_STEP and nearest == step


@dataclass
class Trajectory:
    """Bits a token of single images at the measured steps of one training.

    steps: ascending.
    bits, variance: for each split of SPLITS, one (images,) float32 array a step; variance is Monte-Carlo variance of
        the bits of each image, 0 where they are exact.
    kind: exact, bound_T or bound_continuous, as in priors.base.Likelihood.
    """

    steps: list[int] = field(default_factory=list)
    bits: dict[str, list[np.ndarray]] = field(default_factory=lambda: {split: [] for split in SPLITS})
    variance: dict[str, list[np.ndarray]] = field(default_factory=lambda: {split: [] for split in SPLITS})
    kind: str = "exact"

    def __len__(self) -> int:
        return len(self.steps)

    def mean(self, split: str) -> np.ndarray:
        """(points,) float64 bits a token, the mean over the split's images."""
        return np.array([bits.mean(dtype=np.float64) for bits in self.bits[split]])

    def best(self) -> int:
        """Index of the point with the lowest mean on the selection half."""
        return int(self.mean("selection").argmin())

    def has_long_passed_its_best(self, patience: float | None) -> bool:
        """Whether the last point lies at `patience` times the best point's step or later, and is worse."""
        return (patience is not None and len(self) > 0 and self.best() < len(self) - 1
                and self.steps[-1] >= patience * self.steps[self.best()])

    def without_last(self) -> Trajectory:
        """The trajectory but for its last point."""
        return Trajectory(self.steps[:-1], {split: arrays[:-1] for split, arrays in self.bits.items()},
                          {split: arrays[:-1] for split, arrays in self.variance.items()}, self.kind)

    def save(self, path: Path) -> None:
        """As .npz: steps (P,), kind, and `<split>_bits`, `<split>_variance` (P, images) float32."""
        np.savez_compressed(path, **self.arrays())

    def arrays(self) -> dict[str, Any]:
        """What is written, by name."""
        stacked = {f"{split}_{name}": np.stack(arrays[split]) for name, arrays in
                   (("bits", self.bits), ("variance", self.variance)) for split in SPLITS} if len(self) else {}
        return {"steps": np.array(self.steps, np.int64), "kind": np.array(self.kind), **stacked}

    @classmethod
    def load(cls, path: Path) -> Trajectory:
        """The trajectory in a file that `save` wrote; ValueError for anything else."""
        try:
            return cls.read(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def read(cls, content: bytes) -> Trajectory:
        """The same from untrusted bytes of a file; nothing larger than MAX_BYTES is unpacked."""
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                if (size := sum(member.file_size for member in archive.infolist())) > MAX_BYTES:
                    raise ValueError(f"it unpacks to {size:,} bytes, and at most {MAX_BYTES:,} are read")
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                return cls.of(dict(stored))
        except (OSError, KeyError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"no trajectory: {error}") from error

    @classmethod
    def of(cls, arrays: dict[str, Any]) -> Trajectory:
        """From what `arrays` gives."""
        steps = [int(step) for step in np.asarray(arrays["steps"])]
        columns = {name: {split: [np.asarray(row, np.float32) for row in arrays.get(f"{split}_{name}", ())]
                          for split in SPLITS} for name in ("bits", "variance")}
        if steps != sorted(set(steps)) or any(len(rows) != len(steps) or any(row.ndim != 1 for row in rows)
                                              for splits in columns.values() for rows in splits.values()):
            raise ValueError("a trajectory needs ascending steps and, for each split, one row of images a step")
        if not all(np.isfinite(row).all() for splits in columns.values() for rows in splits.values() for row in rows):
            raise ValueError("bits and variances must be finite")
        return cls(steps, columns["bits"], columns["variance"], str(arrays["kind"]))
