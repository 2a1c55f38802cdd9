"""One transformer for every prior, which is what makes their comparison fair: a pre-LN GPT, causal or not (Appendix A).

    net = Transformer(num_tokens=256, vocabulary=1025, num_classes=1024, width=512, num_layers=24, num_heads=8)
    net(tokens)                    # (B, N) int64 -> (B, N, K)
    net(tokens, at=positions)      # (B, R) positions -> (B, R, K): last queries and MLP, and the head, only there
    net(tokens, where=mask)        # (B, N) bool with M true -> (M, K), row by row

Symbols: B images, N tokens an image, K classes, C width, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from priors.base import Draws, Unsupported
from priors.condition_options import ConditionSize
from priors.conditions import Condition, ConditionPrefix
from priors.linear import Linear, linear


class Transformer(nn.Module):
    """(B, N) int64 in [0, vocabulary) -> (B, N, num_classes) logits.

    causal: position i sees a start token and tokens before i, so its logits predict token i; an input may be shorter.
    time_conditioned: `t` (B,) shifts and scales every LayerNorm (AdaLN with one map shared by all blocks, Chen et al.
        2023), starting as the unconditioned network. Without it `t` must be None.
    condition: M positions of a condition come first, before the start token too; they predict nothing.
    positions: (N, C) that the learned embeddings of positions start from (None: zeros).
    """

    def __init__(
        self,
        *,
        num_tokens: int,
        vocabulary: int,
        num_classes: int,
        width: int,
        num_layers: int,
        num_heads: int,
        causal: bool = False,
        time_conditioned: bool = False,
        dropout: float = 0.0,
        condition: ConditionSize | None = None,
        positions: Tensor | None = None,
    ):
        super().__init__()
        self.causal, self.num_tokens, self.num_classes, self.num_heads = causal, num_tokens, num_classes, num_heads
        self.tok_emb = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, num_heads, causal=causal, dropout=dropout) for _ in range(num_layers))
        self.ln_f = nn.LayerNorm(width)
        self.head = Linear(width, num_classes, bias=False)
        self.drop = nn.Dropout(dropout)
        self.apply(init_gpt)
        self.pos_emb = nn.Parameter(torch.zeros(1, num_tokens, width) if positions is None else positions.unsqueeze(0))
        # The official bidirectional network holds a start token that it never reads; kept, frozen, for its checkpoints.
        self.start_tok = nn.Parameter(torch.zeros(1, 1, width), requires_grad=causal)
        self.time = TimeConditioning(width, num_layers) if time_conditioned else None
        # Last, so that the rest starts as without a condition.
        self.prefix = ConditionPrefix(condition, width).apply(init_gpt) if condition else None

    def forward(
        self, tokens: Tensor, t: Tensor | None = None, *, condition: Condition | None = None,
        at: Tensor | None = None, where: Tensor | None = None,
    ) -> Tensor:
        if (t is None) != (self.time is None):
            raise ValueError(f"t={t!r}: time_conditioned={self.time is not None}; pass t exactly when it is true")
        x, first = self.embed(tokens, condition), self.num_prefix   # (B, M + N, C), M
        if first:
            at = at + first if at is not None else None
            where = F.pad(where, (first, 0)) if where is not None else None
        shifts = self.time(t) if self.time else [None] * (len(self.blocks) + 1)
        for block, shift in zip(self.blocks[:-1], shifts, strict=False):
            x = block(x, shift)
        x = self.blocks[-1](x, shifts[-2], at=at, where=where)   # all, (B, R, C) or as many as `where`
        if first and at is None and where is None:
            x = x[:, first:]
        return self.head(normalise(x, self.ln_f, shifts[-1], where))

    @property
    def layers(self) -> list[Block]:
        return cast(list[Block], list(self.blocks))

    @property
    def num_prefix(self) -> int:
        """M, 0 for an unconditional network."""
        return 0 if self.prefix is None else self.prefix.num_positions

    def embed(self, tokens: Tensor, condition: Condition | None = None) -> Tensor:
        """(B, n) -> (B, M + n, C)."""
        x = self.tok_emb(tokens[:, :-1] if self.causal else tokens)
        if self.causal:
            x = torch.cat([self.start_tok.expand(len(x), -1, -1).to(x.dtype), x], 1)
        return self.drop(self.prepended(condition, x + self.pos_emb[:, : x.shape[1]]))

    def prepended(self, condition: Condition | None, x: Tensor) -> Tensor:
        """(B, n, C) -> (B, M + n, C); of a conditional network without a condition, the null."""
        if self.prefix is not None:
            return torch.cat([self.prefix(condition, len(x)).to(x.dtype), x], 1)
        if condition is not None:
            raise Unsupported("this network was made without a condition, and was given one")
        return x

    def new_cache(self, batch: int) -> list[Tensor]:
        """Room for the keys and values of every position: (2, B, H, M + N, C/H) a block."""
        shape = (2, batch, self.num_heads, self.num_prefix + self.num_tokens, self.pos_emb.shape[2] // self.num_heads)
        return [self.pos_emb.new_empty(shape) for _ in self.blocks]

    def extend(
        self, tokens: Tensor | None, start: int, cache: list[Tensor], *, condition: Condition | None = None
    ) -> Tensor:
        """Logits (B, K) of the token after the last one fed, as the causal network gives them.

        tokens: (B, n) at sequence positions start..start+n-1, all earlier ones being in the cache. At start=0 the start
            token comes first and the tokens, if any, after it, at positions 1..n; the condition is read then alone.
        """
        if start == 0:
            x = self.start_tok.expand(cache[0].shape[1], -1, -1)
            x = x if tokens is None else torch.cat([x, self.tok_emb(tokens)], 1)
        else:
            x = self.tok_emb(tokens)
        x = x + self.pos_emb[:, start : start + x.shape[1]]   # (B, n, C)
        if start == 0:
            x = self.prepended(condition, x)   # (B, M + n, C)
        else:
            start += self.num_prefix
        end = start + x.shape[1]
        seen = torch.ones(end - start, end, dtype=torch.bool, device=x.device).tril(start) if end - start > 1 else None
        for block, keys_values in zip(self.layers, cache, strict=True):
            x = block.extend(x, start, keys_values, seen)
        return self.head(self.ln_f(x[:, -1]))


class Block(nn.Module):
    """x + attention(LN(x)), then x + MLP(LN(x)); queries, keys and values in one matrix."""

    def __init__(self, width: int, num_heads: int, *, causal: bool, dropout: float):
        super().__init__()
        self.num_heads, self.causal, self.dropout = num_heads, causal, dropout
        self.ln1 = nn.LayerNorm(width)
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)
        self.ln2 = nn.LayerNorm(width)
        self.fc = Linear(width, 4 * width)
        self.out = Linear(4 * width, width)
        self.drop = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, shift: Tensor | None = None, *, at: Tensor | None = None, where: Tensor | None = None
    ) -> Tensor:
        """(B, N, C) -> (B, N, C), or only the positions `at` (B, R) -> (B, R, C) or `where` (B, N) bool -> (M, C)."""
        attention = shift[:, :2] if shift is not None else None
        mlp = shift[:, 2:] if shift is not None else None
        h = normalise(x, self.ln1, attention)
        if at is None:
            q, k, v = (self.heads(part) for part in self.qkv(h).chunk(3, -1))   # (B, H, N, C/H) each
        else:
            q, k, v = self.query_some(h, at)
            x = x.gather(1, at.unsqueeze(-1).expand(-1, -1, x.shape[-1]))   # (B, R, C)
        y = self.attend(q, k, v, at)   # (B, N or R, C)
        if where is not None:
            rows = where.flatten().nonzero().squeeze(1)
            x, y = x.flatten(0, 1).index_select(0, rows), y.flatten(0, 1).index_select(0, rows)   # (M, C)
        x = x + self.drop(self.proj(y))
        return x + self.drop(self.mlp(normalise(x, self.ln2, mlp, where)))

    def query_some(self, h: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of the positions `at`, keys and values of all."""
        width = h.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        some = h.gather(1, at.unsqueeze(-1).expand(-1, -1, width))
        k, v = linear(h, weight[width:], bias[width:]).chunk(2, -1)
        return self.heads(linear(some, weight[:width], bias[:width])), self.heads(k), self.heads(v)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, at: Tensor | None = None) -> Tensor:
        """Scaled dot-product attention over heads: (B, H, n, C/H) -> (B, n, C)."""
        seen = None
        if self.causal and at is not None:   # queries at chosen positions: each sees keys up to its own
            seen = (torch.arange(k.shape[2], device=k.device) <= at.unsqueeze(-1)).unsqueeze(1)   # (B, 1, R, N)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, dropout_p=dropout, is_causal=self.causal and at is None
        )
        return y.transpose(1, 2).flatten(2)

    def extend(
        self, x: Tensor, start: int, keys_values: Tensor, seen: Tensor | None, shift: Tensor | None = None
    ) -> Tensor:
        """The block at n further positions: (B, n, C) -> (B, n, C).

        keys_values: (2, B, H, N, C/H), written at the new positions and read up to the last of them; seen: bool
        (n, start + n), or None for all.  One token is a chain of tiny operations, so every call that can be is avoided.
        """
        end = start + x.shape[1]
        h = self.ln1(x) if shift is None else normalise(x, self.ln1, shift[:, :2])
        qkv = linear(h, self.qkv.weight, self.qkv.bias)
        qkv = qkv.view(*x.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)   # (3, B, H, n, C/H)
        keys_values[:, :, :, start:end] = qkv[1:]
        keys, values = keys_values[:, :, :, :end].unbind()
        y = F.scaled_dot_product_attention(qkv[0], keys, values, attn_mask=seen)
        x = x + linear(y.transpose(1, 2).reshape(x.shape), self.proj.weight, self.proj.bias)
        h = self.ln2(x) if shift is None else normalise(x, self.ln2, shift[:, 2:])
        h = F.gelu(linear(h, self.fc.weight, self.fc.bias))
        return x + linear(h, self.out.weight, self.out.bias)

    def heads(self, x: Tensor) -> Tensor:
        """(B, n, C) -> (B, H, n, C/H)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def mlp(self, x: Tensor) -> Tensor:
        return self.out(F.gelu(self.fc(x)))


class TimeConditioning(nn.Module):
    """(B,) times -> for each block (B, 4, C), scale and shift of both LayerNorms; at the end (B, 2, C) of ln_f.

    One map shared by all blocks plus a table a block (adaLN-single: Chen et al. 2023): the backbone hardly grows.
    """

    def __init__(self, width: int, num_layers: int):
        super().__init__()
        self.width = width
        last = nn.Linear(width, 4 * width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), last)
        self.tables = nn.Parameter(torch.zeros(num_layers + 1, 4, width))

    def forward(self, t: Tensor) -> list[Tensor]:
        shared = self.mlp(sinusoids(t, self.width).to(self.tables.dtype)).unflatten(-1, (4, self.width))   # (B, 4, C)
        tables = [shared + table for table in self.tables]
        return [*tables[:-1], tables[-1][:, :2]]


def normalise(x: Tensor, ln: nn.LayerNorm, shift: Tensor | None, where: Tensor | None = None) -> Tensor:
    """LayerNorm, then times (1 + scale) plus an offset where there is a condition, such as a time.

    x: (B, n, C), or (M, C) with `where`; shift: (B, 2, C), or (B, 2, n, C) for each token its own, or None.
    """
    x = ln(x)
    if shift is None:
        return x
    scale, offset = (shift if shift.ndim == 4 else shift.unsqueeze(2)).unbind(1)   # (B, 1 or n, C) each
    if where is not None:
        image = where.nonzero()[:, 0]
        scale, offset = scale[image, 0], offset[image, 0]   # (M, C)
    return x * (1 + scale) + offset


def sinusoids(t: Tensor, width: int) -> Tensor:
    """(B,) -> (B, width): cosines and sines at geometric frequencies from 1 to 1/10000 (Vaswani et al. 2017)."""
    half = (width + 1) // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=t.device) / half)
    angles = t.float().unsqueeze(1) * frequencies
    return torch.cat([angles.cos(), angles.sin()], 1)[:, :width]


def init_gpt(module: nn.Module) -> None:
    """Normal(0, 0.02) matrices and embeddings, zero biases (GPT-2)."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


@contextmanager
def seeded_dropout(net: nn.Module, draws: Draws, batch: int) -> Iterator[None]:
    """Within it dropout follows from `draws`, not from torch's global state; without dropout nothing is drawn."""
    if not net.training or not any(isinstance(m, nn.Dropout) and m.p > 0 for m in net.modules()):
        yield
        return
    seed = int(draws.integers(0, 2**31, batch)[0])   # one a sample, so that each process of a group has its own
    device = next(net.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
