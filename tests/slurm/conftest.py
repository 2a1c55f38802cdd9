"""A real SLURM on this machine for the tests of this folder, brought up once a session and always taken down."""

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

SLURM = Path(__file__).parents[2] / "slurm"


sys.path.insert(0, str(Path(__file__).parent))   # driving.py and the priors of unhurried.py


@pytest.fixture(scope="session")
def slurm_cluster():
    """Folder of a running three-node SLURM, to which SLURM_CONF points. Skips, with the reason, where none starts."""
    with _slurm(nodes=3, cpus=4) as folder:
        yield folder


@pytest.fixture(scope="module")
def slurm_without_accounting():
    """Another one, of one node, without database and sacct."""
    with _slurm(nodes=1, cpus=4, accounting=False) as folder:
        yield folder


@contextmanager
def _slurm(*, nodes, cpus, accounting=True):
    if os.geteuid() != 0:
        pytest.skip(f"slurm/up.sh must be root (uid 0), this is uid {os.geteuid()}")
    needed = ("munged", "slurmctld", "slurmd", *(("slurmdbd", "mariadbd") if accounting else ()))
    missing = [name for name in needed if not shutil.which(name)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (Debian: slurm-wlm munge slurmdbd mariadb-server "
                    "slurm-wlm-mysql-plugin)")
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))   # short: a socket's path may have 107 characters
    before = os.environ.get("SLURM_CONF")
    # Should this process be killed, nobody would run the lines after the yield: a watchman does.
    watch = f"while kill -0 {os.getpid()} 2>/dev/null; do sleep 1; done; {SLURM}/down.sh {folder} && rm -rf {folder}"
    watchman = subprocess.Popen(["bash", "-c", watch], start_new_session=True, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)
    try:
        up = subprocess.run([SLURM / "up.sh", folder, str(nodes), str(cpus)], capture_output=True, text=True,
                            timeout=600, env={**os.environ, "ACCOUNTING": str(int(accounting))})
        if up.returncode != 0:
            pytest.skip(f"SLURM did not start here: {up.stderr.strip()}")
        os.environ["SLURM_CONF"] = str(folder / "etc" / "slurm.conf")
        yield folder
    finally:
        down = subprocess.run([SLURM / "down.sh", folder], capture_output=True, text=True, timeout=300)
        os.environ.pop("SLURM_CONF", None) if before is None else os.environ.__setitem__("SLURM_CONF", before)
        watchman.kill()
        watchman.wait()
        if down.returncode == 0:
            shutil.rmtree(folder, ignore_errors=True)
