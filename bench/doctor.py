"""Is everything there that a run needs? Checked before anything expensive; every finding comes with its remedy.

    python -m bench.doctor                                        # what the default run needs, and what else is here
    python -m bench.doctor dataset=ffhq launcher=slurm device=cuda   # takes what bench.run takes
    python -m bench.doctor preset=demo fetch=true                 # also fetch the weights and data that are missing
    python -m bench.doctor fid source=theirs.npz reference=real.npz claimed=6.11      # which choice explains that FID?

Exit codes: 0 all that is needed is fine, 1 something needed is missing, 2 wrong input.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from bench import fid_doctor, registry
from bench.assets.cache import asset_status
from bench.assets.catalogue import ASSETS
from bench.baselines import with_baselines
from bench.command import run_command
from bench.compose import expand
from bench.config import DatasetConfig, RunSpec
from bench.errors import InputError
from bench.needs import assets_of, check_own_files, dataset_of, have_assets
from bench.store.cache import cache_root

Level = Literal["ok", "note", "problem"]
DISK_GB = {"needed": 2.0, "comfortable": 10.0}
"""The demo keeps about 1 GB of artefacts, caches and downloads; an hour of runs several."""
RETRY = "python -m bench.doctor fetch=true"


@dataclass(frozen=True)
class Finding:
    """level: "problem" if a run that was asked about would fail, "note" if only others would."""

    level: Level
    what: str
    detail: str
    remedy: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command(arguments, doc=__doc__, work=diagnose)


def diagnose(arguments: list[str]) -> int:
    """Examine what these runs need, and print what was found."""
    if arguments[:1] == ["fid"]:
        return fid_doctor.main(arguments[1:])
    console = _console()
    fetching, rest = _fetch_option(arguments)
    runs = with_baselines(expand(rest, announce=console.print))
    specs = [run.spec for run in runs if not run.unsupported]
    if fetching:
        have_assets(assets_of(specs))
    findings = examine(specs)
    console.print(render(findings))
    problems = sum(finding.level == "problem" for finding in findings)
    console.print(f"{problems} problem(s); each has its remedy above." if problems else "Ready.")
    return 1 if problems else 0


def examine(specs: Sequence[RunSpec]) -> list[Finding]:
    """Everything these runs need, in the order in which it would fail, then what else is at hand."""
    checks: tuple[Callable[[Sequence[RunSpec]], Iterator[Finding]], ...] = (
        check_packages, check_folders, check_devices, check_assets, check_checkpoints, check_datasets, check_slurm)
    return [finding for check in checks for finding in check(specs)]


def check_packages(specs: Sequence[RunSpec]) -> Iterator[Finding]:
    """The distribution's entry points, and torch beside torchvision."""
    if registry.names("priors"):
        yield Finding("ok", "vq-prior-bench", f"installed, {len(registry.names('priors'))} priors registered")
    else:
        yield Finding("problem", "vq-prior-bench", "not installed: no priors, data sets or metrics are registered",
                      "run `pip install -e .` in its folder, or `make demo`")
    yield check_torchvision()


def check_torchvision() -> Finding:
    """torch-fidelity and lpips import torchvision, which must fit torch."""
    from bench.assets.torchvision_compat import ensure_torchvision

    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "torchvision"))
    try:
        ensure_torchvision()
    except (ImportError, RuntimeError) as error:
        return Finding("problem", "torch and torchvision", f"{versions} do not fit: {_one_line(error)}",
                       "on a CPU: pip install -c constraints-cpu.txt -e . ; for CUDA: pip install -U torch torchvision")
    return Finding("ok", "torch and torchvision", versions)


def check_folders(specs: Sequence[RunSpec]) -> Iterator[Finding]:
    """The cache and the results folders can be written, and the disk has room."""
    yield check_folder("cache folder", cache_root(), "set VQ_PRIOR_BENCH_CACHE to a folder of yours with room")
    for results in sorted({spec.results_dir for spec in specs}):
        yield check_folder("results folder", Path(results), "pass results_dir= with a folder of yours")


