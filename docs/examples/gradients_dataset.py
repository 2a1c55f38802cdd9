"""A data set of one's own: 400 grey ramps of every direction, computed; half of them validate.

    python -m bench.run dataset=gradients_dataset:Gradients dataset.resolution=16 preset=smoke prior=unigram
"""
import hashlib

import numpy as np

from bench.config import DatasetConfig
from bench.data.arrays import ArrayImages
from bench.data.base import Splits
from bench.data.splits import check_options, fingerprint

NUM_IMAGES = 400


class Gradients:
    def check(self, config: DatasetConfig) -> None:   # quickly, without torch: is everything there?
        check_options(config, own_split=True, takes_path=False)

    def open(self, config: DatasetConfig) -> Splits:
        self.check(config)
        angles = np.linspace(0, 2 * np.pi, NUM_IMAGES, endpoint=False)[:, None, None]
        y, x = np.mgrid[-1:1:config.resolution * 1j, -1:1:config.resolution * 1j]
        ramps = np.rint(127.5 * (1 + (np.cos(angles) * x + np.sin(angles) * y) / 2**0.5)).astype(np.uint8)
        images = np.repeat(ramps[:, None], 3, axis=1)   # (n, 3, H, W)
        content = hashlib.sha256(images.tobytes()).hexdigest()
        return Splits(ArrayImages(images[0::2][:config.max_train]), ArrayImages(images[1::2][:config.max_validation]),
                      fingerprint(config, content), {"split": "every other angle"})
