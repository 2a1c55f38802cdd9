"""Make faults on purpose and count what became of them.

    python -m tests.faults kills=200 damages=200 surroundings=60 commands=1500 files=500 seed=0
    python -m tests.faults only=kills kills=200 case=17          # that case alone, again
    python -m tests.faults minutes=20                            # stop beginning cases after so long
    python -m tests.faults out=docs/reliability.md               # write the counts down

Exit codes: 0 no fault, 1 faults, 2 wrong arguments.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.faults.bed import Bed, warm_up  # noqa: E402
from tests.faults.campaign import Counts, run_part  # noqa: E402
from tests.faults.damages import Damages  # noqa: E402
from tests.faults.kills import Kills  # noqa: E402

FULL = {"kills": 200, "damages": 200}
PARTS = {"kills": Kills, "damages": Damages}
OTHER = ("seed", "only", "case", "minutes", "out")


def main(arguments: list[str]) -> int:
    given = dict(argument.partition("=")[::2] for argument in arguments)
    if unknown := set(given) - {*FULL, *OTHER}:
        print(f"unknown: {', '.join(sorted(unknown))}. Valid: {', '.join((*FULL, *OTHER))}.\n{__doc__}", file=sys.stderr)
        return 2
    only = given["only"].split(",") if "only" in given else [name for name in FULL if name in given] or list(FULL)
    case = int(given["case"]) if "case" in given else None
    until = time.monotonic() + 60 * float(given.get("minutes", "inf"))
    warm_up()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        say("building what faults are tried on")
        bed = Bed(Path(folder) / "bed")
        found = [run_part(PARTS[name](bed).part(), num=int(given.get(name, FULL[name])), seed=int(given.get("seed", 0)),
                          only=case, until=until, say=say) for name in only]
    for counts in found:
        say(summary(counts))
    return 1 if any(counts.num_faults for counts in found) else 0


def summary(counts: Counts) -> str:
    faults = ", ".join(f"{len(counts.faults.get(kind, ()))} {kind}" for kind in counts.part.faults)
    return f"{counts.part.name}: {counts.cases} cases in {counts.seconds:.0f} s; {faults}; struck {dict(counts.struck)}"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
