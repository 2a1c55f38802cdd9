"""FFHQ: 70,000 aligned faces (Karras et al., 2019), from a folder tree or a zip; never downloaded.

The last `validation_fraction` (5%) by index validates, as in the paper. Corrupt images are an error when they are met;
with on_corrupt=skip every image is decoded once beforehand.
"""

from __future__ import annotations

import re
from pathlib import Path

from bench.config import DatasetConfig
from bench.data.base import Splits
from bench.data.files import TreeFiles, ZipFiles, is_image_name, open_files, walk
from bench.data.images import FileImages, take_inventory
from bench.data.pixels import CorruptImage, size_of
from bench.data.regular import read_regular
from bench.data.splits import capped, check_options, fingerprint, located, num_validation
from bench.errors import InputError
from bench.store.cache import cache_root

SIZE = 70_000
RELEASED_FOLDERS = ("thumbnails128x128", "images256x256", "images512x512", "images1024x1024")   # smallest first
UNALIGNED = "in-the-wild-images"


class FFHQ:
    """Faces in the order of their index."""

    def check(self, config: DatasetConfig) -> None:
        check_options(config)
        root = _root(config)
        if root.is_dir():
            _chosen_folder(root, config.resolution)
        elif not root.name.endswith(".zip"):
            raise InputError(f"dataset.path={root} is neither a folder nor a zip.\n{_layouts()}")

    def open(self, config: DatasetConfig) -> Splits:
        self.check(config)
        files = _open(_root(config), config.resolution)
        inventory = take_inventory(files, decode=config.on_corrupt == "skip")
        names = in_index_order([name for name in files.names if name not in inventory.corrupt], files.path)
        held_out = num_validation(len(names), config.validation_fraction)
        train, validation = names[:len(names) - held_out], names[len(names) - held_out:]
        notes: dict[str, object] = {
            "ignored_non_images": files.ignored, "skipped_corrupt": len(inventory.corrupt), "layout": files.path.name,
            "split": f"the last {config.validation_fraction:g} by index validates"}
        if len(names) != SIZE:
            notes["incomplete"] = f"{len(names):,} of {SIZE:,} images"

        def images(chosen: list[str], cap: int | None) -> FileImages:
            kept = [chosen[i] for i in capped(range(len(chosen)), cap)]
            return FileImages(files, kept, resolution=config.resolution, resize=config.resize)

        return Splits(images(train, config.max_train), images(validation, config.max_validation),
                      fingerprint(config, inventory.digest), notes)


def in_index_order(names: list[str], where: Path) -> list[str]:
    """Names sorted by the number that ends their stem.  Raises InputError if one has none or two share one."""
    by_index: dict[int, str] = {}
    for name in names:
        number = re.search(r"(\d+)$", Path(name).stem)
        if number is None:
            raise InputError(f"{where}: {name} does not end in the index of a face.\n{_layouts()}")
        other = by_index.setdefault(int(number[1]), name)
        if other != name:
            raise InputError(f"{where}: {other} and {name} are the same face: point dataset.path at one layout")
    return [by_index[index] for index in sorted(by_index)]


def _root(config: DatasetConfig) -> Path:
    default = cache_root() / "datasets" / "ffhq"
    if config.path is None and not default.exists() and default.with_suffix(".zip").exists():
        default = default.with_suffix(".zip")
    root = located(config, default)
    if not root.exists():
        raise InputError(f"FFHQ is expected at {root}, which does not exist.\n{_layouts()}")
    return root


def _layouts() -> str:
    folders = ", ".join(reversed(RELEASED_FOLDERS))
    return (f"""FFHQ is not downloaded for you: get it from its authors (NVlabs/ffhq-dataset), then point at it with
  dataset.path=<folder or zip>
in one of these layouts:
  <path>/images1024x1024/00000/00000.png   the release (folders known: {folders})
  <path>/00000/00000.png, <path>/00000.png  one of those folders itself, nested or flat, .png .jpg .webp
  <path>.zip                                a zip, stored or deflated, of any of them
File names end in the index of the face, 0 to 69999. Without dataset.path the place is {_default_place()}.""")


def _default_place() -> str:
    return f"{cache_root() / 'datasets' / 'ffhq'} (or ffhq.zip beside it)"


def _open(root: Path, resolution: int) -> TreeFiles | ZipFiles:
    if root.is_dir():
        return open_files(_chosen_folder(root, resolution))
    files = open_files(root)
    assert isinstance(files, ZipFiles)
    inside = [folder for folder in RELEASED_FOLDERS if any(f"{folder}/" in name for name in files.names)]
    for folder in inside:
        example = next(name for name in files.names if f"{folder}/" in name)
        if folder == inside[-1] or min(size_of(files.read(example))) >= resolution:
            files = ZipFiles(root, under=example[:example.index(f"{folder}/") + len(folder) + 1])
            break
    _check_size(files.read(files.names[0]), files.names[0], root, resolution)
    return files


def _chosen_folder(root: Path, resolution: int) -> Path:
    """The released folder whose images are the smallest that need not grow; the root if it has none of them."""
    released = [root / folder for folder in RELEASED_FOLDERS if (root / folder).is_dir()]
    if not released and (root / UNALIGNED).is_dir():
        raise InputError(f"{root} holds {UNALIGNED}: the aligned images are needed.\n{_layouts()}")
    for folder in released or [root]:
        example = next((name for name, _ in walk(folder) if is_image_name(name)), None)
        if example is None:
            raise InputError(f"{folder} holds no images.{_hint(folder)}\n{_layouts()}")
        data = _read(folder, example)
        if folder == (released or [root])[-1]:
            _check_size(data, example, folder, resolution)
            return folder
        if min(_size(data, example, folder)) >= resolution:
            return folder
    raise AssertionError("the last folder is returned or refused")


def _check_size(data: bytes, name: str, where: Path, resolution: int) -> None:
    width, height = _size(data, name, where)
    if min(width, height) < resolution:
        raise InputError(f"{where}: {name} is {width}x{height}, smaller than dataset.resolution={resolution}: use a "
                         f"larger layout of FFHQ or dataset.resolution={min(width, height)}")


def _read(folder: Path, name: str) -> bytes:
    try:
        return read_regular(folder / name)
    except (CorruptImage, OSError) as error:
        raise InputError(f"{folder / name} cannot be read: {error}") from error


def _size(data: bytes, name: str, where: Path) -> tuple[int, int]:
    try:
        return size_of(data)
    except CorruptImage as error:
        raise InputError(f"{where}: {name} is corrupt: {error}") from error


def _hint(folder: Path) -> str:
    return " TFRecords are not read: unpack them." if any(folder.glob("*.tfrecords")) else ""
