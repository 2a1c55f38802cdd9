"""How others bring pictures to size: with other filters, cropped before or not at all.

For whoever asks which of these gave a number (bench.fid_doctor).

    for name, resizer in other_ways(images).items():     # of images read from a folder or zip; else there are none
        again = reread(images, resizer)                  # the same pictures from their original files
"""

from __future__ import annotations

from functools import partial

import numpy as np
from PIL import Image

from bench.data.arrays import SubsetImages, spread_indices
from bench.data.base import ImageData
from bench.data.images import FileImages
from bench.data.pixels import RESIZERS, Resizer, resize_then_crop, size_of

PROBE = 32   # originals whose size is looked at
BICUBIC, LANCZOS, BOX = Image.Resampling.BICUBIC, Image.Resampling.LANCZOS, Image.Resampling.BOX


def other_ways(images: ImageData) -> dict[str, Resizer]:
    """Ways to resize by name, without the one that was taken; none where originals have the right size already.

    Where all originals are square, cropping first changes nothing.
    """
    files = originals(images)
    if files is None:
        return {}
    probed = [size_of(files.files.read(files.names[i])) for i in spread_indices(len(files), PROBE)]
    if set(probed) == {(files.resolution, files.resolution)}:
        return {}
    own = files.resize if isinstance(files.resize, str) else ""
    ways: dict[str, Resizer] = {NAMES[name]: resizer for name, resizer in RESIZERS.items() if name != own}
    ways |= {"bicubic": partial(resize_then_crop, filter_=BICUBIC),
             "Lanczos": partial(resize_then_crop, filter_=LANCZOS),
             "box": partial(resize_then_crop, filter_=BOX),
             "box to halves, then bicubic (ADM)": halved_then_bicubic}
    if any(width != height for width, height in probed):
        resizer = RESIZERS[own] if own else resize_then_crop
        ways |= {"the same filter, cropped to a square first": partial(crop_then_resize, resizer=resizer),
                 "Lanczos, cropped to a square first (StyleGAN)":
                     partial(crop_then_resize, resizer=partial(resize_then_crop, filter_=LANCZOS)),
                 "bilinear, stretched to a square": stretched}
    return ways


def reread(images: ImageData, resizer: Resizer) -> ImageData:
    """The same pictures, from their files and otherwise resized."""
    files = originals(images)
    if files is None:
        raise TypeError(f"{type(images).__name__} holds no pictures of files")
    again = FileImages(files.files, files.names, resolution=files.resolution, resize=resizer)
    return SubsetImages(again, images.indices) if isinstance(images, SubsetImages) else again


def originals(images: ImageData) -> FileImages | None:
    """The files behind images, None for arrays."""
    whole = images.whole if isinstance(images, SubsetImages) else images
    return whole if isinstance(whole, FileImages) else None


def crop_then_resize(image: Image.Image, resolution: int, resizer: Resizer) -> np.ndarray:
    """The square in the middle, then to size."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return resizer(image.crop((left, top, left + side, top + side)), resolution)


def stretched(image: Image.Image, resolution: int) -> np.ndarray:
    """To a square, whatever the shape was."""
    return np.asarray(image.resize((resolution, resolution), Image.Resampling.BILINEAR))


def halved_then_bicubic(image: Image.Image, resolution: int) -> np.ndarray:
    """`center_crop_arr` of Dhariwal and Nichol's ADM, which DiT and LlamaGen took over."""
    while min(image.size) >= 2 * resolution:
        image = image.resize((image.width // 2, image.height // 2), BOX)
    scale = resolution / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), BICUBIC)
    left, top = (image.width - resolution) // 2, (image.height - resolution) // 2
    return np.asarray(image.crop((left, top, left + resolution, top + resolution)))


NAMES = {"antialias": "bilinear, antialiased", "plain": "bilinear of two taps, not antialiased"}
