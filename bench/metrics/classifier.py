"""A small classifier of images: three convolutions, trained here and always alike for one seed.

    model = untrained(10)
    train(model, small(images, indices), labels, "cpu", draws=Draws.seeded("classifier"))
    right(model, images, indices, truth, "cpu").mean()      # its accuracy
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.data.base import ImageData
from priors.base import Draws

SIDE = 32   # pixels; larger images are averaged down to it
BATCH, EPOCHS, STEPS = 128, 20, (200, 2_000)   # as many steps as the epochs take, within these


def untrained(num_classes: int, *, seed: int = 0) -> nn.Sequential:
    """Three convolutions with seeded weights. GroupNorm, so that an answer does not depend on its batch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for before, width in ((3, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.GroupNorm(8, width), nn.ReLU(),
                       nn.MaxPool2d(2, ceil_mode=True)]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, num_classes))


def train(model: nn.Module, images: Tensor, labels: Tensor, device: str, *, draws: Draws) -> None:
    """images: (n, 3, h, w) uint8; labels: (n,)."""
    steps = min(max(EPOCHS * len(images) // BATCH, STEPS[0]), STEPS[1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    model.train()
    for _ in range(steps):
        batch = draws.integers(0, len(images), BATCH)
        loss = F.cross_entropy(model(_scaled(images[batch].to(device))), labels[batch].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()


def right(model: nn.Module, images: ImageData, indices: np.ndarray, truth: np.ndarray, device: str) -> np.ndarray:
    """(n,) float64: 1 where the classifier says the true class."""
    found = []
    for start in range(0, len(indices), BATCH):
        batch = small(images, indices[start : start + BATCH]).to(device)
        with torch.inference_mode():
            found.append(model(_scaled(batch)).argmax(1).cpu().numpy())
    return (np.concatenate(found) == truth).astype(np.float64)


def small(images: ImageData, indices: np.ndarray) -> Tensor:
    """(n, 3, h, w) uint8 of at most SIDE pixels a side."""
    parts = []
    for start in range(0, len(indices), 500):
        batch = torch.from_numpy(images.images(indices[start : start + 500]))
        if batch.shape[-1] > SIDE:
            batch = F.adaptive_avg_pool2d(batch.float(), SIDE).round().to(torch.uint8)
        parts.append(batch)
    return torch.cat(parts)


def _scaled(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1
