"""How many windows a canvas costs when a step reveals several cells: the table of docs/editing.md."""

from pathlib import Path

import pytest
import torch

from priors.base import Draws
from priors.canvas import CanvasSampler, reveal_steps, strided_windows

GUIDE = Path(__file__).parents[2] / "docs" / "editing.md"
ORDERS = ("random", "halton", "raster")


def share(steps: int, order: str, canvases: int = 8) -> float:
    """Of the windows of all steps, those that hold a cell that is revealed then, 8x8 to 16x16."""
    windows = strided_windows((16, 16), (8, 8))
    unknown = torch.ones(canvases, 256, dtype=torch.bool)
    reveal = reveal_steps(CanvasSampler(steps=steps, order=order), (16, 16), unknown, draws=Draws.seeded(0))
    at_step = (reveal.unsqueeze(1) == torch.arange(1, steps + 1).view(1, -1, 1)).float()   # (B, S, C)
    return ((at_step @ windows.inside.float()) > 0).float().mean().item()


def table() -> dict[int, tuple[float, ...]]:
    lines = GUIDE.read_text().split("| steps | random | halton | raster |")[1].splitlines()[2:]
    cells = [line.strip("| ").split(" | ") for line in lines[:4]]
    return {int(row[0]): tuple(float(cell.rstrip("%")) / 100 for cell in row[1:]) for row in cells}


@pytest.mark.parametrize("steps", [256, 128, 64, 32])
def test_the_guides_shares_are_those_of_the_algorithm(steps):
    assert [share(steps, order) for order in ORDERS] == pytest.approx(list(table()[steps]), abs=0.01)


@pytest.mark.parametrize("steps", [256, 128, 64])
def test_raster_order_takes_at_most_a_third_down_to_a_quarter_of_the_steps(steps):
    assert share(steps, "raster") <= 1 / 3 + 1e-6
