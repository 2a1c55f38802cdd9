"""Editing measured: held-out images with a part hidden, completed by every prior that can, compared with the originals.

    python -m bench.edit task=benchmark prior=absorbing,autoregressive,unigram dataset=cifar10 preset=demo

Masks: "centre", a box of half the height and width; "lower", all but the top half, which a raster-order prior can be
given too; "random", half of the tokens. Columns: FID of the completed images (known part included) against the run's
real images, LPIPS to the originals, the step across the mask's border relative to the originals', seconds. Below the
priors stands the row of plain reconstructions, which nothing can beat but by chance. Completions are artefacts: kill it
and it goes on.
"""

from __future__ import annotations

import copy
import dataclasses
import traceback
import uuid
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from bench.assets.weights import lpips_model
from bench.compose import Request
from bench.config import RunSpec
from bench.data.arrays import SubsetImages
from bench.data.foreign import as_written
from bench.editing.options import EditOptions
from bench.editing.showcase import completed_sheet, showcase
from bench.errors import BenchError, InputError
from bench.labels import label_of
from bench.metrics.columns import column_of
from bench.metrics.distances import fid_measurement, why_no_interval
from bench.metrics.editing import border_step, ratio_of_means, seam_ratio, window_edges
from bench.metrics.frechet import fid
from bench.metrics.intervals import mean_error, normal_interval
from bench.metrics.lpips_embedding import LpipsEmbedding
from bench.printable import cell as plain_cell
from bench.printable import last_line, one_line
from bench.provenance import content_id, provenance, utc_now
from bench.records import Measurement, Record, Role, Sheet, Status, Sweep, load_records, save_record, save_sweep
from bench.stages.base import Run, begun
from bench.stages.completions import CompletionFeatures, Completions, hidden_of, hidden_tokens
from bench.stages.editor import Editor, Shape, shape_of, why_unsupported
from bench.stages.features import REAL_FEATURES
from bench.stages.identity import protocol_details
from priors.base import UNKNOWN, Unsupported
from priors.canvas import strided_windows

SEAM_CANVASES = 16
ROLES: tuple[Role, Role] = ("reconstruction", "edit")
COLUMNS = ("fid", "lpips", "border_ratio", "seconds_per_image", "network_evaluations")


def benchmark(options: EditOptions, runs: list[Request], command: str, console: Console) -> int:
    """A record for every prior and mask, and one for the reconstructions; printed, and saved for the report.

    Before the first, the manifest of all of them is written, so that a report can print what is missing.
    """
    expected = tuple(cell.expected(run) for run, cell in cells_of(options, runs, console))
    save_sweep(Sweep(id=uuid.uuid4().hex[:12], created=utc_now(), command=command, cells=expected),
               runs[0].spec.results_dir)
    records = [measured(cell, options, console) for _, cell in cells_of(options, runs, console)]
    print_rows(records)
    return 1 if any(record.status == "failed" for record in records) else 0


def cells_of(options: EditOptions, runs: list[Request], console: Console) -> Iterator[tuple[Request, EditRow]]:
    """Every cell with its run, made when asked for: a measured one holds its models and images."""
    for mask in options.masks:
        for run in runs:
            with_baseline = run.spec.baselines and run is runs[0]
            for role in ROLES if with_baseline else ROLES[1:]:
                yield run, EditRow(run.spec, mask, options.images, role, console)


def print_status(options: EditOptions, runs: list[Request], console: Console) -> int:
    """Where every cell stands: the status of its record, or else the state of its completions in the store."""
    records = {record.run_key: record.status for record in load_records(runs[0].spec.results_dir)[0]}
    table, counts = Table("mask", "row", "key", "state", title="status"), Counter[str]()
    for _, cell in cells_of(options, runs, console):
        found = records.get(cell.run_key) or cell.run.store.state(cell.run.recipe(cell.stage))
        state = {"ok": "done", "cached": "to measure"}.get(found, str(found))
        table.add_row(cell.mask, plain_cell(cell.label), cell.run_key, state)
        counts[state] += 1
    Console(width=140).print(table)
    print(", ".join(f"{number} {state}" for state, number in counts.items()))
    return 0


