"""What the report calls each metric: as `bench.metrics.columns` declares it.

    metric_of("fid").title   # "FID"
"""

from bench.metrics.columns import Better, in_order
from bench.metrics.columns import column_of as metric_of

__all__ = ["Better", "in_order", "metric_of"]
