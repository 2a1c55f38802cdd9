"""Figures made of images: samples, nearest neighbours, reveal order, edits, larger canvases.

    for figure in pictures_of(group, book.results_dir): ...

Tiles are cut from the records' contact sheets and shown at whole multiples of their pixels, never smoothed.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from bench.records import Record, Sheet
from bench.reporting.figures import INK, PAGE_WIDTH, Drawing, Skipped, shortened
from bench.reporting.rows import Group, Row

MAX_HEIGHT = 100
"""Inches: more are too many pixels for a PNG."""
MEDIA = {"samples": ("Samples", "Figure 3"), "neighbours": ("Nearest training images", "Figures 8-10"),
         "canvas": ("Larger canvases", "Figure 4"), "inpaint": ("Editing", "Figure 7"),
         "condition": ("A part kept", ""), "stitch": ("Stitched", ""),
         "filmstrip": ("Order of reveal", ""), "reconstruction": ("Reconstructions", "")}
CAPTIONS = {
    "samples": "The first tiles of each row, not picked.",
    "neighbours": "Left: samples. To the right: their nearest training images by LPIPS, nearest first.",
    "canvas": "Larger than any training image, by averaging over all windows.",
    "inpaint": "Original, reconstruction, what is known, then the rest sampled several times.",
    "condition": "Original, reconstruction, the part that is kept, then the rest sampled several times.",
    "stitch": "Parts of two images, both together, then the rest sampled several times.",
    "filmstrip": "One sample a row, from first to last step.",
    "reconstruction": "Validation images and what the tokenizer makes of them."}


def pictures_of(group: Group, results_dir: Path) -> list[Drawing | Skipped]:
    """Every figure of images of one group, or why it cannot be made; of edits those there are."""
    figures = [samples_figure(group, results_dir)] + \
        [sheet_figure(group, results_dir, name) for name in MEDIA if name != "samples"]
    return [figure for figure in figures if isinstance(figure, Drawing) or not group.of_edits]


def samples_figure(group: Group, results_dir: Path, *, num_tiles: int = 12, max_rows: int = 12) -> Drawing | Skipped:
    """The first tiles of every row's samples, a strip each; of more than `max_rows` the variants are left out first."""
    name = f"samples-{group.slug}"
    strips = [(row, found) for row in group.rows if (found := find_sheet(row, results_dir, "samples"))]
    if not strips:
        return Skipped(name, f"{group.title}: no record has a sheet of samples")
    chosen = sorted(strips, key=lambda strip: bool(strip[0].variant))[:max_rows]
    strips = [strip for strip in strips if any(strip[0] is row for row, _ in chosen)]

    def draw() -> Figure:
        images = [join(first_tiles(path, sheet)[:num_tiles]) for _, (path, sheet) in strips]
        width = PAGE_WIDTH - 1.5
        heights = [width * image.shape[0] / image.shape[1] for image in images]
        figure = plt.figure(figsize=(PAGE_WIDTH, min(MAX_HEIGHT, sum(heights) + 0.05 * len(images))))
        grid = figure.add_gridspec(len(images), 1, left=1.5 / PAGE_WIDTH, right=1, top=1, bottom=0, hspace=0.06,
                                   height_ratios=heights)
        for index, (image, (row, _)) in enumerate(zip(images, strips, strict=True)):
            axes = figure.add_subplot(grid[index])
            show(axes, image)
            axes.text(-0.01, 0.5, wrap(shortened(row.label)), transform=axes.transAxes, ha="right", va="center",
                      fontsize=7, color=INK)
        return figure

    return Drawing(name, f"Samples, {group.title}", CAPTIONS["samples"], draw, "Figure 3")


