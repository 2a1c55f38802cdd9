"""What the author of a plug-in runs: does my prior, tokenizer, data set or metric keep its contract?

    from bench.testing import check_prior
    print(check_prior("my_package.prior:Mine"))   # raises CheckFailed, which names every fault and what was expected

    python -m bench.testing prior=my_package.prior:Mine     # the same from the command line

A class is built at a tiny size and trained for a moment; an instance is checked as it is. CPU, seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.testing.checks import Report, check_dataset, check_metric, check_prior, check_tokenizer
    from bench.testing.contracts import CheckFailed

__all__ = ["CheckFailed", "Report", "check_dataset", "check_metric", "check_prior", "check_tokenizer"]


def __getattr__(name: str) -> Any:
    """Torch is imported once something is checked, so that the command line refuses wrong input at once."""
    if name not in __all__:
        raise AttributeError(f"module 'bench.testing' has no attribute '{name}'")
    from bench.testing import checks
    return getattr(checks, name)
