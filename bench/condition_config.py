"""What a command says of conditions, checked by itself: its name, the encoder of texts, and what goes with it.

    ConditionConfig("text", length=16)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.errors import InputError, did_you_mean

NAMES = ("none", "class", "text")
DEFAULT_LENGTH = 32   # positions of a caption, with start and end; emoji's longest name takes 24
OPTIONS = {"class": ("num_labels",), "text": ("text_width", "text_length")}
"""The fields of a prior's Options that a condition sets."""


@dataclass(frozen=True)
class ConditionConfig:
    """name: "none", "class" or "text".

    encoder: of text, the folder of a BERT encoder as transformers keeps one; None is the pinned sentence encoder.
    length: of text, how many positions of a caption are read, with its start and end; None is 32.
    Raises InputError on a value that has no effect, or no meaning.
    """

    name: str = "none"
    encoder: str | None = None
    length: int | None = None

    def __post_init__(self):
        if self.name not in NAMES:
            raise InputError(f"condition={self.name}: {did_you_mean(self.name, NAMES)}")
        for key in ("encoder", "length"):
            if self.name != "text" and getattr(self, key) is not None:
                raise InputError(f"condition.{key}={getattr(self, key)} has no effect on condition={self.name}: leave "
                                 "it out, or use condition=text.")
        if self.length is not None and (isinstance(self.length, bool) or not isinstance(self.length, int)
                                        or self.length < 3):
            raise InputError(f"condition.length={self.length!r}: expected a whole number of at least 3 (start, a word, "
                             f"end); leave it out for {DEFAULT_LENGTH}.")


def check_own_options(config: ConditionConfig, options: dict[str, Any], sampler: dict[str, Any]) -> None:
    """Raise InputError if a command sets what the condition settles, or guides where there is no condition.

    options, sampler: of a built-in prior, as the command and its preset give them. Sizes come from the data set and the
    encoder, so they are never set by hand.
    """
    for kind, names in OPTIONS.items():
        for name in (name for name in names if options.get(name) is not None):
            way = (f"leave it out: condition={config.name} sets it" if config.name == kind else
                   f"it belongs to condition={kind}, which sets it, and this run has condition={config.name}")
            raise InputError(f"prior.{name}={options[name]}: {way}.")
    if config.name == "none" and sampler.get("guidance", 1) != 1:
        raise InputError(f"sampler.guidance={sampler['guidance']:g} with condition=none: there is nothing to guide "
                         "towards. Leave it out.")
