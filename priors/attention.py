"""A block of the shared transformer under any pattern of who sees whom, with keys and values kept as the caller likes.

    x = attend(block, x, seen)                           # seen: (W, S) bool, true where a query may look
    x = attend(block, x, seen, remember=keep)            # keep(k, v) -> all keys and values, old ones included
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from priors.transformer import Block

Remember = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""New keys and values (A, H, W, C/H) -> those to look at, (A, H, S, C/H)."""


def attend(block: Block, x: Tensor, seen: Tensor, remember: Remember | None = None) -> Tensor:
    """What `Block` computes, (A, W, C) -> (A, W, C), but for the pattern. seen: bool, broadcast to (A, H, W, S)."""
    q, k, v = (block.heads(part) for part in block.qkv(block.ln1(x)).chunk(3, -1))   # (A, H, W, C/H) each
    if remember is not None:
        k, v = remember(k, v)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=block.dropout if block.training else 0.0)
    x = x + block.drop(block.proj(y.transpose(1, 2).flatten(2)))
    return x + block.drop(block.mlp(block.ln2(x)))
