"""Every command line, called in this process with the work left out: what reaches the work was accepted.

    code, said = call("run", ["prior=absorbing", "seed=nan"])      # 0 accepted, 1, 2 refused; Fault for a traceback
"""

from __future__ import annotations

import contextlib
import importlib
import io
import signal
import traceback
from collections.abc import Iterator
from unittest import mock

from tests.faults.bed import Fault

SECONDS = 20   # far above what a line takes on a busy machine, far below a hang
MODULES = {"store": "bench.store.__main__", "assets": "bench.assets.__main__"}


class Accepted(BaseException):
    """Work would begin here."""


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Fails, where it stands, what computes longer, and what waits for ten times as long: machines are shared."""
    def late(*_: object) -> None:
        raise AssertionError(f"still at work after {seconds} seconds")

    before = {number: signal.signal(number, late) for number in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(10 * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)


def call(door: str, arguments: list[str], *, also: tuple[str, ...] = ()) -> tuple[int, str]:
    """The exit code and what was said. also: further names whose call is where work begins."""
    import bench.edit
    import bench.encode
    import bench.run  # noqa: F401

    said = io.StringIO()
    stops = [*(f"bench.{name}.launch" for name in ("run", "edit")), "bench.encode.begun", "bench.export._write",
             "bench.speed.measure", "bench.timing.claim_turns.compare_speeds", "bench.stages.base.begun",
             "bench.fid_doctor.examine", "bench.assets.__main__.asset_folder",
             "bench.store.store.Store.artefacts", *also]
    with contextlib.ExitStack() as stack:
        for name in stops:
            stack.enter_context(mock.patch(name, side_effect=Accepted))
        for name in ("needs", "doctor"):
            stack.enter_context(mock.patch(f"bench.{name}.have_assets"))
        stack.enter_context(contextlib.redirect_stdout(said))
        stack.enter_context(contextlib.redirect_stderr(said))
        try:
            with at_most(SECONDS):
                code = importlib.import_module(MODULES.get(door, f"bench.{door}")).main(arguments)
        except Accepted:
            code = 0
        except SystemExit as error:
            raise Fault("a traceback", f"{door} {arguments}: SystemExit {error.code}") from None
        except AssertionError as error:
            kind = "a hang" if "still at work" in str(error) else "a traceback"
            raise Fault(kind, f"{door} {arguments}: {traceback.format_exc(limit=-4)}") from None
        except BaseException:
            raise Fault("a traceback", f"{door} {arguments}: {traceback.format_exc(limit=-6)}") from None
    text = said.getvalue()
    if "Traceback (most recent call last)" in text:
        raise Fault("a traceback", f"{door} {arguments}: {text[-2000:]}")
    return code, text
