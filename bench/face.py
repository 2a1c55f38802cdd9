"""Records as a tidy table: what `bench.run` returns and `bench.load` reads.

    tidy(records)["value"]          # one row a measurement
    load("results/reference")

Nothing here imports torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import InputError
from bench.printable import last_line
from bench.records import Measurement, Record, load_records, to_frame

IDENTITY = ("record", "label", "role", "prior", "dataset", "protocol", "seed", "sampler_seed")
NUMBERS = ("metric", "value", "ci_low", "ci_high", "standard_error", "n", "unit", "better", "bound")
COLUMNS = (*IDENTITY, *NUMBERS, "status", "note")
KINDS = dict.fromkeys(COLUMNS, "str") | dict.fromkeys(("value", "ci_low", "ci_high", "standard_error"), "float64") \
    | dict.fromkeys(("n", "seed", "sampler_seed"), "Int64")


def load(results_dir: str | Path = "results/runs", *, spec: bool = False) -> pd.DataFrame:
    """Every measurement of a results folder, one a row, in the order measured; see `tidy` for the columns.

    spec: also a column `spec.<key>` for every key of the configurations, such as `spec.sampler.steps`.
    Damaged records are left out with a warning each. Raises InputError where there are no records.
    """
    records, damaged = load_records(results_dir)
    for path, problem in damaged:
        warnings.warn(f"damaged, skipped: {path}: {problem}", stacklevel=2)
    if not records and not damaged:
        raise InputError(f"no records in {str(results_dir)!r}: expected records/*.json there. Make some with bench.run"
                         "(\"prior=absorbing\"), or name another folder.")
    table = tidy(records)
    if not spec or not records:
        return table
    whole = to_frame(records).drop_duplicates("record")
    keys = [column for column in whole.columns if column.startswith("spec.")]
    return table.merge(whole[["record", *keys]], on="record", how="left")


def tidy(records: Iterable[Record]) -> pd.DataFrame:
    """One row a measurement.

    record, label, role, prior, dataset: whose number it is; seed: of training, sampler_seed: of sampling.
    metric, value, unit: the number; ci_low, ci_high: its 95% interval; n: images behind it; better: "lower", "higher"
        or "none"; bound: "upper" where the value is an upper bound.  What is not known is NaN.
    protocol: only equal ones may be compared.  status: "ok", "partial", "failed" or "unsupported".  note: why a value
        is missing. A run without a measurement is one row, whose metric is empty and whose note says why.
    """
    rows = [{**_identity(record), **_numbers(record, measured), "status": record.status}
            for record in records for measured in record.measurements or (None,)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(KINDS)


def _identity(record: Record) -> dict[str, Any]:
    spec = record.spec
    prior = spec.get("prior", {})
    return {"record": record.id, "label": record.label, "role": record.role,
            "prior": (prior.get("target") or prior.get("name", "")) if record.role in ("prior", "edit") else "",
            "dataset": spec.get("dataset", {}).get("name", ""), "seed": spec.get("seed"),
            "sampler_seed": spec.get("sampler", {}).get("seed") if record.role in ("prior", "edit") else None}


def _numbers(record: Record, measured: Measurement | None) -> dict[str, Any]:
    if measured is None:
        return {"protocol": record.spec.get("protocol", {}).get("name", ""), "note": last_line(record.message),
                **dict.fromkeys(("metric", "unit", "better", "bound"), "")}
    return {"protocol": measured.protocol, "note": measured.note, **{name: getattr(measured, name) for name in NUMBERS}}
