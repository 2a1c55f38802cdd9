"""From what Hydra composed to a checked RunSpec: names, types and rules of every key, options of plug-ins included.

    schema_of(spec.prior, "priors")          # (Options, Sampler) of the class that the spec names
"""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Sequence
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from bench import registry
from bench.config import CLIP_METRIC, SEED, ConditionConfig, RunSpec
from bench.config.models import ModelConfig
from bench.errors import InputError, did_you_mean
from bench.plugin_code import is_ours
from bench.rules import check, check_all, is_plain, refuse_resolvers, shown

OPTIONS_OF = {"class": ("num_labels",), "text": ("text_width", "text_length")}
"""The fields of a prior's Options that a condition sets."""
PLUGGABLE = {"vq": "tokenizers", "prior": "priors", "dataset": "datasets"}
NOT_MEASURED = {
    "fid_per_class": "its covariances are rank-deficient with fewer images of each class than features (2,048 of "
                     "Inception), and the number would tell of the number of images. Use kid_per_class, which is "
                     "unbiased at any."}
"""Metrics that are asked for elsewhere, and why they are none here."""


def schema_of(stage: ModelConfig, kind: str) -> tuple[type, type | None]:
    """The Options and Sampler dataclasses of a tokenizer (kind "tokenizers", no Sampler) or a prior ("priors")."""
    if stage.schema:
        try:
            options = registry.load_dotted(f"{stage.schema}Options")
            sampler = registry.load_dotted(f"{stage.schema}Sampler", missing=None)
        except InputError as error:
            raise InputError(f"schema={stage.schema}: {error}") from error
        return _dataclass(options, f"{stage.schema}Options"), sampler and _dataclass(sampler, f"{stage.schema}Sampler")
    name = stage.entry
    cls = registry.resolve(kind, name)
    sampler = getattr(cls, "Sampler", None)
    return _dataclass(cls.Options, f"{name}.Options"), sampler and _dataclass(sampler, f"{name}.Sampler")


def _dataclass(cls: Any, name: str) -> type:
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise InputError(f"{name} is no dataclass: expected one whose fields are the valid keys. Name another class.")
    return cls


def to_spec(composed: DictConfig) -> RunSpec:
    raw = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(raw, dict)
    refuse_resolvers(str(raw))   # merging would resolve once more what was written with a backslash
    sampler = raw.pop("sampler")
    merged = OmegaConf.merge(OmegaConf.structured(RunSpec), raw)
    values = OmegaConf.to_container(merged)
    check_all(RunSpec, cast(dict[str, Any], values))   # here, where the whole key is known
    spec = OmegaConf.to_object(merged)
    assert isinstance(spec, RunSpec)
    _check_names(spec)
    options, sampler_class = schema_of(spec.prior, "priors")
    backbone = _shared(dataclasses.asdict(spec.backbone), options)
    if not spec.prior.target:   # a plug-in may mean something else by these names
        check_own_options(spec.condition, spec.prior.options)
    sizes_of_condition = _shared(dict.fromkeys(OPTIONS_OF.get(spec.condition.name, ()), 1), options)
    spec.prior.options = _checked(options, backbone | sizes_of_condition | spec.prior.options, "prior")
    for name in sizes_of_condition:   # 1 stood for what data set and encoder settle (bench.stages.condition)
        del spec.prior.options[name]
    _check_metrics(spec.metrics.names)
    if spec.protocol.clip and CLIP_METRIC not in spec.metrics.names:
        raise InputError(f"protocol.clip={spec.protocol.clip}: used by the metric {CLIP_METRIC} alone. Add it to "
                         "metrics.names, or leave protocol.clip out.")
    autoencoder = schema_of(spec.vq, "tokenizers")[0]
    sizes = _shared(spec.autoencoder, autoencoder)
    implied = _implied_by_layout(autoencoder, spec, sizes | spec.vq.options)
    from vq.base import ImpliesOptions
    if issubclass(autoencoder, ImpliesOptions):
        implied = implied | autoencoder.implied(spec.vq.options, sizes)
    spec.vq.options = _checked(autoencoder, sizes | implied | spec.vq.options, "vq")
    _check_grid(autoencoder, spec)
    seed = sampler.pop("seed", 0)   # a sampler file of the user's own may leave it out
    check("sampler.seed", seed, SEED)
    usable = {key: value for key, value in sampler.items() if key in _field_names(sampler_class)}
    spec.sampler = {"seed": seed, **_checked(sampler_class, usable, "sampler")}
    return spec


