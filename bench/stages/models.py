"""Models from a spec: made with seeded weights, read from an artefact, or from a checkpoint of the user's.

    model = new_prior(run, tokenizer)
    imported(model, run.spec.prior, section="prior")
    save_model(model, out)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import kernels, registry
from bench.config.models import ModelConfig, TrainingConfig
from bench.errors import InputError
from bench.plugin_code import is_ours, marked
from bench.provenance import sha256_of
from bench.schema import schema_of
from bench.stages.base import Run
from bench.stages.condition import given_of
from bench.store.store import Artefact

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS = "model.safetensors"


def identity_of(run: Run, kind: str, config: ModelConfig, *, seed: int, **more: Any) -> dict[str, Any]:
    """What a model's weights depend on, as the configuration of its recipe. seed: of its training."""
    identity = {"class": marked(kind, config.entry), "options": config.options, **more}
    if not config.path and kind == "tokenizers" and is_frozen(config):
        return {**identity, "frozen": True}   # neither a training nor its seed has a part in it
    if not config.path:
        return {**identity, "training": training_of(config.training), "seed": seed}
    path = Path(config.path)
    if not path.exists():
        section = "vq" if kind == "tokenizers" else "prior"
        raise InputError(f"{section}.path={config.path}: no such file. Give the path of a checkpoint, or leave "
                         f"{section}.path out to train one.")
    return {**identity, "imported": sha256_of(path), "layout": config.layout}


def is_frozen(config: ModelConfig) -> bool:
    """Whether a tokenizer's class cannot be trained: without a checkpoint it is what its constructor makes of it."""
    if config.schema and not is_foreign(config):
        return False   # said without importing torch: those of ours that have no `trainable` have a checkpoint
    from vq.base import TrainableTokenizer
    return not issubclass(registry.resolve("tokenizers", config.entry), TrainableTokenizer)


def is_foreign(config: ModelConfig) -> bool:
    """Whether a tokenizer's class is somebody else's."""
    return not is_ours(registry.target_of("tokenizers", config.entry))


def perceptual_net(config: ModelConfig) -> str | None:
    """The LPIPS network of a tokenizer's training: what its Options says (None: it needs none), else "alex"."""
    return getattr(schema_of(config, "tokenizers")[0](**config.options), "perceptual_net", "alex")


def training_of(config: TrainingConfig) -> dict[str, Any]:
    """What of a training budget changes the weights."""
    training = dataclasses.asdict(config)
    for name in ("checkpoint_every", "log_every"):
        training.pop(name)
    training.pop("selection", None)   # stands beside it, where it has a say
    # Keys stay those of before there were subsets and trajectories.
    if training.get("images", 0) is None:
        del training["images"]
    if training.get("measure_at") == "none":
        for name in ("measure_at", "measure_images", "measure_budget", "patience"):
            del training[name]
    if training.get("measure_order", "") is None:   # likewise of before there were orders
        del training["measure_order"]
    return training


def prior_seed(run: Run) -> int:
    """Of the prior's training: its own, or the run's."""
    return run.spec.seed if run.spec.prior.seed is None else run.spec.prior.seed


def new_tokenizer(run: Run) -> Any:
    """The tokenizer with initial weights, of the seed alone; of none where its class cannot be trained."""
    from bench.assets.torchvision_compat import ensure_torchvision

    config = run.spec.vq
    cls = registry.resolve("tokenizers", config.entry)
    from vq.base import TrainableTokenizer
    if not issubclass(cls, TrainableTokenizer):
        ensure_torchvision()   # which packages of pretrained models import
    with _seeded("tokenizer", 0 if is_frozen(config) else run.spec.seed):
        return cls(options=schema_of(config, "tokenizers")[0](**config.options),
                   resolution=run.spec.dataset.resolution).to(run.device)


def new_prior(run: Run, tokenizer: Any) -> Any:
    """The prior for this tokenizer's grids with initial weights, of the seed alone."""
    config, given = run.spec.prior, given_of(run)
    cls = registry.resolve("priors", config.entry)
    options = config.options | (given.options if given else {})
    if run.device == "cpu" and isinstance(width := options.get("width"), int):
        kernels.settle(width)
    with _seeded("prior", prior_seed(run)):
        return cls(grid=tuple(tokenizer.grid), codebook_size=tokenizer.codebook_size,
                   options=schema_of(config, "priors")[0](**options)).to(run.device)


def sampler_of(run: Run) -> Any:
    """The prior's sampler as the spec asks for it; None for a prior without options of sampling."""
    sampler = schema_of(run.spec.prior, "priors")[1]
    values = {key: value for key, value in run.spec.sampler.items() if key != "seed"}
    return sampler(**values) if sampler else None


def loaded(model: nn.Module, artefact: Artefact, device: str) -> Any:
    """The model with an artefact's weights, frozen."""
    from safetensors.torch import load_file

    model.load_state_dict(load_file(artefact.path / WEIGHTS, device=device))
    return model.to(device).eval().requires_grad_(False)


def imported(model: Any, config: ModelConfig, *, section: str) -> Any:
    """The model with the user's checkpoint. Raises InputError if that is damaged or does not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    assert config.path
    if config.layout != "native" and not _reads_official_weights(model):
        raise InputError(f"{section}.layout={config.layout}: {config.entry} reads no other layout "
                         "than native.")
    try:
        if config.layout != "native":
            model = model.load_official(config.path, layout=config.layout)
        else:
            state, head = load_file(config.path), _own_head(model)
            model.load_state_dict(state if head.keys() & state.keys() else head | state)
    except (SafetensorError, RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:600]
        expected = (f"the {WEIGHTS} of a run with the same options" if config.layout == "native" else
                    f"a checkpoint of layout {config.layout} and of the sizes that {section}.* and the preset give")
        raise InputError(f"{section}.path={config.path} is not a checkpoint of this model, or is damaged: {reason}."
                         f" Expected {expected}.") from None
    for name, value in model.named_parameters():   # a buffer may say by nan that nothing is known yet
        if value.isnan().any():
            raise InputError(f"{section}.path={config.path}: {name} holds values that are not numbers, and all that is "
                             "made with it would be none. Its training went wrong, or the file is damaged: give "
                             "another.")
    return model


def save_model(model: nn.Module, out: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()},
              out / WEIGHTS)


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _reads_official_weights(model: Any) -> bool:
    from priors import base
    from vq.base import ReadsOfficialWeights
    return isinstance(model, ReadsOfficialWeights | base.ReadsOfficialWeights)


def _own_head(model: Any) -> dict[str, Tensor]:
    """The model's fresh likelihood head, for a checkpoint without one: its fine-tuning is a stage of its own."""
    head = getattr(model, "likelihood_head", None)
    inside = [f"{name}." for name, module in model.named_modules() if module is head]
    return {key: value for key, value in model.state_dict().items() if key.startswith(tuple(inside))}


@contextmanager
def _seeded(*key: int | str) -> Iterator[None]:
    """Initial weights from the seed alone, leaving torch's global generator as it was."""
    import torch

    from priors.base import Draws
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(Draws.seeded(*key).generator.initial_seed())
        yield
