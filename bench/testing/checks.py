"""`check_prior`, `check_tokenizer`, `check_dataset`, `check_metric`: the checks of a kind, all faults in one report."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from bench import registry
from bench.config import DatasetConfig, MetricsConfig, ProtocolConfig, SpeedConfig
from bench.data.arrays import ArrayImages
from bench.errors import InputError
from bench.metrics.base import Evidence
from bench.testing.contracts import CheckFailed, Note, built, first_line
from bench.testing.dataset_labels import LABEL_CHECKS
from bench.testing.dataset_options import OPTION_CHECKS
from bench.testing.datasets import DATASET_CHECKS, opened_case
from bench.testing.metrics import METRIC_CHECKS, MetricCase
from bench.testing.prior_costs import COST_CHECKS
from bench.testing.priors import PRIOR_CHECKS, PriorCase
from bench.testing.tokenizers import TOKENIZER_CHECKS, TokenizerCase


@dataclass(frozen=True)
class Report:
    """What was found to hold, what could not be asked and why, and what is wrong."""

    subject: str
    passed: tuple[str, ...]
    notes: tuple[str, ...]
    faults: tuple[str, ...] = ()

    def __str__(self) -> str:
        facts = [f"  ok    {fact}" for fact in self.passed] + [f"  note  {note}" for note in self.notes]
        failed = f", {len(self.faults)} failed" if self.faults else ""
        return "\n".join([f"{self.subject}: {len(self.passed)} checks passed{failed}", *facts,
                          *(f"  FAULT {fault}" for fault in self.faults)])


def check_prior(prior_or_target: Any, *, options: object | None = None, sampler: object | None = None,
                grid: tuple[int, int] = (2, 3), codebook_size: int = 5) -> Report:
    """Check a prior: a class, a registered name, `package.module:Name`, or an instance.

    options, sampler: of the class's own dataclasses; None is their defaults. Give small options where the defaults are
    big. With the sampler's defaults a prior of exact likelihood must draw from the distribution that it states.
    grid and codebook_size are those of the prior that is built; an instance brings its own.
    Raises CheckFailed.
    """
    target: Any = _resolved("priors", prior_or_target)
    if not inspect.isclass(target):
        case = PriorCase(prior=target, make=None, options=options, sampler=sampler or built(type(target), "Sampler"))
        return _run(type(target).__name__, PRIOR_CHECKS + COST_CHECKS, case)
    chosen = options or built(target, "Options")

    build: Callable[..., Any] = target

    def make(num_codes: int, grid: tuple[int, int]) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build(grid=grid, codebook_size=num_codes, options=chosen)

    call = f"{target.__name__}(grid={grid}, codebook_size={codebook_size}, options=...)"
    prior = _made(call, lambda: make(codebook_size, grid))
    said = tuple(getattr(prior, name, None) for name in ("grid", "codebook_size"))
    if said != (tuple(grid), codebook_size):
        raise CheckFailed(f"{call} says grid={said[0]} and codebook_size={said[1]}")
    case = PriorCase(prior=prior, make=make, options=chosen, sampler=sampler or built(target, "Sampler"))
    return _run(target.__name__, PRIOR_CHECKS + COST_CHECKS, case)


def check_tokenizer(tokenizer_or_target: Any, *, options: object | None = None, resolution: int = 32) -> Report:
    """Check a tokenizer: a class, a registered name, `package.module:Name`, or an instance. Raises CheckFailed."""
    target: Any = _resolved("tokenizers", tokenizer_or_target)
    if inspect.isclass(target):
        build: Callable[..., Any] = target
        chosen = options or built(target, "Options")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            tokenizer = _made(f"{target.__name__}(options=..., resolution={resolution})",
                              lambda: build(options=chosen, resolution=resolution))
    else:
        tokenizer = target
    return _run(type(tokenizer).__name__, TOKENIZER_CHECKS, TokenizerCase(tokenizer))


def check_dataset(dataset_or_target: Any, *, config: DatasetConfig | None = None) -> Report:
    """Check a data set: a class, a registered name, `package.module:Name`, or an instance.

    config: what it is opened with; None is 32 pixels, and at most 128 training and 64 validation images.
    Raises CheckFailed; InputError where the data set refuses the configuration, because its files are not there.
    """
    target: Any = _resolved("datasets", dataset_or_target)
    is_class = inspect.isclass(target)
    dataset = _made(f"{target.__name__}()", target) if is_class else target
    name = type(dataset).__name__
    chosen = config or DatasetConfig(name=name, max_train=128, max_validation=64)
    case = opened_case(dataset, chosen, f"{target.__module__}:{target.__qualname__}" if is_class else "")
    return _run(name, DATASET_CHECKS + OPTION_CHECKS + LABEL_CHECKS, case)


def check_metric(metric_or_target: Any, *, evidence: Evidence | None = None) -> Report:
    """Check a metric: a class, a registered name, `package.module:Name`, or an instance. Raises CheckFailed.

    evidence: what it measures; None is 24 images of noise a side, with 16 features each and no prior or tokenizer.
    """
    target = _resolved("metrics", metric_or_target)
    metric = _made(f"{target.__name__}()", target) if inspect.isclass(target) else target
    with TemporaryDirectory() as folder:
        return _run(type(metric).__name__, METRIC_CHECKS, MetricCase(metric, evidence or noise_evidence(Path(folder))))


def noise_evidence(folder: Path, *, num: int = 24, seed: int = 0) -> Evidence:
    """Evidence about nothing: uniform noise as images, Gaussian noise as features, equal sizes on every side."""
    sides = ("fake", "real", "train", "validation")
    random = np.random.default_rng(seed)
    images = {side: ArrayImages(random.integers(0, 256, (num, 3, 32, 32), dtype=np.uint8)) for side in sides}
    drawn = {side: random.normal(size=(num, 16)).astype(np.float32) for side in sides}

    def features(side: str) -> np.ndarray:
        if side not in ("fake", "real"):
            raise InputError(f"features of '{side}': only the judged (fake) and the protocol's real images have them.")
        return drawn[side]

    protocol = ProtocolConfig(name="check", num_fake=num, num_real=num, prdc_num=num, neighbours_queries=2,
                              neighbours_candidates=num, neighbours_top_k=2)
    return Evidence(
        role="source", protocol=protocol, protocol_id="check-00000000", settings=MetricsConfig(), speed=SpeedConfig(),
        images=images.__getitem__, features=features, workspace=folder, caches=folder,
        validation_tokens=lambda: torch.zeros(num, 64, dtype=torch.int64),
        fingerprints={side: f"check:{side}" for side in sides})


def _resolved(kind: str, target: Any) -> Any:
    return registry.resolve(kind, target) if isinstance(target, str) else target


def _made(call: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Exception as error:   # the plug-in's own, whatever it is
        raise CheckFailed(f"{call} raised {type(error).__name__}: {error}") from error


def _run(subject: str, checks: Iterable[Callable[[Any], Note]], case: Any) -> Report:
    """Every check in turn; its docstring is the fact that stands in the report. Raises CheckFailed with all faults."""
    passed: list[str] = []
    notes: list[str] = []
    faults: dict[str, str] = {}   # what was found -> fault: one cause often breaks several facts
    cause: BaseException | None = None
    for check in checks:
        try:
            note = check(case)
        except Exception as error:   # the plug-in's own, whatever it is
            found = str(error) if isinstance(error, CheckFailed) else f"it raised {type(error).__name__}: {error}"
            faults.setdefault(found, f"{first_line(check)} But {found}")
            cause = cause or (error.__cause__ if isinstance(error, CheckFailed) else error)
            continue
        (notes if note else passed).append(note or first_line(check))
    report = Report(subject, tuple(passed), tuple(dict.fromkeys(notes)), tuple(faults.values()))
    if faults:
        separator = " " if len(faults) == 1 else "\n  "
        raise CheckFailed(f"{subject}:{separator}" + "\n  ".join(faults.values()), report) from cause
    return report
