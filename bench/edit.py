"""Edit images with known tokens: paint a region anew, keep one and invent the rest, stitch, exceed the training size.

    python -m bench.edit task=inpaint image=cat.png mask=mask.png variants=8 out=edits dataset=cifar10 preset=demo
    python -m bench.edit task=inpaint image=validation:3 box=8,8,24,24          # a held-out image of the data set
    python -m bench.edit task=condition image=tower.png box=8,0,24,20           # keep the box, invent the rest
    python -m bench.edit task=stitch image=a.png,b.png box=[0,0,32,16],[0,16,32,32]
    python -m bench.edit task=enlarge canvas=16x24 sampler.temperature=0.8      # tokens; image= continues one all round
    python -m bench.edit task=filmstrip frames=9                                # the order in which tokens appear
    python -m bench.edit task=benchmark prior=absorbing,autoregressive masks=centre,lower,random images=500
    python -m bench.edit task=benchmark ... launcher=slurm sampling.shards=8    # its rows as jobs, like runs
    python -m bench.edit task=benchmark ... status=true                         # where every stage and row stands

Models are chosen as for bench.run (prior=, dataset=, vq=, preset=, sampler.*) and built where they are missing.
Masks are max-pooled to tokens: one white pixel is enough. Known tokens come back unchanged; paste=true also puts back
the original's pixels. Exit codes: 0 done, 1 failed while working, 2 wrong input or nothing any chosen prior can do,
130 Ctrl-C.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from bench.command import run_command
from bench.compose import Request, expand
from bench.config import RunSpec
from bench.data.foreign import as_written
from bench.editing.inputs import Inputs, check_conditions, check_files, held_out_index, load
from bench.editing.options import EditOptions, parse
from bench.errors import InputError
from bench.labels import label_as_asked, label_of
from bench.launch.launch import launch
from bench.launch.status import Standing, counted, print_table, status
from bench.needs import (
    LAUNCHED,
    assets_of_edits,
    assets_of_models,
    check_present,
    prepare,
    refuse,
)
from bench.provenance import utc_now
from bench.rebuild import settled
from bench.records import Record, Sweep, load_records, save_record, save_sweep
from bench.stages.base import Run
from bench.stages.condition import given_of
from bench.stages.identity import run_key
from bench.store.files import write_json
from bench.store.store import Store

if TYPE_CHECKING:
    from torch import Tensor

    from bench.stages.editor import Editor, Shape
    from priors.canvas import Windows
    from priors.conditions import Condition

MANIFEST = "edit.json"
OF_BENCHMARK = tuple(key for key in LAUNCHED if key != "plan=")   # its rows are launched as runs are


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    return run_command(arguments, doc=__doc__, work=perform, needs_arguments=True,
                       kept="finished models and completions are kept.")


def perform(arguments: list[str]) -> int:
    """The task that the arguments ask for."""
    console = Console(stderr=True)
    options, rest = parse(arguments)
    runs = expand(rest, announce=console.print)
    check_runs(runs, [key for key in rest if not (options.task == "benchmark" and key.startswith(OF_BENCHMARK))])
    for run in runs:
        check_files(options, run.spec.dataset)
        check_conditions(options, run.spec.condition.name)
    if options.task == "benchmark":
        return benchmark(options, runs, " ".join(["python -m bench.edit", *arguments]), console)
    return edit_all(options, runs, console)


def benchmark(options: EditOptions, runs: list[Request], command: str, console: Console) -> int:
    """A record for every prior and mask, and one for the reconstructions; printed, and saved for the report."""
    from bench.editing.benchmark import expected, print_rows, rows_of

    rows = rows_of(options, runs)
    if any(run.spec.status for run in runs):
        return print_status(rows)
    specs = [run.spec for run in runs]
    prepare(specs, assets_of_edits(specs))
    save_sweep(Sweep(id=uuid.uuid4().hex[:12], created=utc_now(), command=command,
                     cells=tuple(map(expected, rows))), specs[0].results_dir)
    records = execute(rows, console)
    print_rows(records)
    return 1 if any(record.status == "failed" for record in records) else 0


def execute(rows: list[Request], console: Console) -> list[Record]:
    """Launch the rows that have no record yet and return all their records in order."""
    keys, results_dir = [run_key(Run(row.spec)) for row in rows], rows[0].spec.results_dir
    found = {record.run_key: record for record in settled(load_records(results_dir)[0], Store())
             if record.status == "ok"}
    missing = [row.spec for key, row in zip(keys, rows, strict=True) if key not in found and not row.unsupported]
    found |= {key: _unsupported(row, key) for key, row in zip(keys, rows, strict=True) if row.unsupported}
    found |= {record.run_key: record for record in launch(missing, console=console)}
    return [found[key] for key in keys if key in found]


def _unsupported(row: Request, key: str) -> Record:
    from bench.pipeline import failed_record
    record = dataclasses.replace(failed_record(row.spec, label_of(row.spec), InputError(row.unsupported),
                                               status="unsupported"), run_key=key)
    save_record(record, row.spec.results_dir)
    return record


def print_status(rows: list[Request]) -> int:
    """Where every stage of these rows stands, every row, and how many rows stand where."""
    standings = status([row.spec for row in rows if not row.unsupported])
    impossible = [Standing(f"edit: {label_of(row.spec)}, {row.spec.edit.mask}", run_key(Run(row.spec)), "unsupported",
                           detail=row.unsupported) for row in rows if row.unsupported]
    print_table([*standings, *impossible])
    of_rows = standings[len(standings) - len(rows) + len(impossible):]
    print(counted([*of_rows, *impossible]))
    return 0


def check_runs(runs: list[Request], rest: Sequence[str]) -> None:
    """Raise InputError, before torch is imported, for keys that mean nothing here and for absent data."""
    refuse(rest, (*LAUNCHED, "source=", "speed.", "metrics.names"))
    for run in runs:
        if run.unsupported:
            raise InputError(run.unsupported)
    check_present([run.spec for run in runs])
    for run in runs:
        given_of(Run(run.spec))


def edit_all(options: EditOptions, runs: list[Request], console: Console) -> int:
    """Every run's edits; what a prior cannot do is printed, and exit code 2 if that is all there was."""
    done, several = 0, len(runs) > 1
    for run in runs:
        label = label_as_asked(run.spec, run.overrides)
        out = Path(options.out) / _slug(label) if several else Path(options.out)
        reason = edit(options, run.spec, out, console)
        if reason:
            console.print(f"Unsupported: {label}: {reason}", highlight=False, soft_wrap=True, markup=False)
        done += not reason
    return 0 if done else 2


