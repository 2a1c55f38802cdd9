"""What features must be before any metric looks at them: never a silent number from bad input."""

from __future__ import annotations

import numpy as np

from bench.errors import InputError

MAGNITUDES = (1e-12, 1e15)
"""Of the largest feature: float32 holds squared distances between them, neither vanishing nor overflowing."""
BLOCK = 4096   # images read at a time, so that a memory map stays one


def check_features(fake: np.ndarray, real: np.ndarray, *, least: int) -> None:
    """Raise InputError unless both are (n, D) of one float type and one D, finite, with `least` rows or more."""
    for side, features in (("fake", fake), ("real", real)):
        check_one(features, side=side, least=least)
    if fake.shape[1] != real.shape[1]:
        raise InputError(f"fake features have {fake.shape[1]} dimensions and real features {real.shape[1]}; "
                         "both must come from one extractor")
    if fake.dtype != real.dtype:
        raise InputError(f"fake features are {fake.dtype} and real features {real.dtype}; "
                         "both must come from one extractor (float32)")


def check_one(features: np.ndarray, *, side: str, least: int) -> None:
    """Raise InputError unless `features` is (n, D) float32 or float64, finite, with `least` rows or more.

    Also where their magnitude would let squares vanish or overflow (features that are all zero are accepted).
    """
    if not isinstance(features, np.ndarray):
        raise InputError(f"{side} features are a {type(features).__name__}, expected an array (images, dimensions)")
    if features.ndim != 2 or features.shape[1] == 0:
        raise InputError(f"{side} features have shape {features.shape}, expected (images, dimensions)")
    if features.dtype not in (np.float32, np.float64):
        raise InputError(f"{side} features are {features.dtype}, expected float32 (or float64); "
                         "images must pass through an extractor first")
    if len(features) < least:
        raise InputError(f"{len(features)} {side} images; this metric needs at least {least}: draw or provide more")
    bad = num_bad_rows(features)
    if bad:
        raise InputError(f"{bad} of {len(features)} {side} feature rows hold NaN or infinity; "
                         "look at the images or the extractor's weights, and extract again")
    largest = max((float(np.abs(features[i:i + BLOCK]).max()) for i in range(0, len(features), BLOCK)), default=0.0)
    if largest > 0 and not MAGNITUDES[0] <= largest <= MAGNITUDES[1]:
        raise InputError(f"the largest {side} feature is {largest:.3g}, expected {MAGNITUDES[0]:g} to "
                         f"{MAGNITUDES[1]:g} (or all zero): scale the extractor's output")


def num_bad_rows(features: np.ndarray, *, block: int = BLOCK) -> int:
    """How many rows hold NaN or infinity, read in pieces so that a memory map stays one."""
    return sum(int((~np.isfinite(features[i:i + block]).all(axis=1)).sum()) for i in range(0, len(features), block))


def all_rows_equal(features: np.ndarray, *, block: int = BLOCK) -> bool:
    """Whether every image has the same features (all images identical)."""
    return all(bool((features[i:i + block] == features[0]).all()) for i in range(0, len(features), block))
