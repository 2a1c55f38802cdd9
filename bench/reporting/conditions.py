"""Under what a wall-clock number was taken: seconds of one thread and of two are two quantities.

    conditions_of(measurement)          # Conditions("AMD EPYC", 1), None for what is no timing
    kept, note = alike(sources)         # those that may be averaged
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from bench.records import Measurement


@dataclass(frozen=True)
class Conditions:
    """device: the CPU's or GPU's name."""

    device: str
    threads: int

    @property
    def words(self) -> str:
        return f"{self.threads} thread{'' if self.threads == 1 else 's'}"


class HasMeasurement(Protocol):
    @property
    def measurement(self) -> Measurement: ...


S = TypeVar("S", bound=HasMeasurement)


def conditions_of(measurement: Measurement) -> Conditions | None:
    """What a timing says of itself; None where it says nothing."""
    threads = measurement.extra.get("threads")
    return None if threads is None else Conditions(str(measurement.extra.get("device", "")), int(threads))


def alike(sources: Sequence[S]) -> tuple[list[S], str]:
    """The timings of the commonest conditions (of several the last), and how many others are left out, in words."""
    found = [conditions_of(source.measurement) for source in sources]
    counts = Counter(found)
    if len(counts) < 2:
        return list(sources), ""
    common = max(reversed(found), key=lambda conditions: counts[conditions])
    kept = [source for source, conditions in zip(sources, found, strict=True) if conditions == common]
    others = sorted({c.words if common is None or c.threads != common.threads else c.device if c else "untold"
                     for c in found if c != common and c is not None} | ({"untold"} if None in counts else set()))
    return kept, f"{len(sources) - len(kept)} of {len(sources)} timings are left out: {', '.join(others)}"


def commonest(conditions: Sequence[Conditions]) -> Conditions | None:
    """What most cells of a column share."""
    return Counter(conditions).most_common(1)[0][0] if conditions else None


def mark(own: Conditions | None, common: Conditions | None) -> str:
    """What a cell says beside its number where the others of its column were timed otherwise."""
    if own is None or common is None or own == common:
        return ""
    return own.words if own.threads != common.threads else own.device