def edit(options: EditOptions, spec: RunSpec, out: Path, console: Console) -> str:
    """One prior's edits into the folder `out`; returns why the prior cannot, or ""."""
    from bench.stages.base import begun
    from bench.stages.editor import Editor, shape_of, why_unsupported
    from priors.base import Unsupported

    shape = shape_of(spec)
    run = begun(spec, announce=lambda text: console.print(text, style="dim", markup=False, highlight=False))
    job = plan(options, spec, shape, lambda index: _held_out(run, index))
    reason = why_unsupported(spec, shape, job.pattern(options.variants), job.windows)
    if reason:
        return reason
    prepare([spec], assets_of_models([spec]))
    _clear(out)
    began = time.perf_counter()
    try:
        report = carry_out(options, job, Editor(run), out)
    except Unsupported as error:   # a sampler of the user's that cannot keep tokens
        return str(error)
    report |= {"seconds_with_models": time.perf_counter() - began, "spec": as_written(spec)}
    write_json(out / MANIFEST, report)
    console.print(f"{len(report['files'])} pictures in {out}; all of them on {out / 'sheet.png'}.", markup=False,
                  soft_wrap=True, highlight=False)
    return ""


@dataclass(frozen=True)
class Job:
    """What is to be filled. grid: of the result, in tokens.  hidden: (R, N) bool, one row a result.

    inputs: None where nothing is given.  windows: None at the prior's own size.
    """

    grid: tuple[int, int]
    hidden: Tensor
    inputs: Inputs | None
    windows: Windows | None

    def pattern(self, variants: int) -> Tensor:
        """(variants, N): UNKNOWN where hidden, 0 elsewhere; as much as a prior needs to say whether it can."""
        return (-self.hidden[:1].long()).repeat(variants, 1)


