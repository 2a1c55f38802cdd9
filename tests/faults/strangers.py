"""Files that a stranger hands us: checkpoints, tokens, samples, archives, records, masks, captions, statistics, keys.

A case makes a good file, spoils it (bits, ends, headers, sizes, types, values; a bomb, a pickle, a path that leads out
of its folder), and gives it to the command that reads it, in process. It is read, or refused with 2 and its name; what
can only be nonsense is refused; nothing in it is run, nothing is written outside, and memory stays bounded.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from bench.compose import compose
from bench.data.token_files import MANIFEST as TOKENS_MANIFEST
from tests.faults.bed import Bed, Fault
from tests.faults.campaign import Part
from tests.faults.doors import call

SMOKE = ["dataset=digits", "preset=smoke", "baselines=false"]
FOLDER = ["dataset=folder", "preset=smoke", "baselines=false", "dataset.resolution=16", "dataset.path=photos",
          "dataset.validation_fraction=0.3"]
MARK = Path("executed")
BOMB = 1 << 28   # bytes it unpacks to


class Payload:
    """What a pickle of it would do if anybody loaded it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (MARK.absolute(),))


class Strangers:
    def __init__(self, bed: Bed | None = None):
        pass

    def part(self) -> Part:
        return Part("files", "files from strangers, in process",
                    ("a traceback", "a hang", "nonsense accepted", "code executed", "written outside",
                     "a message that does not name the file"), self.case)

    def case(self, draw: random.Random, number: int) -> str:
        folder, began = Path(f"file-{number}").absolute(), Path.cwd()
        folder.mkdir()
        os.chdir(folder)
        try:
            kind = draw.choice(sorted(READERS))
            path, door, arguments = READERS[kind](draw)
            how, must_be_refused = draw.choice(spoilers_of(path))(path, draw)
            code, said = call(door, arguments, also=("bench.pipeline.run",))
            what = f"{kind}, {how}: {door} {arguments}"
            if MARK.exists():
                raise Fault("code executed", what)
            if list(began.glob("outside*")):
                raise Fault("written outside", what)
            if code == 0 and must_be_refused:
                raise Fault("nonsense accepted", f"{what}: {said[-300:]!r}")
            names, flat = (path.name, path.stem, path.parent.name), said.replace("\n", "")
            if code == 2 and not any(name and name in flat for name in names):
                raise Fault("a message that does not name the file", f"{what}: {said[-400:]!r}")
            if code not in (0, 2) and not (door == "report" and code == 1):
                raise Fault("a traceback", f"{what}: exit code {code}, {said[-400:]!r}")
            return f"{kind}: {'read' if code == 0 else 'refused'}"
        finally:
            os.chdir(began)
            shutil.rmtree(folder, ignore_errors=True)


# -- what is given: makes a good file, and says which command reads it ------------------------------------------------


def _samples(draw: random.Random) -> tuple[Path, str, list[str]]:
    images = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
    np.savez("samples.npz", arr_0=images if draw.random() < 0.5 else (images / 255).astype(np.float32))
    return Path("samples.npz"), "run", [*SMOKE, "source=samples.npz", "metrics.names=[]"]


def _archive(draw: random.Random) -> tuple[Path, str, list[str]]:
    with zipfile.ZipFile("pictures.zip", "w") as archive:
        for index in range(26):
            archive.writestr(f"{index}.png", _png(index))
    return Path("pictures.zip"), "run", [*SMOKE, "source=pictures.zip", "metrics.names=[]"]


def _statistics(draw: random.Random) -> tuple[Path, str, list[str]]:
    np.savez("statistics.npz", mu=np.zeros(2048), sigma=np.eye(2048), n=100)
    return Path("statistics.npz"), "run", [*SMOKE, "prior=unigram", "protocol.reference=statistics.npz",
                                           "metrics.names=[fid]"]


def _picture(draw: random.Random) -> tuple[Path, str, list[str]]:
    Path("image.png").write_bytes(_png(1))
    Path("mask.png").write_bytes(_png(2))
    path = Path(draw.choice(("image.png", "mask.png")))
    return path, "edit", ["task=inpaint", "image=image.png", "mask=mask.png", *SMOKE[:2], "prior=absorbing"]


def _captions(draw: random.Random) -> tuple[Path, str, list[str]]:
    _photos()
    rows = "".join(f"{index:02}.png,a picture of {index}\n" for index in range(20))
    Path("photos/captions.csv").write_text("file,caption\n" + rows)
    return Path("photos/captions.csv"), "run", [*FOLDER, "condition=text", "prior=absorbing", "plan=true"]


def _photo(draw: random.Random) -> tuple[Path, str, list[str]]:
    _photos()
    return Path("photos/03.png"), "run", [*FOLDER, "prior=unigram"]


