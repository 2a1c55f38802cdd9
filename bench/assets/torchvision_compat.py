"""torchvision beside torch's CPU build.

The torchvision wheel of the package index is a CUDA build: with torch's CPU build its import stops at `operator
torchvision::nms does not exist`. torch-fidelity and lpips import torchvision, so call this before either:

    ensure_torchvision(); import lpips
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

_MISSING_OPERATOR = "torchvision::nms does not exist"
_kept: list[Any] = []   # a Library undefines its operators when it is collected


def ensure_torchvision() -> ModuleType:
    """Import torchvision, declaring the operators that its compiled half would have declared.

    Models, transforms, datasets and save_image then work; calling nms itself does not.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if _MISSING_OPERATOR not in str(error):
            raise
        _forget_half_import()
        _declare_operators()
        import torchvision
    return torchvision


def _forget_half_import() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]


def _declare_operators() -> None:
    import torch

    if _kept:
        return
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)
