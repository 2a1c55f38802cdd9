"""The Inception-v3 of the FID literature (TensorFlow, 2015-12-05), as torch-fidelity has it but faster on CPUs.

    extractor = InceptionCompat(device="cpu")
    features = extractor(images)              # (b, 3, H, W) uint8 -> (b, 2048) float32

Architecture and weights are torch-fidelity's `inception-v3-compat`.  What differs is only the order of sums: batch
normalisation folded into the convolutions, channels_last memory, the TF1 bilinear resize as two small matrix products,
and 1x1 convolutions moved before the average pooling that they commute with.  Features agree to 2e-5.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.assets.torchvision_compat import ensure_torchvision
from bench.assets.weights import inception_weights
from bench.errors import InputError
from bench.metrics.lpips_embedding import full_precision

SIZE = 299
CPU_BATCH = 16   # on CPUs more images at once are no faster, and 27 MB each


class InceptionCompat:
    """FID features of uint8 images.  weights: sha256 of the state_dict's tensors, for protocol ids and caches."""

    name = "inception-v3-compat"
    assets = ("inception",)
    num_features = 2048
    resize = "tf1-bilinear-299"

    def __init__(self, *, device: str | torch.device = "cpu"):
        net = inception_oracle()
        self.weights = tensors_sha256(net)
        self.device = torch.device(device)
        self.net = _faster(net)
        self.net.to(self.device, memory_format=torch.channels_last)   # type: ignore[call-overload]   # stubs lack it

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """(b, 3, H, W) uint8 -> (b, 2048) float32.  Raises InputError for any other input."""
        check_images(images)
        step = CPU_BATCH if self.device.type == "cpu" else max(1, len(images))
        with full_precision():
            parts = [self.net(tf1_resize(part.to(self.device))) for part in images.split(step)]
        return torch.cat(parts) if parts else torch.empty(0, self.num_features, device=self.device)


def inception_oracle() -> Any:
    """torch-fidelity's extractor as it comes, with our verified weights: what ours is compared with."""
    ensure_torchvision()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = inception_weights()
    torch.load(path, weights_only=True)   # torch-fidelity loads without this guard: see first that it is only tensors
    return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))


def check_images(images: Tensor) -> None:
    """Raise InputError unless `images` is (b, 3, H, W) uint8: floats have no agreed range."""
    if images.dtype != torch.uint8:
        raise InputError(f"images are {images.dtype}, expected uint8 in 0..255: "
                         "convert with (x * 255).round().clamp(0, 255).to(torch.uint8)")
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < 1:
        raise InputError(f"images have shape {tuple(images.shape)}, expected (batch, 3, height, width)")


def tf1_resize(images: Tensor, size: int = SIZE) -> Tensor:
    """TensorFlow 1's bilinear resize (no half-pixel shift) of uint8 images, then (x - 128) / 128; channels_last float.

    Each axis is a matrix of two weights a row, so the image is Ry X Rx'.
    """
    rows, columns = (_tf1_weights(n, size).to(images.device) for n in images.shape[2:])
    x = (images.float() - 128) / 128                                     # exact; rows of weights sum to 1
    x = (x @ columns.T).permute(0, 2, 3, 1)                              # (b, H, size, 3)
    b, height = x.shape[:2]
    x = rows @ x.reshape(b, height, size * 3)                            # (b, size, size * 3)
    return x.view(b, size, size, 3).permute(0, 3, 1, 2)


@lru_cache(maxsize=8)
def _tf1_weights(num_in: int, num_out: int) -> Tensor:
    """(num_out, num_in) float32: the source coordinate of pixel i is i * in/out, computed in float32 as TF does."""
    position = torch.arange(num_out, dtype=torch.float32) * torch.tensor(num_in / num_out, dtype=torch.float32)
    low = position.long()
    weights = torch.zeros(num_out, num_in)
    index = torch.arange(num_out)
    weights[index, low] += 1 - (position - low)
    weights[index, (low + 1).clamp_max(num_in - 1)] += position - low
    return weights


def tensors_sha256(net: nn.Module) -> str:
    """sha256 over the trunk's parameters and buffers in order (the classifier, unused, left out)."""
    digest = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        if not name.startswith("fc.") and tensor.dtype.is_floating_point:
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


class _ConvRelu(nn.Module):
    """A convolution with its batch normalisation folded in, then ReLU."""

    def __init__(self, block: Any):
        super().__init__()
        self.conv = torch.nn.utils.fusion.fuse_conv_bn_eval(block.conv, block.bn)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x), inplace=True)


