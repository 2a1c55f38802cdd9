"""What a run must have before it starts: data, checkpoints, weights. bench.run, bench.edit and bench.doctor ask it.

    check_present(specs)                          # in a moment and without torch: InputError says what is not there
    assets_of(specs)                              # ["inception", "lpips-alex"]: weights and public data sets to fetch
    prepare(specs, assets_of(specs))              # all is fetched and read, before anything is built
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bench import registry
from bench.assets.cache import asset_folder
from bench.assets.catalogue import ASSETS
from bench.config import SOURCES, DatasetConfig, RunSpec
from bench.data.encoder_files import check_clip
from bench.data.foreign import name_of
from bench.errors import InputError
from bench.stages.base import Run
from bench.stages.models import is_foreign, is_frozen, perceptual_net
from bench.tracking import check_tracking

WITH_TOKENIZER = ("prior", "reconstruction")   # the sources that pass through one


LAUNCHED = ("launcher", "plan=", "status=", "sampling.shards")
"""Beginnings of the keys of what bench.run launches, which commands that work in one process do not use."""


def refuse(arguments: Iterable[str], unused: tuple[str, ...]) -> None:
    """Raise InputError for a key of bench.run that the command at hand would take and ignore; unused: beginnings."""
    for argument in arguments:
        if argument.startswith(unused):
            raise InputError(f"{argument}: a key of bench.run that is not used here. Leave it out.")


def check_present(specs: Sequence[RunSpec], announce: Callable[[str], None] = print) -> None:
    """Raise InputError, before torch is imported, for data, files or packages that runs need and that are not there."""
    check_data(specs, announce)
    check_own_files(specs)
    check_tracking(specs)


def check_data(specs: Sequence[RunSpec], announce: Callable[[str], None] = print) -> None:
    """Raise InputError, before torch is imported, if a data set or samples to be judged are not as they should be.

    Says of samples from elsewhere how they are read.
    """
    configs = {repr(spec.dataset): spec.dataset for spec in specs}
    for config in configs.values():
        dataset_of(config).check(config)
    foreign = [spec for spec in specs if spec.source not in SOURCES]
    for said in dict.fromkeys(f"source {name_of(spec.source)}: {Run(spec).foreign.described}" for spec in foreign):
        announce(said)


def dataset_of(config: DatasetConfig) -> Any:
    return registry.resolve("datasets", config.entry)()


def check_own_files(specs: Iterable[RunSpec]) -> None:
    """Raise InputError, before torch is imported, if a checkpoint, tokens or a CLIP of the user's are not there."""
    for spec in specs:
        if spec.protocol.clip:
            check_clip(Path(spec.protocol.clip).expanduser())
        for key, file in files_of(spec):
            if not (file.exists() if key.startswith(("vq.path=", "prior.path=")) else file.is_file()):
                raise InputError(f"{key}: no such file as {file}. Give the path of a file that is there, or leave "
                                 f"{key.partition('=')[0]} out.")


def files_of(spec: RunSpec) -> list[tuple[str, Path]]:
    """Files of the user's that a run reads, each with the `key=value` that names it."""
    vq, prior = spec.vq, spec.prior
    found = []
    if spec.source in WITH_TOKENIZER and vq.path:
        found.append((f"vq.path={vq.path}", Path(vq.path)))
    if spec.source == "prior" and prior.path:
        found.append((f"prior.path={prior.path}", Path(prior.path)))
    if spec.source == "prior" and vq.tokens:
        found += [(f"vq.tokens={vq.tokens}", Path(vq.tokens) / f"{split}.npy") for split in ("train", "validation")]
    if reference := spec.protocol.reference:
        found.append((f"protocol.reference={reference}", Path(reference)))
    return found


def assets_of(specs: Iterable[RunSpec]) -> list[str]:
    """Names of the weights and public data sets that runs read; each metric and each extractor states its own."""
    return sorted({name for spec in specs for name in (*_of_models(spec), *_of_metrics(spec))})


def assets_of_models(specs: Iterable[RunSpec], *, features: bool = False) -> list[str]:
    """The same where models are built and used, and nothing is measured; features: but features are extracted."""
    return sorted({name for spec in specs for name in (*_of_models(spec), *(_of_extractor(spec) if features else ()))})


def assets_of_edits(specs: Iterable[RunSpec]) -> list[str]:
    """The same for edits that are measured, by FID and LPIPS."""
    specs = list(specs)
    return sorted({*assets_of_models(specs, features=True), *(f"lpips-{s.protocol.neighbours_net}" for s in specs)})


def prepare(specs: Sequence[RunSpec], assets: Iterable[str]) -> None:
    """Read the user's statistics, have the weights, read the user's checkpoints, tokens and tokenizers.

    Raises InputError for a file that does not fit, AssetError for weights that cannot be had.
    """
    from bench.metrics.exchange import read_statistics
    for reference in sorted({spec.protocol.reference for spec in specs if spec.protocol.reference}):
        read_statistics(reference)   # whether they suit the extractor can only be told once its weights are there
    have_assets(assets)
    _check_checkpoints(specs)


def have_assets(names: Iterable[str]) -> None:
    """Fetch, verify and convert what is missing. Raises AssetError, which says where else a file may be put."""
    for name in names:
        asset_folder(name)


def _check_checkpoints(specs: Sequence[RunSpec]) -> None:
    """Read the user's own checkpoints, tokens and statistics, and try their tokenizers, before anything is trained.

    Raises InputError for one that does not fit.
    """
    for protocol in {repr(spec.protocol): spec.protocol for spec in specs if spec.protocol.reference}.values():
        from bench.metrics.exchange import reference_of
        reference_of(protocol)
    imports = {repr((spec.vq, spec.prior, spec.dataset, spec.source, spec.condition)): spec for spec in specs
               if spec.source in WITH_TOKENIZER
               and (spec.vq.path or spec.vq.tokens or spec.prior.path or is_foreign(spec.vq))}
    if not imports:
        return
    from bench.stages.prior import check_imports
    for spec in imports.values():
        check_imports(Run(spec))


def _of_models(spec: RunSpec) -> set[str]:
    """Of the data set, of its captions, and of training a tokenizer where one is trained."""
    found = set()
    if spec.dataset.path is None and spec.dataset.name in ASSETS:
        found.add(spec.dataset.name)
    if spec.source == "prior" and spec.condition.name == "text" and spec.condition.encoder is None:
        found.add("text-encoder")
    if spec.source in WITH_TOKENIZER and spec.vq.path is None and not is_frozen(spec.vq):
        if net := perceptual_net(spec.vq):
            found.add(f"lpips-{net}")
    return found


def _of_metrics(spec: RunSpec) -> set[str]:
    """Of what is measured; jobs of a launcher extract features whatever is measured of them."""
    found: set[str] = set() if spec.launcher.name == "debug" else _of_extractor(spec)
    for name in spec.metrics.names:
        if assets := getattr(registry.resolve("metrics", name)(), "assets", None):
            found |= assets(spec)
    return found


def _of_extractor(spec: RunSpec) -> set[str]:
    from bench.metrics.features import extractor_assets
    return extractor_assets(spec.protocol.extractor)
