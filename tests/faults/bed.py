"""What faults are tried on: a cache in which everything is built, and the numbers that whatever happens must end in.

    bed = Bed(folder)                          # builds it once, undisturbed
    place = bed.copy("case-3")                 # a cache and results of this case's own
    place.finish(place.start("run"))           # the command in a process of its own, which must end well
    place.compare(bed)                         # Fault if a number or an artefact is another

Commands run in children forked from a process that has imported everything: a case costs seconds. The children's
images are judged by an extractor of 48 features, in place of a network that would take most of the time.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.records import load_records
from bench.store.cache import CACHE_VARIABLE, cache_root
from bench.store.store import Store

SHARED = ("assets", "datasets", "downloads")
COMMON = ["dataset=digits", "preset=smoke", "protocol.extractor=tests.faults.bed:Pixels"]
COMMANDS = {
    "run": ("run", [*COMMON, "prior=absorbing,unigram", "metrics.names=[fid,prdc,nll,memorisation]",
                    "baselines=false"]),
    "edit": ("edit", [*COMMON, "task=benchmark", "prior=absorbing", "masks=lower", "images=8"]),
}
STAGES = ("tokenizer", "tokens", "prior", "samples", "edits", "features", "metric")
PATIENCE = 600.0   # seconds, on however busy a machine


class Fault(Exception):
    """kind: one of the part's words for what must not happen."""

    def __init__(self, kind: str, detail: str):
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


class Pixels:
    """An extractor: means of 16 squares a channel."""

    name, num_features, resize, weights = "pixels", 48, "area", "none"

    def __init__(self, device: str = "cpu"):
        self.device = torch.device(device)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), 4).flatten(1)


def warm_up() -> None:
    """Import what commands import, and read what they read, before anything is forked. No thread, no autograd."""
    torch.set_num_threads(1)
    from bench.assets.torchvision_compat import ensure_torchvision
    ensure_torchvision()
    import lpips  # noqa: F401
    import sklearn.datasets  # noqa: F401

    import bench.edit
    import bench.pipeline
    import bench.run  # noqa: F401
    import bench.training.loop  # noqa: F401
    from bench.assets.cache import asset_folder
    from bench.provenance import provenance
    asset_folder("lpips-alex")
    provenance()


