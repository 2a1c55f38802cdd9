"""Whether a tokenizer suits a data set, asked with two images of noise before anything is built.

    check_fit(tokenizer, "my_package:Mine", resolution=64)     # InputError names what disagrees
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.errors import InputError
from bench.stages.base import Run
from bench.stages.models import new_tokenizer


def constructed(run: Run) -> Any:
    """The tokenizer with initial weights; InputError where its constructor refuses the resolution or an option."""
    try:
        return new_tokenizer(run)
    except ValueError as error:
        name = run.spec.vq.entry
        raise InputError(f"vq={name}: {' '.join(str(error).split())[:600]}") from error


def check_fit(tokenizer: Any, name: str, *, resolution: int) -> None:
    """Raise InputError unless uint8 images of this resolution become h * w ids below K and uint8 images again."""
    if tokenizer.resolution != resolution:
        raise InputError(f"vq={name} is for images of {tokenizer.resolution} pixels, and dataset.resolution="
                         f"{resolution}. Set dataset.resolution={tokenizer.resolution}, or take another tokenizer.")
    images = torch.randint(0, 256, (2, 3, resolution, resolution), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(0)).to(_device_of(tokenizer))
    tokenizer.eval()
    try:
        with torch.inference_mode():
            tokens = tokenizer.encode(images)
            _check_tokens(tokens, tokenizer, name)
            _check_images(tokenizer.decode(tokens), name, resolution)
    except InputError:
        raise
    except Exception as error:   # whatever a plug-in's own code raises
        raise InputError(f"vq={name} cannot encode and decode images (2, 3, {resolution}, {resolution}) uint8: "
                         f"{type(error).__name__}: {' '.join(str(error).split())[:300]}. Try it alone with "
                         "bench.testing.check_tokenizer.") from error


def _check_tokens(tokens: Tensor, tokenizer: Any, name: str) -> None:
    (height, width), num_codes = tokenizer.grid, tokenizer.codebook_size
    if tokens.ndim != 2 or tokens.shape[1] != height * width:
        raise InputError(f"vq={name} says grid=({height}, {width}), {height * width} tokens an image, and encodes one "
                         f"to {tuple(tokens.shape[1:])}: its downsampling does not suit images of "
                         f"{tokenizer.resolution} pixels. Correct its grid, or dataset.resolution.")
    if tokens.dtype != torch.int64 or int(tokens.min()) < 0 or int(tokens.max()) >= num_codes:
        raise InputError(f"vq={name} encodes to {tokens.dtype} from {tokens.min().item()} to {tokens.max().item()}: "
                         f"expected int64 ids in [0, {num_codes}), its codebook_size. Correct its encode.")


def _check_images(images: Tensor, name: str, resolution: int) -> None:
    if images.dtype != torch.uint8:
        raise InputError(f"vq={name} decodes to {images.dtype} from {images.min().item():.3g} to "
                         f"{images.max().item():.3g}: expected uint8 from 0 to 255, the range of every data set. "
                         "Scale, round and clamp in its decode.")
    if tuple(images.shape) != (2, 3, resolution, resolution):
        raise InputError(f"vq={name} decodes two images to {tuple(images.shape)}: expected (2, 3, {resolution}, "
                         f"{resolution}), as it encoded them. Its downsampling and upsampling disagree.")


def _device_of(tokenizer: Any) -> torch.device:
    state = [*tokenizer.parameters(), *tokenizer.buffers()]
    return state[0].device if state else torch.device("cpu")
