"""One array of images in an .npz, judged by its headers and read image by image: nothing is loaded whole.

    array = find_images(Path("samples.npz"), key=None, resolution=32)     # raises InputError
    values = scan(array)                                                  # one pass: checksum, range of floats
    NpzImages(array, values).images([0, 7])                               # (2, 3, 32, 32) uint8

Nothing is unpickled, and no header is believed: an array has to take the bytes that its shape comes to.
"""

from __future__ import annotations

import io
import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from bench.errors import InputError

USUAL_KEYS = ("arr_0", "images", "samples")   # which of several arrays of images is meant, if no one says
MAX_HEADER = 10_000 + 12   # bytes of an .npy header with what stands before it; numpy itself reads no longer one
MAX_ARRAY_BYTES = 64 << 30   # of one array: 50,000 float32 images of 256x256 are 37 GiB
MAX_RATIO = 1032   # deflate cannot shrink more (zlib's technical notes); whoever announces more is lying
BLOCK = 4 << 20   # bytes read at once
RANGES = {"0..1": (0.0, 255.0), "-1..1": (1.0, 127.5), "0..255": (0.0, 1.0)}
"""Of floats: what is added, then multiplied, to come to 0..255."""
BROKEN = (zipfile.BadZipFile, ValueError, EOFError, OSError, NotImplementedError, RuntimeError, zlib.error, SyntaxError,
          tokenize.TokenError, TypeError, OverflowError, MemoryError)
"""What zipfile and numpy raise on damaged files; numpy has Python parse the header of an array."""


