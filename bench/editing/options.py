"""The keys of `bench.edit` that are its own, their checks, and which task takes which. Torch-free.

    options, rest = parse(["task=inpaint", "image=cat.png", "box=8,8,24,24", "prior=absorbing"])   # rest: bench.run's
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from bench.compose import GROUPS, check_sweep
from bench.config import MASKS, RunSpec
from bench.errors import InputError, did_you_mean

KEYS = {   # which keys a task takes beside `task`, `out` and those of bench.run
    "inpaint": ("image", "mask", "box", "variants", "fit", "paste", "stride", "windows", "order"),
    "condition": ("image", "mask", "box", "variants", "fit", "paste", "stride", "windows", "order"),
    "stitch": ("image", "mask", "box", "variants"),
    "enlarge": ("image", "canvas", "at", "variants", "stride", "windows", "order"),
    "filmstrip": ("variants", "frames", "order"),
    "benchmark": ("masks", "images"),
}
ON_LARGE_IMAGES = ("stride", "windows", "order")


@dataclass(frozen=True)
class EditOptions:
    """image: files, or validation:<index> for a held-out image of the data set.

    mask: black and white pictures of their image's size. inpaint: white is painted anew; condition: white is kept;
        stitch: white is taken. One for all images, or one each.
    box: the same as rectangles x0,y0,x1,y1 in pixels (x1, y1 not included); several as [..],[..], for stitch one an
        image.
    fit: resize and crop images as the data set does; false takes them at their own size, as a canvas if it is larger.
    paste: put the original's pixels back wherever the mask does not reach.
    canvas: height x width in tokens, such as 16x16.  at: row and column of the canvas where an image's first token lies
        (None: the middle).  stride, windows, order: of the mixture over windows (priors.canvas).
    masks, images: of the benchmark: which masks, and how many held-out images.
    """

    task: str
    image: tuple[str, ...] = ()
    mask: tuple[str, ...] = ()
    box: tuple[tuple[int, int, int, int], ...] = ()
    variants: int = 8
    out: str = "edits"
    fit: bool = True
    paste: bool = False
    canvas: tuple[int, int] | None = None
    at: tuple[int, int] | None = None
    stride: int | None = None
    windows: int | None = None
    order: str | None = None
    frames: int = 9
    masks: tuple[str, ...] = MASKS
    images: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("variants", 1), ("frames", 2), ("images", 2), ("stride", 1), ("windows", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name}={value}: expected a whole number of at least {least}.")
        if self.stride is not None and self.windows is not None:
            raise InputError("stride and windows are two ways to choose the same windows; give one of them.")
        if self.order is not None and self.order not in ("random", "raster", "halton"):
            raise InputError(f"order={self.order}: {did_you_mean(self.order, ('random', 'raster', 'halton'))}")
        for kind in self.masks:
            if kind not in MASKS:
                raise InputError(f"masks={kind}: {did_you_mean(kind, MASKS)}")
        self._check_inputs()

    def _check_inputs(self) -> None:
        regions = len(self.mask) + len(self.box)
        if self.task in ("inpaint", "condition", "stitch") and not (self.image and regions):
            raise InputError(f"task={self.task} needs image= and mask= (a picture) or box=x0,y0,x1,y1.")
        if self.mask and self.box:
            raise InputError("mask and box say the same in two ways; give one of them.")
        if self.task == "stitch" and not len(self.image) == regions > 1:
            raise InputError(f"task=stitch has {len(self.image)} images and {regions} regions; expected two images or "
                             "more, and one mask or box each: image=a.png,b.png box=[0,0,32,16],[0,16,32,32].")
        if self.task in ("inpaint", "condition") and len(self.mask) not in (0, 1, len(self.image)):
            raise InputError(f"{len(self.mask)} masks for {len(self.image)} images; expected one for all or one each.")
        if self.task == "enlarge" and self.canvas is None:
            raise InputError("task=enlarge needs canvas=<height>x<width> in tokens, such as canvas=16x16.")
        if self.task == "enlarge" and (len(self.image) > 1 or self.at is not None and not self.image):
            raise InputError("task=enlarge takes one image, continued all round, or none; at= says where it lies.")
        if self.fit and self.task in ("inpaint", "condition"):
            for name in ON_LARGE_IMAGES:
                if getattr(self, name) is not None:
                    raise InputError(f"{name}={getattr(self, name)} is used on images larger than the prior's alone: "
                                     "add fit=false, or leave it out.")


def parse(arguments: Sequence[str]) -> tuple[EditOptions, list[str]]:
    """Our keys, checked, and the arguments that are bench.run's. Raises InputError."""
    own = {f.name for f in fields(EditOptions)}
    mine: dict[str, Any] = {}
    rest: list[str] = []
    for argument in arguments:
        key, equals, _ = argument.partition("=")
        if not equals:
            raise InputError(f"'{argument}' is not of the form key=value, such as task=inpaint.")
        if key not in own:
            _check_elsewhere(key, own)
            rest.append(argument)
        elif key in mine:
            raise InputError(f"{key} is given twice; give it once.")
        else:
            mine[key] = _value(key, argument)
    if mine.get("task") not in KEYS:
        raise InputError(f"task={mine.get('task', '')}: {did_you_mean(str(mine.get('task', '')), KEYS)}")
    valid = {*KEYS[mine["task"]], "task", "out"}
    for key in mine:
        if key not in valid:
            raise InputError(f"{key} is not used by task={mine['task']}. It takes {', '.join(KEYS[mine['task']])}.")
    return EditOptions(**mine), rest


