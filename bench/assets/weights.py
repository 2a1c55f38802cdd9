"""The assets as the code uses them: models and arrays made of files that `asset_folder` has verified.

    lpips_model("alex")(x, y)      cifar10_arrays().train      inception_weights()
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

from bench.assets import convert
from bench.assets.cache import asset_folder, manifest_of
from bench.assets.catalogue import AssetError
from bench.assets.torchvision_compat import ensure_torchvision
from bench.errors import InputError, did_you_mean


class Cifar10Arrays(NamedTuple):
    """.npy files of (50000, 32, 32, 3) and (10000, 32, 32, 3) uint8, for np.load(..., mmap_mode="r")."""

    train: Path
    test: Path


def inception_weights() -> Path:
    """A state_dict file for torch-fidelity's inception-v3-compat (its `feature_extractor_weights_path`)."""
    return asset_folder("inception") / convert.INCEPTION_FILE


def inception_has_classifier() -> bool:
    """Whether `inception_weights()` has the 1008-way classifier; without it logits and Inception Score are NaN."""
    return bool(manifest_of(asset_folder("inception"))["has_classifier"])


def lpips_weights(net: str = "alex") -> Path:
    """A safetensors file of the trunk's convolutions under torchvision's names (`features.0.weight`, OIHW)."""
    return asset_folder(f"lpips-{_known_net(net)}") / convert.TRUNK_FILE


def lpips_model(net: str = "alex") -> Any:
    """An `lpips.LPIPS` v0.1, in eval mode and frozen; its inputs are (B, 3, H, W) float in [-1, 1].

    net: "alex" or "vgg"; any other raises InputError. Building it draws no number from torch's global generator.
    """
    weights = lpips_weights(net)
    ensure_torchvision()
    import lpips
    import torch
    from safetensors.torch import load_file

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")   # lpips calls torchvision through arguments that are deprecated
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    trunk = {key.removeprefix("features."): value for key, value in load_file(weights).items()}
    # lpips cuts `features` into net.slice1 .. net.slice5 and keeps each layer's index within them
    names = {key.split(".", 2)[2]: key for key in model.state_dict() if key.startswith("net.slice")}
    if set(names) != set(trunk):
        raise AssetError(f"lpips {net} has layers {sorted(names)}, the weights {sorted(trunk)}: reinstall lpips==0.1.4")
    model.load_state_dict({names[index]: value for index, value in trunk.items()}, strict=False)
    return model.eval().requires_grad_(False)


def cifar10_arrays(path: Path | None = None) -> Cifar10Arrays:
    """CIFAR-10 as memory-mappable files, the bytes of both splits equal to their pinned sha256.

    path: a published archive, or a folder that holds one, to use instead of looking for it.
    """
    folder = asset_folder("cifar10", path)
    return Cifar10Arrays(folder / convert.TRAIN_FILE, folder / convert.TEST_FILE)


def emoji_archive(path: Path | None = None) -> Path:
    """A zip of the 72x72 PNGs, named by their code points.  path: the published package's file, if it is at hand."""
    return asset_folder("emoji", path) / convert.EMOJI_FILE


def _known_net(net: str) -> str:
    if net not in convert.CONVOLUTIONS:
        raise InputError(f"LPIPS network '{net}' is not available. {did_you_mean(net, convert.CONVOLUTIONS)}")
    return net
