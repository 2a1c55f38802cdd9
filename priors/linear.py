"""nn.Linear that may use oneDNN's float32 kernels on a CPU.

    Linear(256, 1024)(x)   # the same function as nn.Linear, to rounding
    use_kernel("torch")    # from now on nn.Linear itself, in this process

torch multiplies float32 matrices by MKL, which leaves half of a current AMD core idle (AVX2 where there is AVX-512): on
an EPYC core oneDNN reached 225 GFLOP/s where MKL reached 100. On cores with AVX2 alone MKL is up to 20% ahead, so a
program may choose (bench.kernels does, by timing both). On other devices, and for few rows, this is nn.Linear itself.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNELS = ("onednn", "torch")
FEWEST_ROWS = 16   # below it oneDNN's cost of a call outweighs its kernels (measured, widths 256 to 1024)


_in_use = ["onednn"]


def use_kernel(name: str) -> None:
    """For all layers of this process, one of KERNELS; torch's where there is no oneDNN."""
    if name not in KERNELS:
        raise ValueError(f"kernel={name!r}: expected one of {', '.join(KERNELS)}")
    _in_use[0] = name


def kernel_in_use() -> str:
    return _in_use[0] if HAS_ONEDNN else "torch"


class Linear(nn.Linear):
    """x W^T + b over the last dimension; parameters, names and initialisation are nn.Linear's."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.linear, by oneDNN where it helps: float32 on a CPU, outside autocast, with enough rows."""
    if not _suits_onednn(x, weight):
        return F.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        y = _OneDnnLinear.apply(rows, weight, bias)
    else:
        y = _onednn(rows, weight, bias)
    return y.view(*x.shape[:-1], -1)


def _suits_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        HAS_ONEDNN
        and _in_use[0] == "onednn"
        and x.numel() >= FEWEST_ROWS * x.shape[-1]
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )


def _has_onednn() -> bool:
    """Whether this build of torch has the kernel; torch's own compiler uses it, but it is not a public function."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


HAS_ONEDNN = _has_onednn()


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(M, in), (out, in), (out,) -> (M, out)."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "none")


class _OneDnnLinear(torch.autograd.Function):
    """The kernel has no derivative of its own: two more calls of it are the derivative."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _onednn(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor):
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        to_x = _onednn(gradient, weight.t(), None) if ctx.needs_input_grad[0] else None
        to_weight = _onednn(gradient.t().contiguous(), x.t().contiguous(), None) if ctx.needs_input_grad[1] else None
        to_bias = gradient.sum(0) if ctx.has_bias and ctx.needs_input_grad[2] else None
        return to_x, to_weight, to_bias
