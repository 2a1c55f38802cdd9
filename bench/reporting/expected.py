"""The scores one should see: what the committed records gave, beside what was measured here.

    found = comparisons(groups_of(records))     # one a number that a committed record of the same configuration has too
    found[0].verdict                            # "as expected", or "off by 4.1 sigma, ..."

The file is made from the records by one command, and a test keeps it fresh:

    python -m bench.report results_dir=results/reference expected=results/expected/reference.csv

Runs are known by their configuration, seeds apart. Timings are left out: they are the machine's.
"""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal

from scipy import stats

from bench.errors import BenchError, InputError
from bench.provenance import content_id
from bench.reporting.catalogue import in_order, metric_of
from bench.reporting.differences import why_no_contest
from bench.reporting.escaping import csv_cell
from bench.reporting.estimates import average_by_training, mean_standard_error
from bench.reporting.identity import flatten, row_key
from bench.reporting.rows import Book, Cell, Group, Row

EXPECTED = Path(__file__).parents[2] / "results" / "expected"   # by place: other `results` may be in the way
ROLES = ("real", "reconstruction", "prior", "edit")
TRAINED = ("reconstruction", "prior", "edit")
TIMED = ("s", "images/s")
"""Units of what depends on the machine."""
BORDER = 3.0
"""Sigmas: of a hundred numbers that are as expected, three in ten times one lies farther by chance."""
LEAST_DEGREES = 2
"""Of freedom: three trainings of one side, or two of each, tell how far trainings lie apart."""
ONE_TRAINING = "the scatter of trainings is not in this sigma"
OTHER_SELECTION = "expected of weights that were chosen on all held-out images (prior.training.selection=shared)"
HOW = ("Sigma is the standard error of the difference: of both sides' images and draws, or of the scatter between "
       "trainings where at least three are known and it is wider. Where it is not known, one training stands for all: "
       "a number that is off then may be another training's luck.")

Verdict = Literal["as expected", "off", "not compared"]


@dataclass(frozen=True)
class Side:
    """What one side of a comparison knows of its error.

    standard_error: of images and draws.  trainings: how many are behind it, and their standard deviation.
    """

    value: float
    standard_error: float | None
    trainings: int
    scatter: float | None


@dataclass(frozen=True)
class Score:
    """One line of the file: a metric of a row, and the records it is from.

    key: of the row's configuration.  low, high: its 95% interval.  The rest is that of a `Side` and of a `Cell`.
    """

    dataset: str
    protocol: str
    row: str
    key: str
    metric: str
    value: float
    low: float | None
    high: float | None
    standard_error: float | None
    trainings: int
    scatter: float | None
    n: int | None
    bound: str
    kind: str
    scored: str
    records: str

    @property
    def side(self) -> Side:
        return Side(self.value, self.standard_error, self.trainings, self.scatter)


@dataclass(frozen=True)
class Comparison:
    """One number beside the one that is expected.

    sigmas: measured minus expected; None where they are not compared.  remark: what limits the comparison, or why there
    is none.
    """

    group: Group
    row: Row
    measured: Cell
    expected: Cell
    sigmas: float | None
    verdict: Verdict
    remark: str = ""

    @property
    def metric(self) -> str:
        return self.measured.metric

    @property
    def words(self) -> str:
        """The verdict, no stronger than what is behind it."""
        if self.verdict == "off" and self.sigmas is not None:
            return "; ".join(filter(None, [f"off by {self.sigmas:+.1f} sigma", self.remark]))
        return f"{self.verdict}: {self.remark}" if self.verdict == "not compared" else self.verdict


def comparisons(groups: Iterable[Group], scores: Sequence[Score] | None = None) -> list[Comparison]:
    """Every number that has an expected one, in the order of rows and columns.

    scores: those of the committed file by default, whose records are not compared with themselves.
    """
    known = {(s.dataset, s.protocol, s.key, s.metric): s for s in (expected() if scores is None else scores)}
    found = []
    for group in groups:
        for row in group.rows:
            keys = (key_of(row), key_of(row, selection="shared"))
            for metric in in_order(set(row.cells)):
                score = next((known[place] for key in keys
                              if (place := (group.dataset, group.protocol, key, metric)) in known), None)
                if score and row.cells[metric].value is not None and _records_of(row.cells[metric]) != score.records:
                    found.append(_compared(group, row, score, row.cells[metric]))
    return found


def sigmas(ours: Side, theirs: Side) -> tuple[float | None, bool]:
    """(ours - theirs in standard errors of the difference, whether the scatter between trainings is in them).

    With k and k' trainings two means differ by s sqrt(1/k + 1/k') where s is the pooled standard deviation; that is put
    as the sigmas of a normal that are as rare as Student's t of its degrees of freedom. No more than by what each
    side knows of its own draws: three trainings may agree by chance.
    """
    same = math.isclose(ours.value, theirs.value, rel_tol=1e-8)   # the file has nine digits
    gap, sides = 0.0 if same else ours.value - theirs.value, (ours, theirs)
    errors = [side.standard_error for side in sides if side.standard_error is not None]
    sampling = math.hypot(*errors) if len(errors) == 2 else 0.0
    degrees = sum(side.trainings - 1 for side in sides if side.scatter is not None)
    known = degrees >= LEAST_DEGREES
    found = [gap / sampling] if sampling else [0.0] if same else []
    if known:
        squares = sum((side.trainings - 1) * side.scatter**2 for side in sides if side.scatter is not None)
        between = math.sqrt(squares / degrees * sum(1 / side.trainings for side in sides))
        found += [_as_normal(gap / between, degrees)] if between else []
    return min(found, key=abs, default=None), known


