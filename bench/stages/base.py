"""What a stage is, and the run it works for.

    run = Run(spec)
    run.recipe(PRIOR).key            # torch-free: what the artefact is called
    run.open(PRIOR)                  # the trained model; whatever is missing is built

A stage says what its artefact depends on, how it is made and how it is read; nobody else knows. Stages are values
without state, so that jobs can carry them; what they find out about a run is remembered by the run.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from bench import registry
from bench.config import SOURCES, RunSpec
from bench.data.arrays import spread_indices
from bench.data.base import Splits
from bench.data.foreign import ForeignSamples, look_at
from bench.errors import InputError
from bench.plugin_code import marked, what_changed
from bench.records import Role
from bench.store.store import Artefact, Recipe, Store

Announce = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Work:
    """amount: how much there is to do, in `unit`, for estimates; shards: how many jobs may share it."""

    amount: int = 0
    unit: str = ""
    shards: int = 1


@dataclass(frozen=True)
class Stage:
    """One kind of artefact.

    name: its folder in the store, and its word for `rebuild=`.  version: raised whenever its code changes what comes
    out.  resources: the section of the launcher's configuration its jobs ask by.  trains: several processes of one job
    share the work.
    """

    name = ""
    version = 1
    resources: ClassVar[Literal["training", "features", "sampling"]] = "training"
    trains = False

    @property
    def title(self) -> str:
        """What messages and records call it; tells stages of one name apart."""
        return self.name

    def applies(self, run: Run) -> bool:
        """Whether this run has it."""
        return True

    def inputs(self, run: Run) -> tuple[Stage, ...]:
        """The stages it is made of."""
        return ()

    def recipe(self, run: Run) -> Recipe:
        """What determines its content. Torch-free."""
        raise NotImplementedError

    def label(self, run: Run) -> str:
        """Its line in a plan."""
        return self.title

    def work(self, run: Run) -> Work:
        """How much there is to do."""
        return Work()

    def build(self, run: Run, out: Path, work: Path) -> None:
        """Fill the empty folder `out`; what `work` holds is kept from one attempt to the next."""
        raise NotImplementedError

    def fill(self, run: Run, work: Path, shard: int) -> None:
        """Do one job's share, of `work(run).shards`, in the work folder."""
        raise NotImplementedError

    def open(self, run: Run, artefact: Artefact) -> Any:
        """What other stages use of it."""
        return artefact


