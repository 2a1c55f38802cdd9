"""Tokens in a folder of the user's, with the images they belong to: what `bench.encode` writes and `vq.tokens` reads.

    write_tokens(folder, {"train": (tokens, images), "validation": (tokens, images)}, tokenizer="3f0c...")
    check_tokens(folder, {"train": images, "validation": images}, tokenizer="3f0c...")     # InputError

    <split>.npy    (images, tokens) integers
    <split>.csv    a row an image, in that order: its name in the data set ("" where it has none) and the first 16
                   digits of the sha256 of its pixels, (3, H, W) uint8 as the tokenizer saw them (or "")
    tokens.json    whose tokens they are

Nothing here imports torch.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.data.arrays import spread_indices
from bench.data.base import ImageData
from bench.data.npz import BROKEN
from bench.data.regular import check_regular
from bench.data.tokens import TokenArray, id_type
from bench.errors import InputError
from bench.provenance import sha256_of
from bench.store import files

MANIFEST = "tokens.json"
COLUMNS = ("name", "pixels")
CHUNK = 1000   # images at a time
PROBED = 64    # images of each split whose pixels are compared where names say which is which
Order = list[tuple[str, str]]


def write_tokens(folder: Path, splits: Mapping[str, tuple[TokenArray, ImageData]], *, tokenizer: str) -> None:
    """Write the splits into `folder`, the manifest last, so that a folder with one is whole.

    tokenizer: what tells one tokenizer from another. Raises InputError where the folder holds tokens that were not
    written here.
    """
    theirs = [name for name in splits if (folder / f"{name}.npy").exists()]
    if theirs and not (folder / MANIFEST).is_file():
        raise InputError(f"out={folder} holds {', '.join(f'{name}.npy' for name in theirs)} and no {MANIFEST}: they "
                         "are not overwritten. Name another folder.")
    (folder / MANIFEST).unlink(missing_ok=True)
    for name, (tokens, images) in splits.items():
        with files.replacing(folder / f"{name}.npy") as stream:
            _write_array(stream, tokens)
        order = list(_order(images, np.arange(len(images))))
        rows = "".join(f"{_quoted(row[0])},{row[1]}\n" for row in [COLUMNS, *order])
        files.write_text(folder / f"{name}.csv", rows)
    written = [f"{name}.{kind}" for name in splits for kind in ("npy", "csv")]
    files.write_json(folder / MANIFEST, {"format": 1, "tokenizer": tokenizer,
                                         "sha256": {name: sha256_of(folder / name) for name in written}})


def check_tokens(folder: Path, splits: Mapping[str, ImageData], *, tokenizer: str) -> None:
    """Raise InputError unless the folder holds one row for each image, in the data set's order, of this tokenizer.

    Of tokens from another program, which come without a manifest or a .csv, only their number can be told.
    """
    for name in (MANIFEST, *(f"{split}.{suffix}" for split in splits for suffix in ("npy", "csv"))):
        if (folder / name).exists():
            check_regular(folder / name, f"vq.tokens={folder}: {name}")
    if (folder / MANIFEST).is_file():
        _check_manifest(folder, tokenizer)
    for name, images in splits.items():
        _check_number(folder / f"{name}.npy", len(images))
        if (folder / f"{name}.csv").is_file():
            _check_order(folder / f"{name}.csv", images)


def _check_manifest(folder: Path, tokenizer: str) -> None:
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text())
        made_by, written = found["tokenizer"], dict(found["sha256"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}: {error}). Encode again.") from error
    if made_by != tokenizer:
        raise InputError(f"vq.tokens={folder}: its {MANIFEST} says that they are of the tokenizer {made_by}, and this "
                         f"run's is {tokenizer}. Give bench.run the vq.* keys that bench.encode was given, or encode "
                         "again.")
    for name, sha256 in written.items():
        if not (folder / name).is_file() or sha256_of(folder / name) != sha256:
            raise InputError(f"{folder / name} is not as {MANIFEST} says that it was written: it is damaged, changed "
                             "or missing. Encode again.")


def _check_number(path: Path, num_images: int) -> None:
    try:
        shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
    except BROKEN as error:
        raise InputError(f"{path} is not an .npy of numbers: {error}") from error
    if not shape or shape[0] != num_images:
        raise InputError(f"{path} holds an array {shape}, and the data set has {num_images:,} such images: expected a "
                         "row for each. Encode this very data set, with the same dataset.* keys.")


def _check_order(path: Path, images: ImageData) -> None:
    rows = _read_order(path)
    if len(rows) != len(images):
        raise InputError(f"{path} lists {len(rows):,} images, and the data set has {len(images):,}: expected one row "
                         "for each. Encode this very data set, with the same dataset.* keys.")
    names = getattr(images, "names", None)
    told = all(row[0] for row in rows)
    if names is not None and told:
        _check_names(path, [row[0] for row in rows], names)
    chosen = spread_indices(len(images), PROBED if names is not None and told else None)
    for index, (name, pixels) in zip(chosen, _order(images, chosen), strict=True):
        if rows[index][1] and pixels != rows[index][1]:
            raise InputError(f"{path}: image {index}{f' ({name})' if name else ''} has other pixels here than when its "
                             "tokens were made: another image, order, resolution or resize. Encode again.")


def _check_names(path: Path, listed: list[str], names: Sequence[str]) -> None:
    for index, (one, other) in enumerate(zip(listed, names, strict=True)):
        if one != other:
            what = ("the same names stand in another order" if sorted(listed) == sorted(names) else
                    "the two are of different images")
            raise InputError(f"{path}: row {index} is {one}, and image {index} of the data set is {other}; {what}. "
                             "Encode this very data set, with the same dataset.* keys.")


def _order(images: ImageData, indices: np.ndarray) -> Iterator[tuple[str, str]]:
    """(name, hash of the pixels) of each of these images."""
    names = getattr(images, "names", None)
    for start in range(0, len(indices), CHUNK):
        chosen = indices[start:start + CHUNK]
        for index, image in zip(chosen, images.images(chosen), strict=True):
            digest = hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()[:16]
            yield "" if names is None else str(names[int(index)]), digest


def _write_array(stream: Any, tokens: TokenArray) -> None:
    """(n, N) as an .npy, without holding it all in memory."""
    dtype = np.dtype(id_type(tokens.codebook_size))
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False,
              "shape": (len(tokens), tokens.num_tokens)}
    np.lib.format.write_array_header_1_0(stream, header)
    for start in range(0, len(tokens), CHUNK):
        stream.write(tokens[start:start + CHUNK].astype(dtype).tobytes())


def _read_order(path: Path) -> Order:
    try:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as stream:
            rows = list(csv.reader(stream))
    except (OSError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not rows or tuple(rows[0]) != COLUMNS or any(len(row) != 2 for row in rows):
        raise InputError(f"{path} is no list of images: expected the columns {','.join(COLUMNS)}")
    return [(row[0], row[1]) for row in rows[1:]]


def _quoted(text: str) -> str:
    """As csv.reader takes it."""
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text