def plan(options: EditOptions, spec: RunSpec, shape: Shape, held_out: Any) -> Job:
    """Images and masks read and checked, and turned into what is hidden. Raises InputError."""
    import torch

    from bench.stages.editor import canvas_sampler, windows_on
    from priors import editing

    inputs = load(options, spec.dataset, patch=shape.patch, held_out=held_out) if options.image else None
    grid = options.canvas or shape.grid
    if inputs is not None and options.task != "enlarge":
        grid = (inputs.images.shape[2] // shape.patch, inputs.images.shape[3] // shape.patch)
    needs_canvas = grid != shape.grid or options.task in ("enlarge", "filmstrip")
    windows = None
    if needs_canvas:
        canvas_sampler(spec, options.order)
        windows = windows_on(grid, shape, stride=options.stride, windows=options.windows, seed=spec.sampler["seed"])
    if options.task == "filmstrip" or inputs is None:
        return Job(grid, torch.ones(1, grid[0] * grid[1], dtype=torch.bool), None, windows)
    if options.task == "enlarge":
        return _continued(options, shape, inputs, grid, windows)
    assert inputs.regions is not None
    regions = torch.from_numpy(inputs.regions)
    try:
        if options.task == "stitch":
            blank = torch.zeros(len(regions), grid[0] * grid[1], dtype=torch.int64)
            hidden = (editing.stitch(blank, regions, grid=grid) == -1).unsqueeze(0)
        else:
            hidden = torch.stack([editing.token_mask(region, grid=grid) for region in regions])
            hidden = ~hidden if options.task == "condition" else hidden
            for row in hidden:
                editing.hide(torch.zeros(len(row), dtype=torch.int64), row)
    except ValueError as error:
        raise InputError(f"task={options.task}: {error}.") from None
    return Job(grid, hidden, inputs, windows)


def _continued(options: EditOptions, shape: Shape, inputs: Inputs, grid: tuple[int, int],
               windows: Windows | None) -> Job:
    """A canvas around one image."""
    import torch

    size = (inputs.images.shape[2] // shape.patch, inputs.images.shape[3] // shape.patch)
    corner = options.at or ((grid[0] - size[0]) // 2, (grid[1] - size[1]) // 2)
    if not all(0 <= c and c + s <= g for c, s, g in zip(corner, size, grid, strict=True)):
        raise InputError(f"at={corner[0]}x{corner[1]}: an image of {size[0]}x{size[1]} tokens does not fit there on a "
                         f"canvas of {grid[0]}x{grid[1]}.")
    hidden = torch.ones(grid, dtype=torch.bool)
    hidden[corner[0]:corner[0] + size[0], corner[1]:corner[1] + size[1]] = False
    if not hidden.any():
        raise InputError(f"canvas={grid[0]}x{grid[1]} is the size of the image: nothing would be added. Enlarge it.")
    return Job(grid, hidden.flatten().unsqueeze(0), inputs, windows)


def carry_out(options: EditOptions, job: Job, editor: Editor, out: Path) -> dict[str, Any]:
    """Fill every row of the job, save the pictures, and say what it cost."""
    import torch

    from bench.editing.pictures import line_up, save_image, save_tiles
    from bench.metrics.speed import synchronise

    if options.task == "filmstrip":
        return _filmstrip(options, job, editor, out)
    files, rows, results = [], [], []
    for row, hidden in enumerate(job.hidden):
        known = known_tokens(options, job, editor, row)
        synchronise(editor.run.device)
        began = time.perf_counter()
        sample = editor.complete(known.repeat(options.variants, 1), condition=_told(options, editor, row),
                                 windows=job.windows, order=options.order, draws=editor.draws(options.task, row))
        synchronise(editor.run.device)
        seconds = time.perf_counter() - began
        images = editor.decode(sample.tokens, job.grid).cpu()
        images = _pasted(options, job, row, images)
        for index, image in enumerate(images):
            name = f"image{row + 1}-" * (len(job.hidden) > 1) + f"variant{index + 1:02d}.png"
            save_image(image, out / name)
            files.append(name)
        rows.append(line_up(*(part.unsqueeze(0) for part in (*_given(options, job, editor, row), images))))
        results.append({"hidden": int(hidden.sum()), "tokens": len(hidden),
                        "seconds_per_variant": seconds / options.variants,
                        "network_evaluations": sample.network_evaluations.tolist(),
                        "variants": sample.tokens.tolist()})
    save_tiles(torch.cat(rows), len(rows), len(rows[0]), out / "sheet.png")
    return {"options": dataclasses.asdict(options), "grid": job.grid, "windows": job.windows and len(job.windows),
            "files": ["sheet.png", *files], "results": results}


def _told(options: EditOptions, editor: Editor, row: int) -> Condition | None:
    """The condition of the image that a row of the job completes, once a variant; None without one."""
    index = held_out_index(options.image[row]) if options.image else None
    return None if index is None else editor.condition_of([index] * options.variants)


def known_tokens(options: EditOptions, job: Job, editor: Editor, row: int) -> Tensor:
    """(N,) tokens to keep, UNKNOWN elsewhere, of one row of the job."""
    import torch

    from priors import editing

    hidden = job.hidden[row]
    if job.inputs is None:
        return torch.full(hidden.shape, -1)
    tokens = editor.encode(torch.from_numpy(job.inputs.images)).cpu()
    if options.task == "stitch":
        assert job.inputs.regions is not None
        return editing.stitch(tokens, torch.from_numpy(job.inputs.regions), grid=job.grid)
    if options.task == "enlarge":
        known = torch.full(hidden.shape, -1)
        known[~hidden] = tokens[0]
        return known
    return editing.hide(tokens[row], hidden)


def _given(options: EditOptions, job: Job, editor: Editor, row: int) -> list[Tensor]:
    """Tiles that come before the variants: the original and what is known of it, or the regions that are stitched."""
    import torch

    from bench.editing.pictures import decode_known, greyed

    if job.inputs is None:
        return []
    images = torch.from_numpy(job.inputs.images)
    tokens = known_tokens(options, job, editor, row).to(editor.run.device)
    known = decode_known(editor.tokenizer, tokens.unsqueeze(0), job.grid).cpu()
    if options.task == "enlarge":
        return [known]
    if options.task == "stitch":
        from priors.editing import token_mask
        assert job.inputs.regions is not None
        taken = torch.stack([token_mask(region, grid=job.grid) for region in torch.from_numpy(job.inputs.regions)])
        return [greyed(images, ~taken, job.grid), known]
    one = images[row:row + 1]
    reconstruction = editor.decode(editor.encode(one), job.grid).cpu()
    return [one, reconstruction, greyed(one, job.hidden[row], job.grid)]


def _pasted(options: EditOptions, job: Job, row: int, images: Tensor) -> Tensor:
    """With paste=true the original's own pixels wherever the mask does not reach."""
    import torch

    if not options.paste:
        return images
    assert job.inputs is not None and job.inputs.regions is not None
    region = torch.from_numpy(job.inputs.regions[row])
    repaint = ~region if options.task == "condition" else region
    return torch.where(repaint, images, torch.from_numpy(job.inputs.images[row]))


def _filmstrip(options: EditOptions, job: Job, editor: Editor, out: Path) -> dict[str, Any]:
    """One sample a row, from nothing to all of it."""
    from bench.editing.pictures import save_image, save_tiles
    from bench.editing.showcase import film_of

    assert job.windows is not None
    frames, sample = film_of(editor, job.windows, options.variants, options.frames, options.order)
    files = []
    for index, strip in enumerate(frames):
        name = f"variant{index + 1:02d}.png"
        save_image(strip[-1], out / name)
        files.append(name)
    save_tiles(frames.flatten(0, 1), len(frames), options.frames, out / "sheet.png")
    return {"options": dataclasses.asdict(options), "grid": job.grid, "files": ["sheet.png", *files],
            "results": [{"network_evaluations": sample.network_evaluations.tolist(),
                         "variants": sample.tokens.tolist()}]}


def _held_out(run: Any, index: int) -> Any:
    split = run.splits.validation
    if index >= len(split):
        raise InputError(f"image=validation:{index}: held-out images are numbered 0 to {len(split) - 1}.")
    return split.images([index])[0]


def _clear(out: Path) -> None:
    """Make the folder, without the pictures of an earlier edit; files that are not ours are left alone."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        earlier = json.loads((out / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError):
        earlier = []
    for name in earlier:
        (out / Path(name).name).unlink(missing_ok=True)


def _slug(label: str) -> str:
    return "-".join("".join(c if c.isalnum() or c == "." else " " for c in label).split())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
