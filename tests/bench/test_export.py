"""Samples and statistics as files of other programs: what the command writes and what it refuses."""

import numpy as np
import pytest
from PIL import Image

from bench import export
from bench.data.arrays import ArrayImages
from bench.metrics.exchange import read_statistics
from bench.stages.base import Run
from bench.stages.features import JUDGED_FEATURES, REAL_FEATURES
from bench.store.store import Artefact

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 3, 8, 8), dtype=np.uint8)
RUN = ["preset=smoke", "dataset=digits", "prior=unigram"]


def stand_in_for(folder):
    """A run whose samples and features are there."""
    def begin(spec):
        run = Run(spec)
        run._opened = {JUDGED_FEATURES: IMAGES.reshape(24, -1)[:, :6].astype(np.float32),
                       REAL_FEATURES: IMAGES.reshape(24, -1)[:, 6:12].astype(np.float32)}
        run.used = {"samples": Artefact(folder, {})}
        return run
    return begin


class Pixels:
    name, weights, resize = "inception-v3-compat", "none", "none"


@pytest.fixture(autouse=True)
def stand_in(tmp_path, monkeypatch):
    np.save(tmp_path / "images.npy", IMAGES)
    monkeypatch.setattr("bench.stages.base.begun", stand_in_for(tmp_path))
    monkeypatch.setattr("bench.metrics.features.resolve_extractor", lambda name: Pixels())
    monkeypatch.setattr("bench.needs.have_assets", lambda names: None)


def test_samples_are_written_as_npz_and_as_pictures(tmp_path):
    assert export.main([f"samples={tmp_path / 'out.npz'}", *RUN]) == 0
    assert export.main([f"samples={tmp_path / 'pictures'}", *RUN]) == 0
    stored = np.load(tmp_path / "out.npz")["arr_0"].transpose(0, 3, 1, 2)
    pictures = [np.asarray(Image.open(path)).transpose(2, 0, 1) for path in sorted((tmp_path / "pictures").iterdir())]
    assert np.array_equal(stored, IMAGES) and np.array_equal(pictures, ArrayImages(IMAGES).images(range(24)))


@pytest.mark.parametrize(("of", "first"), [([], 6), (["of=reference"], 6), (["of=samples"], 0)])
def test_statistics_are_of_the_reference_or_of_samples(tmp_path, of, first):
    assert export.main([f"statistics={tmp_path / 'out.npz'}", *of, *RUN]) == 0
    saved = read_statistics(tmp_path / "out.npz")
    assert saved.n == 24 and saved.extractor == "inception-v3-compat"
    np.testing.assert_allclose(saved.mu, IMAGES.reshape(24, -1)[:, first:first + 6].mean(axis=0))


@pytest.mark.parametrize(("arguments", "message"), [
    (RUN, "expected samples=PATH"), (["samples=", *RUN], "expected samples=PATH"),
    (["statistics=out.npy", *RUN], "ends in .npz"), (["samples=no/such/out.npz", *RUN], "there is no folder no/such"),
    (["samples=out.npz", "of=samples", *RUN], "beside statistics="),
    (["samples=out.npz", "status=true", *RUN], "status=true: a key of bench.run that is not used here"),
    (["samples=out.npz", "launcher=slurm", *RUN], "launcher=slurm: a key of bench.run that is not used here"),
    (["samples=out.npz", "metrics.names=[fid]", *RUN], "is not used here"),
    (["samples=out.npz", *RUN, "sampler.seed=0,1"], "2 runs are named"),
    (["samples=out.npz", "samples=b.npz", *RUN], "each once")])
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, capsys):
    assert export.main(arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_help_is_the_command_s_own(capsys):
    assert export.main([]) == 0 and "bench.export" in capsys.readouterr().out
