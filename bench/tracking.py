"""Training curves and final measurements in TensorBoard or Weights & Biases: tracking=tensorboard or tracking=wandb.

    python -m bench.run prior=absorbing preset=demo tracking=tensorboard
    tensorboard --logdir results/runs/tracking

Beside what records keep, never instead of it, and part of no key. Every training is one tracked run, while it goes on,
and every record another: its configuration, measurements and samples. What is reused is not tracked again. Runs of
Weights & Biases stay on this machine (`wandb sync` sends them) unless WANDB_MODE=online says otherwise; project and
entity are WANDB_PROJECT and WANDB_ENTITY. A tracker that fails says so and is left alone; the work goes on.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from bench.config import RunSpec
from bench.errors import InputError
from bench.printable import one_line
from bench.records import Record

PROJECT = "vq-prior-bench"
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}


class Tracker(Protocol):
    """One tracked run, opened with (folder, name, key, configuration); a key used again continues that run."""

    def scalars(self, values: Mapping[str, float], step: int) -> None: ...

    def image(self, name: str, path: Path) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Through Fabric's logger: one folder of events a run."""

    def __init__(self, folder: Path, name: str, key: str, config: Mapping[str, Any]):
        from lightning_fabric.loggers import TensorBoardLogger
        self.logger = TensorBoardLogger(folder, name=_slug(name), version=key, default_hp_metric=False)
        self.logger.experiment.add_text("configuration", _listed(config))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self.logger.log_metrics(dict(values), step)

    def image(self, name: str, path: Path) -> None:
        import numpy as np
        from PIL import Image
        with Image.open(path) as picture:
            self.logger.experiment.add_image(name, np.asarray(picture.convert("RGB")), dataformats="HWC")

    def close(self) -> None:
        self.logger.experiment.close()


class WeightsAndBiases:
    """Fabric has no logger of its own for it."""

    def __init__(self, folder: Path, name: str, key: str, config: Mapping[str, Any]):
        import wandb
        folder.mkdir(parents=True, exist_ok=True)
        self.library: Any = wandb
        self.run: Any = self.library.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), mode=os.environ.get("WANDB_MODE", "offline"),
            dir=str(folder), name=name, id=key, resume="allow", config=dict(config))
        self.run.define_metric("*", step_metric="step")   # a continued run may go back to its checkpoint

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self.run.log({"step": step, **values})

    def image(self, name: str, path: Path) -> None:
        self.run.log({name: self.library.Image(str(path))})

    def close(self) -> None:
        self.run.finish()


TRACKERS: dict[str, Callable[[Path, str, str, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard, "wandb": WeightsAndBiases}


class Tracked:
    """A tracked run that is opened with the first thing it is told, and given up with a message once it fails.

    Where nothing is tracked it takes everything and does nothing.
    """

    def __init__(self, spec: RunSpec, name: str, key: str, config: Mapping[str, Any], announce: Callable[[str], None]):
        self._open = lambda: TRACKERS[spec.tracking](Path(spec.results_dir) / "tracking", name, key, config)
        self._tracker: Tracker | None = None
        self._is_on = spec.tracking != "none"
        self._kind, self._announce = spec.tracking, announce

    def __enter__(self) -> Tracked:
        return self

    def __exit__(self, *_: object) -> None:
        if self._tracker:
            self._try(lambda tracker: tracker.close())

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._try(lambda tracker: tracker.scalars(values, step))

    def image(self, name: str, path: Path) -> None:
        self._try(lambda tracker: tracker.image(name, path))

    def _try(self, tell: Callable[[Tracker], None]) -> None:
        if not self._is_on:
            return
        try:
            self._tracker = self._tracker or self._open()
            tell(self._tracker)
        except Exception as error:   # of a library that is not needed: no training is lost to it
            self._announce(f"tracking={self._kind} failed and is left out from here on: {type(error).__name__}: "
                           f"{one_line(str(error))}")
            self._is_on = False
            with suppress(Exception):
                if self._tracker:
                    self._tracker.close()


def track_record(record: Record, spec: RunSpec, announce: Callable[[str], None]) -> None:
    """The record as one tracked run: every value with the ends of its interval, and the samples."""
    with Tracked(spec, record.label, record.id, record.spec, announce) as tracked:
        for m in record.measurements:
            ends = {"": m.value, "_low": m.ci_low, "_high": m.ci_high}
            tracked.scalars({f"final/{m.metric}{end}": value for end, value in ends.items() if value is not None}, 0)
        if sheet := record.media.get("samples"):
            tracked.image("samples", Path(spec.results_dir) / sheet.path)


def check_tracking(specs: Iterable[RunSpec]) -> None:
    """Raise InputError, before torch is imported, if the package that is to track is not installed."""
    for kind in {spec.tracking for spec in specs} - {"none"}:
        if importlib.util.find_spec(PACKAGES[kind]) is None:
            raise InputError(f"tracking={kind} needs the package {PACKAGES[kind]}: pip install "
                             "'vq-prior-bench[tracking]', or leave tracking out.")


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.")[:80] or "run"


def _listed(config: Mapping[str, Any]) -> str:
    import yaml
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, default_flow_style=False)
    return "\n".join(f"    {line}" for line in text.splitlines())   # indented: code in Markdown
