"""A prior and a tokenizer as an editor: known tokens in, completed images out, at the prior's size or on a canvas.

    editor = Editor(Run(spec))
    done = editor.complete(known, grid=(8, 8), draws=Draws.seeded(0))      # done.tokens, done.network_evaluations

Whether a prior can do it is asked of an untrained one first, so that a refusal costs no training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import registry
from bench.config import RunSpec
from bench.errors import InputError
from bench.schema import schema_of
from bench.stages.base import Run
from bench.stages.condition import condition_of_held_out
from bench.stages.models import sampler_of
from bench.stages.prior import PRIOR
from bench.stages.tokenizer import TOKENIZER
from priors.base import Draws, Sample, Unsupported
from priors.canvas import CanvasSampler, Windows, predictor, random_windows, sample_canvas, strided_windows
from priors.conditions import Condition

CANVAS_KEYS = tuple(field.name for field in dataclasses.fields(CanvasSampler))


@dataclass(frozen=True)
class Shape:
    """What of a run's models is known without training them."""

    grid: tuple[int, int]
    codebook_size: int
    patch: int


def shape_of(spec: RunSpec) -> Shape:
    """Grid and codebook of the run's tokenizer."""
    cls = registry.resolve("tokenizers", spec.vq.entry)
    tokenizer = cls(options=schema_of(spec.vq, "tokenizers")[0](**spec.vq.options), resolution=spec.dataset.resolution)
    grid = tuple(tokenizer.grid)
    return Shape(grid, tokenizer.codebook_size, spec.dataset.resolution // grid[0])


def untrained_prior(spec: RunSpec, shape: Shape) -> Any:
    cls = registry.resolve("priors", spec.prior.entry)
    options, _ = schema_of(spec.prior, "priors")
    return cls(grid=shape.grid, codebook_size=shape.codebook_size, options=options(**spec.prior.options)).eval()


class _Reached(Exception):
    """The prior asked for a random number: it accepted what it was given."""


class _NoDraws(Draws):
    """Lets a prior check its arguments, and stops it where sampling begins."""

    def __init__(self) -> None:
        super().__init__(torch.Generator())

    def _stop(self, *unused: Any) -> Tensor:
        raise _Reached

    uniform = normal = integers = permutation = categorical = _stop   # type: ignore[assignment]


def why_unsupported(spec: RunSpec, shape: Shape, known: Tensor, windows: Windows | None) -> str:
    """The reason why the run's prior cannot complete `known` (n, N), or "" where it can."""
    prior = untrained_prior(spec, shape)
    try:
        if windows is not None:
            predictor(prior, windows)
        else:
            prior.sample(len(known), sampler=prior.Sampler(), known=known, draws=_NoDraws())
    except _Reached:
        return ""
    except Unsupported as error:
        return str(error)
    return ""


def canvas_sampler(spec: RunSpec, order: str | None) -> CanvasSampler:
    """The sampler of a canvas from that of the prior. Raises InputError for what a canvas does not have."""
    sampler = schema_of(spec.prior, "priors")[1]
    defaults = {field.name: field.default for field in dataclasses.fields(sampler)} if sampler else {}
    for key, value in spec.sampler.items():
        if key not in ("seed", *CANVAS_KEYS) and value != defaults.get(key):
            raise InputError(f"sampler.{key}={value} is not used on a canvas, which takes of the sampler's keys "
                             f"{', '.join(CANVAS_KEYS)}. Leave it out.")
    values = {key: value for key, value in spec.sampler.items() if key in CANVAS_KEYS}
    try:
        return CanvasSampler(**{**values, **({"order": order} if order else {})})
    except ValueError as error:
        raise InputError(f"sampler, on a canvas: {error}") from None


def windows_on(canvas: tuple[int, int], shape: Shape, *, stride: int | None, windows: int | None, seed: int) -> Windows:
    """Windows of the prior's size: every position, every `stride`, or so many at random. Raises InputError."""
    try:
        if windows is not None:
            return random_windows(canvas, shape.grid, num=windows, draws=Draws.seeded("windows", seed))
        return strided_windows(canvas, shape.grid, stride=stride or 1)
    except ValueError as error:
        raise InputError(str(error)) from None


class Editor:
    """The models of a run, built when first used."""

    def __init__(self, run: Run):
        self.run, self.spec = run, run.spec

    @property
    def tokenizer(self) -> Any:
        return self.run.open(TOKENIZER)

    @property
    def prior(self) -> Any:
        return self.run.open(PRIOR)

    @cached_property
    def sampler(self) -> Any:
        return sampler_of(self.run)

    def draws(self, *key: int | str) -> Draws:
        """Of their own for every key, and for the sampling seed."""
        return Draws.seeded("edit", self.spec.sampler["seed"], *key, device=self.run.device)

    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, H, W) uint8 -> (n, N) int64."""
        return self.tokenizer.encode(images.to(self.run.device))

    def decode(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(n, h * w) int64 -> (n, 3, H, W) uint8."""
        return self.tokenizer.decode(tokens if grid == tuple(self.tokenizer.grid) else tokens.unflatten(1, grid))

    def condition_of(self, images: Sequence[int] | np.ndarray) -> Condition | None:
        """The conditions of held-out images (n,), by their positions; None of a run without a condition."""
        conditions = condition_of_held_out(self.run)
        return None if conditions is None else conditions(np.asarray(images, dtype=np.int64))

    def complete(self, known: Tensor, *, draws: Draws, condition: Condition | None = None,
                 windows: Windows | None = None, order: str | None = None) -> Sample:
        """Fill what is UNKNOWN of (n, N); with windows on their canvas, otherwise by the prior's own sampler.

        condition: of the n images that are completed, for a prior that knows one.
        """
        known = known.to(self.run.device)
        if windows is not None:
            return sample_canvas(self.prior, len(known), windows=windows, sampler=canvas_sampler(self.spec, order),
                                 known=known, condition=condition, draws=draws)
        told = {} if condition is None else {"condition": condition}
        return self.prior.sample(len(known), sampler=self.sampler, known=known, draws=draws, **told)
