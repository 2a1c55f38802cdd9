"""Which row speaks for a prior, chosen by configuration alone and never by score."""

from __future__ import annotations

import json
from typing import Any

from bench.reporting.identity import identity, num_tokens, tokenizer_of
from bench.reporting.rows import Group, Row

DIFFUSION, AUTOREGRESSIVE = "absorbing", "autoregressive"
"""The two priors that the paper's claims are about."""
PLAIN = {"order": (None, "random"), "schedule": (None, "even"), "counts": (None, "random"), "confidence_noise": (None,),
         "method": (None, "event", "loop"), "top_k": (None,), "top_p": (None,), "cache": (None, True)}
"""The paper's sampler: random order, even steps, nothing truncated."""
PAPER_OBJECTIVES = (None, "reweighted_elbo")
BACKBONE = ("width", "num_layers", "num_heads")


def is_plain(row: Row) -> bool:
    """Whether a row is sampled, and its prior trained, as in the paper (temperature and steps apart)."""
    sampler = row.spec.get("sampler", {})
    return all(sampler.get(key) in valid for key, valid in PLAIN.items()) and \
        row.option("prior", "objective") in PAPER_OBJECTIVES


def order_of_preference(row: Row) -> tuple[Any, ...]:
    """Smallest first: measured, plain, most steps, longest training, and then by name."""
    return (not row.cells, not is_plain(row), -(row.steps or 0), -training_steps(row), row.label)


def most_comparable(group: Group, name: str, *, temperature: float = 1.0) -> Row | None:
    """The row that speaks for a prior, None where it was not asked for."""
    rows = [row for row in group.rows if row.role == "prior" and row.name == name and row.temperature == temperature]
    return min(rows, key=order_of_preference, default=None)


def plain_rows(group: Group, name: str, *, temperature: float = 1.0) -> list[Row]:
    """Measured rows of a prior with the paper's sampler, in order of preference."""
    return sorted((row for row in group.measured(name=name) if row.temperature == temperature and is_plain(row)),
                  key=order_of_preference)


def step_rows(group: Group) -> list[Row]:
    """Rows that differ from the preferred one in steps alone, in order of steps."""
    rows = [row for row in plain_rows(group, DIFFUSION) if row.steps is not None]
    return sorted((r for r in rows if but(r, "sampler.steps") == but(rows[0], "sampler.steps")),
                  key=lambda r: r.steps or 0)


def half_rows(group: Group) -> list[Row]:
    """The row with the most steps that are no more than half of the full number (one a token)."""
    rows = step_rows(group)
    if not rows:
        return []
    return [row for row in rows if (row.steps or 0) <= full_steps(rows[-1]) // 2][-1:]


def full_steps(row: Row) -> int:
    """As many steps as were trained, one a token unless the prior says otherwise."""
    return int(row.option("prior", "timesteps") or num_tokens(row.spec) or row.steps or 0)


def but(row: Row, key: str) -> dict[str, object]:
    """What a row depends on, all but one key."""
    return {k: v for k, v in identity(row.role, row.spec).items() if k != key}


def same_backbone(ours: Row, theirs: Row) -> bool:
    """One tokenizer and one transformer: the only pairs that compare priors."""
    return _foundation(ours) == _foundation(theirs)


def fair_pair(ours: list[Row], theirs: list[Row]) -> tuple[Row, Row] | None:
    """The first pair with one tokenizer and backbone, trained alike if there is one, else equally long, else any."""
    rivals: dict[str, list[Row]] = {}
    for row in theirs:
        rivals.setdefault(_foundation(row), []).append(row)
    pairs = [(a, found) for a in ours if (found := rivals.get(_foundation(a)))]
    for likeness in (training_of, training_steps, lambda row: None):
        for a, found in pairs:
            if equal := [b for b in found if likeness(a) == likeness(b)]:
                return a, equal[0]
    return None


def _foundation(row: Row) -> str:
    backbone = [row.option("prior", key) for key in BACKBONE]
    return json.dumps([tokenizer_of(row.spec), backbone], sort_keys=True, default=str)


def training_of(row: Row) -> dict[str, Any]:
    """What of a training a difference between two priors must not come from."""
    training = row.spec.get("prior", {}).get("training", {})
    return {"steps": training_steps(row), "batch": training.get("batch_size"),
            "learning rate": training.get("learning_rate"), "images": training.get("images"),
            "dropout": row.option("prior", "dropout") or 0.0, "selection": training.get("selection") or "shared"}


def training_steps(row: Row) -> int:
    return int(row.spec.get("prior", {}).get("training", {}).get("steps") or 0)
