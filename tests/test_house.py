"""The floor plan: who may import whom, how high the house is, how big a file and a class may get.

    python tests/test_house.py          # every room with its floor
"""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST_FLOORS = 8
MOST_LINES = 400
MOST_METHODS = 20


def modules():
    """Name -> file of every module of ours."""
    found = {}
    for path in (path for top in ("bench", "priors", "vq") for path in (ROOT / top).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports(name, *, inside):
    """The modules of ours that a module imports when it is loaded; inside: or in any function."""
    found = set()

    def look(node, in_function):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if inside or not in_function:
                if isinstance(child, ast.Import):
                    found.update(alias.name for alias in child.names)
                elif isinstance(child, ast.ImportFrom) and child.module:
                    found.update(part if (part := f"{child.module}.{alias.name}") in MODULES else child.module
                                 for alias in child.names)
            look(child, in_function or isinstance(child, ast.FunctionDef))

    look(ast.parse(MODULES[name].read_text()), False)
    return (found & MODULES.keys()) - {name}


def room(name):
    """A folder of bench/ is a room, and so is each file that lies in bench/ itself, and priors and vq as they are."""
    top, *rest = name.split(".")
    return top if top != "bench" else ".".join(["bench", *rest[:1]])


def arrows(of=lambda name: name, *, inside):
    graph = defaultdict(set)
    for name in MODULES:
        graph[of(name)] |= {of(other) for other in imports(name, inside=inside)} - {of(name)}
    return graph


def floors(graph):
    """Each node's floor: 1 without arrows, else one above the highest it points to. Raises on a circle."""
    found = {}

    def floor(node, path):
        assert node not in path, f"a circle: {' -> '.join([*path[path.index(node):], node])}"
        if node not in found:
            found[node] = 1 + max((floor(other, (*path, node)) for other in graph[node]), default=0)
        return found[node]

    for node in list(graph):
        floor(node, ())
    return found


def test_the_house_has_at_most_eight_floors():
    assert max(floors(arrows(room, inside=False)).values()) <= MOST_FLOORS


@pytest.mark.parametrize("inside", [False, True], ids=["when loaded", "in functions too"])
def test_no_file_imports_itself_by_a_circle(inside):
    floors(arrows(inside=inside))


def test_no_room_imports_itself_by_a_circle():
    floors(arrows(room, inside=False))


@pytest.mark.parametrize("above, below", [
    ("metrics", "stages"), ("reporting", "stages"), ("store", "stages"), ("data", "stages"), ("stages", "launch"),
    ("stages", "reporting"), ("metrics", "reporting")])
def test_a_room_does_not_reach_up(above, below):
    inside = {name for name in MODULES if room(name) == f"bench.{above}"}
    assert not {(name, other) for name in inside for other in imports(name, inside=True)
                if room(other) == f"bench.{below}"}


@pytest.mark.parametrize("package, strangers", [("priors", ("bench", "vq")), ("vq", ("bench", "priors"))])
def test_models_know_nothing_of_the_judge(package, strangers):
    inside = [name for name in MODULES if name.split(".")[0] == package]
    assert not {(name, other) for name in inside for other in imports(name, inside=True)
                if other.split(".")[0] in strangers}


def test_reporting_never_imports_torch():
    for name in (name for name in MODULES if room(name) == "bench.reporting"):
        tree = ast.parse(MODULES[name].read_text())
        tops = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import)
                for alias in node.names}
        tops |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                 and node.module}
        assert "torch" not in tops, name


def test_no_file_is_longer_than_one_story():
    lines = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert {name: length for name, length in lines.items() if length > MOST_LINES} == {}


def test_no_class_does_everything():
    classes = {f"{name}.{node.name}": sum(isinstance(part, ast.FunctionDef) for part in node.body)
               for name, path in MODULES.items() for node in ast.walk(ast.parse(path.read_text()))
               if isinstance(node, ast.ClassDef)}
    assert {name: count for name, count in classes.items() if count > MOST_METHODS} == {}


if __name__ == "__main__":
    plan = floors(arrows(room, inside=False))
    for number in sorted(set(plan.values()), reverse=True):
        print(number, *sorted(name for name in plan if plan[name] == number))