def why_condition_unsupported(config: ConditionConfig, prior: str, options: type, takes_condition: bool) -> str:
    """Why a prior cannot have this condition, before anything is built; "" where it can.

    options: its Options dataclass; takes_condition: whether its methods have the argument (priors.conditions).
    """
    if config.name == "none":
        return ""
    missing = sorted(set(OPTIONS_OF[config.name]) - {field.name for field in dataclasses.fields(options)})
    if not takes_condition:
        return f"prior={prior} knows no condition: its training_loss, nll and sample take none"
    return f"prior={prior} knows no condition={config.name}: its Options lack {', '.join(missing)}" if missing else ""


def check_own_options(config: ConditionConfig, options: dict[str, Any]) -> None:
    """Raise InputError if a command sets what the condition settles.

    options: of a built-in prior, as the command and its preset give them. Sizes come from the data set and the
    encoder, so they are never set by hand.
    """
    for kind, names in OPTIONS_OF.items():
        for name in (name for name in names if options.get(name) is not None):
            way = (f"leave it out: condition={config.name} sets it" if config.name == kind else
                   f"it belongs to condition={kind}, which sets it, and this run has condition={config.name}")
            raise InputError(f"prior.{name}={options[name]}: {way}.")


def why_no_condition(spec: RunSpec) -> str:
    """Why the prior cannot have the run's condition, or its sampler its guidance; "" where they can."""
    prior, guidance = spec.prior, spec.sampler.get("guidance", 1)
    if spec.source != "prior":
        return ""
    if spec.condition.name == "none":
        return "" if guidance == 1 else (f"sampler.guidance={guidance:g} without a condition has nothing to guide "
                                         "towards: use condition=class or condition=text")
    name, (options, sampler) = prior.entry, schema_of(prior, "priors")
    return (why_condition_unsupported(spec.condition, name, options, _takes_condition(name))
            or _why_sampler_takes_none(sampler, spec.sampler))


def _why_sampler_takes_none(sampler: type | None, chosen: dict[str, Any]) -> str:
    """Why a sampler of a prior that takes the condition does not; "" where it does."""
    from priors.options import AutoregressiveSampler
    if sampler and issubclass(sampler, AutoregressiveSampler) and chosen.get("method") == "jacobi":
        return "sampler.method=jacobi guesses without a condition: use sampler.method=sequential, or condition=none"
    return ""


def _takes_condition(prior: str) -> bool:
    """Ours do, or their Options lack its fields: said without importing torch."""
    if is_ours(registry.target_of("priors", prior)):
        return True
    from priors.conditions import takes_condition
    return takes_condition(registry.resolve("priors", prior))


def _implied_by_layout(options: type, spec: RunSpec, sizes: dict[str, Any]) -> dict[str, Any]:
    """The options of a checkpoint that another code base wrote, which a preset's must not contradict."""
    vq = spec.vq
    from vq.base import ImpliesOptionsOfLayout
    if vq.layout == "native" or not issubclass(options, ImpliesOptionsOfLayout):
        return {}
    try:
        return options.of_layout(vq.layout, sizes | {"resolution": spec.dataset.resolution, "path": vq.path})
    except ValueError as error:
        raise InputError(f"vq.{error}") from None


def _check_grid(options: type, spec: RunSpec) -> None:
    """Whether images of the data set's resolution fit the tokenizer, where its Options can tell (`grid`)."""
    from vq.base import KnowsGrid
    if spec.source in ("prior", "reconstruction") and issubclass(options, KnowsGrid):
        try:
            options(**spec.vq.options).grid(spec.dataset.resolution)
        except ValueError as error:
            raise InputError(f"dataset.resolution={spec.dataset.resolution} does not suit vq: {error}") from None


