"""Any folder or zip of images, nested as it likes: `dataset=folder dataset.path=photos dataset.resolution=64`.

Every image below the path counts, whatever its class folder. With folders `train` and `val` (or `validation`, `valid`,
`test`) directly below the path these are the splits; otherwise `validation_fraction` of the images is set aside by the
hash of the relative path, and both splits stand in hash order, so that a cap takes a random sample. The first folder of
each path (below those of the splits) is its class, where a condition asks; captions: see bench.data.captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench.config import DatasetConfig
from bench.data.base import Splits
from bench.data.captions import read_captions
from bench.data.files import Files, open_files
from bench.data.images import FileImages, corrupt_error, take_inventory
from bench.data.labels import Captions, labels_from_folders
from bench.data.pixels import size_of
from bench.data.regular import check_regular
from bench.data.splits import capped, check_options, fingerprint, hash_order, split_by_hash
from bench.errors import InputError

VALIDATION_FOLDERS = ("val", "validation", "valid", "test")
PROBE = 32   # images whose size is looked at, to tell the reader of a record that pixels were made up


class ImageFolder:
    """A folder or zip of images."""

    def check(self, config: DatasetConfig) -> None:
        check_options(config)
        _path(config)

    def open(self, config: DatasetConfig) -> Splits:
        check_options(config)
        files = open_files(_path(config))
        inventory = take_inventory(files)
        if inventory.corrupt and config.on_corrupt == "error":
            raise corrupt_error(files.path, inventory.corrupt)
        names = [name for name in files.names if name not in inventory.corrupt]
        if len(names) < 2:
            raise InputError(f"{files.path} holds {len(names)} usable image(s): at least 2 are needed, one to train on "
                             "and one to validate")
        train, validation, rule = split(names, config.validation_fraction)
        notes: dict[str, object] = {"ignored_non_images": files.ignored, "skipped_corrupt": len(inventory.corrupt),
                                    "split": rule}
        if inventory.corrupt:
            notes["skipped_corrupt_files"] = sorted(inventory.corrupt)[:10]
        if small := _num_smaller(files, names, config.resolution):
            probed = min(PROBE, len(names))
            notes["enlarged"] = f"{small} of {probed} images looked at are smaller than {config.resolution} pixels"

        def images(indices: list[int], cap: int | None) -> FileImages:
            return FileImages(files, [names[i] for i in capped(indices, cap)],
                              resolution=config.resolution, resize=config.resize)

        sides = images(train, config.max_train), images(validation, config.max_validation)
        splits_of = ("train", *VALIDATION_FOLDERS) if rule.startswith("folders") else ()
        return Splits(*sides, fingerprint(config, inventory.digest), notes,
                      labels=partial(labels_from_folders, sides[0].names, sides[1].names, below=splits_of),
                      captions=partial(_captions, files.path, sides[0].names, sides[1].names))


def _captions(root: Path, train: Sequence[str], validation: Sequence[str]) -> Captions:
    found = read_captions(root, [*train, *validation])
    return Captions(tuple(found[name] for name in train), tuple(found[name] for name in validation))


def split(names: list[str], fraction: float) -> tuple[list[int], list[int], str]:
    """(train, validation) indices in hash order, and in words how they were told apart."""
    tops = [name.split("/")[0] if "/" in name else "" for name in names]
    held_out = next((folder for folder in VALIDATION_FOLDERS if folder in tops), None)
    if held_out is not None and "train" in tops:
        order = hash_order(names)
        return ([i for i in order if tops[i] == "train"], [i for i in order if tops[i] == held_out],
                f"folders train and {held_out}")
    return *split_by_hash(names, fraction), f"{fraction:g} of the images by the hash of their path"


def _path(config: DatasetConfig) -> Path:
    if config.path is None:
        raise InputError("dataset=folder needs to know where the images are: dataset.path=<folder or zip of images>")
    path = Path(config.path).expanduser()
    if not path.exists():
        raise InputError(f"dataset.path={path} does not exist: expected a folder or a zip of images")
    check_regular(path, f"dataset.path={path}")
    return path


def _num_smaller(files: Files, names: list[str], resolution: int) -> int:
    probed = names[::max(1, len(names) // PROBE)][:PROBE]
    return sum(min(size_of(files.read(name))) < resolution for name in probed)
