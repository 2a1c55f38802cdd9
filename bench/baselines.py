"""The rows that keep everyone honest: real images against real ones, and the tokenizer alone."""

from __future__ import annotations

import copy

from bench.compose import Request


def with_baselines(runs: list[Request]) -> list[Request]:
    """Put the real and reconstruction rows of each data set, tokenizer and protocol before the runs that need them.

    Samples from elsewhere need the real row alone: no tokenizer of ours stands behind them.
    """
    baselines: dict[str, Request] = {}
    for run in runs:
        if not run.spec.baselines or run.spec.source in ("real", "reconstruction"):
            continue
        for source in ("real", "reconstruction") if run.spec.source == "prior" else ("real",):
            spec = copy.deepcopy(run.spec)
            spec.source, spec.label, spec.sampler = source, None, {"seed": 0}
            spec.prior = type(spec.prior)()
            identity = repr((source, spec.dataset, spec.vq if source == "reconstruction" else "", spec.protocol,
                             spec.condition, spec.metrics, spec.seed if source == "reconstruction" else 0))
            baselines.setdefault(identity, Request(spec, (*run.overrides, f"source={source}")))
    return [*baselines.values(), *runs]
