"""Why is this FID not the one that was claimed? The number again, under the choices that people vary.

    python -m bench.doctor fid source=theirs.npz reference=train.npz claimed=6.11
    python -m bench.doctor fid source=theirs.npz reference=train.npz other=test.npz claimed=6.11 resolution=64

source: samples, a folder, zip or .npz.  reference: real images likewise, or statistics (.npz with mu and sigma).
other: the other split, which the claim may be against.  extractors: networks to try, separated by commas
(inception-v3-compat,torchvision:inception_v3).  resolution, resize: how pictures are read (32, antialias);
a reference of larger pictures, in a folder or zip, is also read with other filters and crops.
max_images: use no more of each side than so many.

One choice is changed at a time. A choice explains a claim where it comes within its rounding, or half a per cent.
Exit codes: 0 something explains the claim, 1 nothing does, 2 wrong input.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from bench.config import DatasetConfig
from bench.data.base import ImageData
from bench.data.foreign import look_at
from bench.data.other_resizes import other_ways, reread
from bench.data.pixels import Resizer
from bench.errors import InputError, did_you_mean
from bench.printable import cell

KEYS = ("source", "reference", "other", "claimed", "resolution", "resize", "extractors", "max_images")
SMALLER = (1000, 2000, 5000, 10_000, 20_000)
QUALITIES = (75, 90, 95)
NET_SIDE = 299            # pixels, Inception's input
SLACK = 0.005             # of the claim
AS_GIVEN = "as given"

Pixels = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Choice:
    """One thing done differently.

    of_samples, of_reference: what is done to (n, 3, H, W) uint8 before the extractor.  other: against the other split.
    num, num_reference: so many images, spread over all.  resizer: how the reference's files are brought to size.
    extractor: another network; "" the first.
    """

    name: str
    of_samples: Pixels | None = None
    of_reference: Pixels | None = None
    other: bool = False
    num: int | None = None
    num_reference: int | None = None
    resizer: Resizer | None = None
    extractor: str = ""


@dataclass(frozen=True)
class Outcome:
    """value: the FID under a choice, or None where it cannot be had, and why."""

    choice: Choice
    value: float | None
    note: str = ""


@dataclass
class Case:
    """What is known.  reference, other: images, or (mean, covariance).  extractors: by name, the first is the usual.

    kept: what may be asked for again, and no more: of each side its latest features, and the latest moments as they are
        and changed. At 50,000 images a side features take 0.4 GB.
    """

    samples: ImageData
    reference: Any
    other: Any = None
    extractors: Mapping[str, Any] = field(default_factory=dict)
    kept: dict[Any, tuple[Any, Any]] = field(default_factory=dict)

    def has_images(self, side: str) -> bool:
        return hasattr(getattr(self, side), "images")

    def latest(self, slot: Any, key: Any, made: Callable[[], Any]) -> Any:
        """What `made` gives, kept in place of what the slot held under another key."""
        if self.kept.get(slot, (None,))[0] != key:
            self.kept.pop(slot, None)   # first, so that the two are never held together
            self.kept[slot] = key, made()
        return self.kept[slot][1]


def main(arguments: Sequence[str]) -> int:
    """Print every choice's FID and what explains the claim; 0 if something does."""
    given = _options(arguments)
    console, claimed = Console(width=120), _number(given, "claimed")
    case, absent = _case(given)
    outcomes = []
    for outcome in examine(case):
        console.print(cell(f"{outcome.choice.name}: {_shown(outcome)}"), soft_wrap=True)
        outcomes.append(outcome)
    console.print(_table(outcomes, claimed))
    for reason in absent:
        console.print(cell(f"not tried: {reason}"), soft_wrap=True)
    explaining = explanations(outcomes, given["claimed"])
    console.print(cell(verdict(outcomes, explaining, given["claimed"])), soft_wrap=True)
    return 0 if explaining else 1


def examine(case: Case) -> Iterator[Outcome]:
    """The FID under each choice, the plain one first."""
    for choice in choices(case):
        try:
            yield Outcome(choice, _value(case, choice))
        except InputError as error:
            yield Outcome(choice, None, str(error))


