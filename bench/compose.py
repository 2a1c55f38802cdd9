"""From a command line to the runs it asks for: Hydra composes conf/, comma lists multiply out, the schema checks.

    runs = expand(["prior=absorbing,autoregressive", "sampler.steps=8,16"])     # three Run objects: see `Run`

Every check here happens before torch is imported.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
import re
import typing
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bench import registry
from bench.config import SEED, RunSpec, StageConfig, TokenizerConfig
from bench.errors import InputError, did_you_mean
from bench.rules import check, check_all, is_plain, shown

CONF = Path(__file__).parent / "conf"
GROUPS = ("dataset", "vq", "prior", "sampler", "protocol", "launcher", "preset")
PLUGGABLE = {"vq": "tokenizers", "prior": "priors", "dataset": "datasets"}
LISTS = {"metrics.names": "fid,nll", "launcher.setup": "'module load cuda'"}   # with an example each
MOST_RUNS = 500   # of one command: a sweep of more is a typing error, or better several commands
NODE = re.compile(r"\$\{[\w.]+\}")   # an interpolation of another key, such as ${seed}
STAGE_FIELDS = {"vq": {f.name for f in dataclasses.fields(TokenizerConfig)} - {"options"},
                "prior": {f.name for f in dataclasses.fields(StageConfig)} - {"options"}}


@dataclass(frozen=True)
class Run:
    """One cell of a sweep. unsupported: why it cannot be run, or empty; the report prints that reason as a hole."""

    spec: RunSpec
    overrides: tuple[str, ...]
    unsupported: str = ""


@dataclass(frozen=True)
class _Assignment:
    """One `key=value` of the command line: `texts` are its swept values as they were written."""

    key: str
    texts: tuple[str, ...]

    @property
    def swept(self) -> bool:
        return len(self.texts) > 1


def expand(arguments: Sequence[str], announce: Any = print) -> list[Run]:
    """All runs a command line asks for, in the order of its lists; InputError if anything in it is wrong.

    Of a key given twice the last counts.
    """
    assignments = list({assignment.key: assignment for assignment in map(_parse, arguments)}.values())
    for assignment in assignments:
        _check_key(assignment.key)
    if (num_runs := math.prod(len(assignment.texts) for assignment in assignments)) > MOST_RUNS:
        raise _too_many(f"{num_runs:,}", [a.key for a in assignments if a.swept])
    runs: dict[tuple[str, ...], Run] = {}
    collapsed: set[tuple[str, str]] = set()
    for texts in itertools.product(*(assignment.texts for assignment in assignments)):
        chosen = [(a.key, text, a.swept) for a, text in zip(assignments, texts, strict=True)]
        kept, dropped, unsupported = _fit_to_prior(chosen, assignments)
        overrides = tuple(f"{key}={text}" for key, text, _ in kept)
        collapsed |= {(name, key) for name, key in dropped}
        if overrides not in runs:
            runs[overrides] = Run(_compose(overrides), overrides, unsupported)
    for prior, key in sorted(collapsed):
        announce(f"{prior} has no {key}: its runs over that list collapse to one.")
    return list(runs.values())


def compose(arguments: Sequence[str]) -> RunSpec:
    """The run of a command line without lists. Raises InputError if it asks for several or an unsupported one."""
    runs = expand(arguments)
    if len(runs) != 1:
        raise InputError(f"expected one run, not the {len(runs)} that {' '.join(arguments)} multiplies out to.")
    if runs[0].unsupported:
        raise InputError(runs[0].unsupported)
    return runs[0].spec


def schema_of(stage: StageConfig, kind: str) -> tuple[type, type | None]:
    """The Options and Sampler dataclasses of a tokenizer (kind "tokenizers", no Sampler) or a prior ("priors")."""
    if stage.schema:
        try:
            options = registry.load_dotted(f"{stage.schema}Options")
            sampler = registry.load_dotted(f"{stage.schema}Sampler", missing=None)
        except InputError as error:
            raise InputError(f"schema={stage.schema}: {error}") from error
        return _dataclass(options, f"{stage.schema}Options"), sampler and _dataclass(sampler, f"{stage.schema}Sampler")
    name = stage.target or stage.name
    cls = registry.resolve(kind, name)
    sampler = getattr(cls, "Sampler", None)
    return _dataclass(cls.Options, f"{name}.Options"), sampler and _dataclass(sampler, f"{name}.Sampler")


def _dataclass(cls: Any, name: str) -> type:
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise InputError(f"{name} is no dataclass: expected one whose fields are the valid keys. Name another class.")
    return cls


def _parse(argument: str) -> _Assignment:
    _refuse_resolvers(argument)
    try:
        override: Override = OverridesParser.create().parse_override(argument)
    except HydraException as error:
        key, separator, value = argument.partition("=")
        if not separator:
            raise InputError(f"'{argument}' is not of the form key=value, such as prior=absorbing.") from None
        reason = str(error).splitlines()[0]
        raise InputError(f"cannot read '{argument}' ({reason}). A list needs brackets, {key}=[a,b]; a value "
                         f" with a comma, '=' or '(' needs quotes: \"{key}='{value}'\".") from None
    key = override.key_or_group
    if override.is_delete() or override.is_add():
        raise InputError(f"'{argument}': write {key}=value, without '+' or '~'.")
    if override.is_sweep_override():
        return _Assignment(key, tuple(text.replace("\\:", ":") for text in _swept(override, argument)))
    return _Assignment(key, (argument.partition("=")[2],))


def _swept(override: Override, argument: str) -> list[str]:
    """The values of a sweep as texts, none of which is made before there are known to be few enough."""
    sweep = override.value()
    if not isinstance(sweep, ChoiceSweep | RangeSweep):
        raise InputError(f"'{argument}': expected the values themselves, as {override.key_or_group}=a,b or "
                         f"{override.key_or_group}=range(0,10).")
    if isinstance(sweep, RangeSweep):
        start, stop, step = (math.nan if end is None else float(end) for end in (sweep.start, sweep.stop, sweep.step))
        num = (stop - start) / step if step and all(map(math.isfinite, (start, stop, step))) else math.nan
        if not num > 0:
            raise InputError(f"'{argument}' holds no value: expected range(first, end) or range(first, end, step), "
                             "with a step that leads from the first to the end.")
        if num > MOST_RUNS:
            raise _too_many(f"about {num:,.0f}", [override.key_or_group])
    try:
        return list(override.sweep_string_iterator())
    except (HydraException, TypeError, ValueError, ArithmeticError) as error:
        raise InputError(f"cannot read '{argument}' ({_one_line(error)}). Write the values, as "
                         f"{override.key_or_group}=a,b.") from None


def _too_many(num: str, keys: Sequence[str]) -> InputError:
    return InputError(f"{' x '.join(keys)} multiply out to {num} runs: expected at most {MOST_RUNS} of one command. "
                      "Split the lists over several commands; what is built once is shared by all of them.")


def _refuse_resolvers(argument: str) -> None:
    """Raise InputError for an interpolation that reads anything but another key: records must not hold a secret."""
    if "${" in NODE.sub("", argument):
        raise InputError(f"'{shown(argument)}': expected interpolations of other keys alone, such as ${{seed}}; the "
                         "environment and other resolvers are not read, since records would keep what they say. Let "
                         "the shell insert the value: key=\"$NAME\".")


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:300]


def _check_key(key: str) -> None:
    """Raise InputError, naming the nearest valid key, unless the key exists or may be an option of a plug-in."""
    parts = key.split(".")
    if parts[0] in STAGE_FIELDS and parts[1:2] == ["options"]:
        written = f"{'.'.join([parts[0], *parts[2:]])}=..." if parts[2:] else f"{parts[0]}.<option>=..., one by one"
        raise InputError(f"unknown key '{key}': options are written without 'options', as {written}.")
    if parts[0] in ("vq", "prior", "sampler") and len(parts) == 2:
        return   # checked against the chosen class's own dataclass
    if key.startswith("launcher.additional."):
        return
    if key == "dataset.default_preset":
        raise InputError(f"{key} is what a data set's own file says: choose one with preset=<name>.")
    valid = [name for name in _schema_keys(RunSpec) if name != "autoencoder"] + list(GROUPS)
    if key not in valid:
        near = difflib.get_close_matches(key, valid, n=1) or difflib.get_close_matches(parts[-1], valid, n=1)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        top = sorted({name.split(".")[0] for name in valid})
        siblings = [name for name in valid if name.startswith(parts[0] + ".")] or top
        raise InputError(f"unknown key '{key}'. {hint}Valid: {', '.join(siblings)}.")


def _schema_keys(cls: type, prefix: str = "") -> Iterable[str]:
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from _schema_keys(kind, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def _fit_to_prior(chosen: list[tuple[str, str, bool]], assignments: list[_Assignment],
                  ) -> tuple[list[tuple[str, str, bool]], list[tuple[str, str]], str]:
    """Drop swept keys the chosen prior lacks but another prior of the sweep has; tell why a lone one is unsupported."""
    priors = next((a.texts for a in assignments if a.key == "prior"), (_default_prior(),))
    prior = next((text for key, text, _ in chosen if key == "prior"), priors[0])
    kept, dropped, unsupported = [], [], ""
    for key, text, swept in chosen:
        section, _, name = key.partition(".")
        of_stage = STAGE_FIELDS.get(section, {"seed"})
        own = section in ("sampler", "prior") and name and "." not in name and name not in of_stage
        if not own or name in _option_names(prior, section):
            kept.append((key, text, swept))
            continue
        owners = [p for p in registry.names("priors") if _is_built_in(p) and name in _option_names(p, section)]
        others = [p for p in priors if p != prior and name in _option_names(p, section)]
        if not owners and not others:
            raise InputError(f"unknown key '{key}'. {did_you_mean(name, _option_names(prior, section))}")
        if others:
            dropped.append((prior, key))
        else:
            unsupported = f"{prior} has no {key} (of {', '.join(owners)} alone)"
    return kept, dropped, unsupported


def _option_names(prior: str, section: str) -> set[str]:
    options, sampler = schema_of(_stage_choice("prior", prior), "priors")
    cls = sampler if section == "sampler" else options
    return {field.name for field in dataclasses.fields(cls)} if cls else set()


def _is_built_in(prior: str) -> bool:
    return (CONF / "prior" / f"{prior}.yaml").is_file()


def _default_prior() -> str:
    return next(entry["prior"] for entry in _load(CONF / "config.yaml").defaults if "prior" in entry)


def _load(path: Path) -> DictConfig:
    loaded = OmegaConf.load(path)
    assert isinstance(loaded, DictConfig), path
    return loaded


def _stage_choice(group: str, name: str) -> StageConfig:
    """Name, target and schema of a prior or tokenizer, without composing the rest."""
    path = CONF / group / f"{name}.yaml"
    if path.is_file():
        raw = _load(path)
        return StageConfig(name=raw.name, target=raw.get("target"), schema=raw.get("schema"))
    return StageConfig(name="plugin" if ":" in name else name, target=name if ":" in name else None)


def _compose(overrides: tuple[str, ...]) -> RunSpec:
    """Compose conf/ with single-valued overrides and turn the result into a checked RunSpec."""
    hydra_overrides = _with_preset([_to_hydra(*override.split("=", 1)) for override in overrides])
    flat = [text for texts in hydra_overrides for text in texts]
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = hydra_compose("config", flat)
        return _to_spec(composed)
    except InputError:
        raise
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(f"{' '.join(overrides)}: {_one_line(error)}. Expected values that fit their keys; "
                         "python -m bench.run without arguments shows some.") from None


def _to_hydra(key: str, value: str) -> list[str]:
    """One override of ours as Hydra's: plug-ins by dotted path, options of classes under `.options`."""
    plain = value.strip("'\"")
    if key in GROUPS:
        known = sorted(path.stem for path in (CONF / key).glob("*.yaml"))
        if plain in known:
            return [f"{key}={plain}"]
        if key in PLUGGABLE and (":" in plain or registry.is_registered(PLUGGABLE[key], plain)):
            target = [f"++{key}.target='{plain}'"] if ":" in plain else []
            return [f"{key}=plugin", f"++{key}.name={'plugin' if ':' in plain else plain}", *target]
        also = registry.names(PLUGGABLE[key]) if key in PLUGGABLE else []
        dotted = " Your own class works by its dotted path, as package.module:Name." if key in PLUGGABLE else ""
        raise InputError(f"unknown {key} '{plain}'. {did_you_mean(plain, set(known) - {'plugin'} | set(also))}{dotted}")
    if key in LISTS and not value.startswith("["):
        raise InputError(f"{key}={value}: expected a list in brackets, {key}=[{LISTS[key]}]")
    section, _, name = key.partition(".")
    if section in STAGE_FIELDS and "." not in name and name not in STAGE_FIELDS[section]:
        return [f"++{section}.options.{name}={value}"]
    return [f"++{key}={value}"]


