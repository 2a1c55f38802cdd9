"""Training steps of priors, and the tokenizer's step, encoding and decoding, against the textbook ones."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import registry
from bench.config.models import PriorTrainingConfig
from bench.metrics.speed import Laps
from bench.timing.metrics import _lpips, _photographs
from bench.timing.priors import SMALL, forward_gflop, new_prior, shrunk
from bench.timing.turns import Settings, Timing, draws_of, in_turn, seconds_of, timed
from bench.training.tasks import PriorTask
from priors.base import Draws
from priors.reference import textbook_logits
from vq.reference import naive_decode, naive_encode, naive_training_step, textbook_copy


def training_rows(settings: Settings) -> Iterator[Timing]:
    """One optimisation step of the absorbing prior against the textbook network with every logit."""
    (size, batch), = shrunk(settings, [(SMALL, 8)])
    tokens = torch.randint(size.codes, (batch, size.num_tokens), generator=torch.Generator().manual_seed(0))
    tokens = tokens.to(settings.device)
    models = {name: new_prior("absorbing", size, settings).train().requires_grad_(True) for name in ("naive", "ours")}
    task = PriorTask(models["ours"], PriorTrainingConfig())
    optimizers = {"naive": torch.optim.Adam(models["naive"].parameters(), lr=1e-3), "ours": task.optimizers()[0]}

    def step(name: str, loss: Callable[[], Tensor]) -> Callable[[], float]:
        def run() -> float:
            optimizers[name].zero_grad()
            value = loss()
            value.backward()
            optimizers[name].step()
            return float(value.detach())
        return run

    laps = in_turn({"naive": step("naive", lambda: _textbook_loss(models["naive"], tokens, draws_of(settings))),
                    "ours": step("ours", lambda: models["ours"].training_loss(tokens, draws=draws_of(settings)))},
                   settings)
    yield timed("training", f"training step, {size.label}, batch {batch}", laps, settings, 1.25, None,
                gflop=3 * forward_gflop(size, batch, batch * size.num_tokens))


def tokenizer_rows(settings: Settings) -> Iterator[Timing]:
    """A training step with LPIPS, discriminator and adaptive weight, encoding and decoding, of the small VQGAN."""
    batch, ours, perceptual = *_vqgan(settings), _lpips().to(settings.device)
    textbook, images = textbook_copy(ours), torch.from_numpy(_photographs(batch)).to(settings.device)
    step = naive_training_step(textbook, perceptual=perceptual, learning_rate=1e-4)
    task = ours.trainable(perceptual=perceptual, learning_rate=1e-4, betas=(0.9, 0.999))

    def optimize(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    laps = in_turn({"naive": lambda: step(images, draws_of(settings)),
                    "ours": lambda: float(task.update(images, 0, draws_of(settings), optimize)["loss"])}, settings)
    gap = abs(laps["ours"].results[0] - laps["naive"].results[0])
    yield timed("tokenizer", f"VQGAN training step, batch {batch}", laps, settings, None, None,
                note=f"{_rate(laps['ours'], batch, settings)}; losses differ by {gap:.1g}")
    textbook.load_state_dict(ours.eval().state_dict())
    textbook.eval()
    tokens = ours.encode(images)
    laps = in_turn({"naive": lambda: naive_encode(textbook, images), "ours": lambda: ours.encode(images)}, settings)
    differing = int((laps["ours"].results[0] != laps["naive"].results[0]).sum())
    yield timed("tokenizer", f"VQGAN encoding, batch {batch}", laps, settings, None, None,
                note=f"{_rate(laps['ours'], batch, settings)}; {differing} of {tokens.numel()} tokens differ")
    laps = in_turn({"naive": lambda: naive_decode(textbook, tokens), "ours": lambda: ours.decode(tokens)}, settings)
    gap = int((laps["ours"].results[0].int() - laps["naive"].results[0].int()).abs().max())
    yield timed("tokenizer", f"VQGAN decoding, batch {batch}", laps, settings, None, None,
                note=f"{_rate(laps['ours'], batch, settings)}; largest difference {gap} of 255")


def _vqgan(settings: Settings) -> tuple[int, Any]:
    """A batch size, and the registered VQGAN of the small preset's sizes with random weights, its discriminator on."""
    small = dict(channels=32, channel_multipliers=(1, 2, 4), norm_groups=16, disc_channels=32)
    toy = dict(channels=8, channel_multipliers=(1, 2), norm_groups=4, disc_channels=8)
    cls = registry.resolve("tokenizers", "vqgan")
    options = cls.Options(num_res_blocks=1, attention_resolutions=(), embedding_dim=32, codebook_size=256,
                          perceptual_net="alex", perceptual_resolution=64, disc_start_step=0, disc_layers=2,
                          **(toy if settings.quick else small))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = cls(options=options, resolution=32)
        torch.nn.init.normal_(model.quantizer.embedding.weight)   # so that images have more than one code
    return 2 if settings.quick else 16, model.to(settings.device).train()


def _rate(laps: Laps, batch: int, settings: Settings) -> str:
    return f"{batch / statistics.median(seconds_of(laps, settings)):.1f} images/s"


def _textbook_loss(prior: Any, tokens: Tensor, draws: Draws) -> Tensor:
    """Reweighted ELBO with logits at every position."""
    t = draws.integers(1, prior.timesteps + 1, len(tokens))
    masked = draws.uniform(*tokens.shape) < (t / prior.timesteps).unsqueeze(1)
    logits = textbook_logits(prior.net, tokens.masked_fill(masked, prior.mask))
    nats = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")
    return ((1 - t / prior.timesteps) * (nats * masked).sum(1)).mean() / (tokens.shape[1] * math.log(2))
