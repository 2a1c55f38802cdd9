"""From encoded bytes to (3, R, R) uint8: the one place where resizing, cropping and colour are decided.

Resize(shorter side = R, bilinear) then CenterCrop(R), as the paper's data pipeline. "antialias" is what torchvision's
Resize does to a PIL image; "plain" takes two taps a side however much it shrinks, as `F.interpolate` does by default.

Colour: grey is repeated; alpha is composited on white; 16-bit grey is scaled to 8 bits, not clipped; CMYK and palettes
go through PIL; EXIF orientation is applied; of an animation the first frame is taken. An image smaller than R grows.

    pixels = decode(open("cat.png", "rb").read(), resolution=256, resize="antialias")
"""

from __future__ import annotations

import functools
import io
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import IO

import numpy as np
from PIL import Image, ImageOps

VERSION = 1   # raise when the pixels of any file change: it stands in every fingerprint
CHECK_VERSION = 3   # raise when `check_decodes` finds more or less

MAX_PIXELS = 89_478_485   # of one image; where PIL begins to warn of decompression bombs: 9,459 x 9,459
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "TGA", "JPEG2000", "AVIF")
"""What is decoded, whatever a file calls itself: PIL reads others too, some by running a program (EPS)."""

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error,
           Image.DecompressionBombError, MemoryError)
"""What PIL's decoders raise on damaged files."""


Resizer = Callable[[Image.Image, int], np.ndarray]
"""An RGB image and a resolution R to (R, R, 3) uint8."""


class CorruptImage(ValueError):
    """These bytes are no image that can be decoded; the message is the decoder's."""


def decode(data: bytes, *, resolution: int, resize: str | Resizer) -> np.ndarray:
    """(3, resolution, resolution) uint8.  Raises CorruptImage."""
    try:
        with opened(io.BytesIO(data)) as image:
            _refuse_cut_png(image, data)
            return fit(upright_rgb(image), resolution=resolution, resize=resize)
    except _BROKEN as error:
        raise CorruptImage(_one_line(error)) from error


def check_decodes(data: bytes) -> None:
    """Read every byte of an image and drop it; a JPEG at an eighth of its size, which still reads all of it.

    Of a PNG, every chunk's CRC-32 too: PIL decodes one that breaks off after its last pixel.  Raises CorruptImage.
    """
    try:
        with opened(io.BytesIO(data)) as image:
            if image.format == "PNG":
                image.verify()
        with opened(io.BytesIO(data)) as image:
            _refuse_cut_png(image, data)
            image.draft("RGB", (1, 1))
            image.load()
    except _BROKEN as error:
        raise CorruptImage(_one_line(error)) from error


def size_of(data: bytes) -> tuple[int, int]:
    """(width, height) as stored, from the header alone.  Raises CorruptImage."""
    try:
        with opened(io.BytesIO(data)) as image:
            return image.size
    except _BROKEN as error:
        raise CorruptImage(_one_line(error)) from error


def opened(file: IO[bytes]) -> Image.Image:
    """The image with nothing but its header read.  Raises what PIL does, or ValueError if it has too many pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)   # an error below, of our own wording
        image = Image.open(file, formats=_formats())
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels, and at most {MAX_PIXELS:,} are decoded")
    return image


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this build of PIL knows."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def upright_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB, upright, on white."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bit(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, over).convert("RGB")
    return image.convert("RGB")


def fit(image: Image.Image, *, resolution: int, resize: str | Resizer) -> np.ndarray:
    """Bring an RGB image to size, by name or by a function: (3, resolution, resolution) uint8."""
    resizer = RESIZERS[resize] if isinstance(resize, str) else resize
    return resizer(image, resolution).transpose(2, 0, 1)


def fit_array(pixels: np.ndarray, *, resolution: int, resize: str) -> np.ndarray:
    """(n, H, W, 3) uint8 -> (n, 3, resolution, resolution) uint8."""
    if pixels.shape[1:3] == (resolution, resolution):
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    fitted = [fit(Image.fromarray(p), resolution=resolution, resize=resize) for p in pixels]
    return np.stack(fitted) if fitted else np.empty((0, 3, resolution, resolution), np.uint8)


def resized_shape(height: int, width: int, resolution: int) -> tuple[int, int]:
    """(height, width) once the shorter side is `resolution`; the longer is rounded down, as torchvision does."""
    if width <= height:
        return int(resolution * height / width), resolution
    return resolution, int(resolution * width / height)


def _refuse_cut_png(image: Image.Image, data: bytes) -> None:
    if image.format == "PNG" and data.rfind(b"IEND\xaeB`\x82") < 0:
        raise ValueError("truncated: the end of the PNG is missing")


def resize_then_crop(image: Image.Image, resolution: int,
                     filter_: Image.Resampling = Image.Resampling.BILINEAR) -> np.ndarray:
    """The shorter side to `resolution`, then the centre: "antialias", or the same with another filter of PIL's."""
    height, width = resized_shape(image.height, image.width, resolution)
    if image.size != (width, height):
        image = image.resize((width, height), filter_)
    top, left = _corner(height, width, resolution)
    return np.asarray(image.crop((left, top, left + resolution, top + resolution)))


def _plain(image: Image.Image, resolution: int) -> np.ndarray:
    pixels = np.asarray(image)
    height, width = resized_shape(image.height, image.width, resolution)
    top, left = _corner(height, width, resolution)
    y0, y1, wy = _two_taps(pixels.shape[0], height, top, resolution)
    x0, x1, wx = _two_taps(pixels.shape[1], width, left, resolution)
    wx, wy = wx[None, :, None], wy[:, None, None]
    upper, lower = pixels[y0].astype(np.float32), pixels[y1].astype(np.float32)   # (R, W, 3)
    upper = upper[:, x0] * (1 - wx) + upper[:, x1] * wx
    lower = lower[:, x0] * (1 - wx) + lower[:, x1] * wx
    return np.rint(upper * (1 - wy) + lower * wy).astype(np.uint8)


RESIZERS: dict[str, Resizer] = {"antialias": resize_then_crop, "plain": _plain}


def _corner(height: int, width: int, resolution: int) -> tuple[int, int]:
    return round((height - resolution) / 2), round((width - resolution) / 2)


def _two_taps(size: int, resized: int, start: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two source indices and the second one's weight for outputs start .. start + count - 1 (half-pixel centres)."""
    scale = np.float32(size) / np.float32(resized)
    position = (np.arange(start, start + count, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    position = np.maximum(position, 0)
    first = position.astype(np.int64)
    return first, np.minimum(first + 1, size - 1), position - first.astype(np.float32)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, which PIL would clip at 255, scaled to 8."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError(f"mode {image.mode} with values {values.min()}..{values.max()}: expected 8 or 16 bits")
    return Image.fromarray(np.rint(values.astype(np.float64) / 257).astype(np.uint8))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).replace("<_io.BytesIO object at ", "<bytes at ") or type(error).__name__