@dataclass(frozen=True)
class ImageArray:
    """Where an array of images stands, and how. layout: "NHWC" or "NCHW", of 3 channels or of 1, grey."""

    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype
    layout: str
    start: int   # of the values, in bytes of the member

    @property
    def bytes_per_image(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def open(self) -> IO[bytes]:
        return zipfile.ZipFile(self.path).open(f"{self.key}.npy")   # the member keeps the archive open


def find_images(path: Path, *, key: str | None, resolution: int) -> ImageArray:
    """The array of that key, or the only one of images, or the usual one of several.  Raises InputError."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = {info.filename.removesuffix(".npy"): _looked_at(path, archive, info, resolution)
                     for info in archive.infolist() if info.filename.endswith(".npy")}
    except InputError:
        raise
    except BROKEN as error:
        raise unreadable(path, error) from None
    fitting = {name: array for name, array in found.items() if isinstance(array, ImageArray)}
    expected = (f"expected uint8 (n, {resolution}, {resolution}, 3), or the like of floats, of (n, 3, H, W) or of one "
                "channel")
    if key is not None and key not in found:
        raise InputError(f"{path} has no array '{key}': it holds {sorted(found)}.")
    if key is None:
        key = next((name for name in USUAL_KEYS if name in fitting), None) or (
            next(iter(fitting)) if len(fitting) == 1 else None)
    if key is None and len(fitting) > 1:
        raise InputError(f"{path} holds several arrays of images, {sorted(fitting)}: name one, as "
                         f"{path}:{min(fitting)}.")
    if key is None or key not in fitting:
        held = "; ".join(f"{name}: {array}" for name, array in sorted(found.items()) if key in (None, name))
        raise InputError(f"{path} holds {sorted(found)}, {held or 'no array'}: {expected}.")
    return fitting[key]


def unreadable(path: Path, error: BaseException) -> InputError:
    return InputError(f"{path} is not an .npz file that can be read ({' '.join(str(error).split())}): write one with "
                      "np.savez('samples.npz', images), images (n, H, W, 3) uint8.")


def _looked_at(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, resolution: int) -> ImageArray | str:
    """The array if it is one of images, or in words what it is instead.  Raises InputError for a header that lies."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "compressed in a way numpy does not write"
    shape, fortran, dtype, start = read_header(path, archive, info)
    kind = f"{dtype} {shape}"
    if dtype.hasobject:
        return f"{kind}, Python objects, which are never unpickled"
    layout = _layout(shape, resolution)
    if dtype.kind != "f" and dtype != np.uint8 or not layout:
        return kind
    if fortran and max(shape) > 1:
        return f"{kind} in Fortran order (save np.ascontiguousarray(images))"
    announced, there = math.prod(shape) * dtype.itemsize, info.file_size - start
    if announced != there:
        raise InputError(f"{path}: {info.filename} announces {kind}, {announced:,} bytes, and holds {there:,}: the "
                         "file is damaged.")
    if announced > MAX_ARRAY_BYTES:
        raise InputError(f"{path}: {info.filename} is {kind}, {announced:,} bytes: at most {MAX_ARRAY_BYTES:,} are "
                         "read. Save fewer images, or save them as uint8.")
    return ImageArray(path, info.filename.removesuffix(".npy"), shape, dtype, layout, start)


def read_header(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) \
        -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """(shape, whether in Fortran order, dtype, where the data begins) of a member; nothing beyond its header is read.

    Raises InputError for one that announces more than its compressed bytes can hold.
    """
    if info.file_size > MAX_RATIO * max(1, info.compress_size):
        raise InputError(f"{path}: {info.filename} announces {info.file_size:,} bytes out of {info.compress_size:,}, "
                         "more than can be: the file is damaged or a trap.")
    with archive.open(info) as file:
        head = io.BytesIO(file.read(MAX_HEADER))
    version = np.lib.format.read_magic(head)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return (*read(head), head.tell())


def _layout(shape: tuple[int, ...], resolution: int) -> str:
    """"" unless these are square images of that resolution, of 3 channels or 1."""
    if len(shape) == 4 and shape[1:3] == (resolution, resolution) and shape[3] in (1, 3):
        return "NHWC"
    return "NCHW" if len(shape) == 4 and shape[2:] == (resolution, resolution) and shape[1] in (1, 3) else ""


def scan(array: ImageArray) -> str:
    """Read the whole array once, in pieces: which of RANGES its floats are in; "" for uint8.

    Raises InputError for a damaged file, and for floats of another range or not finite.
    """
    low, high, count = math.inf, -math.inf, 0
    try:
        with array.open() as file:
            file.read(array.start)
            while block := file.read(BLOCK - BLOCK % array.dtype.itemsize):   # to the end, where the CRC is compared
                count += len(block)
                if array.dtype.kind == "f":
                    values = np.frombuffer(block, array.dtype)
                    low, high = min(low, float(np.min(values))), max(high, float(np.max(values)))
                    if not np.isfinite(values).all():
                        raise InputError(f"{array.path}: {array.key} has values that are not finite.")
    except InputError:
        raise
    except BROKEN as error:
        raise unreadable(array.path, error) from None
    if count != array.shape[0] * array.bytes_per_image:
        raise InputError(f"{array.path}: {array.key} breaks off after {count:,} bytes: the file is damaged.")
    if array.dtype.kind != "f":
        return ""
    for name, (shift, scale) in RANGES.items():   # what rounds into 0..255 is inside
        if -0.5 <= (low + shift) * scale and (high + shift) * scale <= 255.5:
            return name
    size = array.shape[-2]
    raise InputError(f"{array.path}: {array.key} is {array.dtype} {array.shape} with values {low:g}..{high:g}; "
                     f"expected uint8 (n, {size}, {size}, 3), or floats in one of {', '.join(RANGES)}. Clip them, or "
                     "save uint8.")


class NpzImages:
    """The images of an array, as an ImageData; fastest in ascending order, as a compressed array is read forwards."""

    def __init__(self, array: ImageArray, values: str):
        self.array, self.values = array, values
        self._opened: tuple[int, IO[bytes]] | None = None   # by whom: a forked process opens its own

    def __len__(self) -> int:
        return self.array.shape[0]

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n, 3, H, W) uint8."""
        side = self.array.shape[2]
        rows = [self._image(int(i)) for i in indices]
        return np.stack(rows) if rows else np.empty((0, 3, side, side), np.uint8)

    def _image(self, index: int) -> np.ndarray:
        size = self.array.bytes_per_image
        file = self._file()
        try:
            file.seek(self.array.start + index * size)
            data = file.read(size)
        except BROKEN as error:
            raise unreadable(self.array.path, error) from None
        if len(data) < size:
            raise InputError(f"{self.array.path} has changed since it was looked at: image {index} is missing.")
        image = np.frombuffer(data, self.array.dtype).reshape(self.array.shape[1:])
        if self.array.layout == "NHWC":
            image = image.transpose(2, 0, 1)
        if self.values:
            shift, scale = RANGES[self.values]
            image = np.rint((image.astype(np.float64) + shift) * scale).clip(0, 255).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(image, (3, *image.shape[1:])))

    def _file(self) -> IO[bytes]:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), self.array.open()
        return self._opened[1]
