"""scikit-learn's digits: 1,797 real 8x8 grey images, inside the package; for tests and first steps."""

from __future__ import annotations

import hashlib
from functools import partial

import numpy as np

from bench.config import DatasetConfig
from bench.data.base import Splits
from bench.data.labels import Labels
from bench.data.splits import ResizedImages, capped, check_options, fingerprint, split_by_hash


class Digits:
    """Grey repeated to RGB, 0..16 stretched to 0..255, enlarged to `resolution`."""

    def check(self, config: DatasetConfig) -> None:
        check_options(config, takes_path=False)

    def open(self, config: DatasetConfig) -> Splits:
        self.check(config)
        from sklearn.datasets import load_digits

        digits = load_digits()
        grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)   # (1797, 8, 8)
        pixels = np.repeat(grey[..., None], 3, axis=-1)
        train, validation = split_by_hash([str(i) for i in range(len(pixels))], config.validation_fraction)

        def images(indices: list[int], cap: int | None) -> ResizedImages:
            return ResizedImages(pixels[capped(indices, cap)], resolution=config.resolution, resize=config.resize)

        return Splits(images(train, config.max_train), images(validation, config.max_validation),
                      fingerprint(config, hashlib.sha256(pixels.tobytes()).hexdigest()),
                      {"split": f"{config.validation_fraction:g} of the images by the hash of their index"},
                      labels=partial(Labels, tuple("0123456789"), digits.target[capped(train, config.max_train)],
                                     digits.target[capped(validation, config.max_validation)]))