def sheet_figure(group: Group, results_dir: Path, medium: str, *, max_rows: int = 8) -> Drawing | Skipped:
    """One contact sheet as it is, of the row whose FID is best (or the first that has one)."""
    title, paper = MEDIA[medium]
    name = f"{medium}-{group.slug}"
    row = row_to_show(group, results_dir, medium)
    if row is None:
        return Skipped(name, f"{group.title}: no record has a sheet of {medium}")
    path, sheet = find_sheet(row, results_dir, medium) or (None, None)
    assert path is not None and sheet is not None

    def draw() -> Figure:
        shown = min(sheet.rows, max_rows)
        image = np.concatenate([join(line, lead=medium == "neighbours") for line in rows_of(path, sheet)[:shown]])
        width = min(PAGE_WIDTH, max(3.4, sheet.columns * 0.55))
        figure = plt.figure(figsize=(width, min(MAX_HEIGHT, width * image.shape[0] / image.shape[1])))
        axes = figure.add_axes((0, 0, 1, 1))
        show(axes, image)
        return figure

    labels = f" {'; '.join(sheet.labels[:8])}." if sheet.labels and len(sheet.labels) <= 8 else ""
    return Drawing(name, f"{title}, {row.label}, {group.title}", CAPTIONS[medium] + labels, draw, paper)


def row_to_show(group: Group, results_dir: Path, medium: str) -> Row | None:
    """The prior with the best FID that has such a sheet, or another row where no prior has one."""
    rows = [row for row in group.rows if find_sheet(row, results_dir, medium)]
    return min(rows, default=None, key=lambda r: (
        r.role != "prior", (r.cells["fid"].value if "fid" in r.cells else None) or float("inf")))


def find_sheet(row: Row, results_dir: Path, medium: str) -> tuple[Path, Sheet] | None:
    """The first of a row's sheets of that name whose file is there."""
    return next((found for record in row.records if (found := sheet_file(record, results_dir, medium))), None)


def sheet_file(record: Record, results_dir: Path, medium: str) -> tuple[Path, Sheet] | None:
    sheet = record.media.get(medium)
    if sheet is None or not (results_dir / sheet.path).is_file():
        return None
    return results_dir / sheet.path, sheet


def tiles(path: Path, sheet: Sheet) -> np.ndarray:
    """(rows * columns, h, w, 3) uint8."""
    return rows_of(path, sheet).reshape(-1, *sheet.tile, 3)


def first_tiles(path: Path, sheet: Sheet) -> np.ndarray:
    """The same; of a sheet with a row a class one of each class before the second of any."""
    rows = rows_of(path, sheet)
    return (rows.swapaxes(0, 1) if has_row_per_label(sheet) else rows).reshape(-1, *sheet.tile, 3)


def has_row_per_label(sheet: Sheet) -> bool:
    """Whether the labels are those of rows, as on a sheet of samples by class, not those of tiles."""
    return len(sheet.labels) == sheet.rows and sheet.columns > 1


def rows_of(path: Path, sheet: Sheet) -> np.ndarray:
    """(rows, columns, h, w, 3) uint8."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    height, width = sheet.tile
    return pixels.reshape(sheet.rows, height, sheet.columns, width, 3).swapaxes(1, 2)


def join(line: np.ndarray, *, gap: int = 1, lead: bool = False) -> np.ndarray:
    """(n, h, w, 3) -> (h + gap, n * (w + gap), 3), white between tiles; `lead` sets the first tile apart."""
    padded = list(np.pad(line, ((0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255))
    apart = [np.full((padded[0].shape[0], padded[0].shape[1] // 4, 3), 255, np.uint8)] if lead else []
    return np.concatenate([padded[0], *apart, *padded[1:]], axis=1)


def show(axes: plt.Axes, image: np.ndarray) -> None:
    axes.imshow(image, interpolation="nearest", aspect="equal")
    axes.set_axis_off()


def wrap(label: str, width: int = 22) -> str:
    """Breaks at commas, brackets and before the value of a long option, so that a label fits beside its strip."""
    lines = [""]
    words = [part for word in label.replace(" (", ", (").split(", ")
             for part in (word.replace("=", "=, ").split(", ") if len(word) > width else [word])]
    for word in words:
        candidate = f"{lines[-1]}, {word}" if lines[-1] else word
        lines = [*lines[:-1], candidate] if len(candidate) <= width else [*lines, word]
    return "\n".join(line for line in lines if line)
