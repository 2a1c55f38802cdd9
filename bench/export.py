"""Samples and reference statistics of a run, as files that other programs read.

    python -m bench.export samples=samples.npz prior=absorbing preset=demo     # arr_0: (n, H, W, 3) uint8, as in ADM
    python -m bench.export samples=pictures/ prior=absorbing preset=demo       # 00000000.png and so on, lossless
    python -m bench.export statistics=train.npz preset=demo                    # mu, sigma of the protocol's reference
    python -m bench.export statistics=mine.npz of=samples prior=absorbing preset=demo

The rest is what bench.run takes, for one run; whatever is missing is built. `protocol.reference=train.npz` reads
statistics again, and pytorch-fid, clean-fid and ADM read them too. A file that is there is replaced, a folder is
completed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench.command import run_command
from bench.compose import expand
from bench.config import RunSpec
from bench.errors import InputError
from bench.needs import LAUNCHED, assets_of_models, check_present, prepare, refuse
from bench.printable import cell

OWN_KEYS = ("samples", "statistics", "of")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command(arguments, doc=__doc__, work=export, needs_arguments=True)


def export(arguments: list[str]) -> int:
    """Write what `samples=` and `statistics=` name."""
    wanted, rest = split_off(arguments)
    refuse(rest, (*LAUNCHED, "speed.", "metrics.names"))
    console = Console(stderr=True)

    def say(text: str) -> None:
        console.print(cell(text), soft_wrap=True)
    runs = expand(rest, announce=say)
    if len(runs) != 1 or runs[0].unsupported:
        raise InputError(f"{len(runs)} runs are named: expected one that can be had. Give every key one value.")
    spec = runs[0].spec
    check_present([spec], announce=say)
    prepare([spec], assets_of_models([spec], features="statistics" in wanted))
    for key, path in wanted.items():
        if key != "of":
            say(f"{path}: {_write(key, path, wanted.get('of', 'reference'), spec)}")
    return 0


def split_off(arguments: Sequence[str]) -> tuple[dict[str, Path | str], list[str]]:
    """The keys of this command with their values, and what is left for bench.run.  Raises InputError."""
    own = [argument.partition("=")[::2] for argument in arguments if argument.partition("=")[0] in OWN_KEYS]
    names = [key for key, _ in own]
    wanted: dict[str, Path | str] = {key: value if key == "of" else Path(value).expanduser() for key, value in own}
    if len(set(names)) < len(names) or not {"samples", "statistics"} & set(names) or not all(v for _, v in own):
        raise InputError(f"{' '.join(arguments)}: expected samples=PATH, statistics=PATH.npz or both, each once.")
    if wanted.get("of", "samples") not in ("samples", "reference") or "of" in wanted and "statistics" not in wanted:
        raise InputError(f"of={wanted['of']}: expected of=samples or of=reference, beside statistics=.")
    statistics = wanted.get("statistics")
    if isinstance(statistics, Path) and statistics.suffix != ".npz":
        raise InputError(f"statistics={statistics}: expected a name that ends in .npz.")
    for path in wanted.values():
        if isinstance(path, Path) and path.suffix == ".npz" and not path.parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}. Make it first.")
    return wanted, [argument for argument in arguments if argument.partition("=")[0] not in OWN_KEYS]


def _write(key: str, path: Path | str, of: Path | str, spec: RunSpec) -> str:
    """Write one file or folder; returns what it holds, in words."""
    from bench.metrics.exchange import export_npz, export_png, write_statistics
    from bench.metrics.features import resolve_extractor
    from bench.stages.base import begun
    from bench.stages.features import JUDGED_FEATURES, REAL_FEATURES, judged_images

    path, run = Path(path), begun(spec)
    if key == "statistics":
        features = run.open(JUDGED_FEATURES if of == "samples" else REAL_FEATURES)
        write_statistics(path, features, resolve_extractor(spec.protocol.extractor))
        return f"mu and sigma of {len(features):,} images, {features.shape[1]} features of {spec.protocol.extractor}"
    images = judged_images(run)
    if path.suffix == ".npz":
        export_npz(path, images)
        return f"{len(images):,} images as arr_0"
    return f"{len(images):,} images, {export_png(path, images):,} of them written now"


if __name__ == "__main__":
    sys.exit(main())