def choices(case: Case) -> list[Choice]:
    """What can be varied, one thing at a time, given what is known."""
    found = [Choice(AS_GIVEN)]
    if case.other is not None:
        found.append(Choice("against the other split", other=True))
    found += [Choice(f"{num:,} samples", num=num) for num in SMALLER if num < len(case.samples)]
    if case.has_images("reference"):
        found += [Choice(f"{num:,} reference images", num_reference=num) for num in SMALLER
                  if num < len(case.reference)]
    found += [Choice(f"reference resized otherwise: {name}", resizer=resizer)
              for name, resizer in other_ways(case.reference).items()]
    pixels: list[tuple[str, Pixels]] = [
        *((f"JPEG of quality {quality}", _jpeg(quality)) for quality in QUALITIES),
        ("PIL bilinear to 299 before the network", _resized(Image.Resampling.BILINEAR)),
        ("PIL bicubic to 299 before the network (clean-fid)", _resized(Image.Resampling.BICUBIC)),
        ("nearest to 299 before the network", _resized(Image.Resampling.NEAREST))]
    for name, change in pixels:
        found.append(Choice(f"{name}, samples alone", of_samples=change))
        if case.has_images("reference"):
            found.append(Choice(f"{name}, both sides", of_samples=change, of_reference=change))
    found += [Choice("samples of 0..1 taken for -1..1", of_samples=_half_contrast),
              Choice("samples of -1..1 taken for 0..1", of_samples=_dark_half_lost),
              Choice("samples with red and blue exchanged", of_samples=_swapped)]
    return found + [Choice(f"features of {name}", extractor=name) for name in list(case.extractors)[1:]]


def explanations(outcomes: Sequence[Outcome], claimed: str) -> list[Outcome]:
    """Those whose value is the claim, within its rounding or half a per cent, the nearest first."""
    value = float(claimed)
    digits = len(claimed.partition(".")[2])
    slack = max(0.5 * 10.0**-digits, SLACK * abs(value))
    near = [o for o in outcomes if o.value is not None and abs(o.value - value) <= slack]
    return sorted(near, key=lambda o: abs((o.value or 0.0) - value))


def verdict(outcomes: Sequence[Outcome], explaining: Sequence[Outcome], claimed: str) -> str:
    """In words: what explains the claim, or that nothing does and what comes nearest."""
    if not explaining:
        best = min((o for o in outcomes if o.value is not None), key=lambda o: abs((o.value or 0.0) - float(claimed)),
                   default=None)
        nearest = f" The nearest is {best.choice.name}: {best.value:.2f}." if best is not None else ""
        return f"None of these choices alone explains {claimed}.{nearest}"
    names = [o.choice.name for o in explaining]
    if AS_GIVEN in names:
        return f"The claim of {claimed} is what these files give; nothing needs explaining."
    rest = f" These come as near, and cannot be told from it: {'; '.join(names[1:])}." if names[1:] else ""
    return f"Best explained by: {names[0]} ({explaining[0].value:.2f} against {claimed}).{rest}"


def _value(case: Case, choice: Choice) -> float:
    from bench.metrics.frechet import frechet_distance

    extractor = choice.extractor or next(iter(case.extractors))
    side = "other" if choice.other else "reference"
    fake = _moments(case, "samples", extractor, choice.of_samples, choice.num)
    real = _moments(case, side, extractor, choice.of_reference, choice.num_reference, choice.resizer) \
        if case.has_images(side) else getattr(case, side)
    if len(real[0]) != len(fake[0]):
        raise InputError(f"the statistics are of {len(real[0])} features, {extractor} has {len(fake[0])}")
    return frechet_distance(*fake, *real)


