"""Which process is building an artefact: a lease file with a heartbeat, held by one process, broken once that is dead.

    with lease(folder / "key.lease") as mine:     # False: somebody alive holds it
        ...
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.store.files import clear, read_object

HEARTBEAT_SECONDS = 2.0
LEASE_SECONDS = 30.0
"""A lease whose heartbeat is older belongs to the dead; on the holder's own host a dead pid says so at once."""


@contextmanager
def lease(path: Path) -> Iterator[bool]:
    """Hold the lease, with a heartbeat, if nobody alive does; yields whether it is ours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    token = uuid.uuid4().hex
    if not _take(path, token):
        yield False
        return
    stop = threading.Event()
    beat = threading.Thread(target=_heartbeat, args=(path, token, stop), daemon=True)
    beat.start()
    try:
        yield True
    finally:
        stop.set()
        beat.join()
        if _holder(path).get("token") == token:
            path.unlink(missing_ok=True)


def is_alive(path: Path) -> bool:
    """Whether its holder beat within LEASE_SECONDS of now, by this machine's clock, and is not a dead process here."""
    holder = _holder(path)
    host, pid = holder.get("host"), holder.get("pid")
    if not isinstance(host, str) or not isinstance(pid, int) or pid <= 0:
        return False
    if host == socket.gethostname() and not _pid_exists(pid):
        return False
    return -LEASE_SECONDS < _age(path) < LEASE_SECONDS


def _take(path: Path, token: str) -> bool:
    """Create the lease file; break it first if its holder is dead."""
    if os.path.lexists(path) and not is_alive(path):
        _break(path)
    mine = path.with_name(f".{path.name}.{token}")
    mine.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "token": token}))
    try:
        os.link(mine, path)   # appears whole, and only if there is none
        return True
    except FileExistsError:
        return False
    finally:
        mine.unlink(missing_ok=True)


def _break(path: Path) -> None:
    """Remove a dead lease. Of several processes that try, only one succeeds, and it checks again before removing."""
    breaker = path.with_name(f"{path.name}.break")
    try:
        os.close(os.open(breaker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        if not 0 <= _age(breaker) <= LEASE_SECONDS:   # left behind, or its clock is not ours
            clear(breaker)
        time.sleep(0.05)
        return
    try:
        if not is_alive(path):
            clear(path)
    finally:
        breaker.unlink(missing_ok=True)


def _holder(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except (OSError, ValueError):
        return {}


def _pid_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    try:   # a zombie holds nothing
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return True


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return float("inf")


def _heartbeat(path: Path, token: str, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        if _holder(path).get("token") != token:
            return   # taken over: we were thought dead
        try:
            os.utime(path)
        except OSError:
            return
