"""What the tests of this folder drive SLURM with."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
SMOKE = ["dataset=digits", "preset=smoke", "metrics.names=[fid,nll]", "protocol.num_fake=14", "protocol.num_real=16",
         "protocol.prdc_num=12", "protocol.nll_images=16", "sampling.chunk=2", "baselines=false"]
SLURM = ["launcher=slurm", *(f"launcher.{stage}.cpus=1" for stage in ("training", "sampling", "features", "metrics"))]


def sh(command: str) -> str:
    return subprocess.run(command, shell=True, capture_output=True, text=True).stdout.strip()


def until(condition, seconds: float, what: str):
    """What the condition answers once it is true; on our SLURM (only there: needs a fixture that brings it up)
    requeued jobs do not sit out their two minutes meanwhile."""
    def answer():
        for job in sh("squeue --noheader --states=PENDING --format='%i %r'").splitlines():
            if job.endswith("BeginTime"):
                sh(f"scontrol update JobId={job.split()[0]} StartTime=now")
        return condition()

    try:
        return eventually(answer, seconds, what)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{sh('squeue')}\n{sh('sinfo -N')}") from None


def eventually(condition, seconds: float, what: str):
    """What the condition answers once it is true."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if answer := condition():
            print(f"{what}: {time.monotonic() - began:.1f} s")
            return answer
        time.sleep(0.3)
    raise AssertionError(f"{what}: not within {seconds:.0f} s")


def start(cache: Path, results: Path, *arguments: str) -> subprocess.Popen:
    """`python -m bench.run` as a process of its own, with the slow prior of this folder at hand."""
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen([sys.executable, "-m", "bench.run", *arguments, f"results_dir={results}"], text=True,
                            env={**os.environ, "VQ_PRIOR_BENCH_CACHE": str(cache), "PYTHONPATH": path},
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def new_cache(folder: Path, machine_cache: Path) -> Path:
    folder.mkdir()
    for name in ("assets", "datasets"):
        (folder / name).symlink_to((machine_cache / name).resolve())
    return folder


def values(record) -> dict[str, float]:
    return {m["metric"]: m["value"] for m in record["measurements"]}


def records_of(results: Path) -> dict[str, dict[str, float]]:
    records = [json.loads(path.read_text()) for path in (results / "records").glob("*.json")]
    assert all(record["status"] == "ok" for record in records), [record["message"] for record in records]
    return {record["label"]: values(record) for record in records}