def _with_preset(overrides: list[list[str]]) -> list[list[str]]:
    """Add the data set's own preset where the command names none: big data sets want the paper's settings."""
    choices = dict(text.split("=", 1) for texts in overrides for text in texts if text.split("=", 1)[0] in GROUPS)
    if "preset" in choices:
        return overrides
    dataset = choices.get("dataset", "cifar10")
    preset = _load(CONF / "dataset" / f"{dataset}.yaml").get("default_preset", "small")
    return [*overrides, [f"preset={preset}"]]


def _to_spec(composed: DictConfig) -> RunSpec:
    raw = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(raw, dict)
    _refuse_resolvers(str(raw))   # merging would resolve once more what was written with a backslash
    sampler = raw.pop("sampler")
    merged = OmegaConf.merge(OmegaConf.structured(RunSpec), raw)
    values = OmegaConf.to_container(merged)
    check_all(RunSpec, cast(dict[str, Any], values))   # here, where the whole key is known
    spec = OmegaConf.to_object(merged)
    assert isinstance(spec, RunSpec)
    _check_names(spec)
    options, sampler_class = schema_of(spec.prior, "priors")
    spec.prior.options = _checked(options, _shared(asdict(spec.backbone), options) | spec.prior.options, "prior")
    _check_metrics(spec.metrics.names)
    autoencoder = schema_of(spec.vq, "tokenizers")[0]
    sizes = _shared(spec.autoencoder, autoencoder)
    implied = _implied_by_layout(autoencoder, spec.vq, sizes | spec.vq.options)
    spec.vq.options = _checked(autoencoder, sizes | implied | spec.vq.options, "vq")
    _check_grid(autoencoder, spec)
    seed = sampler.pop("seed")
    check("sampler.seed", seed, SEED)
    usable = {key: value for key, value in sampler.items() if key in _field_names(sampler_class)}
    spec.sampler = {"seed": seed, **_checked(sampler_class, usable, "sampler")}
    spec.prior.recipe = _kept_recipe(spec)
    return spec


