"""The paper's Tables 1-5, with what was measured beside what was published, in columns of their own.

    for table in paper_tables(group): print(markdown(table))

One set of tables for each (data set, protocol), so that no column ever mixes protocols. A measured row stands beside
the published row that it answers; the others stand below.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from bench.reporting.catalogue import metric_of
from bench.reporting.choice import most_comparable, order_of_preference
from bench.reporting.published import PublishedCell, published
from bench.reporting.rows import Cell, Group, Row
from bench.reporting.tables import OFF_CONTEST, Column, Table, TableRow, measured_column, with_counts

NAMES = {"churches": "Churches", "bedroom": "Bedroom", "ffhq": "FFHQ"}
BOUND_OF_THE_PAPER = " The published likelihood of Absorbing DDPM is bound_T, an upper bound; the other is exact."
PRDC = ("precision", "recall", "density", "coverage")


def paper_tables(group: Group) -> list[Table]:
    """Tables 1-5 of one (data set, protocol); none of edits."""
    if group.of_edits:
        return []
    return [table1(group), table2(group), table3(group), table4(group), table5(group)]


def table1(group: Group) -> Table:
    """Precision, recall, density and coverage."""
    columns = [_published_column(metric, metric, metric_of(metric).short) for metric in PRDC]
    columns += [_measured(group, metric) for metric in PRDC]
    rows, used = [], set()
    for dataset in dict.fromkeys(cell.dataset for cell in published(1)):
        for name, cells in _by_row(cell for cell in published(1) if cell.dataset == dataset):
            answer = _answer(group, cells[0]) if dataset == group.dataset else None
            used.add(answer.key if answer else "")
            measured = _cells_of(answer, PRDC) if answer else {}
            rows.append(TableRow(name, {cell.metric: _printed(cell) for cell in cells} | measured,
                                 section=NAMES[dataset], reason=answer.reason if answer else "", source=answer))
    rest = [row for row in _representatives(group) if row.key not in used]
    return _table(group, 1, "Precision, recall, density and coverage", "model", columns,
                  rows + [_extra(row, PRDC, group.title) for row in rest])


def table2(group: Group) -> Table:
    """FID and parameters."""
    columns = [_published_column("parameters", "parameters", "Params")]
    columns += [_published_column(name, "fid", f"FID {NAMES[name]}") for name in ("bedroom", "churches", "ffhq")]
    columns += [Column("measured:parameters", "Params", about=metric_of("parameters").about), _measured(group, "fid")]
    rows, used = [], set()
    for name, cells in _by_row(published(2)):
        answer = _answer(group, cells[0])
        used.add(answer.key if answer else "")
        shown = {cell.dataset or cell.metric: _printed(cell) for cell in cells}
        measured = _with_parameters(answer, ("fid",)) if answer else _not_run(cells[0], ["measured:fid"])
        rows.append(TableRow(name, shown | measured, section="published, and measured where this benchmark ran it",
                             reason=answer.reason if answer else "", source=answer))
    for row in _representatives(group):
        if row.key not in used:
            rows.append(TableRow(row.label, _with_parameters(row, ("fid",)), section="measured only", reason=row.reason,
                                 contest=row.role not in OFF_CONTEST, source=row))
    return _table(group, 2, "FID and parameters", "model", columns, rows)


def table3(group: Group) -> Table:
    """FID by number of sampling steps."""
    steps = list(dict.fromkeys(cell.row for cell in published(3)))
    series: dict[str, list[Row]] = {}
    for row in group.rows:
        if row.role == "prior" and row.steps is not None:
            series.setdefault(row.label.replace(f", {row.steps} steps", ""), []).append(row)
    measured_steps = sorted({row.steps for rows in series.values() for row in rows if row.steps is not None})
    columns = [replace(_published_column(step, "fid", step), better="none") for step in steps]
    fids = [row.cells["fid"] for rows in series.values() for row in rows if "fid" in row.cells]
    fid = measured_column("fid", fids)
    columns += [replace(fid, key=f"measured:{step}", title=str(step), group=fid.title, short="")
                for step in measured_steps]
    rows = []
    for dataset in dict.fromkeys(cell.dataset for cell in published(3)):
        rows.append(TableRow(NAMES[dataset], {c.row: _printed(c) for c in published(3) if c.dataset == dataset},
                             section="published"))
    for label, members in series.items():
        cells = {f"measured:{row.steps}": row.cells.get("fid") or Cell("fid", None, note=row.reason or "no FID")
                 for row in members}
        rows.append(TableRow(label, cells, section=f"measured, {group.title}"))
    return _table(group, 3, "FID by sampling steps", "steps", columns, rows)


def table4(group: Group) -> Table:
    """Autoregressive against absorbing diffusion on one transformer: FID and likelihood."""
    metrics: tuple[str, ...] = ("fid", "bits_per_token")
    if any("bits_per_token_T" in row.cells for row in group.rows):
        metrics += ("bits_per_token_T",)
    titles = {"fid": "FID", "bits_per_token": "NLL (BPD)"}
    columns = [_published_column(f"{dataset}:{metric}", metric, titles[metric], NAMES[dataset])
               for dataset in ("churches", "ffhq") for metric in titles]
    columns += [_measured(group, metric) for metric in metrics]
    rows, used = [], set()
    for name, cells in _by_row(published(4)):
        answer = _answer(group, cells[0])
        used.add(answer.name if answer else "")
        measured = _cells_of(answer, metrics) if answer else _not_run(cells[0], ["measured:fid"])
        rows.append(TableRow(name, {f"{c.dataset}:{c.metric}": _printed(c) for c in cells} | measured, source=answer,
                             reason=answer.reason if answer else ""))
    others = {row.name for row in group.rows if row.role == "prior"} - used
    for row in (most_comparable(group, name) for name in sorted(others)):
        if row is not None:
            rows.append(_extra(row, metrics, "measured only"))
    return _table(group, 4, "Autoregressive against absorbing diffusion, one transformer", "prior", columns, rows)


def table5(group: Group) -> Table:
    """What the tokenizer's two modifications do to the FID of reconstructions."""
    columns = [_published_column(dataset, "fid", f"FID {NAMES[dataset]}") for dataset in ("churches", "ffhq")]
    columns += [_measured(group, "fid")]
    rows = []
    for name, cells in _by_row(published(5)):
        answer = _answer(group, cells[0])
        measured = _cells_of(answer, ("fid",)) if answer else _not_run(cells[0], ["measured:fid"])
        if answer and not is_adversarial(answer):
            measured = {"measured:fid": Cell("fid", None, note="the tokenizer was trained without a discriminator, "
                                                               "which both modifications act on")}
        rows.append(TableRow(name, {c.dataset: _printed(c) for c in cells} | measured, source=answer))
    return _table(group, 5, "Reconstruction FID by modification", "modification", columns, rows)


