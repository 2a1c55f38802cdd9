"""Decodings that change no law and call the network less often, against one token a call."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bench.timing.priors import Size, trained_toy
from bench.timing.turns import Settings, Timing, draws_of, in_turn, timed

DECODINGS = (("autoregressive", {"method": "jacobi"}), ("any_order", {"method": "jacobi"}),
             ("any_order", {"method": "speculative"}))
"""Priors and what differs from their default samplers, which decode one token a call."""


def lossless_rows(settings: Settings) -> Iterator[Timing]:
    """Whole samplings by a toy prior trained here: how many calls are spared depends on what it learned."""
    size = Size("toy", side=4 if settings.quick else 8, codes=32, width=64, layers=2)
    priors = {name: trained_toy(size, settings, name)[0].to(settings.device) for name, _ in DECODINGS}
    for name, changes in DECODINGS:
        prior = priors[name]
        for batch in (1, 16):
            laps = in_turn({side: partial(prior.sample, batch, sampler=prior.Sampler(**more), draws=draws_of(settings))
                            for side, more in (("naive", {}), ("ours", changes))}, settings)
            drawn = laps["ours"].results
            calls, pushed = (sum(float(getattr(sample, count).double().mean()) for sample in drawn) / len(drawn)
                             for count in ("network_evaluations", "token_forwards"))
            what = ", ".join(f"{key}={value}" for key, value in changes.items())
            yield timed("lossless", f"{name}, {what}, {size.num_tokens} tokens, batch {batch}", laps, settings, None,
                        None, note=f"{calls:.1f} of {size.num_tokens} calls an image, {pushed:.0f} positions")