def _kept_recipe(spec: RunSpec) -> str | None:
    """The recipe of conf/prior, unless the command line changed what it trains or how it samples, steps apart.

    Then its name would mislead.
    """
    if not spec.prior.recipe:
        return None
    recipe = _load(CONF / "prior" / f"{spec.prior.recipe}.yaml")
    samplers = [_load(CONF / "sampler" / f"{name}.yaml") for entry in recipe.get("defaults", [])
                for name in entry.values()]
    stated = {str(key): value for sampler in samplers for key, value in sampler.items() if key not in ("seed", "steps")}
    kept = all(spec.prior.options.get(key) == value for key, value in recipe.options.items())
    return spec.prior.recipe if kept and all(spec.sampler.get(key) == value for key, value in stated.items()) else None


def _implied_by_layout(options: type, vq: TokenizerConfig, sizes: dict[str, Any]) -> dict[str, Any]:
    """The options of a checkpoint that another code base wrote, which a preset's must not contradict."""
    if vq.layout == "native" or not hasattr(options, "of_layout"):
        return {}
    try:
        return options.of_layout(vq.layout, sizes)
    except ValueError as error:
        raise InputError(f"vq.{error}") from None


def _check_grid(options: type, spec: RunSpec) -> None:
    """Whether images of the data set's resolution fit the tokenizer, where its Options can tell (`grid`)."""
    if spec.source in ("prior", "reconstruction") and hasattr(options, "grid"):
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
        elif known and name not in known:
            raise InputError(f"metrics.names: unknown metric '{name}'. {did_you_mean(name, known)}")