class _Branches(nn.Module):
    """An Inception block as its branches, concatenated.

    heads: 1x1 convolutions that read the same input, run as one; each feeds its tail.
    pooled: the last head is average-pooled before its ReLU (a 1x1 convolution commutes with average pooling).
    """

    def __init__(self, heads: list[Any], tails: list[nn.Module], *, pooled: bool, extra: nn.Module | None = None):
        super().__init__()
        convolutions: list[Any] = [torch.nn.utils.fusion.fuse_conv_bn_eval(head.conv, head.bn) for head in heads]
        first = convolutions[0]
        self.head = nn.Conv2d(first.in_channels, sum(c.out_channels for c in convolutions), 1)
        self.head.weight.data = torch.cat([c.weight.data for c in convolutions])
        assert self.head.bias is not None
        self.head.bias.data = torch.cat([c.bias.data for c in convolutions])
        self.widths = [c.out_channels for c in convolutions]
        self.tails = nn.ModuleList(tails)
        self.pooled = pooled
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.head(x).split(self.widths, dim=1))
        if self.pooled:
            parts[-1] = F.avg_pool2d(parts[-1], 3, stride=1, padding=1, count_include_pad=False)
        outputs = [tail(F.relu(part)) for tail, part in zip(self.tails, parts, strict=True)]
        return torch.cat(outputs + ([self.extra(x)] if self.extra is not None else []), 1)


class _Parallel(nn.Module):
    """Modules that read one input, concatenated."""

    def __init__(self, *branches: nn.Module):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def _faster(net: Any) -> nn.Sequential:
    """The trunk of torch-fidelity's module `net`, rebuilt for speed; the same function up to rounding."""
    conv, same = _ConvRelu, nn.Identity()

    def a(m: Any) -> nn.Module:
        return _Branches([m.branch1x1, m.branch5x5_1, m.branch3x3dbl_1, m.branch_pool],
                         [same, conv(m.branch5x5_2), nn.Sequential(conv(m.branch3x3dbl_2), conv(m.branch3x3dbl_3)),
                          same], pooled=True)

    def b(m: Any) -> nn.Module:
        return _Parallel(conv(m.branch3x3), _chain(m, "branch3x3dbl", "1", "2", "3"), nn.MaxPool2d(3, stride=2))

    def c(m: Any) -> nn.Module:
        return _Branches([m.branch1x1, m.branch7x7_1, m.branch7x7dbl_1, m.branch_pool],
                         [same, _chain(m, "branch7x7", "2", "3"), _chain(m, "branch7x7dbl", "2", "3", "4", "5"), same],
                         pooled=True)

    def d(m: Any) -> nn.Module:
        return _Branches([m.branch3x3_1, m.branch7x7x3_1],
                         [conv(m.branch3x3_2), _chain(m, "branch7x7x3", "2", "3", "4")],
                         pooled=False, extra=nn.MaxPool2d(3, stride=2))

    def e(m: Any, *, average: bool) -> nn.Module:
        heads = [m.branch1x1, m.branch3x3_1, m.branch3x3dbl_1]
        tails = [same, _Parallel(conv(m.branch3x3_2a), conv(m.branch3x3_2b)),
                 nn.Sequential(conv(m.branch3x3dbl_2), _Parallel(conv(m.branch3x3dbl_3a), conv(m.branch3x3dbl_3b)))]
        if average:
            return _Branches([*heads, m.branch_pool], [*tails, same], pooled=True)
        pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv(m.branch_pool))
        return _Branches(heads, tails, pooled=False, extra=pool)

    return nn.Sequential(
        conv(net.Conv2d_1a_3x3), conv(net.Conv2d_2a_3x3), conv(net.Conv2d_2b_3x3), nn.MaxPool2d(3, stride=2),
        conv(net.Conv2d_3b_1x1), conv(net.Conv2d_4a_3x3), nn.MaxPool2d(3, stride=2),
        a(net.Mixed_5b), a(net.Mixed_5c), a(net.Mixed_5d), b(net.Mixed_6a),
        c(net.Mixed_6b), c(net.Mixed_6c), c(net.Mixed_6d), c(net.Mixed_6e), d(net.Mixed_7a),
        e(net.Mixed_7b, average=True), e(net.Mixed_7c, average=False),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(1)).eval().requires_grad_(False)


def _chain(block: Any, prefix: str, *suffixes: str) -> nn.Sequential:
    return nn.Sequential(*(_ConvRelu(getattr(block, f"{prefix}_{suffix}")) for suffix in suffixes))