def _records(draw: random.Random) -> tuple[Path, str, list[str]]:
    source = draw.choice(_committed())
    target = Path("results") / source.parent.name / source.name
    target.parent.mkdir(parents=True)
    shutil.copy(source, target)
    other = next(path for path in _committed() if path.parent.name == "records" and path != source)
    (Path("results") / "records").mkdir(exist_ok=True)
    shutil.copy(other, Path("results") / "records" / other.name)
    return target, "report", ["results_dir=results", "out=report", "figures=false", "page=false"]


def _keys(draw: random.Random) -> tuple[Path, str, list[str]]:
    Path("sweep.yaml").write_text("prior: absorbing,unigram\ndataset: digits\npreset: smoke\nsampler.steps: 4\n")
    return Path("sweep.yaml"), "run", ["config=sweep.yaml", "plan=true"]


def _checkpoint(draw: random.Random) -> tuple[Path, str, list[str]]:
    name = draw.choice(("model.safetensors", "model.pt"))
    save_file(_weights(), name) if name.endswith("s") else torch.save(_weights(), name)
    return Path(name), "run", [*SMOKE, "prior=unigram", f"vq.path={name}", "metrics.names=[nll]"]


def _tokens(draw: random.Random) -> tuple[Path, str, list[str]]:
    Path("tokens").mkdir()
    for split, num in (("train", 128), ("validation", 64)):
        np.save(f"tokens/{split}.npy", np.zeros((num, 64), np.uint16))
        Path(f"tokens/{split}.csv").write_text("index,pixels\n" + "".join(f"{i},{'0' * 64}\n" for i in range(num)))
    Path("tokens", TOKENS_MANIFEST).write_text(json.dumps({"format": 1, "tokenizer": "x", "codebook_size": 16}))
    name = draw.choice(("train.npy", "validation.npy", "train.csv", TOKENS_MANIFEST))
    return Path("tokens", name), "run", [*SMOKE, "prior=unigram", "vq.tokens=tokens", "metrics.names=[nll]"]


READERS: dict[str, Callable[[random.Random], tuple[Path, str, list[str]]]] = {
    "samples": _samples, "archive": _archive, "statistics": _statistics, "picture": _picture, "captions": _captions,
    "photo": _photo, "record": _records, "keys": _keys, "checkpoint": _checkpoint, "tokens": _tokens}


def _png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _photos() -> None:
    Path("photos").mkdir()
    for index in range(20):
        Path(f"photos/{index:02}.png").write_bytes(_png(index))


@cache
def _committed() -> list[Path]:
    results = Path(__file__).parents[2] / "results" / "reference"
    return [*sorted((results / "records").glob("*.json"))[:20], *sorted((results / "sweeps").glob("*.json"))[:5]]


@cache
def _weights() -> dict[str, torch.Tensor]:
    from vq.options import VQGANOptions
    from vq.vqgan import VQGAN
    spec = compose([*SMOKE, "prior=unigram"])
    model = VQGAN(options=VQGANOptions(**spec.vq.options), resolution=spec.dataset.resolution)
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


# -- how it is spoilt: returns in which way, and whether it can only be refused ---------------------------------------

Spoiler = Callable[[Path, random.Random], tuple[str, bool]]


def spoilers_of(path: Path) -> list[Spoiler]:
    """Those that any file can suffer, and those of its format."""
    own = {".npz": [_values, _values, _members, _bomb], ".zip": [_bomb, _leading_out], ".npy": [_array],
           ".png": [_huge_header], ".json": [_json_value], ".csv": [_line], ".yaml": [_line],
           ".safetensors": [_header], ".pt": [_pickle]}
    return [_bits, _end, _replaced, *own.get(path.suffix, []), *own.get(path.suffix, [])]


