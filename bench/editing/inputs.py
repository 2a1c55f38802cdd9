"""Images and masks from files, as the model sees them; everything wrong with them is found here. Torch-free.

    inputs = load(options, spec.dataset, patch=4, held_out=lambda i: splits.validation.images([i])[0])
    inputs.images, inputs.regions          # (S, 3, H, W) uint8, (S, H, W) bool
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bench.config import DatasetConfig
from bench.data import pixels
from bench.data.regular import read_regular
from bench.editing.options import EditOptions
from bench.errors import InputError

HELD_OUT = "validation:"
WHITE = 128   # of 255: as bright, and a pixel of a mask counts


@dataclass(frozen=True)
class Inputs:
    """images: (S, 3, H, W) uint8.  regions: (S, H, W) bool, True where the mask is white; None without masks."""

    images: np.ndarray
    regions: np.ndarray | None


def load(options: EditOptions, dataset: DatasetConfig, *, patch: int,
         held_out: Callable[[int], np.ndarray]) -> Inputs:
    """Every image and region of the options, resized alike. patch: pixels of a token's side. Raises InputError."""
    originals = [_read_image(name, dataset.resolution, held_out) for name in options.image]
    for name, image in zip(options.image, originals, strict=True):
        _check_image(name, image, options, dataset.resolution, patch)
    regions = [_region(options, index, image) for index, image in enumerate(originals)]
    if options.fit:
        originals = [pixels.fit(Image.fromarray(image), resolution=dataset.resolution, resize=dataset.resize)
                     .transpose(1, 2, 0) for image in originals]
        regions = [region if region is None else _fit_mask(region, dataset) for region in regions]
    if len({image.shape for image in originals}) > 1:
        raise InputError("the images differ in size; give one at a time, or leave fit=false out.")
    has_regions = bool(regions) and regions[0] is not None
    return Inputs(np.ascontiguousarray(np.stack(originals).transpose(0, 3, 1, 2)),
                  np.stack([region for region in regions if region is not None]) if has_regions else None)


def check_files(options: EditOptions, dataset: DatasetConfig) -> None:
    """Whatever of the files can be judged before there is a model. Raises InputError."""
    blank = np.zeros((3, dataset.resolution, dataset.resolution), np.uint8)
    if options.image:
        load(options, dataset, patch=1, held_out=lambda index: blank)


def held_out_index(name: str) -> int | None:
    """3 of "validation:3", None of a file."""
    return int(name.removeprefix(HELD_OUT)) if name.startswith(HELD_OUT) else None


def check_conditions(options: EditOptions, condition: str) -> None:
    """Raise InputError where a prior with this condition would complete what nobody knows the condition of."""
    if condition == "none" or options.task == "benchmark":
        return
    what = f"the {'class' if condition == 'class' else 'caption'} of a held-out image alone is known"
    if options.task == "stitch" or not options.image:
        raise InputError(f"task={options.task} with condition={condition}: no one image is completed, and {what}. Use "
                         f"image={HELD_OUT}<index> with task=inpaint, condition or enlarge, or condition=none.")
    for name in options.image:
        if held_out_index(name) is None:
            raise InputError(f"image={name} with condition={condition}: {what}. Use image={HELD_OUT}<index>, or "
                             "condition=none.")


def _read_image(name: str, resolution: int, held_out: Callable[[int], np.ndarray]) -> np.ndarray:
    """(H, W, 3) uint8."""
    if name.startswith(HELD_OUT):
        index = name.removeprefix(HELD_OUT)
        if not index.isdigit():
            raise InputError(f"image={name}: expected {HELD_OUT}<index>, such as {HELD_OUT}0.")
        return held_out(int(index)).transpose(1, 2, 0)
    return np.asarray(pixels.upright_rgb(_open(name, "image")))


def _open(name: str, key: str) -> Image.Image:
    try:
        image = pixels.opened(io.BytesIO(read_regular(Path(name).expanduser())))
        image.load()
    except FileNotFoundError:
        raise InputError(f"{key}={name}: no such file. A held-out image is {HELD_OUT}<index>.") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{key}={name} is not a picture that can be read: {error}.") from None
    return image


def _check_image(name: str, image: np.ndarray, options: EditOptions, resolution: int, patch: int) -> None:
    height, width = image.shape[:2]
    if min(height, width) < resolution:
        raise InputError(f"image={name} is {width}x{height} pixels, smaller than the {resolution}x{resolution} that "
                         "the models work at: enlarge it first, or choose models of a smaller dataset.resolution.")
    if not options.fit and (height % patch or width % patch):
        raise InputError(f"image={name} is {width}x{height} pixels: with fit=false both must be multiples of {patch}, "
                         "the side of a token. Crop it, or leave fit=false out.")


def _region(options: EditOptions, index: int, image: np.ndarray) -> np.ndarray | None:
    """What is white for image `index`, (H, W) bool at the size of its file."""
    height, width = image.shape[:2]
    if options.box:
        boxes = options.box[index:index + 1] if options.task == "stitch" else options.box
        region = np.zeros((height, width), bool)
        for x0, y0, x1, y1 in boxes:
            if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
                raise InputError(f"box={x0},{y0},{x1},{y1}: expected 0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= "
                                 f"{height}, pixels of {options.image[index]}.")
            region[y0:y1, x0:x1] = True
        name = "box"
    elif options.mask:
        name = options.mask[min(index, len(options.mask) - 1)]
        region = _read_mask(name)
        if region.shape != (height, width):
            raise InputError(f"mask={name} is {region.shape[1]}x{region.shape[0]} pixels, its image "
                             f"{options.image[index]} {width}x{height}: give a mask of the image's own size.")
    else:
        return None
    meaning = {"inpaint": ("nothing would be painted", "nothing of the image would be kept"),
               "condition": ("nothing of the image would be kept", "nothing would be painted"),
               "stitch": ("nothing would be taken of it", "nothing would be left to fill")}[options.task]
    if not region.any():
        raise InputError(f"{name} is all black: {meaning[0]}. White marks what task={options.task} is about.")
    if region.all():
        raise InputError(f"{name} is all white: {meaning[1]}. Leave part of the image black.")
    return region


def _read_mask(name: str) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(_open(name, "mask")).convert("L")) >= WHITE


def _fit_mask(region: np.ndarray, dataset: DatasetConfig) -> np.ndarray:
    """Resized and cropped as its image; a pixel counts as soon as white reaches it."""
    picture = Image.fromarray(region.astype(np.uint8) * 255).convert("RGB")
    fitted = pixels.fit(picture, resolution=dataset.resolution, resize=dataset.resize)[0] > 0
    if fitted.all() or not fitted.any():
        raise InputError("once the image is cropped to a square the mask is all of one colour: crop the image "
                         "yourself, or use fit=false.")
    return fitted
