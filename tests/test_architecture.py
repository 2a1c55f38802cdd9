"""The floor plan in docs/architecture.md is the house as it stands, and its examples run.

    python tests/test_architecture.py      # draw the plan anew
"""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

import bench
from bench.compose import compose
from bench.stages import chain
from bench.stages.base import Run
from bench.testing import check_dataset, check_metric, check_tokenizer

ROOT = Path(__file__).parents[1]
PAGE, EXAMPLES = ROOT / "docs" / "architecture.md", ROOT / "docs" / "examples"
BEGIN, END = "<!-- floors:begin -->\n", "<!-- floors:end -->"
TOGETHER = {"prior": "neighbourhood_prior:Neighbourhood", "vq": "levels_tokenizer:Levels", "dataset.resolution": 16,
            "dataset": "gradients_dataset:Gradients", "preset": "smoke"}


def drawn() -> str:
    """One line a floor, the highest first."""
    spec = importlib.util.spec_from_file_location("house", ROOT / "tests" / "test_house.py")
    house = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(house)
    plan = house.floors(house.arrows(house.room, inside=False))
    lines = ["| floor | rooms |", "|--:|:--|"]
    for number in sorted(set(plan.values()), reverse=True):
        names = (name.removeprefix("bench.") for name in plan if plan[name] == number and name != "bench")
        lines.append(f"| {number} | {', '.join(sorted(names))} |")
    return "\n".join(lines) + "\n"


def redrawn(text: str) -> str:
    head, rest = text.split(BEGIN)
    return head + BEGIN + drawn() + END + rest.split(END)[1]


def test_the_floor_plan_is_fresh():
    text = PAGE.read_text()
    assert redrawn(text) == text, "python tests/test_architecture.py draws it anew"


def test_every_example_is_on_the_page_and_every_example_there_exists():
    assert set(re.findall(r"\(examples/(\w+\.py)\)", PAGE.read_text())) == {p.name for p in EXAMPLES.glob("*.py")}


def test_what_is_touched_inside_the_tree_is_few_files():
    rows = [line.split("|") for line in PAGE.read_text().splitlines() if line.startswith("| a ")]
    touched = {row[1].strip(): len(row[4].split(", ")) for row in rows}
    assert touched == {"a prior": 4, "a metric": 4, "a data set": 4, "a tokenizer": 4, "a stage": 3}


@pytest.fixture
def examples(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)


def test_the_tokenizer_keeps_the_contract(examples):
    assert len(check_tokenizer("levels_tokenizer:Levels").passed) == 6


def test_the_metric_keeps_the_contract(examples):
    assert len(check_metric("brightness_metric:Brightness").passed) == 5


def test_the_data_set_keeps_the_contract(examples):
    assert len(check_dataset("gradients_dataset:Gradients").passed) == 20


def test_the_data_set_has_two_splits_of_images(examples):
    splits = Run(compose([f"{key}={value}" for key, value in TOGETHER.items()])).splits
    assert splits.train.images([0, 5]).shape == (2, 3, 16, 16) and splits.train.images([0]).dtype == np.uint8
    assert (len(splits.train), len(splits.validation)) == (128, 64)   # as the preset says


@pytest.mark.network
def test_the_examples_run_together_and_so_does_the_stage(examples, own_cache, tmp_path, monkeypatch):
    table = bench.run(**TOGETHER, metrics={"names": ["nll", "brightness_metric:Brightness"]}, results_dir=tmp_path)
    assert set(table.status) == {"ok"} and {"bits_per_token", "brightness_gap"} <= set(table.metric)
    from code_counts_stage import CODE_COUNTS
    monkeypatch.setattr(chain, "CHAIN", (*chain.CHAIN, CODE_COUNTS))
    plan = bench.plan(**TOGETHER, baselines=False)
    assert plan.set_index("stage").state["code counts"] == "missing"
    run = Run(compose([f"{key}={value}" for key, value in TOGETHER.items()]))
    assert run.open(CODE_COUNTS).sum() == 128 * 16


if __name__ == "__main__":
    PAGE.write_text(redrawn(PAGE.read_text()))