def _bits(path: Path, draw: random.Random) -> tuple[str, bool]:
    content = bytearray(path.read_bytes())
    near_the_front = draw.random() < 0.5
    for _ in range(draw.choice((1, 3, 30))):
        content[draw.randrange(min(len(content), 300) if near_the_front else len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    return "bits", False


def _end(path: Path, draw: random.Random) -> tuple[str, bool]:
    os.truncate(path, draw.randrange(path.stat().st_size))
    return "a lost end", False


def _replaced(path: Path, draw: random.Random) -> tuple[str, bool]:
    kind = draw.choice(("nothing", "folder", "pipe", "device", "text", "pickle", "itself"))
    path.unlink()
    {"nothing": path.touch, "folder": path.mkdir, "pipe": lambda: os.mkfifo(path),
     "device": lambda: path.symlink_to("/dev/zero"), "text": lambda: path.write_text("x" * 1000),
     "pickle": lambda: path.write_bytes(pickle.dumps(Payload())), "itself": lambda: path.symlink_to(path.name)}[kind]()
    return f"replaced: {kind}", path.suffix not in (".json", ".csv") and kind != "folder"


def _pickle(path: Path, draw: random.Random) -> tuple[str, bool]:
    if draw.random() < 0.5:
        torch.save({"model": Payload(), **_weights()}, path)
    else:
        path.write_bytes(pickle.dumps({**_weights(), "x": Payload()}))
    return "a pickle that runs", True


def _values(path: Path, draw: random.Random) -> tuple[str, bool]:
    """An array of another shape or type, or values that no image and no statistic has."""
    with np.load(path) as stored:
        arrays = dict(stored)
    name = draw.choice(sorted(set(arrays) - {"n"}))
    good = arrays[name].astype(np.float64)
    how = draw.choice(("nan", "infinite", "huge", "fewer dimensions", "objects", "texts", "empty", "complex"))
    bad = good.copy()
    bad.flat[draw.randrange(bad.size)] = {"nan": np.nan, "infinite": np.inf, "huge": 1e300}.get(how, bad.flat[0])
    arrays[name] = {"fewer dimensions": lambda: bad.ravel()[: 7], "objects": lambda: np.array([Payload()] * 3, object),
                    "texts": lambda: np.array(["a", "b"]), "empty": lambda: bad[:0],
                    "complex": lambda: bad * 1j}.get(how, lambda: bad)()
    np.savez(path, **arrays)
    return f"{name} {how}", True


def _array(path: Path, draw: random.Random) -> tuple[str, bool]:
    array = np.load(path).astype(np.int64)
    how = draw.choice(("negative", "too large", "float", "nan", "objects", "too few", "one dimension", "empty"))
    if how in ("negative", "too large"):
        array.flat[draw.randrange(array.size)] = -1 if how == "negative" else 10**9
    np.save(path, {"float": lambda: array + 0.5, "nan": lambda: array * np.nan, "too few": lambda: array[:-1],
                   "objects": lambda: np.array([Payload()] * 3, object), "one dimension": lambda: array.ravel(),
                   "empty": lambda: array[:0]}.get(how, lambda: array)())
    return how, True


def _members(path: Path, draw: random.Random) -> tuple[str, bool]:
    """Another array header: of a size that the file does not hold."""
    with zipfile.ZipFile(path) as archive:
        name = archive.namelist()[0]
    header = io.BytesIO()
    shape = draw.choice(((10**12, 3), (2**40,), (-1, 3), (30, 10**9, 8, 3)))
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, header.getvalue() + b"\0" * 100)
    return f"an array said to be {shape}", True


def _bomb(path: Path, draw: random.Random) -> tuple[str, bool]:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("arr_0.npy" if path.suffix == ".npz" else "0.png", "w", force_zip64=True) as member:
            for _ in range(BOMB >> 20):
                member.write(b"\0" * (1 << 20))
    return "a bomb", True


def _leading_out(path: Path, draw: random.Random) -> tuple[str, bool]:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(draw.choice(("../outside.png", "/tmp/outside.png", "a/../../outside.png", "..\\outside.png")),
                         _png(0))
    return "a path that leads out", False


def _huge_header(path: Path, draw: random.Random) -> tuple[str, bool]:
    content = bytearray(path.read_bytes())
    content[16:24] = (10**5).to_bytes(4, "big") * 2   # width and height of the IHDR
    path.write_bytes(content)
    return "a picture said to be huge", True


def _json_value(path: Path, draw: random.Random) -> tuple[str, bool]:
    from tests.bench.test_hostile_records import ODD, changed, places
    raw = json.loads(path.read_text())
    place = draw.choice(list(places(raw)))
    path.write_text(json.dumps(changed(raw, place, draw.choice([*ODD, KeyError]))))
    return f"another {'.'.join(map(str, place))}", False


def _line(path: Path, draw: random.Random) -> tuple[str, bool]:
    lines = path.read_text().splitlines()
    lines.insert(draw.randrange(len(lines) + 1), draw.choice((
        "\x00", "a,b,c,d", "'", '"', "- [", "x: &a [*a]", "!!python/object/apply:os.system [touch executed]", "\t",
        "../../etc/passwd,x", "03.png,again", "seed: ${oc.env:HOME}", "plan: false", "x" * 200_000, "\udcff", "? : ?")))
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    return "a line", False


def _header(path: Path, draw: random.Random) -> tuple[str, bool]:
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8:8 + size])
    name = draw.choice(sorted(set(header) - {"__metadata__"}))
    how = draw.choice(("size", "offsets", "shape", "type", "lost", "nan"))
    if how == "size":
        path.write_bytes((2**draw.choice((40, 62))).to_bytes(8, "little") + content[8:])
        return "a header said to be huge", True
    if how == "nan":
        begin, end = header[name]["data_offsets"]
        data = bytearray(content[8 + size:])
        data[begin:end] = b"\xff" * (end - begin)   # NaN in float32
        path.write_bytes(content[:8 + size] + data)
        return f"{name} not a number", header[name]["dtype"] == "F32"
    if how == "lost":
        del header[name]
    else:
        header[name] |= {"offsets": {"data_offsets": [0, 2**50]}, "shape": {"shape": [1, 2, 3, 4, 5]},
                         "type": {"dtype": "X9"}}[how]
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size:])
    return f"{name}: {how}", True
