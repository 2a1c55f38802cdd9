"""What is told of a sweep while it goes on: which run is next, and how long the rest will take at this pace.

    run 3 of 8: absorbing, steps 16 (about 4 min left)
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence

from bench.config import RunSpec
from bench.errors import InputError
from bench.labels import label_of
from bench.printable import one_line
from bench.progress import duration
from bench.records import Record
from bench.stages.base import Run
from bench.stages.chain import Planned, planned
from bench.stages.durations import estimated_seconds
from bench.store.store import Store

Say = Callable[[str], None]


class Pace:
    """Follows runs that are worked on one after the other.

    The time left is that of the trainings that are missing, by how long others like them took here, and of so many runs
    as are left, each as long as the middle one of those before without its trainings; "at least" where a training like
    one of these was never done here. Nothing is said before the first run.
    """

    def __init__(self, specs: Sequence[RunSpec], say: Say):
        self.labels = [label_of(spec) for spec in specs]
        self.say = say
        self.trainings = [_trainings(spec) for spec in specs] if len(specs) > 1 else []
        self.apart_from_trainings: list[float] = []
        self.number, self.began, self.missing = 0, 0.0, list[Planned]()

    def begin(self) -> None:
        """The next run begins."""
        self.number += 1
        self.say(f"run {self.number} of {len(self.labels)}: {self.labels[self.number - 1]}{self.left()}")
        self.began = time.perf_counter()
        self.missing = self._missing(self.trainings[self.number - 1:self.number])

    def end(self) -> None:
        """It ended, however it did."""
        store = Store()
        built = [artefact for stage in self.missing if (artefact := store.find(stage.recipe))]
        training = sum(artefact.manifest["wall_seconds"] for artefact in built)
        self.apart_from_trainings.append(max(0.0, time.perf_counter() - self.began - training))

    def left(self) -> str:
        """Of the present run and those after it, such as " (about 4 min left)"."""
        if not self.apart_from_trainings:
            return ""
        built, num_left = list(Store().artefacts()), len(self.labels) - self.number + 1
        of_trainings = [estimated_seconds(built, stage) for stage in self._missing(self.trainings[self.number - 1:])]
        known = [seconds for seconds in of_trainings if seconds is not None]
        seconds = sum(known) + num_left * statistics.median(self.apart_from_trainings)
        return f" ({'about' if len(known) == len(of_trainings) else 'at least'} {duration(seconds)} left)"

    @staticmethod
    def _missing(trainings: Sequence[Sequence[Planned]]) -> list[Planned]:
        store, found = Store(), {stage.key: stage for stages in trainings for stage in stages}
        return [stage for stage in found.values() if store.state(stage.recipe) != "cached"]


def on_standard_error(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Tally:
    """Counts runs that end in any order."""

    def __init__(self, total: int, say: Say = on_standard_error):
        self.total, self.say, self.ended = total, say, 0
        self.began = time.perf_counter()

    def end(self, record: Record) -> None:
        self.ended += 1
        left = (self.total - self.ended) * (time.perf_counter() - self.began) / self.ended
        told = f" (about {duration(left)} left)" if self.ended < self.total else ""
        self.say(f"{self.ended} of {self.total} runs ended: {one_line(record.label)}: {record.status}{told}")


def _trainings(spec: RunSpec) -> list[Planned]:
    try:
        return [stage for stage in planned(Run(spec)) if stage.stage.trains]
    except InputError:   # told when it is this run's turn
        return []
