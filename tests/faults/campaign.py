"""Cases by seed and number, what became of them, and how many.

    counts = run_part(part, num=200, seed=0, say=print)
    run_part(part, num=200, seed=0, only=17, say=print)      # that case again
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.faults.bed import Fault


@dataclass(frozen=True)
class Part:
    """name: its word on the command line.  faults: what must not happen, in the order of the page.

    case(draw, number): does one, draws everything from `draw`, returns where it struck; raises Fault (anything
        else is a fault of the campaign's own, and ends it).
    """

    name: str
    title: str
    faults: tuple[str, ...]
    case: Callable[[random.Random, int], str]


@dataclass
class Counts:
    """struck: where, how often.  faults: kind -> cases, as (number, what was seen)."""

    part: Part
    seed: int
    cases: int = 0
    seconds: float = 0.0
    struck: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    @property
    def num_faults(self) -> int:
        return sum(map(len, self.faults.values()))


def run_part(part: Part, *, num: int, seed: int, say: Callable[[str], object], only: int | None = None,
             until: float = float("inf")) -> Counts:
    """Cases 0 .. num - 1, or the one asked for; none begins after `until`, a time of `time.monotonic`."""
    counts, began = Counts(part, seed), time.monotonic()
    for number in range(num) if only is None else [only]:
        if time.monotonic() > until:
            say(f"{part.name}: out of time after {counts.cases} of {num}")
            break
        try:
            struck = part.case(random.Random(f"{seed} {part.name} {number}"), number)
            counts.struck[struck] += 1
        except Fault as fault:
            _note(counts, number, fault.kind, str(fault), say)
        counts.cases += 1
        if counts.cases % max(1, min(25, num // 4)) == 0:
            say(f"{part.name}: {counts.cases} of {num}, {counts.num_faults} faults, "
                f"{time.monotonic() - began:.0f} s")
    counts.seconds = time.monotonic() - began
    return counts


def _note(counts: Counts, number: int, kind: str, detail: str, say: Callable[[str], object]) -> None:
    counts.faults.setdefault(kind, []).append((number, detail))
    say(f"{counts.part.name} case={number} seed={counts.seed}: {detail}")
