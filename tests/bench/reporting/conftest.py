"""The synthetic records of this folder, for every test in it."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def synthetic():
    """The module synthetic_records.py: write_demo, write_troubled, damage, write_many ..."""
    path = Path(__file__).with_name("synthetic_records.py")
    spec = importlib.util.spec_from_file_location("synthetic_records", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["synthetic_records"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def demo_results(synthetic, tmp_path_factory):
    """One data set, one protocol, three sampling seeds, with pictures. Read only."""
    root = tmp_path_factory.mktemp("demo_results")
    synthetic.write_demo(root, seeds=(0, 1, 2))
    return root


@pytest.fixture(scope="session")
def troubled_results(synthetic, tmp_path_factory):
    """The demo with one seed, two protocols, failed, unsupported, partial and missing runs. Read only."""
    root = tmp_path_factory.mktemp("troubled_results")
    synthetic.write_demo(root, media=False)
    synthetic.write_demo(root, protocol="small", media=False)
    synthetic.write_troubled(root)
    return root
