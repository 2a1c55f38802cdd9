"""What the command lines share: help on request, and errors as one line and an exit code, never as a traceback.

    def main(arguments=None):
        return run_command(arguments, doc=__doc__, work=lambda given: ...)

Exit codes: 0 done, 1 something failed while working (what was finished is kept), 2 the input was wrong, 130 Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.text import Text

from bench.errors import BenchError, InputError
from bench.printable import clean
from bench.shadows import check_shadows

INTERRUPTED = 130   # 128 + SIGINT, as shells have it


def run_command(arguments: Sequence[str] | None, *, doc: str | None, work: Callable[[list[str]], int],
                kept: str = "", needs_arguments: bool = False) -> int:
    """The exit code of `work` on the arguments (default: those of the process), or of what stopped it.

    doc: printed on `help`, and without arguments where they are needed.
    kept: what to say after an interruption or a failure about what is left of the work.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        check_shadows()
    except InputError as error:
        _say("error: ", str(error))
        return error.exit_code
    if given[:1] in (["-h"], ["--help"], ["help"]) or needs_arguments and not given:
        print(doc)
        return 0
    try:
        return work(given)
    except InputError as error:
        _say("error: ", str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _say("interrupted", f"; {kept}" if kept else "")
        return INTERRUPTED
    except (BenchError, OSError) as error:
        _say("failed: ", f"{error}\n{kept}" if kept else str(error))
        return BenchError.exit_code


def _say(what: str, detail: str) -> None:
    """On standard error; square brackets in the detail are text, not markup."""
    Console(stderr=True).print(Text.assemble((what, "bold red"), clean(detail)), highlight=False, soft_wrap=True)
