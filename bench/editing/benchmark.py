"""Editing measured: held-out images with a part hidden, completed by every prior that can, compared with the originals.

    python -m bench.edit task=benchmark prior=absorbing,autoregressive,unigram dataset=cifar10 preset=demo

Masks: "centre", a box of half the height and width; "lower", all but the top half, which a raster-order prior can be
given too; "random", half of the tokens. Beside the priors stands the row of plain reconstructions: how far from the
originals the tokenizer alone leads. A row is a run (bench.config.EditConfig): its stages are artefacts, its end is
bench.editing.measuring, and any launcher works on it.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bench.compose import Request
from bench.config import EditConfig, RunSpec
from bench.data.foreign import as_written
from bench.editing.options import EditOptions
from bench.labels import label_of
from bench.printable import cell as plain_cell
from bench.printable import last_line, one_line
from bench.records import Record
from bench.stages.base import Run
from bench.stages.completions import hidden_tokens
from bench.stages.editor import shape_of, why_unsupported
from bench.stages.identity import run_key

COLUMNS = ("fid", "lpips", "border_ratio", "seconds_per_image", "network_evaluations")


def rows_of(options: EditOptions, runs: list[Request]) -> list[Request]:
    """A run for every mask and prior, and before them one for the reconstructions; what a prior cannot do has its
    reason."""
    rows = []
    for mask in options.masks:
        for run in runs:
            if run.spec.baselines and run is runs[0]:
                rows.append(Request(edit_of(run.spec, mask, options, source="reconstruction"), run.overrides))
            spec = edit_of(run.spec, mask, options)
            rows.append(Request(spec, run.overrides, _why_unsupported(spec)))
    return rows


def edit_of(spec: RunSpec, mask: str, options: EditOptions, *, source: str = "prior") -> RunSpec:
    """The run's spec with this part of held-out images hidden."""
    edited = copy.deepcopy(spec)
    edited.edit = EditConfig(mask=mask, showcase=mask == options.masks[0])
    edited.protocol.num_fake = options.images or spec.protocol.num_fake
    edited.source = source
    edited.label = spec.label if source == "prior" else None
    return edited


def expected(row: Request) -> dict[str, Any]:
    """The row as a sweep's manifest has it."""
    run = Run(row.spec)
    return {"run_key": run_key(run), "label": label_of(row.spec), "role": run.record_role,
            "overrides": list(row.overrides), "spec": as_written(row.spec), "unsupported": row.unsupported}


def _why_unsupported(spec: RunSpec) -> str:
    shape = shape_of(spec)
    hidden = hidden_tokens(spec.edit.mask, shape.grid, 2)
    return why_unsupported(spec, shape, -torch.from_numpy(hidden).long(), None)


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
