"""Checks of what a caller hands to a prior; an error names the value, what was expected and the way out."""

from __future__ import annotations

import torch
from torch import Tensor

from priors.base import UNKNOWN


def check_tokens(tokens: Tensor, num_tokens: int, vocabulary: int) -> None:
    """Raise ValueError unless tokens are (B, N) int64 in [0, vocabulary)."""
    if tokens.ndim != 2 or tokens.shape[1] != num_tokens or tokens.dtype != torch.int64:
        raise ValueError(
            f"tokens are {tokens.dtype} of shape {tuple(tokens.shape)}: expected int64 of shape (B, {num_tokens}); "
            "encode images with the tokenizer of this prior"
        )
    if tokens.numel() and (int(tokens.min()) < 0 or int(tokens.max()) >= vocabulary):
        raise ValueError(
            f"tokens lie in [{int(tokens.min())}, {int(tokens.max())}]: expected [0, {vocabulary}); "
            "is this the tokenizer that the prior was made for?"
        )


def check_order(order: Tensor, num_images: int, num_tokens: int) -> Tensor:
    """Orders to take tokens in, (1 or B, N) int64, from (N,) or (B, N); ValueError unless each permutes 0..N-1."""
    rows = order.unsqueeze(0) if order.ndim == 1 else order
    if rows.ndim != 2 or rows.shape[1] != num_tokens or len(rows) not in (1, num_images) or rows.dtype != torch.int64:
        raise ValueError(
            f"order is {order.dtype} of shape {tuple(order.shape)}: expected int64 of shape ({num_tokens},), or "
            f"({num_images}, {num_tokens}) with one a row for each image"
        )
    if not torch.equal(rows.sort(1).values, torch.arange(num_tokens, device=rows.device).expand_as(rows)):
        raise ValueError(f"order holds a position twice: expected every one of 0..{num_tokens - 1} once")
    return rows


def check_known(known: Tensor | None, num: int, num_tokens: int, codebook_size: int, *, device) -> Tensor:
    """Tokens to start from, (num, N) int64 in [0, K) or UNKNOWN, on the device; all UNKNOWN where `known` is None."""
    if isinstance(num, bool) or not isinstance(num, int) or num < 1:
        raise ValueError(f"num={num!r}: expected a positive number of images")
    if known is None:
        return torch.full((num, num_tokens), UNKNOWN, device=device)
    if known.shape[0] != num:
        raise ValueError(f"known holds {known.shape[0]} images: expected num={num} rows, one for each image to draw")
    check_tokens(known.masked_fill(known == UNKNOWN, 0), num_tokens, codebook_size)
    return known.to(device)
