"""Every row of `python -m bench.speed`, by the name its command line has for it.

A row is a function from Settings to Cells; it times the textbook algorithm and ours, in turn, in this process. What is
random here is seeded; nothing is trained but a toy prior.

    for cell in ROWS["ar"](Settings(quick=True)):
        print(cell.what, cell.ratio)
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.assets.cache import asset_status
from bench.timing.lossless import lossless_rows
from bench.timing.metrics import fid_rows, inception_rows, neighbour_rows, prdc_rows, scaling_rows
from bench.timing.priors import absorbing_rows, autoregressive_rows, elbo_rows, evaluation_rows
from bench.timing.training import tokenizer_rows, training_rows
from bench.timing.turns import Settings, Timing, in_turn


def pipeline_rows(settings: Settings) -> Iterator[Timing]:
    """A run of which every artefact exists already: what remains is the pipeline's own work."""
    status = asset_status("lpips-alex")
    if not status.ready:
        yield Timing("pipeline", "pipeline, everything cached", None, None, note=f"not run: {status.message}")
        return
    from bench.compose import compose
    from bench.pipeline import run
    from bench.store.store import Store

    with tempfile.TemporaryDirectory() as folder:
        spec = compose(["preset=smoke", "dataset=digits", "metrics.names=[nll]", f"results_dir='{folder}/results'",
                        f"device={settings.device}"])

        def again() -> None:
            run(spec, store=Store(Path(folder) / "artefacts"), announce=lambda text: None)

        again()   # builds everything
        laps = in_turn({"ours": again}, settings, warmup=0)
    yield Timing("pipeline", "pipeline, everything cached", None, statistics.median(laps["ours"].cpu),
               note="checks, loads and writes the record: all but the work itself")


ROWS: dict[str, Callable[[Settings], Iterator[Timing]]] = {
    "ar": autoregressive_rows,
    "absorbing": absorbing_rows,
    "lossless": lossless_rows,
    "evaluation": evaluation_rows,
    "elbo": elbo_rows,
    "prdc": prdc_rows,
    "fid": fid_rows,
    "neighbours": neighbour_rows,
    "inception": inception_rows,
    "training": training_rows,
    "tokenizer": tokenizer_rows,
    "scaling": scaling_rows,
    "pipeline": pipeline_rows,
}
