"""What SLURM's controller reports about jobs, through squeue and scontrol only: accounting may be hidden. Torch-free.

    if "12" not in (active_jobs() or {}): ...

Every answer is optional: the controller may be down or absent, and it forgets jobs minutes after they end.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import subprocess
import time

PATIENCE_SECONDS = 75.0
"""How long a job that must go back into the queue waits for a controller that does not answer; limits are 90 s off."""


def active_jobs(states: str = "PENDING,RUNNING,SUSPENDED,CONFIGURING,COMPLETING") -> set[str] | None:
    """Ids of this user's jobs in the queue, arrays by their first number; None if the controller does not answer."""
    command = ["squeue", "--noheader", f"--user={getpass.getuser()}", f"--states={states}", "--format=%F"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return set(answer.stdout.split()) if answer.returncode == 0 else None


def most_tasks() -> int | None:
    """The most tasks an array job of this cluster may have; None if the controller does not answer."""
    try:
        answer = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=20)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", answer.stdout, re.MULTILINE)
    return int(found[1]) if found else None


def is_still_wanted() -> bool:
    """Whether SLURM lists the job that asks as running; yes if there is no answer."""
    return _of_this_job("%T") in ("RUNNING", "PREEMPTED", "SUSPENDED", None)


def seconds_used() -> float | None:
    """How long the job that asks has run since it last started; None if there is no answer."""
    clock = re.fullmatch(r"(?:(\d+)-)?((?:\d+:)*\d+)", _of_this_job("%M") or "")   # [D-][[H:]M:]S
    if clock is None:
        return None
    parts = [int(part) for part in reversed(clock[2].split(":"))]
    return 86_400.0 * int(clock[1] or 0) + sum(part * 60**power for power, part in enumerate(parts))


def was_cancelled(job: str) -> bool:
    """Whether somebody cancelled it, as far as the controller remembers; a job whose input was lost does not count."""
    facts = _facts(job)
    return "JobState=CANCELLED" in facts and "DependencyNeverSatisfied" not in facts


def ended_at_limit(job: str) -> bool:
    """Whether its time limit ended it before it could save itself, as far as the controller remembers."""
    return "JobState=TIMEOUT" in _facts(job)


def _of_this_job(field: str) -> str | None:
    """A field of squeue about the job that asks, until the controller answers; None after PATIENCE_SECONDS."""
    command = ["squeue", "--noheader", f"--format={field}", f"--jobs={os.environ['SLURM_JOB_ID']}"]
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode == 0:
            return answer.stdout.strip()
        time.sleep(2.0)
    return None


def _facts(job: str) -> str:
    """All that the controller remembers of a job; "" for a local one."""
    if not job or shutil.which("scontrol") is None:
        return ""
    return subprocess.run(["scontrol", "--oneliner", "show", "job", job], capture_output=True, text=True).stdout
