"""The one training loop, for tokenizers and priors alike.

    train(task, fetch, TrainingConfig(steps=1000), num_items=len(data), validation=batches, seed=0, work=..., out=...)

Every random number of step s comes from (seed, s) and the order of the data from (seed, epoch), so a run that was
killed continues to the weights an undisturbed one has: bit for bit on a CPU; on CUDA but for rounding, because some of
its kernels add in no fixed order. Several processes split each batch by position and average gradients; their draws are
those of one process, sliced, so the curve is the same.
"""

from __future__ import annotations

import csv
import math
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bench import kernels
from bench.config.models import TrainingConfig
from bench.errors import BenchError
from bench.memory import give_back
from bench.progress import Bar
from bench.store import files
from bench.store.store import Interrupted
from bench.training.processes import make_fabric
from bench.training.trajectories import Trajectory, is_measured
from priors.base import Draws
from priors.linear import kernel_in_use

GIVE_BACK_EVERY = 10   # steps

if TYPE_CHECKING:   # importing Fabric takes longer than importing torch: only trainings pay for it
    from lightning_fabric import Fabric

class ShardedDraws(Draws):
    """One process's slice of the draws a single process would make for the whole batch."""

    def __init__(self, generator: torch.Generator, rank: int, world_size: int):
        super().__init__(generator)
        self.rank, self.world_size = rank, world_size

    def uniform(self, *shape: int) -> Tensor:
        return self._slice(super().uniform(*self._whole(shape)))

    def normal(self, *shape: int) -> Tensor:
        return self._slice(super().normal(*self._whole(shape)))

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        return self._slice(super().integers(low, high, *self._whole(shape)))

    def stratified(self, num: int) -> Tensor:
        whole = num * self.world_size
        return (self._slice(self.permutation(whole)) + self.uniform(num).double()) / whole

    def _whole(self, shape: Sequence[int]) -> tuple[int, ...]:
        return (shape[0] * self.world_size, *shape[1:])

    def _slice(self, drawn: Tensor) -> Tensor:
        return drawn.chunk(self.world_size)[self.rank]


