"""What a sample costs: latency and throughput, prior only and with decode, and how often the network was called.

Methods are warmed up by whole samplings, then take turns round by round, so that a busy moment of the machine hits all
of them; the device is synchronised at both ends of every lap. Medians are printed, with the spread beside them.

    laps = take_turns({"naive": naive, "ours": ours}, rounds=3, warmup=1, device="cpu")
    laps["ours"].wall, laps["ours"].cpu             # seconds of each round
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bench.memory import forget_peak_memory, peak_memory_gb
from bench.metrics.base import Evidence
from bench.metrics.columns import columns
from bench.provenance import provenance
from bench.records import Measurement
from priors.base import Draws, Sample, Unsupported


@dataclass
class Laps:
    """Seconds of each round: wall clock, and CPU time of the whole process; results: what each round returned."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class _Sampling:
    """One timed sampling. decode_seconds: None without a tokenizer."""

    sample: Sample
    prior_seconds: float
    decode_seconds: float | None


class Speed:
    """Registry name "speed". Batch sizes and rounds are the `speed` section's own, not those of sampling."""

    name = "speed"
    columns = columns("seconds_per_image", "seconds_per_image_decoded", "seconds_per_image_uncached",
                      "images_per_second", "images_per_second_decoded", "network_evaluations", "token_forwards")
    depends_on = ("protocol", "speed")
    is_machine_bound = True

    def applies(self, evidence: Evidence) -> bool:
        return evidence.prior is not None

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        speed = evidence.speed
        try:
            with threads(speed.threads):
                forget_peak_memory(evidence.device)
                laps = take_turns(self._methods(evidence), rounds=speed.rounds, warmup=speed.warmup,
                                  device=evidence.device)
                conditions = conditions_of(evidence)
        except Unsupported as reason:
            return [self._measurement(evidence, column, None, {}, note=str(reason)) for column in self.columns]
        samplings = {name: lap.results for name, lap in laps.items()}
        return list(self._measurements(evidence, samplings, conditions))

    def _methods(self, evidence: Evidence) -> dict[str, Callable[[], _Sampling]]:
        """Whole samplings by name, latency first. Only a sampler with a key-value cache is also timed without it."""
        speed, sampler = evidence.speed, evidence.sampler
        methods = {
            "latency": lambda: _sampling(evidence, sampler, speed.latency_batch, decode=True),
            "throughput": lambda: _sampling(evidence, sampler, speed.throughput_batch, decode=True),
        }
        if getattr(sampler, "cache", False):
            uncached = dataclasses.replace(sampler, cache=False)
            methods["uncached"] = lambda: _sampling(evidence, uncached, speed.latency_batch, decode=False)
        return methods

    def _measurements(self, evidence: Evidence, samplings: dict[str, list[_Sampling]],
                      conditions: dict[str, Any]) -> Iterator[Measurement]:
        for column, method, decoded in (("seconds_per_image", "latency", False),
                                        ("seconds_per_image_decoded", "latency", True),
                                        ("seconds_per_image_uncached", "uncached", False),
                                        ("images_per_second", "throughput", False),
                                        ("images_per_second_decoded", "throughput", True)):
            if method in samplings:
                yield self._timing(evidence, column, samplings[method], decoded, conditions)
        for column in ("network_evaluations", "token_forwards"):
            counts = getattr(samplings["throughput"][0].sample, column).double()   # every round draws the same images
            error = float(counts.std() / len(counts) ** 0.5) if len(counts) > 1 else None
            yield self._measurement(evidence, column, float(counts.mean()), {}, n=len(counts), standard_error=error)

    def _timing(self, evidence: Evidence, column: str, rounds: list[_Sampling], decoded: bool,
                conditions: dict[str, Any]) -> Measurement:
        if decoded and evidence.tokenizer is None:
            return self._measurement(evidence, column, None, {}, note="no tokenizer to decode with")
        batch = len(rounds[0].sample.tokens)
        seconds = [(s.prior_seconds + (s.decode_seconds or 0.0 if decoded else 0.0)) / batch for s in rounds]
        values = [1 / s for s in seconds] if column.startswith("images") else seconds
        extra = {"batch": batch, "rounds": values, "lowest": min(values), "highest": max(values), **conditions}
        return self._measurement(evidence, column, statistics.median(values), extra, n=len(rounds),
                                 note=f"median of {len(rounds)} rounds, batch {batch}; no interval")

    def _measurement(self, evidence: Evidence, column: str, value: float | None, extra: dict[str, Any],
                     **fields: Any) -> Measurement:
        info = self.columns[column]
        return Measurement(column, value, evidence.protocol_id, unit=info.unit, better=info.better, extra=extra,
                           **fields)


def take_turns(methods: dict[str, Callable[[], Any]], *, rounds: int, warmup: int, device: str) -> dict[str, Laps]:
    """Time every method once a round, in turn, after `warmup` untimed calls of each.

    The device is synchronised before and after each call. Every second round goes backwards, so that no method always
    follows the same one.
    """
    for method in methods.values():
        for _ in range(warmup):
            method()
    laps = {name: Laps() for name in methods}
    for number in range(rounds):
        order = list(methods) if number % 2 == 0 else list(methods)[::-1]
        for name in order:
            synchronise(device)
            wall, cpu = time.perf_counter(), time.process_time()
            result = methods[name]()
            synchronise(device)
            laps[name].wall.append(time.perf_counter() - wall)
            laps[name].cpu.append(time.process_time() - cpu)
            laps[name].results.append(result)
    return laps


def synchronise(device: str) -> None:
    """Wait for a CUDA device; a CPU has nothing queued."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Run with so many torch threads (None: as they are), and put them back."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def conditions_of(evidence: Evidence) -> dict[str, Any]:
    """What a wall-clock number means nothing without."""
    prior, device = evidence.prior, evidence.device
    cuda = device.startswith("cuda")
    dtype = next((str(p.dtype) for p in prior.parameters()), "") if isinstance(prior, torch.nn.Module) else ""
    return {"device": torch.cuda.get_device_name(device) if cuda else provenance()["hardware"]["cpu"],
            "dtype": dtype.removeprefix("torch."), "threads": torch.get_num_threads(),
            "compiled": hasattr(prior, "_orig_mod"), "warmup": evidence.speed.warmup,
            "peak_memory_gb": round(peak_memory_gb(device), 4),
            "peak_memory_of": "device" if cuda else "process"}


def _sampling(evidence: Evidence, sampler: Any, num: int, *, decode: bool) -> _Sampling:
    """Sample `num` images and, with a tokenizer, decode them; the two parts are timed apart."""
    draws, told = Draws.seeded("speed", evidence.seed, device=evidence.device), _told(evidence, num)
    synchronise(evidence.device)
    began = time.perf_counter()
    sample = evidence.prior.sample(num, sampler=sampler, **told, draws=draws)
    synchronise(evidence.device)
    sampled = time.perf_counter()
    if not decode or evidence.tokenizer is None:
        return _Sampling(sample, sampled - began, None)
    with torch.inference_mode():
        evidence.tokenizer.decode(sample.tokens)
    synchronise(evidence.device)
    return _Sampling(sample, sampled - began, time.perf_counter() - sampled)


def _told(evidence: Evidence, num: int) -> dict[str, Any]:
    """Conditions of the first `num` samples, again from the first where fewer are judged."""
    if evidence.condition is None or evidence.judged_as is None:
        return {}
    return {"condition": evidence.condition(np.resize(evidence.judged_as, num)).to(evidence.device)}
