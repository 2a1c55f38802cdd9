"""A folder that cannot be written to: the command says which, and goes on once it can.

A case takes artefacts away, makes a folder of the cache or the folder of results read-only (as root, who may write
everywhere, by mounting it so), starts the command, then makes the folder writable and starts it again.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

from tests.faults.bed import Bed, Fault, Place
from tests.faults.campaign import Part
from tests.faults.kills import take_away
from tests.faults.surroundings import own_mounts


class Locked:
    def __init__(self, bed: Bed):
        self.bed = bed
        self.mounts = own_mounts()

    def part(self) -> Part:
        return Part("locked", "a folder of the cache, or the results, read-only; then the same command again",
                    ("a difference", "stuck", "a traceback", "a message that does not name the folder"), self.case)

    def case(self, draw: random.Random, number: int) -> str:
        command = draw.choice(self.bed.commands)
        place = self.bed.copy(f"locked-{number}")
        place.results.mkdir(exist_ok=True)
        stage = take_away(place, draw, command)
        folder = draw.choice([place.cache, place.cache / "artefacts", place.cache / "artefacts" / stage, place.results])
        folder.mkdir(parents=True, exist_ok=True)   # of a stage that was taken away whole
        try:
            self._lock(folder)
            code = self._fails_well(place, folder, command)
            self._unlock(folder)
            place.run(command)
            place.compare(self.bed, command)
        finally:
            self._unlock(folder)
            shutil.rmtree(place.root, ignore_errors=True)
        return f"{'stage' if folder.name == stage else folder.name}: {'refused' if code else 'not needed'}"

    def _fails_well(self, place: Place, folder: Path, command: str) -> int:
        """The exit code."""
        code = place.finish(place.start(command))
        said = place.log.read_text(errors="replace")
        if code not in (0, 1, 2):
            raise Fault("stuck", f"{folder.name} is read-only: exit code {code}; {place.tail()}")
        if "Traceback" in said:
            raise Fault("a traceback", f"{folder.name} is read-only: {place.tail(12)}")
        if code and str(folder) not in said.replace("\n", ""):
            raise Fault("a message that does not name the folder", f"{folder.name} is read-only: {place.tail()}")
        return code

    def _lock(self, folder: Path) -> None:
        if not self.mounts:
            folder.chmod(0o555)
            return
        subprocess.run(["mount", "--bind", folder, folder], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True, capture_output=True)

    def _unlock(self, folder: Path) -> None:
        if self.mounts:
            subprocess.run(["umount", "-l", folder], capture_output=True)
        else:
            folder.chmod(0o755)
