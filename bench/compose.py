"""From a command line to the runs it asks for: Hydra composes conf/, comma lists multiply out, the schema checks.

    runs = expand(["prior=absorbing,autoregressive", "sampler.steps=8,16"])     # three Run objects: see `Run`

Every check here happens before torch is imported.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from bench import conf_files, registry
from bench.conf_files import CONF, ConfFiles
from bench.config import RunSpec
from bench.config.models import ModelConfig, PriorConfig, TokenizerConfig
from bench.errors import InputError, did_you_mean
from bench.rules import refuse_resolvers
from bench.schema import PLUGGABLE, one_line, schema_of, to_spec, why_no_condition
from bench.words import GROUPS

LISTS = {"metrics.names": "fid,nll", "metrics.orders": "raster,halton",
         "launcher.setup": "'module load cuda'"}   # with an example each
NOT_KEYS = ("autoencoder", "edit")   # what presets say, and what bench.edit asks of a run
MOST_RUNS = 500   # of one command: a sweep of more is a typing error, or better several commands
STAGE_FIELDS = {"vq": {f.name for f in dataclasses.fields(TokenizerConfig)} - {"options"},
                "prior": {f.name for f in dataclasses.fields(PriorConfig)} - {"options"}}


@dataclass(frozen=True)
class Request:
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


def expand(arguments: Sequence[str], announce: Any = print) -> list[Request]:
    """All runs a command line asks for, in the order of its lists; InputError if anything in it is wrong.

    Of a key given twice the last counts.
    """
    files, arguments = conf_files.split_off(arguments)
    assignments = list({assignment.key: assignment for assignment in map(_parse, arguments)}.values())
    for assignment in assignments:
        _check_key(assignment.key)
    if (num_runs := math.prod(len(assignment.texts) for assignment in assignments)) > MOST_RUNS:
        raise _too_many(f"{num_runs:,}", [a.key for a in assignments if a.swept])
    runs: dict[tuple[str, ...], Request] = {}
    collapsed: set[tuple[str, str]] = set()
    for texts in itertools.product(*(assignment.texts for assignment in assignments)):
        chosen = [(a.key, text, a.swept) for a, text in zip(assignments, texts, strict=True)]
        kept, dropped, unsupported = _fit_to_prior(chosen, assignments, files)
        overrides = tuple(f"{key}={text}" for key, text, _ in kept)
        collapsed |= {(name, key) for name, key in dropped}
        if overrides not in runs:
            spec = _compose(overrides, files)
            runs[overrides] = Request(spec, overrides, unsupported or why_no_condition(spec))
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


def _parse(argument: str) -> _Assignment:
    refuse_resolvers(argument)
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
    check_sweep(override, argument)
    try:
        return list(override.sweep_string_iterator())
    except (HydraException, TypeError, ValueError, ArithmeticError) as error:
        raise InputError(f"cannot read '{argument}' ({one_line(error)}). Write the values, as "
                         f"{override.key_or_group}=a,b.") from None


def check_sweep(override: Override, argument: str) -> None:
    """Raise InputError for what is no sweep over values, holds none, or more than may be of one command."""
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


def _too_many(num: str, keys: Sequence[str]) -> InputError:
    return InputError(f"{' x '.join(keys)} multiply out to {num} runs: expected at most {MOST_RUNS} of one command. "
                      "Split the lists over several commands; what is built once is shared by all of them.")


def _check_key(key: str) -> None:
    """Raise InputError, naming the nearest valid key, unless the key exists or may be an option of a plug-in."""
    parts = key.split(".")
    if parts[0] in STAGE_FIELDS and parts[1:2] == ["options"]:
        written = f"{'.'.join([parts[0], *parts[2:]])}=..." if parts[2:] else f"{parts[0]}.<option>=..., one by one"
        raise InputError(f"unknown key '{key}': options are written without 'options', as {written}.")
    if key == "prior.recipe":
        raise InputError(f"{key} is what a recipe's own file says: choose one with prior=<name>.")
    if parts[0] in ("vq", "prior", "sampler") and len(parts) == 2:
        return   # checked against the chosen class's own dataclass
    if key.startswith("launcher.additional."):
        return
    if key == "dataset.default_preset":
        raise InputError(f"{key} is what a data set's own file says: choose one with preset=<name>.")
    valid = [name for name in _schema_keys(RunSpec) if name.split(".")[0] not in NOT_KEYS] + list(GROUPS)
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
                  files: ConfFiles) -> tuple[list[tuple[str, str, bool]], list[tuple[str, str]], str]:
    """Drop swept keys the chosen prior lacks but another prior of the sweep has; tell why a lone one is unsupported."""
    priors = next((a.texts for a in assignments if a.key == "prior"), (_default_prior(),))
    prior = next((text for key, text, _ in chosen if key == "prior"), priors[0])
    kept, dropped, unsupported = [], [], ""
    for key, text, swept in chosen:
        section, _, name = key.partition(".")
        of_stage = STAGE_FIELDS.get(section, {"seed"})
        own = section in ("sampler", "prior") and name and "." not in name and name not in of_stage
        if not own or name in _option_names(prior, section, files):
            kept.append((key, text, swept))
            continue
        owners = [p for p in registry.names("priors")
                  if files.find("prior", p) and name in _option_names(p, section, files)]
        others = [p for p in priors if p != prior and name in _option_names(p, section, files)]
        if not owners and not others:
            raise InputError(f"unknown key '{key}'. {did_you_mean(name, _option_names(prior, section, files))}")
        if others:
            dropped.append((prior, key))
        else:
            unsupported = f"{prior} has no {key} (of {', '.join(owners)} alone)"
    return kept, dropped, unsupported


def _option_names(prior: str, section: str, files: ConfFiles) -> set[str]:
    options, sampler = schema_of(_stage_choice("prior", prior, files), "priors")
    cls = sampler if section == "sampler" else options
    return {field.name for field in dataclasses.fields(cls)} if cls else set()


def _default_prior() -> str:
    return next(entry["prior"] for entry in conf_files.whole().defaults if "prior" in entry)


def _stage_choice(group: str, name: str, files: ConfFiles) -> ModelConfig:
    """Name, target and schema of a prior or tokenizer, without composing the rest."""
    if raw := files.load(group, name):
        return ModelConfig(name=raw.name, target=raw.get("target"), schema=raw.get("schema"))
    return ModelConfig(name="plugin" if ":" in name else name, target=name if ":" in name else None)


def _kept_recipe(spec: RunSpec, files: ConfFiles) -> str | None:
    """The recipe of conf/prior, unless the command line changed what it trains or how it samples, steps apart.

    Then its name would mislead.
    """
    if not spec.prior.recipe:
        return None
    recipe = files.load("prior", spec.prior.recipe)
    samplers = [files.load("sampler", name) for entry in recipe.get("defaults", [])
                for name in entry.values()]
    stated = {str(key): value for sampler in samplers for key, value in sampler.items() if key not in ("seed", "steps")}
    kept = all(spec.prior.options.get(key) == value for key, value in recipe.options.items())
    return spec.prior.recipe if kept and all(spec.sampler.get(key) == value for key, value in stated.items()) else None


def _compose(overrides: tuple[str, ...], files: ConfFiles) -> RunSpec:
    """Compose conf/ with single-valued overrides and turn the result into a checked RunSpec."""
    hydra_overrides = _with_preset([_to_hydra(override, files) for override in overrides], files)
    flat = [*files.overrides, *(text for texts in hydra_overrides for text in texts)]
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = hydra_compose("config", flat)
        spec = to_spec(composed)
        spec.prior.recipe = _kept_recipe(spec, files)
        return spec
    except InputError:
        raise
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(f"{' '.join(overrides)}: {one_line(error)}. Expected values that fit their keys; "
                         "python -m bench.run without arguments shows some.") from None


def _to_hydra(override: str, files: ConfFiles) -> list[str]:
    """One override of ours as Hydra's: plug-ins by dotted path, options of classes under `.options`."""
    key, _, value = override.partition("=")
    plain = value.strip("'\"")
    if key in GROUPS:
        known = files.names(key)
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


def _with_preset(overrides: list[list[str]], files: ConfFiles) -> list[list[str]]:
    """Add the data set's own preset where the command names none: big data sets want the paper's settings."""
    choices = dict(text.split("=", 1) for texts in overrides for text in texts if text.split("=", 1)[0] in GROUPS)
    if "preset" in choices:
        return overrides
    dataset = choices.get("dataset", "cifar10")
    preset = files.load("dataset", dataset).get("default_preset", "small")
    return [*overrides, [f"preset={preset}"]]
