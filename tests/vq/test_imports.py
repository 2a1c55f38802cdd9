"""What may import what inside vq/: nothing in a circle, wherever in a module the import stands."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import vq

FOLDER = Path(vq.__file__).parent


def imports(path):
    """Modules that a file imports anywhere: at its top, inside functions, for types."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def graph():
    modules = {f"vq.{path.stem}": path for path in FOLDER.glob("*.py") if path.stem != "__init__"}
    return {name: {found for found in imports(path) if found in modules} for name, path in modules.items()}


def test_no_module_of_vq_imports_another_in_a_circle():
    edges = graph()
    assert {"vq.training", "vq.checkpoints"} <= edges["vq.vqgan"]   # they are seen at all
    TopologicalSorter(edges).prepare()   # raises CycleError, which names the circle


def test_vq_imports_neither_the_benchmark_nor_the_priors():
    assert not [(path.name, found) for path in FOLDER.glob("*.py") for found in imports(path)
                if found.split(".")[0] in ("bench", "priors")]
