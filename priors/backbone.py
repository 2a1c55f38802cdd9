"""The shared transformer as a prior's options and grid make it.

    backbone(AbsorbingOptions(width=256), grid=(16, 16), vocabulary=1025, num_classes=1024)
"""

from __future__ import annotations

from torch import Tensor

from priors.condition_options import ConditionOptions
from priors.options import TransformerOptions
from priors.positions import initial_positions
from priors.transformer import Transformer


def backbone(
    options: TransformerOptions, *, grid: tuple[int, int], vocabulary: int, num_classes: int, causal: bool = False,
    time_conditioned: bool = False, order: Tensor | None = None,
) -> Transformer:
    """A network of all tokens of the grid, new; causal and time_conditioned as for the Transformer.

    order: (N,) int64, the raster position that each element of its sequence stands for (None: raster order).
    """
    positions = initial_positions(options, grid)   # before the network: the order in which both draw is fixed
    return Transformer(
        num_tokens=grid[0] * grid[1], vocabulary=vocabulary, num_classes=num_classes, width=options.width,
        num_layers=options.num_layers, num_heads=options.num_heads, causal=causal, time_conditioned=time_conditioned,
        dropout=options.dropout, condition=options.condition if isinstance(options, ConditionOptions) else None,
        positions=positions if order is None else positions[order],
    )
