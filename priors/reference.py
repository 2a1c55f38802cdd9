"""The algorithms as first published: the full network at every step, no cache, every logit.

They define what is correct, and their cost is the baseline of every speed-up.

    naive_absorbing_sample(prior.logits, unknown, mask=1024, steps=256, adjust=Adjust(), draws=Draws.seeded(0))

`textbook_logits` is the network as first published: separate matrices for queries, keys and values, explicit softmax.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from priors.base import UNKNOWN, Draws
from priors.conditions import Condition
from priors.transformer import Block, Transformer


def naive_absorbing_sample(
    logits: Callable[[Tensor], Tensor],
    tokens: Tensor,
    *,
    mask: int,
    steps: int,
    adjust: Callable[[Tensor], Tensor],
    draws: Draws,
) -> Tensor:
    """For t = steps..1 unmask each masked token with probability 1/t (Bond-Taylor et al. 2022, Section 3.2).

    logits: (B, N) -> (B, N, K); tokens: (B, N), known or UNKNOWN.  Returns (B, N) int64.
    """
    state = tokens.masked_fill(tokens == UNKNOWN, mask)
    for t in range(steps, 0, -1):
        revealed = (draws.uniform(*state.shape).to(state.device) < 1 / t) & (state == mask)
        values = draws.categorical(adjust(logits(state)))
        state = torch.where(revealed, values, state)
    return state


def naive_autoregressive_sample(
    logits: Callable[[Tensor], Tensor],
    num: int,
    num_tokens: int,
    *,
    adjust: Callable[[Tensor], Tensor],
    draws: Draws,
) -> Tensor:
    """The whole prefix through the network for every token.

    logits: (B, i + 1) -> (B, i + 1, K), of which position i, which does not see token i, predicts it.
    """
    state = torch.zeros(num, num_tokens, dtype=torch.int64, device=draws.device)
    for i in range(num_tokens):
        state[:, i] = draws.categorical(adjust(logits(state[:, : i + 1])[:, -1]))
    return state


def naive_canvas_sample(
    logits: Callable[[Tensor], Tensor],
    tokens: Tensor,
    reveal: Tensor,
    *,
    window: tuple[int, int],
    adjust: Callable[[Tensor], Tensor],
    choose: Callable[[Tensor], Tensor],
    stride: int = 1,
) -> tuple[Tensor, int]:
    """A canvas from all windows at every step (Bond-Taylor et al. 2022, Eq. 8); also how many were evaluated for each.

    logits: (B, N) with UNKNOWN -> (B, N, K); tokens: (B, h, w), known or UNKNOWN; reveal: (B, h, w), each cell's step;
    choose: adjusted log-probabilities (B, h, w, K) -> (B, h, w) int64.
    """
    state, (height, width), (h, w) = tokens.clone(), tokens.shape[1:], window
    places = [(slice(None), slice(top, top + h), slice(left, left + w))
              for top in range(0, height - h + 1, stride) for left in range(0, width - w + 1, stride)]
    num_steps = int(reveal.max())
    for step in range(num_steps, 0, -1):
        contents = torch.cat([state[here].flatten(1) for here in places])   # (W B, N)
        windows = logits(contents).float().softmax(-1).unflatten(1, window).chunk(len(places))   # W of (B, h, w, K)
        total = windows[0].new_zeros(*tokens.shape, windows[0].shape[-1])
        count = total.new_zeros(height, width, 1)
        for here, p in zip(places, windows, strict=True):
            total[here] += p
            count[here[1:]] += 1
        values = choose(adjust((total / count).log()))
        state = torch.where((reveal == step) & (state == UNKNOWN), values, state)
    return state, num_steps * len(places)


def textbook_logits(net: Transformer, tokens: Tensor, condition: Condition | None = None) -> Tensor:
    """The same function as `net(tokens)` of a network without time, written as in the paper's Eq. 3: the slow way."""
    x = net.embed(tokens, condition)
    for block in net.layers:
        x = x + _textbook_attention(block, block.ln1(x))
        x = x + _plain(block.out, F.gelu(_plain(block.fc, block.ln2(x))))
    return _plain(net.head, net.ln_f(x[:, net.num_prefix :]))


def _textbook_attention(block: Block, x: Tensor) -> Tensor:
    separate = zip(block.qkv.weight.chunk(3), block.qkv.bias.chunk(3), strict=True)
    q, k, v = (block.heads(F.linear(x, weight, bias)) for weight, bias in separate)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])   # (B, H, N, N)
    if block.causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    y = scores.softmax(-1) @ v
    return _plain(block.proj, y.transpose(1, 2).contiguous().flatten(2))


def _plain(layer: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight, layer.bias)
