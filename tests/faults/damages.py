"""One file of ours damaged: it is made again, or not needed; never used, and never in the way.

A case takes a file at random (first its kind, so that rare kinds come up as often as common ones), damages it in a
random way, takes the records away in two of three cases, and gives the command again. Kinds of files: those of every
stage's artefacts and their manifests, what lies beside an artefact, work that was interrupted, caches of metrics, of
data sets and of assets, records, manifests of sweeps, and media.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

from bench.store.store import Store
from tests.conftest import DAMAGES
from tests.faults.bed import STAGES, Bed, Fault, Place, kill
from tests.faults.campaign import Part

BESIDE = (".lease", ".status.json", ".work", ".anew", ".lease.break")


def _random_bit(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes() or b"\0")
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def _random_end(path: Path, draw: random.Random) -> None:
    os.truncate(path, draw.randrange(path.stat().st_size + 1))


def _replaced(make: Callable[[Path], object]) -> Callable[[Path, random.Random], None]:
    def damage(path: Path, draw: random.Random) -> None:
        path.unlink()
        make(path)
    return damage


KINDS: dict[str, Callable[[Path, random.Random], object]] = {
    **{name: (lambda path, draw, harm=harm: harm(path)) for name, harm in DAMAGES.items()},
    "a random bit": _random_bit, "another random bit": _random_bit, "a random end": _random_end,
    "a folder": _replaced(Path.mkdir), "a pipe": _replaced(os.mkfifo),
    "a dangling link": _replaced(lambda path: path.symlink_to("/nowhere/at/all"))}
if os.geteuid():   # root reads everything
    KINDS["no permission"] = lambda path, draw: path.chmod(0)


class Damages:
    """The cases."""

    def __init__(self, bed: Bed):
        self.bed = bed
        self.works = {command: _interrupted(bed, command) for command in bed.commands}

    def part(self) -> Part:
        return Part("damages", "a file of store, caches, assets, records or unfinished work damaged, then the same "
                    "command again", ("used silently", "stuck", "a traceback"), self.case)

    def case(self, draw: random.Random, number: int) -> str:
        command = draw.choice(self.bed.commands)
        place = self.bed.copy(f"damage-{number}", results_of=command)
        try:
            keeps_records = draw.random() < 1 / 3
            kind, path = self._choose(place, command, draw, keeps_records)
            harm = draw.choice([name for name in KINDS if path.is_file() or name in ("a folder", "a pipe")])
            if path.is_file():
                KINDS[harm](path, draw)
            what = f"{kind}: {harm}"
            try:
                place.run(command)
                place.compare(self.bed, command)
            except Fault as fault:
                kind_of_fault = "used silently" if fault.kind == "a difference" else fault.kind
                raise Fault(kind_of_fault, f"{what} ({path.relative_to(place.root)}), {fault}") from None
            if "Traceback" in place.log.read_text(errors="replace"):
                raise Fault("a traceback", f"{what} ({path.relative_to(place.root)}), {place.tail(12)}")
        finally:
            shutil.rmtree(place.root, ignore_errors=True)
        return kind

    def _choose(self, place: Place, command: str, draw: random.Random, keeps_records: bool) -> tuple[str, Path]:
        """A file to damage, where the next command will meet it."""
        what = draw.choice(("artefact", "artefact", "beside", "work", "work", "cache", "record"))
        if what == "record" or keeps_records and what == "artefact":
            return _one_of_a_kind(place.results, draw)
        if what == "work" and self.works[command]:
            stage = draw.choice(sorted(self.works[command]))
            folder = draw.choice(self.works[command][stage])
            key = folder.name.removesuffix(".work")
            place.forget(command)
            for name in STAGES[STAGES.index(stage):]:
                if name == stage:
                    shutil.rmtree(place.cache / "artefacts" / stage / key, ignore_errors=True)
            shutil.copytree(folder, place.cache / "artefacts" / stage / folder.name)
            return _one_of_a_kind(place.cache / "artefacts" / stage / folder.name, draw)
        place.forget(command)
        if what == "beside":
            return _beside(place, draw)
        if what == "cache":
            shared = draw.choice(("metric-caches", "metric-caches", "assets", "datasets"))
            if shared in ("assets", "datasets"):
                _own_copy(place, shared)
                name = "lpips-alex" if shared == "assets" else ""
                return _one_of_a_kind(place.cache / shared / name, draw)
            for stage in ("metric",):   # what reads these caches
                shutil.rmtree(place.cache / "artefacts" / stage, ignore_errors=True)
            return _one_of_a_kind(place.cache / shared, draw)
        return _one_of_a_kind(place.cache / "artefacts", draw)


def _one_of_a_kind(folder: Path, draw: random.Random) -> tuple[str, Path]:
    """Files are of one kind where their paths differ in digits and keys alone."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
        name = re.sub(r"[0-9a-f]{12,}(-[0-9a-f]+)*|\d+", "*", str(path.relative_to(folder.parent)))
        kinds.setdefault(name, []).append(path)
    kind = draw.choice(sorted(kinds))
    return kind, draw.choice(kinds[kind])


def _beside(place: Place, draw: random.Random) -> tuple[str, Path]:
    """An artefact is taken away, and something odd lies where its lease, status, mark or work belongs."""
    folder = draw.choice([path for stage in STAGES for path in place.artefacts(stage)])
    if draw.random() < 0.7:
        shutil.rmtree(folder)
    path = folder.with_name(folder.name + draw.choice(BESIDE))
    path.write_text(draw.choice((json.dumps({"host": socket.gethostname(), "pid": 2**22 + 1, "token": "x"}),
                                 '{"state": "failed", "attempts": 3, "message": "no"}', "", "\x00\xff", "[]")))
    return f"artefacts/*/{path.name[len(folder.name):]}", path


def _own_copy(place: Place, name: str) -> None:
    """A copy of a shared folder in place of the link: of assets only what the commands read."""
    link = place.cache / name
    source = link.resolve()
    link.unlink()
    if name == "assets":
        shutil.copytree(source / "lpips-alex", link / "lpips-alex")
    else:
        shutil.copytree(source, link)


def _interrupted(bed: Bed, command: str) -> dict[str, list[Path]]:
    """Stage -> work folders as a kill leaves them: of one artefact of every stage that keeps something."""
    found: dict[str, list[Path]] = {}
    place = bed.copy(f"interrupted-{command}")
    for stage in STAGES[:-1]:
        for folder in place.artefacts(stage)[:1]:
            if command == "edit" and stage != "edits":
                continue   # the same as of a run
            aside = bed.folder / f"work-{command}-{stage}-{folder.name}" / f"{folder.name}.work"
            whole = Store(place.cache / "artefacts").root / stage / folder.name
            shutil.move(whole, bed.folder / "aside")
            place.forget(command)
            process = place.start(command)
            if _keeps_work(whole.with_name(f"{folder.name}.work"), process):
                kill(process)
                shutil.copytree(whole.with_name(f"{folder.name}.work"), aside)
                found.setdefault(stage, []).append(aside)
            else:
                place.finish(process)
            for left in whole.parent.glob(f"{folder.name}*"):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            shutil.move(bed.folder / "aside", whole)
    return found


def _keeps_work(work: Path, process: int) -> bool:
    """Wait until a file is in the work folder; False if the process ended before."""
    while True:
        if any(path.is_file() and not path.name.startswith(".") for path in work.rglob("*")):
            return True
        if Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return False
        time.sleep(0.002)
