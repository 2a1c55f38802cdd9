"""A block of the shared transformer under any pattern of who sees whom, with keys and values kept as the caller likes.

    x = attend(block, x, seen)                           # seen: (W, S) bool, true where a query may look
    x = attend(block, x, seen, remember=keep)            # keep(k, v) -> all keys and values, old ones included
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from priors.transformer import Block, normalise

Remember = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""New keys and values (A, H, W, C/H) -> those to look at, (A, H, S, C/H)."""


def attend(
    block: Block, x: Tensor, seen: Tensor, remember: Remember | None = None, shift: Tensor | None = None
) -> Tensor:
    """What `Block` computes, (A, W, C) -> (A, W, C), but for the pattern. seen: bool, broadcast to (A, H, W, S)."""
    attention, mlp = (None, None) if shift is None else (shift[:, :2], shift[:, 2:])
    q, k, v = (block.heads(part) for part in block.qkv(normalise(x, block.ln1, attention)).chunk(3, -1))
    if remember is not None:   # q, k, v: (A, H, W, C/H) each
        k, v = remember(k, v)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=block.dropout if block.training else 0.0)
    x = x + block.drop(block.proj(y.transpose(1, 2).flatten(2)))
    return x + block.drop(block.mlp(normalise(x, block.ln2, mlp)))


def keeping(keys_values: Tensor, images: Tensor, positions: Tensor, end: int) -> Remember:
    """Write new keys and values where they belong and give those of every position before `end`.

    keys_values: (2, B, H, N, C/H), of which these are at images (A,) and positions (A, W).
    """

    def remember(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        keys_values[:, images.unsqueeze(1), :, positions] = torch.stack([k, v]).permute(1, 3, 0, 2, 4)
        keys, values = keys_values[:, images, :, :end].unbind()
        return keys, values

    return remember
