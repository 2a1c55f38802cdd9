"""From Python to the command line and back: keyword arguments become `key=value`, records become a tidy table.

    arguments_of(("prior=absorbing,autoregressive",), {"preset": "smoke", "sampler": {"steps": (8, 16)}})
    tidy(records)["value"]          # one row a measurement
    load("results/reference")

Nothing here imports torch.
"""

from __future__ import annotations

import math
import re
import shlex
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.compose import GROUPS
from bench.errors import InputError
from bench.printable import last_line
from bench.records import Measurement, Record, load_records, to_frame

IDENTITY = ("record", "label", "role", "prior", "dataset", "protocol", "seed", "sampler_seed")
NUMBERS = ("metric", "value", "ci_low", "ci_high", "standard_error", "n", "unit", "better", "bound")
COLUMNS = (*IDENTITY, *NUMBERS, "status", "note")
KINDS = dict.fromkeys(COLUMNS, "str") | dict.fromkeys(("value", "ci_low", "ci_high", "standard_error"), "float64") \
    | dict.fromkeys(("n", "seed", "sampler_seed"), "Int64")
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
RESERVED = ("true", "false", "null", "none", "nan", "inf", "on", "off", "yes", "no")


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


def arguments_of(texts: Sequence[str], keys: Mapping[str, Any]) -> list[str]:
    """The words of a command line.

    texts: as they would be typed after `python -m bench.run`, quotes included.
    keys: a nested mapping or dotted names. A tuple is swept over, as `8,16` is on a command line; a list is one value,
        as `[8,16]` is; a text is itself, whatever commas or spaces it holds.
    Raises InputError for a value that no command line could hold.
    """
    try:
        words = [word for text in texts for word in shlex.split(text)]
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"cannot read {texts!r} ({error}): expected texts such as 'prior=absorbing preset=smoke', "
                         "whose quotes are closed.") from None
    return [*words, *(f"{key}={written}" for key, written in _pairs(keys))]


def _pairs(keys: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in keys.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _pairs(value, f"{key}.")
        elif isinstance(value, tuple):
            if not value:
                raise InputError(f"{key}=(): expected at least one value to sweep over. Leave it out.")
            yield key, ",".join(written_value(key, item) for item in value)
        else:
            yield key, written_value(key, value)


def written_value(key: str, value: Any) -> str:
    """One value in the grammar of the command line."""
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str):
        if key in GROUPS and "," in value:
            raise InputError(f"{key}={value!r}: a text is one value. Sweep with a tuple, {key}="
                             f"{tuple(part.strip() for part in value.split(','))!r}.")
        return value if key in GROUPS or _is_word(value) else _quoted(value)
    if isinstance(value, list) and key not in GROUPS:
        return f"[{','.join(written_value(key, item) for item in value)}]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not isinstance(value, int) and math.isfinite(value):
        return repr(float(value))
    if isinstance(value, int):
        return str(int(value))
    hint = f"Sweep with a tuple, {key}={tuple(value)!r}." if isinstance(value, list) else "Give it as a text."
    raise InputError(f"{key}={value!r}: expected a text, a finite number, true, false or None, or a list or tuple of "
                     f"these. {hint}")


def _is_word(text: str) -> bool:
    return WORD.fullmatch(text) is not None and text.lower() not in RESERVED


def _quoted(text: str) -> str:
    """In Hydra's quotes, in which a backslash counts only before a quote (or at the end, which is one)."""
    escaped = re.sub(r"(\\*)(')", r"\1\1\\\2", text)
    tail = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{escaped[len(escaped) - tail:]}'"
