"""The checks behind `bench.testing.check_tokenizer`; each docstring's first line is the fact it establishes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.testing.contracts import CheckFailed, Note, check_dataclass, require, unchanged


@dataclass
class TokenizerCase:
    tokenizer: Any

    def images(self, num: int = 8) -> Tensor:
        """Smooth colour ramps with noise, (num, 3, H, W) uint8."""
        size, generator = self.tokenizer.resolution, torch.Generator().manual_seed(0)
        coarse = torch.rand(num, 3, 4, 4, generator=generator)
        smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
        return (255 * (0.9 * smooth + 0.1 * torch.rand(num, 3, size, size, generator=generator))).to(torch.uint8)

    def encode(self, images: Tensor) -> Tensor:
        self.tokenizer.eval()
        with torch.inference_mode():
            return self.tokenizer.encode(images)

    def decode(self, tokens: Tensor) -> Tensor:
        self.tokenizer.eval()
        with torch.inference_mode():
            return self.tokenizer.decode(tokens)


def options_are_checked(case: TokenizerCase) -> Note:
    """Options is a frozen dataclass with defaults that refuses a wrong value."""
    return check_dataclass(type(case.tokenizer), "Options")


def images_become_tokens(case: TokenizerCase) -> Note:
    """Images (B, 3, H, W) uint8 become (B, N) int64 ids in [0, K), N being the cells of the grid."""
    images, (h, w) = case.images(), case.tokenizer.grid
    with unchanged("images", images):
        tokens = case.encode(images)
    require(tokens.dtype == torch.int64 and tuple(tokens.shape) == (len(images), h * w),
            f"tokens are {tokens.dtype} of shape {tuple(tokens.shape)}, expected int64 of {(len(images), h * w)}")
    require(int(tokens.min()) >= 0 and int(tokens.max()) < case.tokenizer.codebook_size,
            f"tokens lie in [{int(tokens.min())}, {int(tokens.max())}] and K is {case.tokenizer.codebook_size}")
    return None


def tokens_become_images(case: TokenizerCase) -> Note:
    """Tokens become (B, 3, H, W) uint8 images at the tokenizer's resolution, the same ones every time."""
    tokens, size = case.encode(case.images()), case.tokenizer.resolution
    with unchanged("tokens", tokens):
        images = case.decode(tokens)
    expected = (len(tokens), 3, size, size)
    require(images.dtype == torch.uint8 and tuple(images.shape) == expected,
            f"images are {images.dtype} of shape {tuple(images.shape)}, expected uint8 of {expected}")
    require(torch.equal(images, case.decode(tokens)), "decoding twice gave different images")
    return None


def canvases_decode_to_their_own_size(case: TokenizerCase) -> Note:
    """A (B, h, w) canvas of another size decodes to an image of its own size; a sequence, (1, N), may refuse it."""
    h, w = case.tokenizer.grid
    size = case.tokenizer.resolution
    canvas = case.encode(case.images(1)).view(1, h, w).repeat(1, 1, 2)
    try:
        images = case.decode(canvas)
    except ValueError as error:
        if h > 1:
            raise
        return f"it refuses canvases of other sizes ({error}), so images cannot be enlarged by editing"
    require(tuple(images.shape) == (1, 3, size, 2 * size), f"({h}, {2 * w}) tokens became {tuple(images.shape)}")
    return None


def images_stand_alone(case: TokenizerCase) -> Note:
    """An image's tokens, and the image of its tokens, do not depend on the rest of the batch."""
    images = case.images()
    together, alone = case.encode(images), torch.cat([case.encode(image[None]) for image in images])
    differing = float((together != alone).float().mean())
    require(differing < 0.01, f"{differing:.0%} of the tokens differ when images are encoded one by one")
    decoded, single = case.decode(together).int(), torch.cat([case.decode(tokens[None]) for tokens in together]).int()
    furthest = int((decoded - single).abs().max())
    require(furthest <= 2, f"pixels move by up to {furthest} of 255 when tokens are decoded one by one")
    return None


def floats_are_refused(case: TokenizerCase) -> Note:
    """Images that are not uint8 are refused instead of being misread."""
    try:
        case.encode(case.images().float() / 255)
    except (TypeError, ValueError):
        return None
    raise CheckFailed("float images in [0, 1] were encoded: raise ValueError unless images.dtype is torch.uint8")


TOKENIZER_CHECKS = (options_are_checked, images_become_tokens, tokens_become_images, canvases_decode_to_their_own_size,
                    images_stand_alone, floats_are_refused)
