"""The notebook runs from its first cell to its last.

    python tests/test_notebook.py      # run it in a folder of its own and keep what its cells show
"""

import ast
import json
import os
import sys
import tempfile
from contextlib import chdir
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "bench.ipynb"


def execute(notebook, folder):
    """The cells in order, each code cell with the value of its last expression; relative paths are of `folder`."""
    (folder / "results").mkdir()
    (folder / "results" / "reference").symlink_to(ROOT / "results" / "reference")
    names = {}
    with chdir(folder):
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                *body, last = ast.parse("".join(cell["source"])).body
                exec(compile(ast.Module(body, []), str(NOTEBOOK), "exec"), names)
                if isinstance(last, ast.Expr):
                    yield cell, eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names)
                else:
                    exec(compile(ast.Module([last], []), str(NOTEBOOK), "exec"), names)
                    yield cell, None


@pytest.mark.network
def test_the_cells_of_the_notebook_run_in_order(tmp_path, own_cache):
    shown = [value for _, value in execute(json.loads(NOTEBOOK.read_text()), tmp_path) if value is not None]
    plan, frame, bits, fid, tables = shown
    assert {"label", "metric", "value", "status"} <= set(frame.columns) and set(frame.status) == {"ok"}
    assert list(bits.bound) == ["upper", ""] and (fid["mean"] > 0).all() and len(plan) >= 4
    assert "summary-digits-smoke" in tables


def _outputs(value, count):
    if value is None:
        return []
    html = {"text/html": value.to_html().splitlines(keepends=True)} if isinstance(value, pd.DataFrame) else {}
    return [{"data": {**html, "text/plain": str(value).splitlines(keepends=True)}, "execution_count": count,
             "metadata": {}, "output_type": "execute_result"}]


if __name__ == "__main__":
    found = json.loads(NOTEBOOK.read_text())
    with tempfile.TemporaryDirectory() as folder:
        os.environ["OMP_NUM_THREADS"] = "1"
        for number, (cell, value) in enumerate(execute(found, Path(folder)), 1):
            cell["execution_count"], cell["outputs"] = number, _outputs(value, number)
    NOTEBOOK.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    sys.exit(0)
