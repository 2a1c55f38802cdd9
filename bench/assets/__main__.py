"""Have assets verified in the cache before they are needed, say on a machine that has a network.

    python -m bench.assets fetch [inception lpips-alex cifar10 ...]
"""

from __future__ import annotations

import sys

from bench.assets.cache import asset_folder
from bench.assets.catalogue import ASSETS
from bench.errors import InputError


def main(arguments: list[str]) -> int:
    """fetch [NAME ...]: have these assets (all of them) verified in the cache, and say where."""
    if not arguments or arguments[0] != "fetch":
        print(f"usage: python -m bench.assets fetch [{' '.join(ASSETS)}]", file=sys.stderr)
        return InputError.exit_code
    try:
        for name in arguments[1:] or ASSETS:
            print(f"{name}: {asset_folder(name)}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