def _representatives(group: Group) -> list[Row]:
    """Rows that are no priors, and of every prior the most comparable one at each temperature; steps are Table 3's."""
    best: dict[tuple[str, float], Row] = {}
    for row in sorted((row for row in group.rows if row.role == "prior"), key=order_of_preference):
        best.setdefault((row.name, row.temperature), row)
    chosen = {row.key for row in best.values()}
    return [row for row in group.rows if row.role != "prior" or row.key in chosen]


def matches(row: Row, wanted: dict[str, object]) -> bool:
    """Whether a row is the run that a published cell's counterpart describes."""
    found = {"prior": row.name if row.role == "prior" else None, "source": row.role, "sampler.steps": row.steps,
             "sampler.temperature": row.temperature}
    return all((row.option("vq", key[3:]) if key.startswith("vq.") else found.get(key)) == value
               for key, value in wanted.items())


def is_adversarial(row: Row) -> bool:
    """Whether the row's tokenizer ever met its discriminator while it was trained."""
    options = row.spec.get("vq", {}).get("options", {})
    if "disc_start_step" not in options:
        return True
    start, steps = options["disc_start_step"], row.spec["vq"].get("training", {}).get("steps")
    return start is not None and (steps is None or start < steps)


def _answer(group: Group, cell: PublishedCell) -> Row | None:
    """The measured row that a published one asks for; of several the most comparable, never the best."""
    if not cell.selects:
        return None
    return min((row for row in group.rows if matches(row, cell.selects)), key=order_of_preference, default=None)


def _not_run(cell: PublishedCell, keys: Sequence[str]) -> dict[str, Cell]:
    if not cell.selects:
        return {}
    return {key: Cell("fid", None, note=f"not run: needs {cell.counterpart}") for key in keys}


def _cells_of(row: Row, metrics: Iterable[str]) -> dict[str, Cell]:
    return {f"measured:{metric}": row.cells[metric] for metric in metrics if metric in row.cells}


def _with_parameters(row: Row, metrics: Iterable[str]) -> dict[str, Cell]:
    known = (record.provenance.get("parameters") for record in row.records)
    counts: dict[str, int] = next((found for found in known if found), {})
    total = {"measured:parameters": Cell("parameters", float(sum(counts.values())))} if counts else {}
    return _cells_of(row, metrics) | total


def _extra(row: Row, metrics: Iterable[str], section: str) -> TableRow:
    return TableRow(row.label, _cells_of(row, metrics), section=section, reason=row.reason,
                    contest=row.role not in OFF_CONTEST, source=row)


def _printed(cell: PublishedCell) -> Cell:
    where = f"Table {cell.table}, row {cell.row}" + (f", {NAMES[cell.dataset]}" if cell.dataset else "")
    return Cell(cell.metric, cell.value, note=cell.note, basis=f"{where}, as printed", printed=cell.printed)


def _published_column(key: str, metric: str, title: str, heading: str = "") -> Column:
    listed = metric_of(metric)
    return Column(key, title, "published", listed.better, heading, listed.about)


def _measured(group: Group, metric: str) -> Column:
    cells = [row.cells[metric] for row in group.rows if metric in row.cells]
    return measured_column(metric, cells, key=f"measured:{metric}")


def _by_row(cells: Iterable[PublishedCell]) -> list[tuple[str, list[PublishedCell]]]:
    rows: dict[str, list[PublishedCell]] = {}
    for cell in cells:
        rows.setdefault(cell.row, []).append(cell)
    return list(rows.items())


def _table(group: Group, number: int, title: str, stub: str, columns: Sequence[Column],
           rows: Sequence[TableRow]) -> Table:
    answers = ", ".join(f"{row.label} by {row.source.label}" for row in rows
                        if row.source and row.label != row.source.label)
    answered = f" Answered: {answers}." if answers and number in (2, 4) else ""
    bound = BOUND_OF_THE_PAPER if number == 4 else ""
    same = group.dataset in NAMES and group.protocol_name == "paper"
    remark = "" if same else " Other images and another protocol than the paper's: compare directions, not values."
    return Table(f"table{number}-{group.slug}", f"Table {number}. {title}", stub, tuple(columns),
                 with_counts(columns, rows),
                 f"Published: as printed in the paper. Measured: {group.cited}.{answered}{bound}{remark}",
                 has_best_in_each_section=number == 1)