def _check_elsewhere(key: str, own: set[str]) -> None:
    """A key that is neither ours nor one of bench.run's is most likely one of ours, misspelt."""
    if "." not in key and key.lstrip("+~") not in {*GROUPS, *(field.name for field in fields(RunSpec))}:
        raise InputError(f"unknown key '{key}'. {did_you_mean(key, own)} The keys of bench.run are valid too.")


def _value(key: str, argument: str) -> Any:
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException as error:
        raise _unreadable(key, argument, error) from None
    if override.is_sweep_override():
        check_sweep(override, argument)
    try:
        raw = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
    except (HydraException, TypeError, ValueError, ArithmeticError) as error:
        raise _unreadable(key, argument, error) from None
    return READERS.get(key, _whole)(key, raw)


def _unreadable(key: str, argument: str, error: Exception) -> InputError:
    return InputError(f"cannot read '{argument}' ({str(error).splitlines()[0]}). A path with a comma, '=' or '(' needs "
                      f"quotes: \"{key}='...'\".")


def _texts(key: str, raw: list[Any]) -> tuple[str, ...]:
    flat = [item for value in raw for item in (value if isinstance(value, list) else [value])]
    return tuple(str(item).strip("'\"") for item in flat)


def _boxes(key: str, raw: list[Any]) -> tuple[tuple[int, ...], ...]:
    values = [_plain(value) for value in raw]
    if len(values) == 1 and isinstance(values[0], list) and values[0] and isinstance(values[0][0], list):
        values = values[0]
    boxes = values if all(isinstance(value, list) for value in values) else [values]
    for box in boxes:
        if len(box) != 4 or not all(isinstance(number, int) for number in box):
            raise InputError(f"box={box}: expected four whole numbers of pixels, box=x0,y0,x1,y1; several as "
                             "box=[x0,y0,x1,y1],[x0,y0,x1,y1].")
    return tuple(tuple(box) for box in boxes)


def _plain(value: Any) -> Any:
    """A number that Hydra's grammar gives back as text inside a sweep, as a number."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    text = str(value)
    return int(text) if text.lstrip("-").isdigit() else value


def _pair(key: str, raw: list[Any]) -> tuple[int, int]:
    parts = str(raw[0]).lower().split("x") if len(raw) == 1 and not isinstance(raw[0], list) else []
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        shown = ",".join(map(str, raw))
        raise InputError(f"{key}={shown}: expected two whole numbers of tokens, height x width, such as {key}=16x16.")
    return int(parts[0]), int(parts[1])


def _text(key: str, raw: list[Any]) -> str:
    if len(raw) != 1:
        raise InputError(f"{key}={','.join(map(str, raw))}: expected one value.")
    return str(raw[0]).strip("'\"")


def _flag(key: str, raw: list[Any]) -> bool:
    if len(raw) != 1 or not isinstance(raw[0], bool):
        raise InputError(f"{key}={','.join(map(str, raw))}: expected true or false.")
    return raw[0]


def _whole(key: str, raw: list[Any]) -> int:
    value = _plain(raw[0]) if len(raw) == 1 else None
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{key}={','.join(map(str, raw))}: expected a whole number.")
    return value


READERS = {"task": _text, "out": _text, "order": _text, "image": _texts, "mask": _texts, "masks": _texts, "box": _boxes,
           "fit": _flag, "paste": _flag, "canvas": _pair, "at": _pair}
