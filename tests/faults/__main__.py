"""Make faults on purpose and count what became of them.

    python -m tests.faults kills=200 damages=200 surroundings=60 locked=40 commands=1500 files=500
    python -m tests.faults only=kills kills=200 case=17          # that case alone, again
    python -m tests.faults jobs=2                                # cases of a part by two processes
    python -m tests.faults minutes=20                            # begin no case of a part after so long
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
os.environ.setdefault("VQ_PRIOR_BENCH_LINEAR", "onednn")   # numbers are compared bit by bit

from bench.store.cache import CACHE_VARIABLE  # noqa: E402
from tests.faults.bed import Bed, warm_up  # noqa: E402
from tests.faults.campaign import Counts, run_part  # noqa: E402
from tests.faults.damages import Damages  # noqa: E402
from tests.faults.kills import Kills  # noqa: E402
from tests.faults.lines import Lines  # noqa: E402
from tests.faults.locked import Locked  # noqa: E402
from tests.faults.page import write_page  # noqa: E402
from tests.faults.strangers import Strangers  # noqa: E402
from tests.faults.surroundings import Surroundings  # noqa: E402

PARTS = {"kills": Kills, "damages": Damages, "surroundings": Surroundings, "locked": Locked, "commands": Lines,
         "files": Strangers}
FULL = {"kills": 200, "damages": 200, "surroundings": 60, "locked": 40, "commands": 1500, "files": 500}
IN_PROCESS = ("commands", "files")   # these need nothing that is built
OTHER = ("seed", "only", "case", "minutes", "jobs", "out")


def main(arguments: list[str]) -> int:
    given = dict(argument.partition("=")[::2] for argument in arguments)
    if unknown := set(given) - {*FULL, *OTHER}:
        say(f"unknown: {', '.join(sorted(unknown))}. Valid: {', '.join((*FULL, *OTHER))}.\n{__doc__}")
        return 2
    only = given["only"].split(",") if "only" in given else [name for name in FULL if name in given] or list(FULL)
    case = int(given["case"]) if "case" in given else None
    seconds = 60 * float(given.get("minutes", "inf"))
    began = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
        bed = _bed(Path(folder)) if set(only) - set(IN_PROCESS) else None
        os.environ |= {CACHE_VARIABLE: f"{folder}/cache", "VQ_PRIOR_BENCH_OFFLINE": "1"}
        os.chdir(folder)
        try:
            found = [run_part(PARTS[name](bed).part(), num=int(given.get(name, FULL[name])), only=case, say=say,
                              seed=int(given.get("seed", 0)), until=time.monotonic() + seconds,
                              jobs=int(given.get("jobs", 1))) for name in only]
        finally:
            os.chdir(began)
    for counts in found:
        say(summary(counts))
    if "out" in given:
        write_page(Path(given["out"]), found, arguments)
    return 1 if any(counts.num_faults for counts in found) else 0


def _bed(folder: Path) -> Bed:
    say("building what faults are tried on")
    warm_up()
    return Bed(folder / "bed")


def summary(counts: Counts) -> str:
    faults = ", ".join(f"{len(counts.faults.get(kind, ()))} {kind}" for kind in counts.part.faults)
    return f"{counts.part.name}: {counts.cases} cases in {counts.seconds:.0f} s; {faults}; struck {dict(counts.struck)}"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