def _check_names(spec: RunSpec) -> None:
    """Whether the models are known, and a layout has a checkpoint to be the layout of."""
    for section, stage in (("vq", spec.vq), ("prior", spec.prior)):
        known = registry.names(PLUGGABLE[section])
        if stage.name != "plugin" and known and stage.name not in known:
            raise InputError(f"{section}.name={stage.name}: {did_you_mean(stage.name, known)} "
                             f"Choose with {section}=<name>.")
        if stage.layout != "native" and not stage.path:
            raise InputError(f"{section}.layout={stage.layout}: there is no checkpoint. Give {section}.path=<file>, or "
                             "leave both out.")


def _check_metrics(names: Sequence[str]) -> None:
    known = registry.names("metrics")
    for name in names:
        if ":" in name:
            registry.resolve("metrics", name)
        elif name in NOT_MEASURED:
            raise InputError(f"metrics.names: {name} is not measured: {NOT_MEASURED[name]}")
        elif known and name not in known:
            raise InputError(f"metrics.names: unknown metric '{name}'. {did_you_mean(name, known)}")


def _shared(sizes: dict[str, Any], cls: type) -> dict[str, Any]:
    """Those of the sizes every model of a preset shares that this class has a field for."""
    return {name: value for name, value in sizes.items() if name in _field_names(cls)}


def _field_names(cls: type | None) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)} if cls else set()


def _checked(cls: type | None, values: dict[str, Any], section: str) -> dict[str, Any]:
    """The fields of a dataclass, after its own checks, as plain values. Raises InputError on what is wrong."""
    return _settled(options_of(cls, values, section)) if cls else {}


def options_of(cls: type, values: dict[str, Any], section: str) -> Any:
    """The dataclass of these values, after its own checks. Raises InputError, naming keys as `section.name`."""
    for name in values:
        if name not in _field_names(cls):
            raise InputError(f"unknown key '{section}.{name}'. {did_you_mean(name, _field_names(cls))}")
        if not is_plain(values[name]):
            raise InputError(f"{section}.{name}={shown(values[name])}: expected finite numbers and texts of one line. "
                             "Leave it out for what the preset says.")
    hints = typing.get_type_hints(cls)
    converted = {name: _converted(value, hints[name], f"{section}.{name}") for name, value in values.items()}
    try:
        return cls(**converted)
    except InputError:
        raise
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:   # a plug-in's own
        raise InputError(f"{section}: {one_line(error)}") from None


def _settled(options: Any) -> dict[str, Any]:
    """Every field but those that came later (`metadata={"later": True}`) and are left at their defaults.

    So keys stay those of before there were such fields.
    """
    later = {field.name: field.default for field in dataclasses.fields(options) if field.metadata.get("later")}
    return {name: value for name, value in dataclasses.asdict(options).items()
            if name not in later or value != later[name]}


def _converted(value: Any, hint: Any, key: str) -> Any:
    """The value as its annotated type, without guessing: whole floats become ints, ints floats, lists tuples."""
    accepted = typing.get_args(hint) if typing.get_origin(hint) not in (tuple, list, typing.Literal, dict) else ()
    options = accepted or (hint,)
    for option in options:
        origin = typing.get_origin(option) or option
        if option is Any or option is type(None) and value is None:
            return value
        if origin is typing.Literal and value in typing.get_args(option):
            return value
        if origin is tuple and isinstance(value, list | tuple):
            items = [item for item in typing.get_args(option) if item is not Ellipsis]
            return tuple(_converted(item, items[0], key) for item in value) if len(set(items)) == 1 else tuple(value)
        if origin is float and isinstance(value, int | float) and not isinstance(value, bool):
            return _as_float(value, key)
        if origin is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(origin, type) and origin not in (int, float, tuple) and isinstance(value, origin):
            return value
    for option in options:
        if typing.get_origin(option) is typing.Literal:
            raise InputError(f"{key}={value}: {did_you_mean(str(value), map(str, typing.get_args(option)))}")
    expected = " or ".join(getattr(option, "__name__", str(option)).replace("NoneType", "null") for option in options)
    raise InputError(f"{key}={value}: expected {expected}, not {type(value).__name__}.")


def _as_float(value: int | float, key: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise InputError(f"{key}={shown(value)}: expected a number below {sys.float_info.max:.1e}.") from None


def one_line(error: object) -> str:
    return " ".join(str(error).split())[:300]
