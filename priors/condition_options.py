"""Options of being conditioned, on classes or texts, and of guidance; torch-free. What they mean: priors.conditions.

    AbsorbingOptions(num_labels=10).condition.num_positions   # 1
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from priors.option_checks import check_choice, check_integer, check_number, later

DEFAULT_CONDITION_DROPOUT = 0.1


@dataclass(frozen=True)
class ConditionSize:
    """What a prior is made to be told of an image: one of num_labels labels, or a text.

    text_width, text_length: features a position, and positions at most.
    """

    num_labels: int | None = None
    text_width: int | None = None
    text_length: int | None = None

    @property
    def num_positions(self) -> int:
        """M, the positions a condition takes before the tokens."""
        return 1 if self.text_length is None else self.text_length


@dataclass(frozen=True, kw_only=True)
class ConditionOptions:
    """What a prior is told of each image.

    num_labels: of a prior conditioned on classes. text_width, text_length: of one conditioned on text, the features a
        position of its encoder and the positions at most. Neither: unconditional.
    condition_dropout: probability that training hides an image's condition (None: 0.1, Ho & Salimans 2022), which
        guidance needs; 0 for never.
    """

    num_labels: int | None = later(None)
    text_width: int | None = later(None)
    text_length: int | None = later(None)
    condition_dropout: float | None = later(None)

    def __post_init__(self):
        if self.num_labels is not None:
            check_integer("num_labels", self.num_labels, "leave it out for an unconditional prior")
        if (self.text_width is None) != (self.text_length is None):
            raise ValueError(f"text_width={self.text_width!r}, text_length={self.text_length!r}: a prior conditioned "
                             "on text needs both; leave both out for none")
        for name in ("text_width", "text_length"):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), "leave it out for an unconditional prior")
                if self.num_labels is not None:
                    raise ValueError(f"{name}={getattr(self, name)!r} with num_labels={self.num_labels!r}: expected "
                                     "labels or text; leave one out")
        if self.condition_dropout is not None:
            check_number("condition_dropout", self.condition_dropout, 0.0, 1.0, "leave it out for 0.1", high_open=True)
            if self.condition is None:
                raise ValueError(f"condition_dropout={self.condition_dropout!r}: an unconditional prior has no "
                                 "condition to hide; leave it out")

    @property
    def condition(self) -> ConditionSize | None:
        """None for an unconditional prior."""
        size = ConditionSize(self.num_labels, self.text_width, self.text_length)
        return None if size == ConditionSize() else size

    @property
    def num_prefix(self) -> int:
        """M, the positions of a condition before the tokens; 0 for an unconditional prior."""
        return 0 if self.condition is None else self.condition.num_positions

    @property
    def dropped_conditions(self) -> float:
        """Probability that training hides an image's condition."""
        return DEFAULT_CONDITION_DROPOUT if self.condition_dropout is None else self.condition_dropout


@dataclass(frozen=True, kw_only=True)
class GuidedSampler:
    """What every sampler of a conditional prior has.

    guidance: s of l_u + s (l_c - l_u); 1 is the conditional model, 0 the unconditional one, above 1 exaggerates the
        condition. Other values than 0 and 1 double the network's evaluations.
    guidance_schedule: "constant", or from 1 to s as tokens settle: "linear" or "cosine".
    """

    guidance: float = later(1.0)
    guidance_schedule: str = later("constant")

    def __post_init__(self):
        check_number("guidance", self.guidance, 0.0, math.inf, "use 1 for the conditional model itself")
        check_choice("guidance_schedule", self.guidance_schedule, ("constant", "linear", "cosine"))
        if self.guidance_schedule != "constant" and self.guidance == 1:
            raise ValueError(f"guidance_schedule={self.guidance_schedule!r}: guidance=1 is the conditional model from "
                             "beginning to end; give another guidance, or leave the schedule out")