def check_folder(what: str, folder: Path, remedy: str) -> Finding:
    """Whether a file can be made in it (or in what will hold it), and how much room there is."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            free = shutil.disk_usage(place).free / 1e9
    except OSError as error:
        return Finding("problem", what, f"{folder} cannot be written: {_one_line(error)}", remedy)
    detail = f"{folder}: {free:.1f} GB free"
    if free < DISK_GB["needed"]:
        return Finding("problem", what, f"{detail}, {DISK_GB['needed']:.0f} GB are needed",
                       f"{remedy}, or free some: python -m bench.store gc")
    if free < DISK_GB["comfortable"]:
        return Finding("note", what, f"{detail}, little for long runs", "python -m bench.store du shows what is kept")
    return Finding("ok", what, detail)


def check_devices(specs: Sequence[RunSpec]) -> Iterator[Finding]:
    """What torch can compute on, against what the runs ask for."""
    import torch

    wanted = sorted({spec.device for spec in specs})
    submits = any(spec.launcher.name == "slurm" for spec in specs)   # then the devices are those of another machine
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        detail, count = f"CUDA: {names}; asked for: {', '.join(wanted)}", torch.cuda.device_count()
        if any(device.startswith("cuda:") and int(device[5:]) >= count for device in wanted) and not submits:
            yield Finding("problem", "device", detail, f"CUDA devices are numbered 0 to {count - 1} here")
        else:
            yield Finding("ok", "device", detail)
        return
    driver, build = shutil.which("nvidia-smi") is not None, torch.version.cuda
    detail = f"no CUDA device, {torch.get_num_threads()} CPU threads"
    remedy = ""
    if driver:
        remedy = ("torch is a CPU build: reinstall with TORCH=cuda" if build is None
                  else f"torch is built for CUDA {build}: does the driver support it (nvidia-smi)?")
    if any(device.startswith("cuda") for device in wanted) and not submits:
        yield Finding("problem", "device", f"{detail}, but device={', '.join(wanted)}", remedy or "use device=cpu")
    elif driver:
        yield Finding("note", "device", f"{detail}, although nvidia-smi is here", remedy)
    else:
        yield Finding("ok", "device", detail)


def check_assets(specs: Sequence[RunSpec]) -> Iterator[Finding]:
    """Metric weights and public data sets: sha256 verified, without the network."""
    needed = assets_of(specs)
    for name, asset in ASSETS.items():
        status = asset_status(name)
        what = f"{name} ({asset.purpose})"
        if status.ready:
            yield Finding("ok", what, status.message)
        elif name in needed:
            yield Finding("problem", what, status.message,
                          f"{RETRY}, or put {asset.file} (sha256 {asset.sha256}) somewhere and set {asset.variable}")
        else:
            yield Finding("note", what, f"not here, not needed by this run ({asset.size / 1e6:.0f} MB)")


def check_checkpoints(specs: Sequence[RunSpec]) -> Iterator[Finding]:
    """Checkpoints and tokens of the user's, which the runs read instead of making their own."""
    try:
        check_own_files(specs)
    except InputError as error:
        what, _, remedy = str(error).partition(". ")
        yield Finding("problem", "checkpoints", what, remedy)


def check_datasets(specs: Sequence[RunSpec]) -> Iterator[Finding]:
    """The runs' data sets as configured, then which of the others would be found where they are expected."""
    chosen = {repr(spec.dataset): spec.dataset for spec in specs}
    for config in chosen.values():
        yield check_dataset(config, needed=True)
    names = {config.name for config in chosen.values()}
    for name in registry.names("datasets"):
        if name not in names and name != "folder":   # a folder is whatever its path says
            yield check_dataset(DatasetConfig(name=name), needed=False)


def check_dataset(config: DatasetConfig, *, needed: bool) -> Finding:
    """What the data set itself says of its files, without reading them all."""
    name = config.entry
    try:
        dataset_of(config).check(config)
    except InputError as error:
        if needed:
            first, _, rest = str(error).partition("\n")
            return Finding("problem", f"data set {name}", first, rest or "dataset.path= says where it is")
        return Finding("note", f"data set {name}", "not here, not needed by this run")
    return Finding("ok", f"data set {name}", config.path or "where it is expected, or fetched on first use")


def check_slurm(specs: Sequence[RunSpec]) -> Iterator[Finding]:
    """Whether jobs can be submitted, to the partitions asked for."""
    launchers = [spec.launcher for spec in specs if spec.launcher.name == "slurm"]
    level: Level = "problem" if launchers else "note"
    if shutil.which("sbatch") is None or shutil.which("sinfo") is None:
        remedy = "log in to a submission host of the cluster, or use launcher=local"
        yield Finding(level, "SLURM", "sbatch and sinfo are not on PATH", remedy if launchers else "")
        return
    try:
        answer = subprocess.run(["sinfo", "--noheader", "--format=%R %a"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding(level, "SLURM", f"sinfo does not answer: {_one_line(error)}", "is the controller up?")
        return
    if answer.returncode:
        yield Finding(level, "SLURM", f"sinfo: {_one_line(answer.stderr)}", "is the controller up (scontrol ping)?")
        return
    partitions = [line.split()[0] for line in answer.stdout.splitlines() if line.split()[1:] == ["up"]]
    missing = sorted({str(launcher.partition) for launcher in launchers if launcher.partition} - set(partitions))
    if missing:
        yield Finding("problem", "SLURM", f"no partition {', '.join(missing)} that is up",
                      f"launcher.partition= one of {', '.join(partitions) or '(none is up)'}")
        return
    shared = f"; every node must see {cache_root()}" if launchers else ""
    yield Finding("ok", "SLURM", f"partitions {', '.join(partitions)}{shared}")


def render(findings: Sequence[Finding]) -> Table:
    """The findings for a terminal, problems in red."""
    styles = {"ok": "green", "note": "dim", "problem": "red"}
    table = Table(title="bench.doctor")
    for heading in ("", "what", "found", "remedy"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        table.add_row(f"[{styles[finding.level]}]{finding.level}[/]", *map(_plain, (finding.what, finding.detail,
                                                                                  finding.remedy)))
    return table


def _fetch_option(arguments: Sequence[str]) -> tuple[bool, list[str]]:
    """Take `fetch=true|false` out of the arguments; the rest are those of bench.run."""
    values = [argument.partition("=")[2] for argument in arguments if argument.partition("=")[0] == "fetch"]
    if any(value not in ("true", "false") for value in values) or len(values) > 1:
        raise InputError(f"fetch={','.join(values)}: expected fetch=true or fetch=false, once.")
    return values == ["true"], [argument for argument in arguments if argument.partition("=")[0] != "fetch"]


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:200]


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=int(os.environ.get("COLUMNS", 160)))


if __name__ == "__main__":
    sys.exit(main())
