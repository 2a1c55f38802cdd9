"""Checks behind `bench.testing.check_prior`: are stated costs what happened, and are options and known tokens used?

As in bench.testing.priors, each docstring's first line is the fact it establishes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from scipy.stats import chi2_contingency
from torch import Tensor, nn

from bench.testing.contracts import Note, require
from bench.testing.priors import PriorCase
from priors.base import UNKNOWN, Unsupported

PROBES = {"temperature": 0.05, "top_k": 1, "top_p": 0.05, "steps": 1}
"""Values of options by their names, extreme enough to show."""
DEPENDENT, INDEPENDENT = 1e-9, 1e-3   # p-values below and above which halves of an image do or do not depend
NUM_DRAWN = 600


def sampling_costs_are_counted(case: PriorCase) -> Note:
    """Sampling states no fewer network evaluations than its network was seen to make."""
    with network_calls(case.prior) as calls:
        stated = int(case.sample("cost", num=1).network_evaluations[0])
    require(stated >= calls(), f"one image states {stated} evaluations while the network was called {calls()} times")
    return None


def likelihood_costs_are_counted(case: PriorCase) -> Note:
    """The likelihood states no fewer network evaluations than its network was seen to make, within the budget."""
    if case.likelihood_gap:
        return case.likelihood_gap
    for budget in (4, 16):
        with network_calls(case.prior) as calls:
            found = case.nll(case.tokens(1), "cost", budget=budget)
        require(found.network_evaluations >= calls(), f"one image states {found.network_evaluations} evaluations "
                                                      f"while the network was called {calls()} times")
    return None


def sampler_options_take_effect(case: PriorCase) -> Note:
    """Sampler options of known meaning (temperature, top_k, top_p, steps) change samples or their cost."""
    plain = case.sample("option")
    for name in (field.name for field in dataclasses.fields(case.sampler) if field.name in PROBES):   # type: ignore
        if getattr(case.sampler, name) == PROBES[name]:
            continue
        try:
            changed = case.sample("option", sampler=dataclasses.replace(case.sampler, **{name: PROBES[name]}))  # type: ignore
        except ValueError:   # refused in this combination, Unsupported included
            continue
        same = torch.equal(plain.tokens, changed.tokens) and torch.equal(plain.network_evaluations,
                                                                         changed.network_evaluations)
        require(not same, f"sampler.{name}={PROBES[name]} changes neither: use the option, or leave it out of Sampler")
    return None


def known_tokens_inform_the_rest(case: PriorCase) -> Note:
    """What is filled in depends on the known tokens, where tokens of the prior's own samples depend on each other."""
    prior = case.small
    if prior is None or prior.num_tokens < 2:
        return "Whether known tokens inform the rest was not asked: the instance has too many grids."
    half = prior.num_tokens // 2
    free = case.sample("free", num=NUM_DRAWN, prior=prior).tokens
    uniform = (free[:, :half] == free[:, :1]).all(1) & (free[:, 0] < 2)   # code 0 or 1 in the whole first half
    if independence(free[uniform, 0], free[uniform, half:] == 1) > DEPENDENT:
        return "Whether known tokens inform the rest was not asked: tokens of its samples hardly depend on each other."
    known = torch.full((NUM_DRAWN, prior.num_tokens), UNKNOWN)
    known[:, :half] = torch.arange(NUM_DRAWN).unsqueeze(1) % 2
    try:
        filled = case.sample("informed", num=NUM_DRAWN, known=known, prior=prior).tokens
    except Unsupported as reason:
        return f"known tokens: {reason}"
    p_value = independence(known[:, 0], filled[:, half:] == 1)
    require(p_value < INDEPENDENT, f"it does not (p = {p_value:.2g} of independence), though it does in samples drawn "
                                   "freely: condition on the known tokens instead of pasting them in afterwards")
    return None


def other_grids_can_be_had(case: PriorCase) -> Note:
    """A prior of another grid can be built, and samples it."""
    if case.make is None:
        return "An instance was given: no prior of another grid was built."
    grid = (case.prior.grid[0] + 1, case.prior.grid[1])
    try:
        other = case.make(case.prior.codebook_size, grid)
    except ValueError as reason:
        return f"no prior of grid {grid}: {reason}"
    require(tuple(other.grid) == grid and other.num_tokens == grid[0] * grid[1],
            f"grid={grid} was asked for; it says grid={other.grid} and num_tokens={other.num_tokens}")
    shape = tuple(case.sample("grid", num=2, prior=other).tokens.shape)
    require(shape == (2, other.num_tokens), f"two samples of grid {grid} have shape {shape}")
    return None


COST_CHECKS = (sampling_costs_are_counted, likelihood_costs_are_counted, sampler_options_take_effect,
               known_tokens_inform_the_rest, other_grids_can_be_had)


@contextmanager
def network_calls(prior: nn.Module) -> Iterator[Callable[[], int]]:
    """How often the network was called inside the block: the fewest calls of a layer with weights that was called."""
    counts: dict[int, int] = {}

    def count(module: nn.Module, inputs: Any) -> None:
        counts[id(module)] = counts.get(id(module), 0) + 1

    layers = [m for m in prior.modules() if m is not prior and next(m.parameters(recurse=False), None) is not None]
    handles = [layer.register_forward_pre_hook(count) for layer in layers]
    try:
        yield lambda: min(counts.values(), default=0)
    finally:
        for handle in handles:
            handle.remove()


def independence(group: Tensor, marks: Tensor) -> float:
    """p-value that the number of marks, (n, R) bool, in a row has nothing to do with the row's group (n,), 0 or 1."""
    table = torch.zeros(2, marks.shape[1] + 1)
    table.index_put_((group, marks.sum(1)), torch.ones(len(group)), accumulate=True)
    table = table[table.sum(1) > 0][:, table.sum(0) > 0]
    return float(chi2_contingency(table.numpy()).pvalue) if min(table.shape) > 1 else 1.0