def measured(cell: EditRow, options: EditOptions, console: Console) -> Record:
    """The cell's record: an earlier one of the same key, or a new one, be it of a failure."""
    earlier = [record for record in load_records(cell.spec.results_dir)[0]
               if record.run_key == cell.run_key and record.status == "ok"]
    if earlier:
        return earlier[-1]
    try:
        reason = cell.why_unsupported()
        with_showcase = cell.mask == options.masks[0]
        record = cell.empty("unsupported", reason) if reason else cell.record(with_showcase=with_showcase)
    except Unsupported as error:   # a sampler of the user's that cannot keep tokens
        record = cell.empty("unsupported", str(error))
    except InputError:
        raise
    except BenchError as error:
        record = cell.empty("failed", "".join(traceback.format_exception(error)))
    if record.message:
        console.print(f"{record.status}: {one_line(record.label)}: {last_line(record.message)}", markup=False,
                      highlight=False, soft_wrap=True)
    save_record(record, cell.spec.results_dir)
    return record


class EditRow:
    """One prior (or the plain reconstruction) under one mask."""

    def __init__(self, spec: RunSpec, mask: str, num_images: int | None, role: Role, console: Console):
        self.mask, self.role = mask, role
        self.spec = copy.deepcopy(spec)
        self.spec.protocol.num_fake = num_images or spec.protocol.num_fake
        self.spec.source = "reconstruction" if role == "reconstruction" else "prior"
        self.spec.label = spec.label if self.spec.source == "prior" else None
        self.run = begun(self.spec, announce=lambda text: console.print(text, style="dim", markup=False,
                                                                        highlight=False))
        self.stage = Completions(mask=mask)
        self.editor = Editor(self.run)

    # -- what it is ---------------------------------------------------------------------------------------------------

    @cached_property
    def shape(self) -> Shape:
        return shape_of(self.spec)

    @cached_property
    def originals(self) -> SubsetImages:
        """Held-out images, spread over the split."""
        return hidden_of(self.run)

    @cached_property
    def hidden(self) -> np.ndarray:
        """(n, N) bool; the same for every prior."""
        return hidden_tokens(self.mask, self.shape.grid, len(self.originals))

    @cached_property
    def protocol(self) -> dict[str, Any]:
        """Everything that makes two completions comparable."""
        details = protocol_details(self.run)
        kept = {key: details[key] for key in ("extractor", "dataset", "resolution", "resize", "reference_fingerprint",
                                              "num_real", "real_split", "neighbours_net", "neighbours_resolution")}
        return {**kept, "name": f"edit-{self.mask}", "mask": self.mask, "images": len(self.originals),
                "grid": self.shape.grid, "version": Completions.version}

    @cached_property
    def protocol_id(self) -> str:
        return f"edit-{self.mask}-{content_id(self.protocol)[:8]}"

    @cached_property
    def run_key(self) -> str:
        return content_id([self.run.recipe(self.stage).key, self.protocol_id])

    @property
    def label(self) -> str:
        return "reconstruction" if self.role == "reconstruction" else label_of(self.spec)

    def expected(self, run: Request) -> dict[str, Any]:
        """The cell as a sweep's manifest has it."""
        return {"run_key": self.run_key, "label": self.label, "role": self.role, "overrides": list(run.overrides),
                "spec": self.spec_of_record(), "unsupported": self.why_unsupported()}

    def spec_of_record(self) -> dict[str, Any]:
        """The run's spec, under the protocol of the mask."""
        spec = as_written(self.spec)
        spec["protocol"] |= {"name": f"edit-{self.mask}"}
        return spec

    def why_unsupported(self) -> str:
        if self.role == "reconstruction":
            return ""
        known = -torch.from_numpy(self.hidden[:2]).long()
        return why_unsupported(self.spec, self.shape, known, None)

    # -- measuring ----------------------------------------------------------------------------------------------------

    @property
    def completed(self) -> dict[str, np.ndarray]:
        return self.run.open(self.stage)

    def measurements(self, *, with_seams: bool) -> list[Measurement]:
        images, originals = self.completed["images"], self.originals.images(np.arange(len(self.originals)))
        found = [self._fid(), _mean(self, "lpips", _lpips(self.run, images, originals)),
                 self._border(images, originals)]
        for name in ("seconds_per_image", "network_evaluations", "token_forwards"):
            if name in self.completed:
                found.append(_mean(self, name, self.completed[name].astype(np.float64)))
        return found + ([self._seams()] if with_seams and self.role == "edit" else [])

    def _fid(self) -> Measurement:
        fake, real = self.run.open(CompletionFeatures(mask=self.mask)), self.run.open(REAL_FEATURES)
        result = fid(fake, real)
        return fid_measurement(result, why_no_interval(fake, real), self.protocol_id,
                               label=f"FID@{result.n} of completed images")

    def _border(self, images: np.ndarray, originals: np.ndarray) -> Measurement:
        """Step across the mask's border over that of the originals at the same place; 1: it cannot be seen."""
        hidden = self.hidden.reshape(len(images), *self.shape.grid)
        ratio, low, high = ratio_of_means(border_step(images, hidden, patch=self.shape.patch),
                                          border_step(originals, hidden, patch=self.shape.patch))
        return Measurement("border_ratio", ratio, self.protocol_id, n=len(images), ci_low=low, ci_high=high,
                           note="the reconstruction's own ratio is what the tokenizer alone does to the border")

    def _seams(self) -> Measurement:
        """Steps at window edges over steps elsewhere, on canvases whose windows overlap by half: 1 is no seam."""
        h, w = self.shape.grid
        if not hasattr(self.editor.prior, "logits_at"):
            return Measurement("seam_ratio", None, self.protocol_id, note="this prior cannot mix windows")
        windows = strided_windows((2 * h, 2 * w), (h, w), stride=max(1, min(h, w) // 2))
        unknown = torch.full((SEAM_CANVASES, 4 * h * w), UNKNOWN)
        sample = self.editor.complete(unknown, windows=windows, draws=self.editor.draws("seams"))
        images = self.editor.decode(sample.tokens, windows.canvas).cpu().numpy()
        edges = window_edges(windows.canvas, windows.window, windows.corners.numpy())
        ratio, low, high = seam_ratio(images, edges, patch=self.shape.patch)
        return Measurement("seam_ratio", ratio, self.protocol_id, n=SEAM_CANVASES, ci_low=low, ci_high=high,
                           note=f"canvases of {2 * h}x{2 * w} tokens, {len(windows)} windows",
                           extra={"window_evaluations": float(sample.network_evaluations.double().mean())})

    # -- the record ---------------------------------------------------------------------------------------------------

    def record(self, *, with_showcase: bool) -> Record:
        measurements = self.measurements(with_seams=with_showcase)
        return dataclasses.replace(self.empty("ok", ""), measurements=tuple(measurements),
                                   media=self._media(with_showcase))

    def empty(self, status: Status, message: str) -> Record:
        """The record without measurements."""
        return Record(id=f"edit-{uuid.uuid4().hex[:12]}", created=utc_now(), role=self.role, label=self.label,
                      spec=self.spec_of_record(), run_key=self.run_key, status=status, message=message,
                      provenance={**provenance(), "protocol": self.protocol, **self.run.hardware})

    def _media(self, with_showcase: bool) -> dict[str, Sheet]:
        if self.role == "reconstruction":
            return {}
        results = Path(self.spec.results_dir)
        folder = results / "media" / f"edit-{self.run_key}"
        few = np.arange(min(6, len(self.originals)))
        originals, hidden = torch.from_numpy(self.originals.images(few)), torch.from_numpy(self.hidden[few])
        sheets = {"inpaint": completed_sheet(self.editor, originals, hidden, folder / "inpaint.png", results)}
        return sheets | (showcase(self.editor, originals, folder, results) if with_showcase else {})


def _lpips(run: Run, images: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """(n,) distances of each completed image to its original."""
    protocol = run.spec.protocol
    embedding = LpipsEmbedding(lpips_model(protocol.neighbours_net), device=run.device,
                               resolution=protocol.neighbours_resolution)
    pieces = [slice(at, at + 100) for at in range(0, len(images), 100)]
    parts = [embedding.distances(embedding.features(images[p]), embedding.features(originals[p])) for p in pieces]
    return torch.cat(parts).double().cpu().numpy()


def _mean(cell: EditRow, name: str, values: np.ndarray) -> Measurement:
    unit, better = column_of(name).unit, column_of(name).better
    if name != "lpips":   # chunks share a clock and a batch: no interval over images
        middle = float(np.median(values) if name == "seconds_per_image" else values.mean())
        return Measurement(name, middle, cell.protocol_id, n=len(values), unit=unit, better=better,
                           note=f"in batches of {cell.spec.sampling.chunk}"
                                + ", their median" * (name == "seconds_per_image"))
    mean, error = float(values.mean()), mean_error(values)
    low, high = normal_interval(mean, error)
    return Measurement(name, mean, cell.protocol_id, n=len(values), ci_low=low, ci_high=high, standard_error=error,
                       unit=unit, better=better)


def print_rows(records: list[Record]) -> None:
    """One row a prior and mask on standard output."""
    table = Table("mask", "row", "status", *COLUMNS)
    for record in records:
        values = {m.metric: m for m in record.measurements}
        table.add_row(plain_cell(record.spec["protocol"]["name"].removeprefix("edit-")), plain_cell(record.label),
                      record.status,
                      *(f"{values[name].value:.4g}" if name in values else "-" for name in COLUMNS))
    Console(width=140).print(table)
    for record in records:
        if record.status != "ok":
            print(f"{record.status}: {one_line(record.label)}: {last_line(record.message)}")
