"""Progress of long work: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

LINE_EVERY_SECONDS = 15.0


def duration(seconds: float) -> str:
    """As one says it: "40 s", "4 min", "1 h 20 min"."""
    if seconds < 90:
        return f"{round(seconds)} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


class Bar:
    """Counts `total` units of work.

        with Bar("training", 1000, unit="step") as bar:
            bar.advance(1, "loss 0.31")
    """

    def __init__(self, label: str, total: int, *, unit: str, start: int = 0):
        self.label, self.total, self.unit = label, total, unit
        self.done = self.start = start
        self.note = ""
        self.began = self.last_line = time.perf_counter()
        self._live: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Bar:
        console = Console(stderr=True)
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                       TextColumn("{task.fields[note]}"))
            self._live = Progress(*columns, console=console)
            self._live.start()
            self._task = self._live.add_task(self.label, total=self.total, completed=self.start, note="")
        return self

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count more work done; note is what to show beside it, such as the loss."""
        self.done += count
        self.note = note or self.note
        if self._live and self._task is not None:
            self._live.update(self._task, completed=self.done, note=f"{self._rate():.4g} {self.unit}/s  {self.note}")
        elif time.perf_counter() - self.last_line > LINE_EVERY_SECONDS:
            self.last_line = time.perf_counter()
            left = (self.total - self.done) / max(self._rate(), 1e-9)
            print(f"{self.label}: {self.done}/{self.total} {self.unit}s, {self._rate():.4g} {self.unit}/s, "
                  f"{duration(left)} left  {self.note}", file=sys.stderr, flush=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def _rate(self) -> float:
        return (self.done - self.start) / max(time.perf_counter() - self.began, 1e-9)
