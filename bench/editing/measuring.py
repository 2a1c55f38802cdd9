"""One prior's completions under one mask (or the plain reconstructions), measured and recorded: the end of such a run.

    record = record_of_edit(begun(spec))          # spec.edit.mask="centre"

Columns: FID of the completed images (known part included) against the run's real images, LPIPS to the originals, the
step across the mask's border relative to the originals', seconds and evaluations an image.
"""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import torch

from bench.assets.weights import lpips_model
from bench.data.foreign import as_written
from bench.editing.showcase import completed_sheet, showcase
from bench.labels import label_of
from bench.metrics.columns import column_of
from bench.metrics.distances import fid_measurement, why_no_interval
from bench.metrics.editing import border_step, ratio_of_means, seam_ratio, window_edges
from bench.metrics.frechet import fid
from bench.metrics.intervals import mean_error, normal_interval
from bench.metrics.lpips_embedding import LpipsEmbedding
from bench.provenance import provenance, utc_now
from bench.records import Measurement, Record, Sheet, save_record
from bench.stages.base import Run
from bench.stages.completions import COMPLETIONS, hidden_of, hidden_tokens
from bench.stages.editor import Editor, Shape, shape_of
from bench.stages.features import JUDGED_FEATURES, REAL_FEATURES
from bench.stages.identity import protocol_details, protocol_id, run_key
from priors.base import UNKNOWN, MaskedPredictor
from priors.canvas import strided_windows

SEAM_CANVASES = 16
COSTS = ("seconds_per_image", "network_evaluations", "token_forwards")


def record_of_edit(run: Run) -> Record:
    """Measure everything and save the record with its pictures."""
    measurements = tuple(_measurements(run))
    record = Record(id=f"edit-{uuid.uuid4().hex[:12]}", created=utc_now(), role=run.record_role,
                    label=label_of(run.spec), spec=as_written(run.spec), run_key=run_key(run), status="ok",
                    measurements=measurements, media=_media(run),
                    provenance={**provenance(), "artefacts": run.made_of, "protocol": protocol_details(run),
                                **run.hardware})
    save_record(record, run.spec.results_dir)
    return record


def _measurements(run: Run) -> list[Measurement]:
    completed, originals = run.open(COMPLETIONS), hidden_of(run).images(np.arange(run.num_fake))
    found = [_fid(run), _mean(run, "lpips", _lpips(run, completed["images"], originals)),
             _border(run, completed["images"], originals)]
    found += [_mean(run, name, completed[name].astype(np.float64)) for name in COSTS if name in completed]
    return found + ([_seams(run)] if run.spec.edit.showcase and run.role == "prior" else [])


def _fid(run: Run) -> Measurement:
    fake, real = run.open(JUDGED_FEATURES), run.open(REAL_FEATURES)
    result = fid(fake, real)
    return fid_measurement(result, why_no_interval(fake, real), protocol_id(run),
                           label=f"FID@{result.n} of completed images")


def _lpips(run: Run, images: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """(n,) distances of each completed image to its original."""
    protocol = run.spec.protocol
    embedding = LpipsEmbedding(lpips_model(protocol.neighbours_net), device=run.device,
                               resolution=protocol.neighbours_resolution)
    pieces = [slice(at, at + 100) for at in range(0, len(images), 100)]
    parts = [embedding.distances(embedding.features(images[p]), embedding.features(originals[p])) for p in pieces]
    return torch.cat(parts).double().cpu().numpy()


def _border(run: Run, images: np.ndarray, originals: np.ndarray) -> Measurement:
    """Step across the mask's border over that of the originals at the same place; 1: it cannot be seen."""
    shape = shape_of(run.spec)
    hidden = _hidden(run, shape).reshape(len(images), *shape.grid)
    ratio, low, high = ratio_of_means(border_step(images, hidden, patch=shape.patch),
                                      border_step(originals, hidden, patch=shape.patch))
    return Measurement("border_ratio", ratio, protocol_id(run), n=len(images), ci_low=low, ci_high=high,
                       note="the reconstruction's own ratio is what the tokenizer alone does to the border")


def _seams(run: Run) -> Measurement:
    """Steps at window edges over steps elsewhere, on canvases whose windows overlap by half: 1 is no seam."""
    shape, editor = shape_of(run.spec), Editor(run)
    h, w = shape.grid
    if not isinstance(editor.prior, MaskedPredictor):
        return Measurement("seam_ratio", None, protocol_id(run), note="this prior cannot mix windows")
    windows = strided_windows((2 * h, 2 * w), (h, w), stride=max(1, min(h, w) // 2))
    unknown = torch.full((SEAM_CANVASES, 4 * h * w), UNKNOWN)
    condition = editor.condition_of(np.resize(hidden_of(run).indices, SEAM_CANVASES))
    sample = editor.complete(unknown, condition=condition, windows=windows, draws=editor.draws("seams"))
    images = editor.decode(sample.tokens, windows.canvas).cpu().numpy()
    edges = window_edges(windows.canvas, windows.window, windows.corners.numpy())
    ratio, low, high = seam_ratio(images, edges, patch=shape.patch)
    return Measurement("seam_ratio", ratio, protocol_id(run), n=SEAM_CANVASES, ci_low=low, ci_high=high,
                       note=f"canvases of {2 * h}x{2 * w} tokens, {len(windows)} windows",
                       extra={"window_evaluations": float(sample.network_evaluations.double().mean())})


def _mean(run: Run, name: str, values: np.ndarray) -> Measurement:
    unit, better = column_of(name).unit, column_of(name).better
    if name != "lpips":   # chunks share a clock and a batch: no interval over images
        middle = float(np.median(values) if name == "seconds_per_image" else values.mean())
        return Measurement(name, middle, protocol_id(run), n=len(values), unit=unit, better=better,
                           note=f"in batches of {run.spec.sampling.chunk}"
                                + ", their median" * (name == "seconds_per_image"))
    mean, error = float(values.mean()), mean_error(values)
    low, high = normal_interval(mean, error)
    return Measurement(name, mean, protocol_id(run), n=len(values), ci_low=low, ci_high=high, standard_error=error,
                       unit=unit, better=better)


def _media(run: Run) -> dict[str, Sheet]:
    if run.role == "reconstruction":
        return {}
    results, editor, few = Path(run.spec.results_dir), Editor(run), np.arange(min(6, run.num_fake))
    folder = results / "media" / f"edit-{run_key(run)}"
    originals, positions = torch.from_numpy(hidden_of(run).images(few)), hidden_of(run).indices[few]
    hidden = torch.from_numpy(_hidden(run, shape_of(run.spec))[few])
    sheets = {"inpaint": completed_sheet(editor, originals, positions, hidden, folder / "inpaint.png", results)}
    return sheets | (showcase(editor, originals, positions, folder, results) if run.spec.edit.showcase else {})


def _hidden(run: Run, shape: Shape) -> np.ndarray:
    """(n, N) bool; the same for every prior."""
    return hidden_tokens(run.spec.edit.mask, shape.grid, run.num_fake)
