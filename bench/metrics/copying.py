"""Two tests of copying in feature space: authenticity (Alaa et al. 2022) and C_T (Meehan et al. 2020).

    authenticity(fake, train).share               # of samples that are no copies, by its definition below
    copying_score(fake, train, held_out)          # C_T: z-score, far below 0 where samples hug the training set

A sample is authentic if its nearest training image has another training image nearer than the sample (arXiv
2102.08921).  C_T compares distances to the training set of samples and held-out images by a Mann-Whitney test in each
cell of the feature space (arXiv 2004.05675), weighted by held-out images; here as in the evaluations of Jiralerspong et
al. 2023 and Stein et al. 2023: the first 64 principal components, three k-means cells, cells with more than 20 samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import mannwhitneyu
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from bench.errors import InputError
from bench.metrics.checks import check_features, check_one
from bench.metrics.intervals import wilson_interval
from bench.metrics.pairwise import Space, nearest_points

BLOCK = 2048
NUM_COMPONENTS, NUM_CELLS, LEAST_SAMPLES = 64, 3, 20
LEAST_TRAINING = 3   # images: one a cell, and for authenticity one beside the nearest
CANDIDATES = 8   # nearest by float32 products, which are compared exactly


class TooFew(InputError):
    """The cells of C_T hold too few images to tell anything."""


@dataclass(frozen=True)
class Authenticity:
    """share of authentic samples.  interval: 95%, over new samples of this model, the training set as it is."""

    share: float
    interval: tuple[float, float]
    n: int
    num_train: int


def authenticity(fake: np.ndarray, train: np.ndarray) -> Authenticity:
    """Of (n, D) fake against (m, D) training features, in blocks.

    Raises InputError for NaN, unequal dimensions or types, and fewer than three training images.
    """
    check_features(fake, train, least=1)
    check_features(train, train, least=LEAST_TRAINING)
    space = Space.of(*(np.ascontiguousarray(x, dtype=np.float32) for x in (fake, train)), block=BLOCK)
    distances, indices = nearest_of(space, 0, 1)
    asked = np.unique(indices)
    within = np.full(len(train), np.inf)
    within[asked] = nearest_others(space, 1, asked)
    share = float((within[indices] < distances).mean())
    return Authenticity(share, wilson_interval(share, len(fake)), len(fake), len(train))


def nearest_of(space: Space, left: int, right: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) distance from each row of one side to the nearest of the other, exact, and (n,) its index."""
    n = len(space.sides[left])
    least, nearest = np.full(n, np.inf), np.zeros(n, np.int64)
    for rows in space.slices(left):
        for columns in space.slices(right):
            squares, _ = space.squares(left, right, rows, columns)              # float64
            place = squares.argmin(axis=1)
            found = squares[np.arange(len(place)), place]
            better = found < least[rows]
            least[rows][better], nearest[rows][better] = found[better], place[better] + columns.start
    return space.distances(left, right, np.arange(n), nearest), nearest


def nearest_others(space: Space, side: int, rows: np.ndarray) -> np.ndarray:
    """Exact distance of some rows of a side to its nearest other row."""
    _, indices, _ = nearest_points(space, side, keep=CANDIDATES)
    candidates = indices[rows]
    exact = space.distances(side, side, np.repeat(rows, candidates.shape[1]), candidates.ravel())
    return exact.reshape(candidates.shape).min(axis=1)


def copying_score(fake: np.ndarray, train: np.ndarray, held_out: np.ndarray, *, seed: int = 0) -> float:
    """C_T of (n, D) fake features, a model of (m, D) training images, against (h, D) held-out ones.

    About standard normal where samples are as far from the training set as held-out images are.
    seed: of the principal components and cells.
    Raises TooFew where a cell lacks training or held-out images, or none has more than 20 samples, and InputError for
    NaN, unequal dimensions or types, and fewer than 21 samples, three training or two held-out images.
    """
    check_features(fake, train, least=LEAST_TRAINING)
    check_one(fake, side="fake", least=LEAST_SAMPLES + 1)
    check_features(held_out, train, least=2)
    if train.shape[1] > NUM_COMPONENTS:
        components = PCA(n_components=min(NUM_COMPONENTS, len(train)), random_state=seed).fit(train)
        fake, train, held_out = (components.transform(x) for x in (fake, train, held_out))
    cells = KMeans(n_clusters=NUM_CELLS, n_init=10, random_state=seed).fit(train)
    of_fake, of_train, of_held_out = (cells.predict(x) for x in (fake, train, held_out))
    weights, scores = [], []
    for cell in range(NUM_CELLS):
        here = tuple(x[labels == cell] for x, labels in ((fake, of_fake), (train, of_train), (held_out, of_held_out)))
        if not len(here[1]) or not len(here[2]):
            raise TooFew(f"a cell of C_T has {len(here[1])} training and {len(here[2])} held-out images, expected "
                         "some of both: give more held-out images")
        if len(here[0]) > LEAST_SAMPLES:
            weights.append(len(here[2]) / len(held_out))
            scores.append(rank_score(*here))
    if not weights:
        raise TooFew(f"no cell of C_T has more than {LEAST_SAMPLES} of {len(fake)} samples: draw more")
    return float(np.dot(weights, scores) / sum(weights))


def rank_score(fake: np.ndarray, train: np.ndarray, held_out: np.ndarray) -> float:
    """z-score of the Mann-Whitney statistic of both sides' distances to the training set; negative: samples nearer."""
    sides = [np.ascontiguousarray(x, dtype=np.float32) for x in (fake, train, held_out)]
    distances = [nearest_of(Space.of(x, sides[1], block=BLOCK), 0, 1)[0] for x in (sides[0], sides[2])]
    n, m = len(fake), len(held_out)
    statistic = mannwhitneyu(*distances, alternative="less").statistic
    return float((statistic - (n * m / 2 - 0.5)) / math.sqrt(n * m * (n + m + 1) / 12))