def _shared(sizes: dict[str, Any], cls: type) -> dict[str, Any]:
    """Those of the sizes every model of a preset shares that this class has a field for."""
    return {name: value for name, value in sizes.items() if name in _field_names(cls)}


def _field_names(cls: type | None) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)} if cls else set()


def _checked(cls: type | None, values: dict[str, Any], section: str) -> dict[str, Any]:
    """The fields of a dataclass, after its own checks, as plain values. Raises InputError on what is wrong.

    A field marked `later` (priors.options.LATER) is left out at its default, so that keys of before it stay.
    """
    if cls is None:
        return {}
    for name in values:
        if name not in _field_names(cls):
            raise InputError(f"unknown key '{section}.{name}'. {did_you_mean(name, _field_names(cls))}")
        if not is_plain(values[name]):
            raise InputError(f"{section}.{name}={shown(values[name])}: expected finite numbers and texts of one line. "
                             "Leave it out for what the preset says.")
    hints = typing.get_type_hints(cls)
    converted = {name: _converted(value, hints[name], f"{section}.{name}") for name, value in values.items()}
    later = {field.name: field.default for field in dataclasses.fields(cls) if field.metadata.get("later")}
    try:
        return {name: value for name, value in asdict(cls(**converted)).items()
                if name not in later or value != later[name]}
    except InputError:
        raise
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:   # a plug-in's own
        raise InputError(f"{section}: {_one_line(error)}") from None


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
            return float(value)
        if origin is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(origin, type) and origin not in (int, float, tuple) and isinstance(value, origin):
            return value
    for option in options:
        if typing.get_origin(option) is typing.Literal:
            raise InputError(f"{key}={value}: {did_you_mean(str(value), map(str, typing.get_args(option)))}")
    expected = " or ".join(getattr(option, "__name__", str(option)).replace("NoneType", "null") for option in options)
    raise InputError(f"{key}={value}: expected {expected}, not {type(value).__name__}.")