def _moments(case: Case, side: str, extractor: str, change: Pixels | None, num: int | None,
             resizer: Resizer | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of a side's features, of `num` images spread over all."""
    from bench.data.arrays import spread
    from bench.metrics.frechet import moments

    as_it_is = change is None and num is None and resizer is None
    return case.latest(("moments", side, as_it_is), (extractor, change, num, resizer),
                       lambda: moments(spread(_features(case, side, extractor, change, resizer), num)))


def _features(case: Case, side: str, extractor: str, change: Pixels | None, resizer: Resizer | None) -> np.ndarray:
    """(n, D) features of a side after a change of its pixels, or of how its files are read."""
    from bench.metrics.features import extract

    images = getattr(case, side)
    images = reread(images, resizer) if resizer else images
    return case.latest(("features", side), (extractor, change, resizer), lambda: extract(
        _Changed(images, change) if change else images, case.extractors[extractor]))


@dataclass(frozen=True)
class _Changed:
    whole: ImageData
    change: Pixels

    def __len__(self) -> int:
        return len(self.whole)

    def images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        return self.change(self.whole.images(indices))


def _jpeg(quality: int) -> Pixels:
    def change(images: np.ndarray) -> np.ndarray:
        found = []
        for image in images.transpose(0, 2, 3, 1):
            stream = io.BytesIO()
            Image.fromarray(image).save(stream, "JPEG", quality=quality)
            found.append(np.asarray(Image.open(stream)))
        return np.stack(found).transpose(0, 3, 1, 2)
    return change


def _resized(filter_: Image.Resampling) -> Pixels:
    def change(images: np.ndarray) -> np.ndarray:
        found = [np.asarray(Image.fromarray(image).resize((NET_SIDE, NET_SIDE), filter_))
                 for image in images.transpose(0, 2, 3, 1)]
        return np.stack(found).transpose(0, 3, 1, 2)
    return change


def _half_contrast(images: np.ndarray) -> np.ndarray:
    """What (x + 1) / 2 makes of x in 0..1."""
    return np.rint(127.5 + images / 2).astype(np.uint8)


def _dark_half_lost(images: np.ndarray) -> np.ndarray:
    """What clipping to 0..1 makes of x in -1..1."""
    return np.clip(2.0 * images - 255, 0, 255).astype(np.uint8)


def _swapped(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images[:, ::-1])


def _options(arguments: Sequence[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in KEYS:
            raise InputError(f"{argument}: {did_you_mean(key, KEYS)}")
        if not equals or not value or key in given:
            raise InputError(f"{argument}: expected {key}=VALUE, once.")
        given[key] = value
    if absent := [key for key in ("source", "reference", "claimed") if key not in given]:
        beside = f" beside {', '.join(given)}" if given else ""
        raise InputError(f"{', '.join(f'{key}=' for key in absent)} missing{beside}: bench.doctor fid needs source=, "
                         "reference= and claimed=.")
    return given


def _number(given: Mapping[str, str], key: str, default: str = "", *, whole: bool = False) -> float:
    text = given.get(key, default)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < (1 if whole else 0) or whole and value != int(value):
        raise InputError(f"{key}={text}: expected a {'positive whole ' if whole else ''}number, such as "
                         f"{key}={'32' if whole else '6.11'}.")
    return value


def _case(given: Mapping[str, str]) -> tuple[Case, list[str]]:
    """What the options name, and which extractors are not at hand, with the reason."""
    resize = given.get("resize", "antialias")
    data = DatasetConfig(name="folder", resolution=int(_number(given, "resolution", "32", whole=True)), resize=resize)
    most = int(_number(given, "max_images", "1000000000", whole=True))
    samples = _images(given["source"], data, most)
    sides = {key: _reference(key, given[key], data, most) for key in ("reference", "other") if key in given}
    from bench.metrics.features import DEFAULT, resolve_extractor

    extractors, absent = {}, []
    for name in given.get("extractors", f"{DEFAULT},torchvision:inception_v3").split(","):
        try:
            extractors[name] = resolve_extractor(name)
        except InputError as error:
            if not extractors and "extractors" in given or name == DEFAULT:
                raise
            absent.append(f"features of {name}: {error}")
    if not other_ways(sides["reference"]):
        absent.append(f"other filters and crops of the reference: it is no folder or zip of pictures whose size is not "
                      f"{data.resolution} pixels already")
    return Case(samples, sides["reference"], sides.get("other"), extractors), absent


def _images(source: str, data: DatasetConfig, most: int) -> ImageData:
    total = look_at(source, data, num=2).total
    return look_at(source, data, num=min(total, most)).images


def _reference(key: str, path: str, data: DatasetConfig, most: int) -> Any:
    """Images, or (mean, covariance) where the file holds those and no images."""
    try:
        return _images(path, data, most)
    except InputError as error:
        if not path.endswith(".npz") or not Path(path).is_file():
            raise InputError(str(error).replace("source=", f"{key}=", 1)) from None
        from bench.metrics.exchange import read_statistics

        try:
            saved = read_statistics(path)
        except InputError as other:
            raise InputError(f"{key}={path} holds neither images nor statistics. {error} {other}") from None
        return saved.mu, saved.sigma


def _shown(outcome: Outcome) -> str:
    return outcome.note if outcome.value is None else f"{outcome.value:.2f}"


def _table(outcomes: Sequence[Outcome], claimed: float) -> Table:
    table = Table(title=f"FID under one changed choice, against a claim of {claimed:g}")
    for heading in ("choice", "FID", "off by"):
        table.add_column(heading, overflow="fold", justify="left" if heading == "choice" else "right")
    for outcome in sorted(outcomes, key=lambda o: math.inf if o.value is None else abs(o.value - claimed)):
        off = "" if outcome.value is None else f"{outcome.value - claimed:+.2f}"
        table.add_row(cell(outcome.choice.name), cell(_shown(outcome)), off)
    return table
