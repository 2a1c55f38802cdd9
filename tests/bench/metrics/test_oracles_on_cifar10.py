"""Every metric of features against an independent implementation, on the same Inception features of CIFAR-10.

The oracles are other people's packages (torch-fidelity, prdc, scikit-learn) or definitions written out beside the tests
of each metric. docs/measures.md has the table.
"""

import importlib.util
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.network]
K = 5


def beside(name):
    """A test module of this folder, for the definition that it holds."""
    spec = importlib.util.spec_from_file_location(f"oracle_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_jpeg(images):
    found = []
    for image in images.transpose(0, 2, 3, 1):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "JPEG", quality=30)
        found.append(np.asarray(Image.open(stream)).transpose(2, 0, 1))
    return np.stack(found)


@pytest.fixture(scope="module")
def cifar():
    """train: 120 training images; held: 60 held-out ones; fake: 60 others of those as JPEG of low quality."""
    from bench.compose import compose
    from bench.data.arrays import ArrayImages
    from bench.metrics.features import DEFAULT, extract, resolve_extractor
    from bench.stages.base import Run

    splits = Run(compose(["preset=demo", "dataset=cifar10", "prior=unigram"])).splits
    extractor = resolve_extractor(DEFAULT)
    held = splits.validation.images(range(120))
    sides = {"train": splits.train.images(range(120)), "held": held[:60], "fake": as_jpeg(held[60:])}
    return SimpleNamespace(**{name: extract(ArrayImages(images), extractor) for name, images in sides.items()})


def test_fid_is_torch_fidelity_s(cifar):
    from bench.metrics.frechet import fid, fid_torch_fidelity

    assert fid(cifar.fake, cifar.train).value == pytest.approx(fid_torch_fidelity(cifar.fake, cifar.train), rel=1e-5)


def test_kid_is_torch_fidelity_s(cifar):
    from torch_fidelity.metric_kid import kid_features_to_metric

    from bench.metrics.kernel import kid

    sides = (cifar.fake.astype("f8"), cifar.train[:60].astype("f8"))
    theirs = kid_features_to_metric(*map(torch.from_numpy, sides), kid_subsets=1, kid_subset_size=60, verbose=False)
    assert kid(*sides).value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)


def test_precision_recall_density_and_coverage_are_those_of_prdc_and_torch_fidelity(cifar):
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    from bench.metrics.prdc import prdc, prdc_reference

    ours = prdc(cifar.fake, cifar.train, k=K).values()
    assert ours == pytest.approx(prdc_reference(cifar.fake, cifar.train, k=K).values(), abs=1e-12)
    sides = (torch.from_numpy(np.asarray(x, "f8")) for x in (cifar.fake, cifar.train))
    theirs = calculate_precision_recall_full(*sides, neighborhood=K)
    assert (ours["precision"], ours["recall"]) == pytest.approx(theirs, abs=1e-6)   # float32 means of theirs


def test_clipped_density_and_coverage_follow_their_definitions(cifar):
    from bench.metrics.clipped import clipped

    found = clipped(cifar.fake, cifar.train, k=K)
    expected = beside("test_clipped_density_coverage").by_definition(cifar.fake, cifar.train, K)
    assert (found.relative, found.filled) == pytest.approx(expected, abs=1e-12)


def test_mind_is_the_mean_of_sorted_differences(cifar):
    from bench.metrics.mind import mind, unit_vectors

    expected = beside("test_mind").by_sorting(cifar.fake, cifar.held, unit_vectors(1000, 2048, seed=2020).numpy())
    assert mind(cifar.fake, cifar.held).value == pytest.approx(expected, rel=1e-4)


def test_the_kernel_of_cmmd_is_scikit_learn_s(cifar):
    from sklearn.metrics.pairwise import rbf_kernel

    from bench.metrics.cmmd import cmmd

    def mean(a, b):
        return rbf_kernel(a.astype("f8"), b.astype("f8"), gamma=1 / (2 * 10.0**2)).mean()

    x, y = cifar.fake, cifar.train
    assert cmmd(x, y) == pytest.approx(1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y)), rel=1e-6)


def test_fld_follows_the_published_algorithm(cifar):
    from bench.metrics.feature_likelihood import fld

    found = fld(cifar.fake, cifar.train, cifar.held)
    value, gap = beside("test_generalisation").fld_by_autograd(cifar.fake, cifar.train, cifar.held)
    assert (found.value, found.gap) == pytest.approx((value, gap), rel=1e-2, abs=0.02)


def test_authenticity_and_c_t_follow_their_definitions(cifar):
    from bench.metrics.copying import authenticity, copying_score

    oracle = beside("test_generalisation")
    assert authenticity(cifar.fake, cifar.train).share == pytest.approx(oracle.authentic_share(cifar.fake, cifar.train))
    assert copying_score(cifar.fake, cifar.train, cifar.held) == pytest.approx(
        oracle.c_t(cifar.fake, cifar.train, cifar.held), abs=1e-4)
