"""Killed at any moment: the same command goes on and ends in the same numbers.

A case takes one finished artefact away (or a stage and all that follows), starts the command that makes it again, kills
the whole process group at a random moment, up to three times, and lets the command finish. Every tenth case stops the
holder of a lease in place of killing it until another process has done its work, every twentieth sends 20 builders at
one artefact and kills the one that builds; every fifteenth uses processes of the local launcher.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

from bench.store import leases
from bench.store.store import Recipe, Store
from tests.faults.bed import STAGES, Bed, Fault, Place, kill
from tests.faults.campaign import Part

BUILDERS = 20


class Kills:
    """The cases; `seconds` is how long the last command of its kind took, within which the next is killed."""

    def __init__(self, bed: Bed):
        self.bed = bed
        self.seconds = {"debug": 4.0, "local": 20.0}

    def part(self) -> Part:
        return Part("kills", "the process group killed or stopped at a random moment, then the same command again",
                    ("a difference", "stuck", "built twice", "a traceback"), self.case)

    def case(self, draw: random.Random, number: int) -> str:
        if number % 20 == 19:
            return _builders(draw, self.bed.folder / f"kill-{number}")
        command = draw.choice(self.bed.commands)
        place = self.bed.copy(f"kill-{number}")
        try:
            stage = take_away(place, draw, command)
            if number % 10 == 5:
                self._stop(place, command, draw)
                struck = f"stopped: {stage}"
            else:
                launcher = "local" if number % 15 == 7 and command == "run" else "debug"
                self._kill(place, command, launcher, draw)
                struck = f"killed, {launcher}: {stage}"
            place.compare(self.bed, command)
        finally:
            shutil.rmtree(place.root, ignore_errors=True)
        return struck

    def _kill(self, place: Place, command: str, launcher: str, draw: random.Random) -> None:
        more = (f"launcher={launcher}", *(["launcher.max_parallel=2"] if launcher == "local" else []))
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            process = place.start(command, *more)
            if draw.random() < 0.6:
                _until_held(place, process)
                time.sleep(draw.uniform(0, self.seconds[launcher] / 2))
            else:
                time.sleep(draw.uniform(0, self.seconds[launcher]))
            kill(process)
        began = time.monotonic()
        place.run(command, *more)
        self.seconds[launcher] = 0.8 * self.seconds[launcher] + 0.2 * (time.monotonic() - began)

    def _stop(self, place: Place, command: str, draw: random.Random) -> None:
        """The holder sleeps until its lease has run out and another process has finished; then it goes on."""
        sleeper = place.start(command, before=_short_leases)
        _until_held(place, sleeper)
        time.sleep(draw.uniform(0, 1))
        kill(sleeper, signal.SIGSTOP)
        try:
            if code := place.finish(place.start(command, before=_short_leases)):
                raise Fault("stuck", f"beside a stopped holder: exit code {code}; {place.tail()}")
        finally:
            kill(sleeper, signal.SIGCONT)
        if code := place.finish(sleeper):
            raise Fault("stuck", f"woken up after another did its work: exit code {code}; {place.tail()}")


def take_away(place: Place, draw: random.Random, command: str) -> str:
    """Remove an artefact of a random stage, in one of three cases also of all stages after it; returns the stage."""
    there = [stage for stage in STAGES if place.artefacts(stage)
             and stage not in ({"edits"} if command == "run" else {"samples", "metric"})]
    stage = draw.choice(there)
    further = there[there.index(stage) + 1:] if draw.random() < 0.3 else []
    shutil.rmtree(draw.choice(place.artefacts(stage)))
    for name in further:
        shutil.rmtree(place.cache / "artefacts" / name, ignore_errors=True)
    if draw.random() < 0.3:
        shutil.rmtree(place.cache / "metric-caches", ignore_errors=True)
    return stage


def _until_held(place: Place, process: int, seconds: float = 60.0) -> None:
    """Wait until the command holds a lease, or has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not any(place.cache.glob("artefacts/*/*.lease")):
        try:
            os.kill(process, 0)
            if Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.005)


def _short_leases() -> None:
    leases.HEARTBEAT_SECONDS, leases.LEASE_SECONDS = 0.1, 1.5


def _builders(draw: random.Random, folder: Path) -> str:
    """20 processes need one artefact; whoever builds it first is killed; it is then built once."""
    folder.mkdir(parents=True)
    fork, log, wait = multiprocessing.get_context("fork"), folder / "log", draw.uniform(0, 0.2)
    builders = [fork.Process(target=_build, args=(folder / "store", log, 0.3)) for _ in range(BUILDERS)]
    try:
        for builder in builders:
            builder.start()
        end = time.monotonic() + 60
        while not log.exists() and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(wait)
        first = int(log.read_text().split()[1])
        os.kill(first, signal.SIGKILL)
        for builder in builders:
            builder.join(120)
        if any(builder.exitcode != 0 for builder in builders if builder.pid != first):
            raise Fault("stuck", f"exit codes {[builder.exitcode for builder in builders]}")
        done = log.read_text().count("built")
        if done != 1:
            raise Fault("built twice", f"{done} builds by {BUILDERS} builders: {log.read_text()!r}")
    finally:
        for builder in builders:
            builder.kill()
        shutil.rmtree(folder, ignore_errors=True)
    return f"killed, of {BUILDERS} builders the one that builds"


def _build(root: Path, log: Path, seconds: float) -> None:
    def build(out: Path, work: Path) -> None:
        is_first = not log.exists()
        _say(log, f"begun {os.getpid()}\n")
        time.sleep(600 if is_first else seconds)   # the first is killed
        (out / "file").write_text("content")
        _say(log, f"built {os.getpid()}\n")

    Store(root).obtain(Recipe("thing", {"size": 3}), build)


def _say(log: Path, text: str) -> None:
    with open(log, "a") as stream:
        stream.write(text)