def batch_indices(step: int, batch_size: int, num_items: int, seed: int) -> np.ndarray:
    """(batch_size,) indices of a step: the data in a new order every epoch, no item dropped."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = positions // num_items
    return np.array([_order(num_items, seed, int(epoch))[position % num_items]
                     for epoch, position in zip(epochs, positions, strict=True)])


@lru_cache(maxsize=2)
def _order(num_items: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(num_items)


def learning_rate_factor(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then constant (the paper's) or cosine to zero at `steps`. step counts from 0."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def train(task: Any, fetch: Callable[[np.ndarray], Tensor], config: TrainingConfig, *, num_items: int,
          validation: Mapping[str, Callable[[], Iterable[Tensor]]], seed: int, work: Path, out: Path,
          fabric: Fabric | None = None, label: str = "training", resume_from: Path | None = None,
          measured: Mapping[str, Callable[[], Iterable[Tensor]]] | None = None,
          track: Callable[[Mapping[str, float], int], None] = lambda values, step: None) -> None:
    """Train `task` to config.steps and publish into `out`: model.safetensors, state.pt and curves.csv.

    fetch: indices -> a batch on the CPU; called one step ahead in a thread.
    validation: name of a split -> its batches; "validation" chooses the best checkpoint, "train" beside it shows
        overfitting.
    measured: name of a part of a Trajectory -> its batches, measured at the steps of its grid and at the last; then
        the selection half chooses the best checkpoint, and `out` holds trajectory.npz too.
    work: where checkpoints go; a checkpoint there is continued.  resume_from: a published state.pt of fewer steps.
    track: told every new point of the curves, (values by name, step), as it comes.
    Raises Interrupted, with a checkpoint saved, when the process is asked to stop (SIGTERM, SIGUSR2).
    """
    fabric = fabric or make_fabric(config.precision)
    loop = _Loop(task, config, fabric, seed)
    loop.restore(work / "latest.pt", resume_from)
    patience = getattr(config, "patience", None)
    loop.tracked = len(loop.rows)
    indices = range(loop.step, loop.step if loop.trajectory.has_long_passed_its_best(patience) else config.steps)
    with Bar(label, config.steps, unit="step", start=loop.step) as bar, _stop_signals() as stop, \
            ThreadPoolExecutor(1) as ahead:
        local = _local_batches(fetch, config.batch_size, num_items, seed, fabric)
        pending = ahead.submit(local, loop.step)
        for step in indices:
            batch = pending.result().to(fabric.device)
            pending = ahead.submit(local, step + 1)
            loop.advance(batch)
            bar.advance(1, loop.note)
            if loop.step % config.validate_every == 0 or loop.step == config.steps:
                loop.validate({split: batches() for split, batches in validation.items()}, chooses=not measured)
            if measured and is_measured(loop.step):
                loop.measure({part: batches() for part, batches in measured.items()})
            loop.tell(track)
            stopping = _any_process(stop.is_set(), fabric)
            if loop.step % config.checkpoint_every == 0 or stopping:
                loop.save(work / "latest.pt")
            if stopping:
                raise Interrupted(f"{label}: asked to stop at step {loop.step}; the checkpoint is saved, run it again.")
            if loop.trajectory.has_long_passed_its_best(patience):
                break
    state = loop.state()   # without the point beside the grid that the end of this training may add
    if measured and loop.trajectory.steps[-1:] != [loop.step]:
        loop.measure({part: batches() for part, batches in measured.items()})
        loop.tell(track)
    if fabric.is_global_zero:
        loop.publish(out, state)


class _Loop:
    """All that changes from step to step, and how it is saved."""

    def __init__(self, task: Any, config: TrainingConfig, fabric: Fabric, seed: int):
        if config.batch_size % fabric.world_size:
            raise BenchError(f"training.batch_size={config.batch_size} does not divide over the "
                             f"{fabric.world_size} processes: choose a multiple.")
        self.task, self.config, self.fabric, self.seed = task.to(fabric.device), config, fabric, seed
        bare = task.optimizers()
        self.wrapped: dict[int, Any] = {id(optimizer): fabric.setup_optimizers(optimizer) for optimizer in bare}
        self.peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in bare]
        self.bare = bare
        self.average = AveragedModel(task.model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay), use_buffers=False)
        self.step, self.note, self.tracked = 0, "", 0
        self.rows: list[tuple[int, str, float]] = []
        self.sums: dict[str, tuple[Tensor, int]] = {}
        self.best: tuple[float, dict[str, Tensor]] | None = None
        self.trajectory = Trajectory()

    def advance(self, batch: Tensor) -> None:
        factor = learning_rate_factor(self.step, self.config)
        for optimizer, peaks in zip(self.bare, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
        self.task.train()
        with self.fabric.autocast():
            logged = self.task.update(batch, self.step, self._draws("step", self.step), self._optimize)
        self.step += 1
        if self.step % GIVE_BACK_EVERY == 0:
            give_back()
        if self.step % self.config.ema_every == 0:
            self.average.update_parameters(self.task.model)
        for name, value in logged.items():
            value = torch.as_tensor(value).detach().double()
            total, count = self.sums.get(name, (torch.zeros_like(value), 0))
            self.sums[name] = (total + value, count + 1)
        if self.step % self.config.log_every == 0:
            self._log_sums()

    def validate(self, splits: Mapping[str, Iterable[Tensor]], *, chooses: bool = True) -> None:
        model = self._averaged()
        model.eval()
        for split, batches in splits.items():
            means = self._means(model, batches)
            self.rows += [(self.step, f"{split}_{name}", value) for name, value in means.items() if name != "loss"]
            if split == "validation":
                self.rows.append((self.step, "validation_loss", means["loss"]))
                if chooses:
                    self._keep_if_best(means["loss"], model)

    def measure(self, parts: Mapping[str, Iterable[Tensor]]) -> None:
        """One point of the trajectory; every point has the same draws."""
        model = self._averaged()
        model.eval()
        self.trajectory.steps.append(self.step)
        with torch.no_grad():
            for part, batches in parts.items():
                found = [self.task.measure(model, batch.to(self.fabric.device),
                                           Draws.seeded("trajectory", self.seed, part, i, device=self.fabric.device))
                         for i, batch in enumerate(batches)]
                bits, variance = (torch.cat([point[i] for point in found]).float().cpu().numpy() for i in (0, 1))
                self.trajectory.bits[part].append(bits)
                self.trajectory.variance[part].append(variance)
                self.trajectory.kind = found[0][2]
                self.rows.append((self.step, f"{part}_bits_per_token", float(bits.mean(dtype=np.float64))))
        self._keep_if_best(float(self.trajectory.mean("selection")[-1]), model)

    def tell(self, track: Callable[[Mapping[str, float], int], None]) -> None:
        """The points of the curves that it has not been told, by the first process alone."""
        if self.fabric.is_global_zero and len(self.rows) > self.tracked:
            track({name: value for _, name, value in self.rows[self.tracked:]}, self.step)
        self.tracked = len(self.rows)

    def _keep_if_best(self, loss: float, model: nn.Module) -> None:
        if self.best is None or loss < self.best[0]:
            self.best = (loss, _copy(model.state_dict()))

    def _means(self, model: nn.Module, batches: Iterable[Tensor]) -> dict[str, float]:
        totals: dict[str, list[float]] = {}
        with torch.no_grad():
            for index, batch in enumerate(batches):
                draws = Draws.seeded("validation", self.seed, index, device=self.fabric.device)
                for name, value in self.task.validate(model, batch.to(self.fabric.device), draws).items():
                    totals.setdefault(name, []).append(float(value))
        return {name: sum(values) / len(values) for name, values in totals.items()}

    def save(self, path: Path) -> None:
        if self.fabric.is_global_zero:
            with files.keeping(path) as stream:
                torch.save(self.state(), stream)

    def restore(self, latest: Path, earlier: Path | None) -> None:
        """Go on from the checkpoint `latest` or, where there is no sound one, from the state of a shorter training."""
        state = files.read(latest, _state_in)
        if state is None and earlier is not None:
            state = _state_in(earlier)
        if state is None:
            return
        if self.fabric.device.type == "cpu":
            kernels.take(state.get("linear", "onednn"))   # the one that older checkpoints were made by
        self.task.load_state_dict(state["task"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.bare, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.rows = state["step"], [tuple(row) for row in state["rows"]]
        self.sums = {name: (total.to(self.fabric.device), count) for name, (total, count) in state["sums"].items()}
        self.best = (state["best_loss"], state["best"]) if state["best"] is not None else None
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        if stored := state.get("trajectory"):
            self.trajectory = Trajectory.of({**{name: value.numpy() for name, value in stored.items()},
                                             "kind": state["trajectory_kind"]})

    def publish(self, out: Path, state: Mapping[str, Any]) -> None:
        """state: what a longer training goes on from."""
        chosen = self.best[1] if self.config.select == "best" and self.best else self._averaged().state_dict()
        save_file(_copy(chosen), out / "model.safetensors")
        torch.save(state, out / "state.pt")
        with open(out / "curves.csv", "w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("step", "metric", "value"))
            writer.writerows(self.rows)
        if len(self.trajectory):
            self.trajectory.save(out / "trajectory.npz")

    def state(self) -> dict[str, Any]:
        """All that continuing needs."""
        return {"task": self.task.state_dict(), "average": self.average.state_dict(), "step": self.step,
                "optimizers": [optimizer.state_dict() for optimizer in self.bare], "rows": [list(r) for r in self.rows],
                "sums": self.sums, "best": self.best[1] if self.best else None,
                "best_loss": self.best[0] if self.best else None,
                "precision": self.fabric.strategy.precision.state_dict(),
                "trajectory": {name: torch.from_numpy(value) for name, value in self.trajectory.arrays().items()
                               if name != "kind"} if len(self.trajectory) else {},
                "trajectory_kind": self.trajectory.kind, "linear": kernel_in_use()}

    def _averaged(self) -> nn.Module:
        return self.average.module if self.average.n_averaged > 0 else self.task.model

    def _draws(self, *key: int | str) -> Draws:
        generator = Draws.seeded("training", self.seed, *key, device=self.fabric.device).generator
        if self.fabric.world_size == 1:
            return Draws(generator)
        return ShardedDraws(generator, self.fabric.global_rank, self.fabric.world_size)

    def _optimize(self, loss: Tensor, optimizer: Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        if self.fabric.world_size > 1:
            _average_gradients(optimizer, self.fabric)
        self.wrapped[id(optimizer)].step()

    def _log_sums(self) -> None:
        means = {name: float(total) / count for name, (total, count) in self.sums.items()}
        if self.fabric.world_size > 1:
            means = {name: float(_all_reduce(self.fabric, torch.tensor(mean), "mean")) for name, mean in means.items()}
        if not all(math.isfinite(value) for value in means.values()):
            raise BenchError(f"{means} by step {self.step} is not finite: lower training.learning_rate "
                             f"(now {self.peaks[0][0]}) or raise training.warmup_steps.")
        self.rows += [(self.step, f"train_{name}", value) for name, value in means.items()]
        self.note = "  ".join(f"{name} {value:.4g}" for name, value in list(means.items())[:3])
        self.sums = {}


def _state_in(path: Path) -> dict[str, Any]:
    """On the CPU, where Adam's step counters belong: load_state_dict leaves them wherever they are read to, and from
    CUDA each would be waited for at every step.
    """
    return torch.load(path, map_location="cpu", weights_only=True)


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()}


def _any_process(flag: bool, fabric: Fabric) -> bool:
    """Whether any process was asked to stop, so that all stop at the same step."""
    if fabric.world_size == 1:
        return flag
    return bool(_all_reduce(fabric, torch.tensor(float(flag), device=fabric.device), "sum") > 0)


def _all_reduce(fabric: Fabric, value: Tensor, how: str) -> Tensor:
    reduced = fabric.all_reduce(value, reduce_op=how)
    assert isinstance(reduced, Tensor)
    return reduced


def _average_gradients(optimizer: Optimizer, fabric: Fabric) -> None:
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    flat = _all_reduce(fabric, torch.cat([gradient.flatten() for gradient in gradients]), "mean")
    for gradient, piece in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(piece.view_as(gradient))


def _local_batches(fetch: Callable[[np.ndarray], Tensor], batch_size: int, num_items: int, seed: int,
                   fabric: Fabric) -> Callable[[int], Tensor]:
    def local(step: int) -> Tensor:
        indices = batch_indices(step, batch_size, num_items, seed)
        return fetch(np.array_split(indices, fabric.world_size)[fabric.global_rank])
    return local


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event set by SIGTERM or SIGUSR2; signals can only be caught in the main thread."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    caught = (signal.SIGTERM, signal.SIGUSR2)
    previous = {number: signal.signal(number, lambda *_: stop.set()) for number in caught}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
