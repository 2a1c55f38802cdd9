"""Ctrl-C in the middle of a training, as a terminal sends it: to the command and to every process it started."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.network   # LPIPS weights
ENDLESS = ["dataset=digits", "preset=smoke", "prior=unigram", "metrics.names=[nll]", "baselines=false",
           "vq.training.steps=1000000"]


def until(condition, what: str):
    end = time.monotonic() + 900
    while time.monotonic() < end:
        if answer := condition():
            return answer
        time.sleep(0.1)
    raise AssertionError(what)


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def heed_ctrl_c():
    """What a terminal's command does from the start; one in the background of a script inherits that it is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(params=["debug", "local"])
def interrupted(request, cache, tmp_path):
    """(exit code, what it said, the cache, its process group) of a run that was interrupted while it trained."""
    for name in ("assets", "datasets"):
        (tmp_path / name).symlink_to((cache / name).resolve())
    command = [sys.executable, "-m", "bench.run", *ENDLESS, f"launcher={request.param}", f"results_dir={tmp_path}/runs",
               "vq.training.checkpoint_every=1"]
    process = subprocess.Popen(command, env={**os.environ, "VQ_PRIOR_BENCH_CACHE": str(tmp_path)}, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
                               preexec_fn=heed_ctrl_c)
    try:
        until(lambda: list(tmp_path.glob("artefacts/tokenizer/*.work/latest.pt")), "no checkpoint")
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=300)
        yield process.returncode, said, tmp_path, process.pid
    finally:
        if alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


def test_ctrl_c_ends_in_one_line_and_exit_code_130_and_leaves_what_is_needed_to_go_on(interrupted):
    code, said, cache, group = interrupted
    assert code == 130 and "Traceback" not in said, said
    assert said.splitlines()[-1].startswith("interrupted; what was finished is kept")
    until(lambda: not alive(group), "a process goes on in the background")
    assert list(cache.glob("artefacts/tokenizer/*.work/latest.pt"))
    assert not any('"failed"' in path.read_text() for path in cache.glob("artefacts/tokenizer/*.status.json"))
    assert not list(cache.glob("runs/records/*"))   # neither done nor failed
