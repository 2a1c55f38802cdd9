"""Where everything that is kept between runs lies: artefacts, assets, downloads, features of data sets.

    VQ_PRIOR_BENCH_CACHE=/scratch/me/cache python -m bench.run ...
"""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "VQ_PRIOR_BENCH_CACHE"


def cache_root() -> Path:
    """VQ_PRIOR_BENCH_CACHE, or ~/.cache/vq-prior-bench: artefacts, assets and downloads live below it."""
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/vq-prior-bench").expanduser()
