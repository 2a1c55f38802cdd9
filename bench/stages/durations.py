"""How long a stage will take, by what took how long here. Torch-free.

    estimated_seconds(list(Store().artefacts()), stage)      # None where none like it was built here
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench.stages.chain import Planned
from bench.store.store import Artefact


def estimated_seconds(built: Iterable[Artefact], stage: Planned) -> float | None:
    """From the one of `built` of the same stage and model whose amount of work is nearest; None if there is none."""
    similar = []
    for artefact in built:
        manifest = artefact.manifest
        if manifest["stage"] == stage.name and _model_of(manifest["config"]) == _model_of(stage.recipe.config):
            work = _work_of(manifest["config"])
            if work:
                similar.append((abs(work - stage.work.amount), manifest["wall_seconds"] / work))
    return min(similar)[1] * stage.work.amount if similar else None


def _model_of(config: dict[str, Any]) -> Any:
    options = config.get("options", {})
    sizes = {k: options.get(k) for k in ("width", "num_layers", "channels", "embedding_dim")}
    return config.get("class"), config.get("source"), sizes, config.get("sampler"), config.get("extractor")


def _work_of(config: dict[str, Any]) -> int:
    return config.get("training", {}).get("steps", 0) or config.get("num", 0)
