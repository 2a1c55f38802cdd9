"""A prior from outside that takes its time until told to hurry, so that tests can hit its jobs while they work.

UNHURRIED is a folder: every training step and every drawn chunk leaves a line in its `log`, and takes a while longer
as long as there is no file `hurry-training` (or `hurry-sampling`) in it. Neither changes what comes out.
A file `fail` makes training raise, a file `die` kills its process; a file `stuck` has the scheduler's warning reach
sampling before its first chunk, every time.
"""

import os
import signal
import time
from pathlib import Path

from priors.absorbing import AbsorbingDiffusion


class Doomed(AbsorbingDiffusion):
    """It always fails, beside others in a sweep."""

    def training_loss(self, tokens, *, draws):
        raise RuntimeError("doomed")


class Unhurried(AbsorbingDiffusion):
    """Absorbing diffusion, slowly."""

    def training_loss(self, tokens, *, draws):
        _linger("training", 1.0)
        return super().training_loss(tokens, draws=draws)

    def sample(self, num, *, sampler, known=None, draws):
        _linger("sampling", 10.0)
        return super().sample(num, sampler=sampler, known=known, draws=draws)


def _linger(what: str, seconds: float) -> None:
    if "UNHURRIED" not in os.environ:
        return
    folder = Path(os.environ["UNHURRIED"])
    with open(folder / "log", "a") as log:
        log.write(f"{what} {os.getpid()} {os.environ.get('SLURM_ARRAY_TASK_ID', '-')} {time.time():.2f}\n")
    if (folder / "fail").exists():
        raise RuntimeError("told to fail")
    if (folder / "die").exists():
        os.kill(os.getpid(), 9)
    if (folder / "stuck").exists() and what == "sampling":
        os.kill(os.getpid(), signal.SIGUSR2)
    end = time.monotonic() + seconds
    while not (folder / f"hurry-{what}").exists() and time.monotonic() < end:
        time.sleep(0.05)
