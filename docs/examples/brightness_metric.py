"""A metric of one's own: are the samples as bright as the real images?

    python -m bench.run metrics.names=[fid,'brightness_metric:Brightness'] prior=unigram dataset=digits preset=smoke
"""
from bench.metrics.base import Column, Evidence
from bench.metrics.intervals import normal_interval
from bench.records import Measurement


class Brightness:
    name = "brightness"
    columns = {"brightness_gap": Column("grey levels", "none", version=1, title="Brightness gap")}
    depends_on = ("protocol",)   # the parts of a run's specification that move the number

    def applies(self, evidence: Evidence) -> bool:
        return True   # every row has samples and real images

    def __call__(self, evidence: Evidence) -> list[Measurement]:
        judged, real = (evidence.images(side) for side in ("fake", "real"))
        bright = [split.images(range(len(split))).mean((1, 2, 3)) for split in (judged, real)]   # (n,) each
        gap = float(bright[0].mean() - bright[1].mean())
        error = float(sum(values.var(ddof=1) / len(values) for values in bright) ** 0.5)   # Welch
        low, high = normal_interval(gap, error)
        column = self.columns["brightness_gap"]
        return [Measurement("brightness_gap", gap, evidence.protocol_id, n=len(bright[0]), ci_low=low, ci_high=high,
                            standard_error=error, unit=column.unit, better=column.better)]
