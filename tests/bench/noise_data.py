"""A data set of noise that keeps the contract, and ways to break it in one place, for tests of check_dataset."""

import numpy as np
import pytest

from bench import testing
from bench.config import DatasetConfig
from bench.data.arrays import ArrayImages
from bench.data.base import Splits
from bench.data.splits import check_options, fingerprint

SMALL = DatasetConfig(name="noise", resolution=8, max_train=12, max_validation=6)


class Noise:
    """Twenty images of noise to train on and ten to validate."""

    wrap = ArrayImages

    def check(self, config):
        check_options(config, own_split=True, takes_path=False)

    def open(self, config):
        self.check(config)
        pixels = np.random.default_rng(0).integers(0, 256, (30, 3, config.resolution, config.resolution), np.uint8)
        train, held_out = pixels[:20][:config.max_train], pixels[20:][:config.max_validation]
        return Splits(self.wrap(train), self.wrap(held_out), fingerprint(config, "noise"))


def reading(read):
    """Noise whose splits give `read(array, indices)`."""
    class Wrapped(ArrayImages):
        def images(self, indices):
            return read(self.array, indices)

    class Data(Noise):
        wrap = Wrapped
    return Data()


def opening(change):
    """Noise that opens as `change(splits, config)`."""
    class Data(Noise):
        def open(self, config):
            return change(super().open(config), config)
    return Data()


def faults_of(dataset, config=SMALL):
    with pytest.raises(testing.CheckFailed) as caught:
        testing.check_dataset(dataset, config=config)
    return caught.value.report.faults


def only_fault_of(dataset, config=SMALL):
    faults = faults_of(dataset, config)
    assert len(faults) == 1, faults
    return faults[0]


def report_of(dataset, config=SMALL):
    return testing.check_dataset(dataset, config=config)
