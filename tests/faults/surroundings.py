"""A full disk, a clock that jumps: the command stops with a word, and goes on when there is room again.

A case takes artefacts away, starts the command where no file may grow beyond a random size (or, as root, on a file
system with a random amount of room), then gives it again with room; or moves the times of all that lies in the cache by
hours or days, leases of other machines among it.
"""

from __future__ import annotations

import ctypes
import os
import random
import resource
import shutil
import subprocess
import time
from pathlib import Path

from tests.faults.bed import Bed, Fault, Place
from tests.faults.campaign import Part
from tests.faults.kills import take_away

CLONE_NEWNS = 0x20000   # linux/sched.h: mounts of this process are its own


class Surroundings:
    def __init__(self, bed: Bed):
        self.bed = bed
        self.can_mount = own_mounts()

    def part(self) -> Part:
        return Part("surroundings", "a disk that fills up at a random byte, times that jump; then the same command "
                    "again", ("a difference", "stuck", "a traceback"), self.case)

    def case(self, draw: random.Random, number: int) -> str:
        command = draw.choice(self.bed.commands)
        place = self.bed.copy(f"surroundings-{number}")
        try:
            stage = take_away(place, draw, command)
            if number % 3 == 2:
                struck = f"times moved: {stage}"
                _move_times(place, draw)
            elif self.can_mount and number % 3 == 1:
                struck = f"no room: {stage}"
                self._without_room(place, command, draw)
            else:
                struck = f"no large file: {stage}"
                most = int(10 ** draw.uniform(1, 6))
                self._fails_well(place, place.start(command, before=lambda: _limit(most)))
            place.run(command)
            place.compare(self.bed, command)
        finally:
            if self.can_mount:
                subprocess.run(["umount", "-l", place.cache / "artefacts"], capture_output=True)
            shutil.rmtree(place.root, ignore_errors=True)
        return struck

    def _without_room(self, place: Place, command: str, draw: random.Random) -> None:
        """The artefacts on a file system of their own, with room for some bytes more; then with room for all."""
        there, aside = place.cache / "artefacts", place.root / "aside"
        shutil.move(there, aside)
        there.mkdir()
        used = sum(path.stat().st_blocks * 512 + 4096 for path in aside.rglob("*"))
        _mount(there, f"size={64 << 20}")
        shutil.copytree(aside, there, dirs_exist_ok=True)
        taken = shutil.disk_usage(there).used
        _mount(there, f"remount,size={taken + int(10 ** draw.uniform(3, 6)) + (used > taken) * 4096}")
        self._fails_well(place, place.start(command))
        _mount(there, f"remount,size={64 << 20}")

    def _fails_well(self, place: Place, process: int) -> None:
        code = place.finish(process)
        said = place.log.read_text(errors="replace")
        if code not in (0, 1):
            raise Fault("stuck", f"without room: exit code {code}; {place.tail()}")
        if "Traceback" in said:
            raise Fault("a traceback", f"without room: {place.tail(12)}")


def _limit(most: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def own_mounts() -> bool:
    """Whether this process may mount, from now on out of sight of all others."""
    if os.geteuid() != 0:
        return False
    unshare = getattr(ctypes.CDLL(None, use_errno=True), "unshare", None)
    if unshare is None or unshare(CLONE_NEWNS) != 0:
        return False
    return subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True).returncode == 0


def _mount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True, capture_output=True)


def _move_times(place: Place, draw: random.Random) -> None:
    shift = draw.choice((-1, 1)) * draw.uniform(3600, 10**7)
    for folder in [path for path in (place.cache / "artefacts").glob("*/*") if path.is_dir()]:
        if draw.random() < 0.5:
            folder.with_name(f"{folder.name}.lease").write_text('{"host": "elsewhere", "pid": 7, "token": "t"}')
    for path in place.cache.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (time.time() + shift,) * 2)
