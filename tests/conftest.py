"""Shared by all tests: few threads, and a cache of one's own that borrows the downloaded assets."""

import json
import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("VQ_PRIOR_BENCH_LINEAR", "onednn")   # the same bits in every cache, however busy the machine


def pytest_configure(config):
    import torch
    torch.set_num_threads(1)


EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


@pytest.fixture(autouse=True)
def forgotten_examples():
    """An example that one test imports is not the module of that name that the next one writes."""
    yield
    for name in [path.stem for path in EXAMPLES.glob("*.py")]:
        sys.modules.pop(name, None)


@pytest.fixture(scope="session")
def transformers():
    """The package, which the extra `text` holds."""
    from bench.assets.torchvision_compat import ensure_torchvision
    ensure_torchvision()   # which it imports
    return pytest.importorskip("transformers", reason="transformers is not installed (the extra `text`)")


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """A fresh cache folder whose assets and data sets are those of the machine's cache."""
    from bench.store.cache import cache_root
    shared, own = cache_root(), tmp_path_factory.mktemp("cache")
    for name in ("assets", "datasets", "downloads"):
        (shared / name).mkdir(parents=True, exist_ok=True)
        (own / name).symlink_to(shared / name)
    return own


@pytest.fixture
def own_cache(cache, monkeypatch) -> Path:
    """That folder as VQ_PRIOR_BENCH_CACHE of this test and of the processes it starts."""
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(cache))
    return cache


@pytest.fixture
def by_hand():
    """Changes a JSON file of ours as a person would who means it: without the line that tells its sha256."""
    def change(path: Path, edit) -> None:
        content = json.loads(path.read_text())
        content.pop("sha256", None)
        edit(content)
        path.write_text(json.dumps(content))
    return change


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x01
    path.write_bytes(content)


DAMAGES = {"a flipped bit": _flip,
           "a lost end": lambda path: path.write_bytes(path.read_bytes()[:-7]),
           "no content": lambda path: path.write_bytes(b""),
           "no file": lambda path: path.unlink(),
           "other text": lambda path: path.write_text("{not JSON"),
           "another type": lambda path: path.write_text('["a list"]')}


@pytest.fixture(params=DAMAGES)
def damage(request):
    """One kind of damage at a time: call it with the file."""
    return DAMAGES[request.param]