@dataclass(frozen=True)
class Place:
    """A cache and a results folder."""

    root: Path

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def log(self) -> Path:
        return self.root / "log"

    def start(self, command: str, *more: str, before: Callable[[], object] = lambda: None) -> int:
        """The process, leader of a group of its own, of a command; `before` runs in it first."""
        name, arguments = COMMANDS[command]
        return self.fork(lambda: _main(name, [*arguments, f"results_dir={self.results}", "launcher=debug", *more]),
                         before)

    def fork(self, work: Callable[[], int], before: Callable[[], object] = lambda: None) -> int:
        child = os.fork()
        if child:
            return child
        code = 70
        try:
            os.setsid()
            os.environ[CACHE_VARIABLE] = str(self.cache)
            os.environ["VQ_PRIOR_BENCH_OFFLINE"] = "1"
            stream = os.open(self.log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            for descriptor in (1, 2):
                os.dup2(stream, descriptor)
            before()
            code = work()
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(code)

    def finish(self, process: int, *, seconds: float = PATIENCE) -> int:
        """Its exit code, -9 of one that was killed. Raises Fault where it hangs; its group is then killed."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        kill(process)
        raise Fault("stuck", f"still at work after {seconds:.0f} s; {self.tail()}")

    def run(self, command: str, *more: str) -> None:
        """Raises Fault unless the command ends with 0 and without a traceback."""
        if code := self.finish(self.start(command, *more)):
            raise Fault("stuck", f"exit code {code}; {self.tail()}")

    def tail(self, lines: int = 6) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return " | ".join(line.strip() for line in text.splitlines()[-lines:])

    def forget(self, command: str) -> None:
        """Remove the records, so that every artefact is looked at again."""
        shutil.rmtree(self.results, ignore_errors=True)

    def artefacts(self, stage: str) -> list[Path]:
        return sorted(path.parent for path in (self.cache / "artefacts" / stage).glob("*/manifest.json"))

    def numbers(self) -> dict[tuple[str, str], tuple[object, ...]]:
        """Of the latest record of each run: every measurement that is no time."""
        found = {}
        for record in load_records(self.results)[0]:
            if record.status == "ok":
                found |= {(record.run_key, m.metric): (m.value, m.ci_low, m.ci_high, m.standard_error, m.n)
                          for m in record.measurements if "second" not in m.metric}
        return found

    def bytes_of_artefacts(self) -> dict[str, dict[str, str]]:
        """Key -> file -> sha256, of sound artefacts, but for files that hold times."""
        return {artefact.key: {entry["name"]: entry["sha256"] for entry in artefact.manifest["files"]
                               if "seconds" not in entry["name"]}
                for artefact in Store(self.cache / "artefacts").artefacts()}

    def compare(self, bed: Bed, command: str) -> None:
        """Raises Fault where a number of the command's records, or a file of an artefact, is not the undisturbed."""
        mine = self.numbers()
        if lost := [key for key, value in bed.numbers[command].items() if mine.get(key) != value]:
            key = lost[0]
            raise Fault("a difference", f"{len(lost)} numbers, such as {key}: {mine.get(key)}, undisturbed "
                                        f"{bed.numbers[command][key]}")
        for key, files in self.bytes_of_artefacts().items():
            if key in bed.bytes and bed.bytes[key] != files:
                folders = [next(place.cache.glob(f"artefacts/*/{key}")) for place in (self, bed.template)]
                names = [name for name in files if files[name] != bed.bytes[key].get(name)
                         and not _hold_the_same(*(folder / name for folder in folders))]
                if names:
                    raise Fault("a difference", f"artefact {key}: {names} are not as those built undisturbed")


class Bed:
    """Everything built, undisturbed: `template`, and what each command's records say."""

    def __init__(self, folder: Path, commands: tuple[str, ...] = ("run", "edit")):
        self.folder, self.commands = folder, commands
        self.template = Place(folder / "template")
        self.template.cache.mkdir(parents=True)
        for name in SHARED:
            (cache_root() / name).mkdir(parents=True, exist_ok=True)
            (self.template.cache / name).symlink_to((cache_root() / name).resolve())
        self.numbers = {}
        for command in commands:
            self.template.forget(command)
            self.template.run(command)
            self.numbers[command] = self.template.numbers()
            shutil.copytree(self.template.results, folder / f"results-{command}")
        self.bytes = self.template.bytes_of_artefacts()

    def copy(self, name: str, *, results_of: str | None = None) -> Place:
        """A cache like the template's; with the records of a command, where it is named."""
        place = Place(self.folder / name)
        shutil.copytree(self.template.cache, place.cache, symlinks=True)
        if results_of:
            shutil.copytree(self.folder / f"results-{results_of}", place.results)
        return place


def kill(process: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to its whole group; a killed one is waited for."""
    try:
        os.killpg(process, number)
    except ProcessLookupError:
        os.kill(process, number)
    if number == signal.SIGKILL:
        os.waitpid(process, 0)


def _hold_the_same(mine: Path, other: Path) -> bool:
    """Whether two files of one name hold equal values, but for times: pickles and zips of them may differ in bytes."""
    if mine.suffix == ".npz" and other.is_file():
        with np.load(mine) as one, np.load(other) as two:
            return one.files == two.files and all(np.array_equal(one[name], two[name]) for name in one.files
                                                  if "seconds" not in name)
    if mine.suffix == ".pt" and other.is_file():
        return _equal(torch.load(mine, weights_only=True), torch.load(other, weights_only=True))
    return False


def _equal(one: Any, two: Any) -> bool:
    """nan is nan: it says that nothing is known yet."""
    if isinstance(one, torch.Tensor):
        return one.dtype == two.dtype and bool(np.array_equal(*(x.numpy() for x in (one, two)),
                                                              equal_nan=one.is_floating_point()))
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(_equal(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(_equal, one, two))
    return bool(one == two or one != one and two != two)


def _main(name: str, arguments: list[str]) -> int:
    import importlib
    return importlib.import_module(f"bench.{name}").main(arguments)
