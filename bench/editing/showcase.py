"""The pictures of an editing record: completions, a kept centre, stitched halves, canvases, the order of reveal.

    sheet = completed_sheet(editor, originals, positions, hidden, path, results_dir)
    sheets = showcase(editor, originals, positions, folder, results_dir)        # name -> Sheet

positions: (n,) of the originals in the validation split; a conditional prior is told the conditions found there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.editing.pictures import decode_known, greyed, line_up, record_sheet
from bench.records import Sheet
from bench.stages.editor import Editor, canvas_sampler
from priors import editing
from priors.base import UNKNOWN, MaskedPredictor, Sample
from priors.canvas import Windows, film, reveal_steps, strided_windows

VARIANTS, FRAMES, FILMS, CANVASES = 4, 9, 4, 4


def completed_sheet(editor: Editor, originals: Tensor, positions: np.ndarray, hidden: Tensor, path: Path,
                    results_dir: Path, *, key: str = "sheet") -> Sheet:
    """A row an image: original, reconstruction, what is known, and VARIANTS completions of (n, N) bool hidden."""
    grid = tuple(editor.tokenizer.grid)
    tokens = editor.encode(originals)
    known = tokens.masked_fill(hidden.to(tokens.device), UNKNOWN)
    sample = editor.complete(known.repeat_interleave(VARIANTS, 0), draws=editor.draws(key),
                             condition=editor.condition_of(np.repeat(positions, VARIANTS)))
    completed = editor.decode(sample.tokens, grid).unflatten(0, (len(originals), VARIANTS))
    tiles = line_up(originals.unsqueeze(1), editor.decode(tokens, grid).unsqueeze(1),
                    greyed(originals, hidden, grid).unsqueeze(1), completed)
    return record_sheet(tiles, len(originals), 3 + VARIANTS, path, results_dir=results_dir)


def showcase(editor: Editor, originals: Tensor, positions: np.ndarray, folder: Path,
             results_dir: Path) -> dict[str, Sheet]:
    """What else the prior can do with a few held-out images; one that cannot mix windows has no film and no canvas.

    Under a condition nothing is stitched: two images have two conditions, and what joins them none.
    """
    grid = tuple(editor.tokenizer.grid)
    outside = ~editing.centre_box(grid).expand(len(originals), -1)
    sheets = {"condition": completed_sheet(editor, originals, positions, outside, folder / "condition.png", results_dir,
                                           key="condition")}
    if editor.condition_of(positions) is None:
        sheets["stitch"] = stitched_sheet(editor, originals, folder / "stitch.png", results_dir)
    if isinstance(editor.prior, MaskedPredictor):
        frames, _ = film_of(editor, strided_windows(grid, grid), FILMS, FRAMES, None, positions)
        sheets["filmstrip"] = record_sheet(frames.flatten(0, 1), FILMS, FRAMES, folder / "filmstrip.png",
                                           results_dir=results_dir)
        sheets["canvas"] = canvas_sheet(editor, positions, folder / "canvas.png", results_dir)
    return sheets


def film_of(editor: Editor, windows: Windows, num: int, frames: int, order: str | None,
            positions: np.ndarray | None = None) -> tuple[Tensor, Sample]:
    """Samples on their way: (num, frames, 3, H, W) uint8, what is not revealed yet in grey; and the samples.

    positions: of held-out images, for whose conditions they are drawn in turn; None without a condition.
    The decoder needs a code everywhere: under the grey it is given the prior's likeliest at that moment.
    """
    grid = windows.canvas
    unknown = torch.ones(num, grid[0] * grid[1], dtype=torch.bool)
    known = torch.full(unknown.shape, UNKNOWN)
    told = None if positions is None else editor.condition_of(np.resize(positions, num))
    sample = editor.complete(known, condition=told, windows=windows, order=order, draws=editor.draws("filmstrip"))
    # The order of reveal is the first thing drawn, so equal draws give it again.
    reveal = reveal_steps(canvas_sampler(editor.spec, order), grid, unknown, draws=editor.draws("filmstrip"))
    states = film(sample.tokens, reveal, unknown, frames=frames).flatten(0, 1)   # (num frames, N)
    hidden = states == UNKNOWN
    of_states = {} if told is None else {"condition": told[torch.arange(num).repeat_interleave(frames)]}
    guesses = editor.prior.logits(states, **of_states).argmax(-1)
    images = greyed(editor.decode(torch.where(hidden, guesses, states), grid), hidden, grid).cpu()
    return images.unflatten(0, (num, frames)), sample


def stitched_sheet(editor: Editor, originals: Tensor, path: Path, results_dir: Path) -> Sheet:
    """Pairs of images: what is taken of each (the top, the bottom third), and the middle painted VARIANTS times."""
    grid = tuple(editor.tokenizer.grid)
    tokens = editor.encode(originals)
    height = originals.shape[2]
    third = max(1, grid[0] // 3) * (height // grid[0])
    regions = torch.zeros(2, *originals.shape[2:], dtype=torch.bool)
    regions[0, :third], regions[1, height - third:] = True, True
    taken = torch.stack([editing.token_mask(region, grid=grid) for region in regions])
    rows = []
    for pair in range(len(originals) // 2):
        both = slice(2 * pair, 2 * pair + 2)
        known = editing.stitch(tokens[both].cpu(), regions, grid=grid)
        sample = editor.complete(known.expand(VARIANTS, -1), draws=editor.draws("stitch", pair))
        parts = (greyed(originals[both], ~taken, grid),
                 decode_known(editor.tokenizer, known.unsqueeze(0).to(tokens), grid),
                 editor.decode(sample.tokens, grid))
        rows.append(line_up(*(part.unsqueeze(0) for part in parts)))
    return record_sheet(torch.cat(rows), len(rows), 3 + VARIANTS, path, results_dir=results_dir)


def canvas_sheet(editor: Editor, positions: np.ndarray, path: Path, results_dir: Path) -> Sheet:
    """Twice as high and wide as any training image; windows at every position, or at every second of a 16x16 grid."""
    grid = tuple(editor.tokenizer.grid)
    canvas = (2 * grid[0], 2 * grid[1])
    unknown = torch.full((CANVASES, canvas[0] * canvas[1]), UNKNOWN)
    windows = strided_windows(canvas, grid, stride=max(1, min(grid) // 8))
    sample = editor.complete(unknown, condition=editor.condition_of(np.resize(positions, CANVASES)), windows=windows,
                             draws=editor.draws("canvas"))
    return record_sheet(editor.decode(sample.tokens, canvas), 1, CANVASES, path, results_dir=results_dir)