class Run:
    """One spec at work: its data set, its store, and what was obtained for it. Torch-free until something is built."""

    def __init__(self, spec: RunSpec, *, store: Store | None = None, announce: Announce = print):
        self.spec = spec
        self.announce = announce
        self.used: dict[str, Artefact] = {}
        self._store = store
        self._recipes: dict[Stage, Recipe] = {}
        self._opened: dict[Stage, Any] = {}
        self.known: dict[Any, Any] = {}

    @cached_property
    def store(self) -> Store:
        return self._store or Store()

    @cached_property
    def splits(self) -> Splits:
        """The data set, opened (and downloaded, where it has a pinned public source)."""
        config = self.spec.dataset
        dataset = registry.resolve("datasets", config.entry)()
        dataset.check(config)
        splits = dataset.open(config)
        if not len(splits.train) or not len(splits.validation):
            raise InputError(f"dataset={config.name} has {len(splits.train)} training and {len(splits.validation)} "
                             "validation images: both splits need at least one.")
        mark = marked("datasets", config.entry)
        if "+" in mark:   # a plug-in's code reads the pixels
            splits = dataclasses.replace(splits, fingerprint=f"{splits.fingerprint} {mark}")
        return splits

    @property
    def role(self) -> Role:
        return self.spec.source if self.spec.source in SOURCES else "source"   # type: ignore[return-value]

    @property
    def is_edit(self) -> bool:
        """Whether held-out images with a part hidden are completed, and judged in place of samples."""
        return bool(self.spec.edit.mask)

    @property
    def record_role(self) -> Role:
        """What the run's record says it is a row of."""
        return "edit" if self.is_edit and self.role == "prior" else self.role

    @property
    def uses_tokenizer(self) -> bool:
        return self.role in ("prior", "reconstruction")

    @cached_property
    def foreign(self) -> ForeignSamples:
        """The samples from elsewhere that `source` names."""
        return look_at(self.spec.source, self.spec.dataset, num=self.spec.protocol.num_fake)

    @property
    def num_fake(self) -> int:
        """Real, reconstructed and edited images are held-out ones, of which there may be fewer than asked for."""
        asked = self.spec.protocol.num_fake
        is_free = self.role in ("prior", "source") and not self.is_edit
        return asked if is_free else min(asked, len(self.splits.validation))

    @cached_property
    def real_indices(self) -> np.ndarray:
        """Which images of the reference split stand for the real ones."""
        split = self.splits.train if self.spec.protocol.real_split == "train" else self.splits.validation
        return spread_indices(len(split), self.spec.protocol.num_real)

    @cached_property
    def device(self) -> str:
        from bench.training.processes import device_of
        return device_of(self.spec.device)

    @property
    def hardware(self) -> dict[str, Any]:
        """The device, torch's threads and the name of the GPU, if there is one: the CPU's name stands elsewhere."""
        import torch
        gpu = {"gpu": torch.cuda.get_device_name(self.device)} if self.device.startswith("cuda") else {}
        return {"device": self.device, "threads": torch.get_num_threads(), **gpu}

    @property
    def made_of(self) -> dict[str, dict[str, Any]]:
        """Of every artefact used so far, by its title, what a record keeps of it."""
        return {title: {"key": a.key, "wall_seconds": a.manifest["wall_seconds"], "built_at": a.manifest["built_at"],
                        "peak_resident_gb": a.manifest.get("peak_resident_gb"),
                        "git_commit": a.manifest["provenance"].get("git_commit")} for title, a in self.used.items()}

    def recipe(self, stage: Stage) -> Recipe:
        if stage not in self._recipes:
            self._recipes[stage] = stage.recipe(self)
        return self._recipes[stage]

    def open(self, stage: Stage) -> Any:
        """What the stage gives, read once."""
        if stage not in self._opened:
            self._opened[stage] = stage.open(self, self.obtain(stage))
        return self._opened[stage]

    def obtain(self, stage: Stage) -> Artefact:
        """The stage's artefact, built here unless it is there or another process builds it now."""
        from bench.training.processes import process_rank

        title, recipe = stage.title, self.recipe(stage)
        if title in self.used:
            return self.used[title]
        if process_rank() > 0:
            self._help(stage, recipe)
        found = self.store.find(recipe)
        for needed in stage.inputs(self) if not found else ():
            if needed not in self._opened:
                self.obtain(needed)   # first, so that what is said is in the order of what is done
        if not found and (reason := what_changed(recipe, self.store.artefacts())):
            self.announce(f"{reason} {title}")
        self.announce(f"{'reusing' if found else 'building'} {title} {recipe.key}")
        self.used[title] = self.store.obtain(recipe, lambda out, work: stage.build(self, out, work),
                                             announce=self.announce)
        return self.used[title]

    def fill(self, stage: Stage, shard: int) -> None:
        """Do one job's share of a stage, unless it is there already."""
        recipe = self.recipe(stage)
        if not self.store.find(recipe):
            stage.fill(self, self.store.work_folder(recipe), shard)

    def _help(self, stage: Stage, recipe: Recipe) -> None:
        """A process that is not its job's first takes part in trainings only; it reads what the first one publishes."""
        if stage.trains and not self.store.find(recipe):
            with tempfile.TemporaryDirectory() as unused:
                stage.build(self, Path(unused), self.store.work_folder(recipe))
        while not self.store.find(recipe):
            time.sleep(0.5)


def begun(spec: RunSpec, *, store: Store | None = None, announce: Announce = print) -> Run:
    """The run, with as many threads as its spec asks for."""
    if spec.threads:
        import torch
        torch.set_num_threads(spec.threads)
    return Run(spec, store=store, announce=announce)


def once(function: Callable[[Run], T]) -> Callable[[Run], T]:
    """A function of a run that is computed once and remembered by the run."""
    @wraps(function)
    def remembered(run: Run) -> T:
        if remembered not in run.known:
            run.known[remembered] = function(run)
        return run.known[remembered]
    return remembered


def ranges(total: int, size: int) -> list[np.ndarray]:
    """0..total-1 in pieces of `size`, the last one shorter."""
    return [np.arange(start, min(start + size, total)) for start in range(0, total, size)]
