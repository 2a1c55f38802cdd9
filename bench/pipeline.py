"""A run from spec to record: its stages, its metrics, its pictures.

    record = run(spec)                          # builds what is missing, reuses what exists
    build(begun(spec), PRIOR)                   # one stage and whatever it needs
    build(begun(spec), SAMPLES, shard=3)        # one job's share of a sharded stage

Every stage can be killed at any moment and asked for again.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
import traceback
import uuid
from pathlib import Path

import numpy as np

from bench.config import RunSpec
from bench.data.base import ImageData
from bench.data.conditions import shown
from bench.data.foreign import as_written
from bench.data.labels import Labels
from bench.data.pictures import save_sheet
from bench.labels import label_of
from bench.provenance import provenance, utc_now
from bench.records import Record, Sheet, Status, save_record
from bench.stages.base import Announce, Run, Stage, begun
from bench.stages.condition import given_of, judged_as
from bench.stages.features import judged_images
from bench.stages.identity import plugins_of, protocol_details, run_key
from bench.stages.measurements import Measured, measure
from bench.stages.models import num_parameters
from bench.stages.prior import PRIOR, held_out_use, regime
from bench.stages.samples import sampling_cost
from bench.stages.tokenizer import TOKENIZER
from bench.store.store import Store
from bench.tracking import track_record

SHEET_ROWS, SHEET_COLUMNS = 16, 8   # of samples by class


def run(spec: RunSpec, *, store: Store | None = None, announce: Announce = print) -> Record:
    """Build whatever is missing, measure, and save the record. Raises what went wrong; nothing finished is lost."""
    started = begun(spec, store=store, announce=announce)
    if started.is_edit:
        from bench.editing.measuring import record_of_edit
        record = record_of_edit(started)
    else:
        record = record_of(started)
    track_record(record, spec, announce)
    return record


def build(run: Run, stage: Stage, shard: int | None = None) -> None:
    """Make one stage (and any missing input) exist. With a shard, do that job's share of its chunks and no more."""
    if shard is None:
        run.obtain(stage)
    else:
        run.fill(stage, shard)


def record_of(run: Run) -> Record:
    """Measure everything and save the record with its pictures and curves."""
    began, spec = time.perf_counter(), run.spec
    measurements = [m for name in spec.metrics.names for m in measure(run, name)]
    record_id = f"{run_key(run)}-{uuid.uuid4().hex[:6]}"
    media, curves = _publish_media(run, record_id)
    record = Record(
        id=record_id, created=utc_now(), role=run.role, label=label_of(spec), spec=as_written(spec),
        run_key=run_key(run), status="ok", measurements=tuple(measurements), media=media, curves=curves,
        provenance={**provenance(), "artefacts": run.made_of,
                    "protocol": protocol_details(run), "dataset_notes": run.splits.notes,
                    "parameters": _parameters(run), "sampling": sampling_cost(run), "regime": regime(run),
                    "held_out": held_out_use(run),
                    "plugins": plugins_of(run),
                    **({"source": run.foreign.described} if run.role == "source" else {}),
                    "holes": [m.metric for m in measurements if m.value is None], **run.hardware,
                    "wall_seconds": time.perf_counter() - began})
    save_record(record, spec.results_dir)
    return record


def failed_record(spec: RunSpec, label: str, error: BaseException, *, status: Status = "failed") -> Record:
    """The record of a run that failed or that its prior cannot do, with the reason: its cell must not be lost."""
    message = str(error) if status == "unsupported" else "".join(traceback.format_exception(error))
    return Record(id=f"{status}-{uuid.uuid4().hex[:12]}", created=utc_now(), role=Run(spec).record_role, label=label,
                  spec=as_written(spec), run_key="", status=status, provenance=dict(provenance()), message=message)


def _publish_media(run: Run, record_id: str) -> tuple[dict[str, Sheet], dict[str, str]]:
    """Copy pictures, learning curves and the trajectory beside the record: (sheets, curves) by name."""
    place = f"media/{record_id}"
    folder = Path(run.spec.results_dir) / place
    folder.mkdir(parents=True, exist_ok=True)
    media, curves = {"samples": _sample_sheet(run, folder)}, {}
    for title, artefact in run.used.items():
        if (artefact.path / "curves.csv").is_file():
            shutil.copy(artefact.path / "curves.csv", folder / f"{title}.csv")
            curves[title] = f"{place}/{title}.csv"
        if (artefact.path / "trajectory.npz").is_file():
            shutil.copy(artefact.path / "trajectory.npz", folder / "trajectory.npz")
        if artefact.manifest["stage"] == Measured.name:
            for key, raw in json.loads((artefact.path / "measurements.json").read_text())["sheets"].items():
                shutil.copy(artefact.path / f"{key}.png", folder / f"{key}.png")
                media[key] = Sheet(**{**raw, "tile": tuple(raw["tile"]), "labels": tuple(raw["labels"]),
                                      "path": f"{key}.png"})
    return {key: dataclasses.replace(sheet, path=f"{place}/{Path(sheet.path).name}")
            for key, sheet in media.items()}, curves


def _sample_sheet(run: Run, folder: Path) -> Sheet:
    images, given, judged = judged_images(run), given_of(run), judged_as(run)
    if given is not None and judged is not None and given.labels is not None:
        return _sheet_by_class(images, given.labels, judged, folder)
    side = max(1, int(min(64, len(images)) ** 0.5))
    labels = () if given is None or judged is None else tuple(shown(given, judged[: side * side]))
    return save_sheet(folder / "samples.png", images.images(np.arange(side * side)), side, side, labels)


def _sheet_by_class(images: ImageData, labels: Labels, judged_as: np.ndarray, folder: Path) -> Sheet:
    """A row a class, the first so many in the order of their names; white where a class was drawn less often."""
    classes = labels.validation[judged_as]
    drawn = {int(c): np.flatnonzero(classes == c)[:SHEET_COLUMNS] for c in np.unique(classes)[:SHEET_ROWS]}
    columns = max(map(len, drawn.values()))
    height, width = images.images([0]).shape[2:]
    tiles = np.full((len(drawn), columns, 3, height, width), 255, np.uint8)
    for row, indices in zip(tiles, drawn.values(), strict=True):
        row[: len(indices)] = images.images(indices)
    return save_sheet(folder / "samples.png", tiles.reshape(-1, 3, height, width), len(drawn), columns,
                      tuple(labels.names[c] for c in drawn))


def _parameters(run: Run) -> dict[str, int]:
    models = {"tokenizer": run.open(TOKENIZER)} if run.uses_tokenizer else {}
    if run.role == "prior":
        models["prior"] = run.open(PRIOR)
    return {name: num_parameters(model) for name, model in models.items()}
