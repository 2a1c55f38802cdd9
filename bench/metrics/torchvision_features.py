"""Any torchvision classifier as a feature extractor: what enters its last linear layer.

    extractor = TorchvisionExtractor("resnet50")                              # published weights, already downloaded
    extractor = TorchvisionExtractor("resnet50:/data/resnet50-mine.pth")      # a state_dict of your own

Images pass through the preprocessing that torchvision publishes with the model's default weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.assets.torchvision_compat import ensure_torchvision
from bench.errors import InputError, did_you_mean
from bench.metrics.inception import check_images
from bench.metrics.lpips_embedding import full_precision
from bench.provenance import sha256_of


class TorchvisionExtractor:
    """Penultimate features of a torchvision model. Nothing is downloaded: absent weights are an error."""

    def __init__(self, model_and_path: str, *, device: str | torch.device = "cpu"):
        model_name, _, path = model_and_path.partition(":")
        self.name = f"torchvision:{model_and_path}"
        self.device = torch.device(device)
        net, published = _architecture(model_name)
        file = _weights_file(model_name, path, published)
        self.weights = sha256_of(file)
        if not path:
            _check_published(file, self.weights)
        _load(net, file)
        self.transform = published.transforms(antialias=True)
        self.resize = " ".join(str(self.transform).split())
        self.net: Any = net.eval().requires_grad_(False)
        self.net.to(self.device, memory_format=torch.channels_last)
        self.last = _last_linear(model_name, net)
        self.num_features = self.last.in_features

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """(b, 3, H, W) uint8 -> (b, D) float32: the input of the last linear layer."""
        check_images(images)
        seen: list[Tensor] = []
        handle = self.last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        try:
            with full_precision():
                self.net(self.transform(images.to(self.device)).contiguous(memory_format=torch.channels_last))
        finally:
            handle.remove()
        return seen[0].flatten(1).float()


def _architecture(model_name: str) -> tuple[Any, Any]:
    models = ensure_torchvision().models
    if model_name not in models.list_models(module=models):
        raise InputError(f"torchvision has no classifier '{model_name}'. "
                         f"{did_you_mean(model_name, models.list_models(module=models))}")
    return models.get_model(model_name, weights=None), models.get_model_weights(model_name).DEFAULT


def _weights_file(model_name: str, path: str, published: Any) -> Path:
    """The file the name gives, or where torchvision keeps its download."""
    file = Path(path) if path else Path(torch.hub.get_dir()) / "checkpoints" / published.url.rsplit("/", 1)[1]
    if file.is_file():
        return file
    raise InputError(f"weights of torchvision:{model_name} are absent: expected {file}. Download {published.url} to "
                     f"that place, or name a state_dict of your own: torchvision:{model_name}:/path/to/weights.pth")


def _check_published(file: Path, sha256: str) -> None:
    """torchvision's file names end in the first eight digits of their sha256."""
    expected = file.stem.rsplit("-", 1)[-1]
    if not sha256.startswith(expected):
        raise InputError(f"{file} is damaged: its sha256 begins with {sha256[:8]}, its name says {expected}. "
                         "Delete it and download it again")


def _load(net: nn.Module, file: Path) -> None:
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(file)
    else:
        state = torch.load(file, map_location="cpu", weights_only=True)
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{file} does not fit this model: {' '.join(str(error).split())[:400]}") from None


def _last_linear(model_name: str, net: nn.Module) -> nn.Linear:
    linear = [module for module in net.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise InputError(f"torchvision:{model_name} ends in no linear layer, so its features have no agreed place; "
                         "choose another model, such as torchvision:resnet50")
    return linear[-1]
