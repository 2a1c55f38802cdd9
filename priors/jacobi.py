"""Jacobi decoding: the sample of a sequential autoregressive sampler, token for token, from fewer calls of the network.

    noise = gumbel_noise(draws, num, N, K)
    tokens, calls, pushed = jacobi(evaluator(net, num, cached=True), known, noise, window=None, adjust=Adjust())

x_i = argmax_k (l_ik(x_<i) + g_ik) draws token i from softmax(l_i) where g is Gumbel noise. With the noise fixed the
image is the only solution of N equations, each in the earlier tokens, and all of them may be evaluated at once from a
guess, again and again (Wiggers and Hoogeboom 2020, "Predictive Sampling with Forecasting Autoregressive Models"; Song
et al. 2021). Every call settles at least one token more, the one after the settled ones, and with it all that it finds
as they were guessed. So it takes N calls at most, and the law is the model's own whatever the guesses.

Speculative Jacobi decoding (Teng et al. 2024) accepts guesses by a rejection test instead: the same law, other tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from priors.attention import attend, keeping
from priors.base import UNKNOWN, Draws
from priors.samplers import Adjust, known_prefixes
from priors.transformer import Transformer

Evaluate = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(images (A,), their tokens (A, N), positions (A, W), ascending) -> logits (A, W, K) of the tokens there."""


def gumbel_noise(draws: Draws, num: int, num_tokens: int, num_classes: int) -> Tensor:
    """(num, N, K) float32 standard Gumbel noise, as far into the upper tail as float64 reaches.

    -log(-log(u)) of a float32 u ends at 17, so that unlikely classes would never win (Zheng et al. 2025): u is made of
    two draws, 48 bits. Drawn a position at a time, so a token's noise does not depend on how many follow.
    """
    noise = torch.empty(num, num_tokens, num_classes, device=draws.device)
    for i in range(num_tokens):
        high, low = (draws.uniform(num, num_classes).double() for _ in range(2))
        noise[:, i] = -(-torch.log1p(-(high + low * 2**-24 + 2**-49))).log()
    return noise


def jacobi(
    evaluate: Evaluate, known: Tensor, noise: Tensor, *, window: int | None, adjust: Adjust, cached: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (B, N), and what each image took part in: calls (B,) and positions pushed through the network (B,) int64.

    known: (B, N) in sequence order, leading known tokens and UNKNOWN; noise: (B, N, K).
    window: how many tokens beyond the settled ones are guessed and evaluated in a call; None: all. 1 is sequential.
    cached: whether `evaluate` keeps keys and values; one that does not pushes all positions before the last again.
    An image leaves the batch when it is whole, and settles its tokens whatever others do.
    """
    num_tokens, window = known.shape[1], window or known.shape[1]
    state = torch.where(known == UNKNOWN, noise.argmax(-1), known)
    settled = known_prefixes(known)
    kept = torch.zeros_like(settled)   # positions whose keys and values are those of settled tokens
    calls, pushed = torch.zeros_like(settled), torch.zeros_like(settled)
    while len(images := (settled < num_tokens).nonzero().squeeze(1)):
        first, ends = kept[images], (settled[images] + window).clamp(max=num_tokens)
        positions = first.unsqueeze(1) + torch.arange(int((ends - first).max()), device=known.device)   # (A, W)
        real = positions < ends.unsqueeze(1)
        positions = torch.minimum(positions, ends.unsqueeze(1) - 1)   # padded by repeating the last
        logits = adjust(evaluate(images, state[images], positions))   # (A, W, K)
        before = state[images].gather(1, positions)
        values = (logits + noise[images.unsqueeze(1), positions]).argmax(-1)
        values = torch.where(positions < settled[images].unsqueeze(1), before, values)
        state[images.unsqueeze(1), positions] = values
        as_guessed = ((values == before) | ~real).long().cumprod(1).sum(1)   # before the first that changed
        calls[images] += 1
        pushed[images] += ends - first if cached else ends
        settled[images] = torch.minimum(first + as_guessed + 1, ends)
        kept[images] = settled[images]
    return state, calls.cpu(), pushed.cpu()


def evaluator(net: Transformer, num: int, *, cached: bool) -> Evaluate:
    """Logits of a causal network at each image's own positions; cached: keys and values of earlier ones are kept."""
    # Zeros, since a masked key has weight 0 and a value of whatever the memory held, which may be nan.
    cache = [room.zero_() for room in net.new_cache(num)] if cached else []

    def with_cache(images: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
        return _extend(net, cache, images, tokens, positions)

    def whole(images: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
        logits = net(tokens[:, : int(positions.max()) + 1])
        return logits[torch.arange(len(tokens), device=tokens.device).unsqueeze(1), positions]

    return with_cache if cached else whole


def _extend(net: Transformer, cache: list[Tensor], images: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
    """As `Transformer.extend`, but at each image's own positions, with the logits of all of them: (A, W, K).

    A position reads the token before it, the first one the start token, and keys up to its own.
    """
    end = int(positions.max()) + 1
    x = net.tok_emb(tokens.gather(1, (positions - 1).clamp(min=0)))
    x = torch.where((positions == 0).unsqueeze(-1), net.start_tok.to(x.dtype), x) + net.pos_emb[0, positions]
    seen = (torch.arange(end, device=x.device) <= positions.unsqueeze(-1)).unsqueeze(1)   # (A, 1, W, end)
    for block, keys_values in zip(net.layers, cache, strict=True):
        x = attend(block, x, seen, keeping(keys_values, images, positions, end))
    return net.head(net.ln_f(x))
