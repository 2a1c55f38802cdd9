"""A real SLURM on this machine for the tests of this folder, brought up once a session and always taken down."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

SLURM = Path(__file__).parents[2] / "slurm"


@pytest.fixture(scope="session")
def slurm_cluster():
    """Folder of a running three-node SLURM, to which SLURM_CONF points. Skips, with the reason, where none starts."""
    if os.geteuid() != 0:
        pytest.skip(f"slurm/up.sh must be root (uid 0), this is uid {os.geteuid()}")
    missing = [name for name in ("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd") if not shutil.which(name)]
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
        up = subprocess.run([SLURM / "up.sh", folder, "3", "4"], capture_output=True, text=True, timeout=600)
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