def _as_normal(t: float, degrees: int) -> float:
    """What a normal is as seldom beyond as Student's t is beyond `t`."""
    return math.copysign(min(abs(t), float(stats.norm.isf(stats.t.sf(abs(t), degrees)))), t)


def side_of(cell: Cell) -> Side:
    """What the runs behind a cell that has a value say of its error."""
    means = average_by_training(dict(zip(cell.seeds(), cell.points(), strict=True)))
    scatter = statistics.stdev(point.value for point in means.values()) if len(means) > 1 else None
    return Side(float(cell.value or 0.0), mean_standard_error(cell.points()), len(means), scatter)


def scores_of(book: Book) -> list[Score]:
    """What these records say one should see."""
    found = []
    for group in book.groups:
        for row in (row for row in group.rows if row.role in ROLES):
            for metric in in_order(set(row.cells)):
                cell = row.cells[metric]
                if cell.value is not None and metric_of(metric).unit not in TIMED and cell.timed is None:
                    own = side_of(cell)
                    found.append(Score(group.dataset, group.protocol, row.label, key_of(row), metric, cell.value,
                                       cell.low, cell.high, own.standard_error, own.trainings, own.scatter, cell.n,
                                       cell.bound, cell.kind, cell.scored, _records_of(cell)))
    return found


def key_of(row: Row, *, selection: str | None = None) -> str:
    """Of the row's configuration, or of the same with another prior.training.selection."""
    spec = row.spec
    if selection and "prior.training.selection" in flatten(spec):
        training = spec["prior"]["training"] | {"selection": selection}
        spec = spec | {"prior": spec["prior"] | {"training": training}}
    return content_id(json.loads(row_key(row.role, row.label, spec)))


def text_of_scores(scores: Iterable[Score]) -> str:
    """The file, one line a number, to nine significant digits."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(field.name for field in fields(Score))
    for score in scores:
        writer.writerow("" if value is None else f"{value:.9g}" if isinstance(value, float) else csv_cell(value)
                        for value in asdict(score).values())
    return out.getvalue()


def read_scores(path: Path) -> tuple[Score, ...]:
    return tuple(Score(**{name: _parsed(name, text) for name, text in line.items()})
                 for line in csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


@cache
def expected() -> tuple[Score, ...]:
    """The committed scores of every file, each once: of several of one number, that of the last file by name."""
    found = (score for path in sorted(EXPECTED.glob("*.csv")) for score in read_scores(path))
    return tuple({(s.dataset, s.protocol, s.key, s.metric): s for s in found}.values())


def refresh(path: Path, book: Book) -> bool:
    """Write the file; returns whether it changed. Raises InputError where its folder is missing."""
    fresh = text_of_scores(scores_of(book))
    if path.is_file() and path.read_text(encoding="utf-8") == fresh:
        return False
    if not path.parent.is_dir():
        raise InputError(f"expected={path}: there is no folder {path.parent}. Make it, or name another file.")
    path.write_text(fresh, encoding="utf-8")
    return True


def check(path: Path, book: Book, *, command: str) -> None:
    """Raises BenchError (exit code 1) if the file is not what the records say."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text_of_scores(scores_of(book)):
        raise BenchError(f"{path}: its scores are stale. Refresh them: {command}")


def _compared(group: Group, row: Row, score: Score, ours: Cell) -> Comparison:
    theirs = Cell(score.metric, score.value, score.low, score.high, ours.better, score.bound, ours.unit, score.n,
                  kind=score.kind, scored=score.scored, tokenizer=ours.tokenizer, timed=ours.timed)
    if reason := why_no_contest(ours, theirs):
        return Comparison(group, row, ours, theirs, None, "not compared", reason)
    off, knows_trainings = sigmas(side_of(ours), score.side)
    if off is None:
        return Comparison(group, row, ours, theirs, None, "not compared", "the two differ and no error is known")
    remarks = [OTHER_SELECTION if score.key != key_of(row) else "",
               ONE_TRAINING if row.role in TRAINED and not knows_trainings else ""]
    verdict: Verdict = "as expected" if abs(off) <= BORDER else "off"
    return Comparison(group, row, ours, theirs, off, verdict, "; ".join(filter(None, remarks)))


def _records_of(cell: Cell) -> str:
    return " ".join(sorted({source.record for source in cell.sources if source.measurement.value is not None}))


_TYPES: Mapping[str, Any] = {"value": float, "low": float, "high": float, "standard_error": float, "scatter": float,
                             "trainings": int, "n": int}


def _parsed(name: str, text: str) -> Any:
    if name not in _TYPES:
        return text
    return _TYPES[name](text) if text else None
