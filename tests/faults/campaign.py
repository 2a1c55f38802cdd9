"""Cases by seed and number, what became of them, and how many.

    counts = run_part(part, num=200, seed=0, say=print)
    run_part(part, num=200, seed=0, only=17, say=print)      # that case again
    run_part(part, num=200, seed=0, jobs=2, say=print)       # by two processes
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

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
             until: float = float("inf"), jobs: int = 1) -> Counts:
    """Cases 0 .. num - 1, or the one asked for; none begins after `until`, a time of `time.monotonic`."""
    began = time.monotonic()
    numbers = range(num) if only is None else [only]
    if jobs == 1 or len(numbers) == 1:
        counts = _run(part, numbers, seed, say, until)
    else:
        counts = _run_in_processes(part, [numbers[job::jobs] for job in range(jobs)], seed, say, until)
    if counts.cases < len(numbers):
        say(f"{part.name}: out of time after {counts.cases} of {len(numbers)}")
    counts.seconds = time.monotonic() - began
    return counts


def _run(part: Part, numbers: Sequence[int], seed: int, say: Callable[[str], object], until: float) -> Counts:
    counts, began = Counts(part, seed), time.monotonic()
    for number in numbers:
        if time.monotonic() > until:
            break
        try:
            struck = part.case(random.Random(f"{seed} {part.name} {number}"), number)
            counts.struck[struck] += 1
        except Fault as fault:
            _note(counts, number, fault.kind, str(fault), say)
        counts.cases += 1
        if counts.cases % max(1, min(25, len(numbers) // 4)) == 0:
            say(f"{part.name}: {counts.cases} of {len(numbers)}, {counts.num_faults} faults, "
                f"{time.monotonic() - began:.0f} s")
    return counts


def _run_in_processes(part: Part, shares: Sequence[Sequence[int]], seed: int, say: Callable[[str], object],
                      until: float) -> Counts:
    """The shares side by side, in forks of this process, which has imported and built everything."""
    fork = multiprocessing.get_context("fork")

    def work(job: int, answer: Connection) -> None:
        folder = Path(f"job-{job}")   # what a case leaves where it stands is its own
        folder.mkdir(exist_ok=True)
        os.chdir(folder)
        found = _run(part, shares[job], seed, say, until)
        answer.send((found.cases, found.struck, found.faults))

    answers = []
    for job in range(len(shares)):
        answer, end = fork.Pipe(duplex=False)
        fork.Process(target=work, args=(job, end)).start()
        end.close()
        answers.append(answer)
    counts = Counts(part, seed)
    for answer in answers:
        cases, struck, faults = answer.recv()   # EOFError: that process is gone, with its reason on standard error
        counts.cases += cases
        counts.struck += struck
        for kind, found in faults.items():
            counts.faults.setdefault(kind, []).extend(found)
    return counts


def _note(counts: Counts, number: int, kind: str, detail: str, say: Callable[[str], object]) -> None:
    counts.faults.setdefault(kind, []).append((number, detail))
    say(f"{counts.part.name} case={number} seed={counts.seed}: {detail}")
