"""Extraction, resumable shards, torchvision extractors and exchange files, with a tiny extractor."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from bench.assets.torchvision_compat import ensure_torchvision
from bench.errors import BenchError, InputError
from bench.metrics import exchange
from bench.metrics.features import MANIFEST, extract, extract_to, extractor_identity, load_features, resolve_extractor
from bench.metrics.frechet import fid, fid_to, frechet_distance, moments
from bench.metrics.inception import tf1_resize


class Pixels:
    """ImageData over an array; counts what was read."""

    def __init__(self, n, size=4, seed=0):
        self.array = np.random.default_rng(seed).integers(0, 256, (n, 3, size, size), dtype=np.uint8)
        self.read = 0

    def __len__(self):
        return len(self.array)

    def images(self, indices):
        self.read += len(indices)
        return self.array[np.asarray(indices)]


class Means:
    """The mean of each channel."""

    name, num_features, resize, weights = "means", 3, "none", "0"
    device = torch.device("cpu")

    def __call__(self, images):
        return images.float().mean(dim=(2, 3))


def test_features_do_not_depend_on_the_batch():
    images = Pixels(23)
    np.testing.assert_allclose(extract(images, Means(), batch_size=5), extract(images, Means(), batch_size=23))


def test_a_range_of_images_is_that_part_of_all():
    images = Pixels(23)
    np.testing.assert_allclose(extract(images, Means(), start=4, stop=9), extract(images, Means())[4:9])


def test_progress_counts_every_image_once():
    done = []
    extract(Pixels(23), Means(), batch_size=10, progress=done.append)
    assert done == [10, 10, 3]


def test_an_interrupted_extraction_continues_where_it_stopped(tmp_path):
    images = Pixels(23)
    assert extract_to(tmp_path, images, Means(), fingerprint="f", shard_size=10) == 23
    (tmp_path / "shard-00000010.npy").write_bytes(b"cut short")
    images.read = 0
    assert extract_to(tmp_path, images, Means(), fingerprint="f", shard_size=10) == 10
    assert images.read == 10
    np.testing.assert_allclose(load_features(tmp_path), extract(images, Means()))


@pytest.mark.parametrize("name", [MANIFEST, "shard-00000010.npy", "features.npy"])
def test_damaged_features_are_extracted_again(tmp_path, name, damage, capsys):
    images = Pixels(23)
    extract_to(tmp_path, images, Means(), fingerprint="f", shard_size=10)
    expected = load_features(tmp_path).copy()
    damage(tmp_path / name)
    was_there = (tmp_path / name).exists()
    extract_to(tmp_path, images, Means(), fingerprint="f", shard_size=10)
    np.testing.assert_array_equal(load_features(tmp_path), expected)
    assert (f"{name} is damaged" in capsys.readouterr().err) == was_there


def test_shards_of_other_images_are_not_used_when_the_manifest_is_lost(tmp_path):
    extract_to(tmp_path, Pixels(23, seed=1), Means(), fingerprint="other", shard_size=10)
    load_features(tmp_path)
    (tmp_path / MANIFEST).unlink()
    assert extract_to(tmp_path, Pixels(23), Means(), fingerprint="f", shard_size=10) == 23
    np.testing.assert_array_equal(load_features(tmp_path), extract(Pixels(23), Means()))


def test_features_with_a_damaged_manifest_are_refused_and_kept(tmp_path):
    extract_to(tmp_path, Pixels(7), Means(), fingerprint="f")
    (tmp_path / MANIFEST).write_text("[]")
    with pytest.raises(InputError, match="damaged features.json"):
        load_features(tmp_path)
    assert (tmp_path / MANIFEST).exists()


def test_a_second_extraction_does_no_work(tmp_path):
    images = Pixels(12)
    extract_to(tmp_path, images, Means(), fingerprint="f", shard_size=5)
    assert extract_to(tmp_path, images, Means(), fingerprint="f", shard_size=5) == 0


def test_jobs_share_the_shards_and_loading_waits_for_all(tmp_path):
    images = Pixels(23)
    extract_to(tmp_path, images, Means(), fingerprint="f", shard_size=5, job=0, num_jobs=2)
    with pytest.raises(InputError, match="lacks 2 of 5 shards, the first at image 5"):
        load_features(tmp_path)
    extract_to(tmp_path, images, Means(), fingerprint="f", shard_size=5, job=1, num_jobs=2)
    np.testing.assert_allclose(load_features(tmp_path), extract(images, Means()))


def test_loaded_features_are_a_memory_map(tmp_path):
    extract_to(tmp_path, Pixels(7), Means(), fingerprint="f")
    assert isinstance(load_features(tmp_path), np.memmap)


@pytest.mark.parametrize("change", [{"fingerprint": "g"}, {"shard_size": 6}])
def test_a_folder_of_other_features_is_refused(tmp_path, change):
    options = {"fingerprint": "f", "shard_size": 5}
    extract_to(tmp_path, Pixels(7), Means(), **options)
    with pytest.raises(InputError, match="holds other features"):
        extract_to(tmp_path, Pixels(7), Means(), **{**options, **change})


def test_a_folder_knows_its_extractor(tmp_path):
    extract_to(tmp_path, Pixels(7), Means(), fingerprint="f")
    assert json.loads((tmp_path / MANIFEST).read_text()).items() >= extractor_identity(Means()).items()


def test_an_extractor_that_gives_nan_is_an_error():
    class Broken(Means):
        def __call__(self, images):
            return super().__call__(images) * float("nan")

    with pytest.raises(BenchError, match="gave NaN"):
        extract(Pixels(3), Broken())


def test_an_unknown_extractor_is_an_error():
    with pytest.raises(InputError, match="inceptoin"):
        resolve_extractor("inceptoin-v3-compat")


@pytest.mark.parametrize("size", [(32, 32), (40, 24), (299, 299), (320, 300), (1, 1)])
def test_the_resize_is_tensorflow_1s(size):
    ensure_torchvision()
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    theirs = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(299, 299), align_corners=False)
    torch.testing.assert_close(tf1_resize(images), (theirs - 128) / 128, atol=1e-6, rtol=0)


@pytest.fixture
def small_resnet(tmp_path):
    models = ensure_torchvision().models
    torch.manual_seed(0)
    net = models.resnet18(weights=None).eval()
    torch.save(net.state_dict(), tmp_path / "mine.pth")
    return net, tmp_path / "mine.pth"


def test_a_torchvision_model_gives_the_input_of_its_last_layer(small_resnet):
    net, path = small_resnet
    extractor = resolve_extractor(f"torchvision:resnet18:{path}")
    images = torch.from_numpy(Pixels(2, size=32).array)
    with torch.inference_mode():
        expected = net(extractor.transform(images))
    features = extractor(images)
    assert features.shape == (2, 512) and extractor.num_features == 512
    with torch.inference_mode():
        logits = net.fc(features)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


def test_torchvision_weights_that_are_absent_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match="expected .*resnet50-11ad3fa6.pth"):
        resolve_extractor("torchvision:resnet50")


def test_an_unknown_torchvision_model_suggests_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'resnet50'"):
        resolve_extractor("torchvision:resnet5O")


def test_a_damaged_published_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "resnet50-11ad3fa6.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"not these")
    with pytest.raises(InputError, match="is damaged"):
        resolve_extractor("torchvision:resnet50")


def test_weights_of_another_model_are_refused(small_resnet):
    with pytest.raises(InputError, match="does not fit"):
        resolve_extractor(f"torchvision:resnet34:{small_resnet[1]}")


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4, dtype=torch.uint8)])
def test_images_that_are_not_uint8_rgb_are_refused(small_resnet, images):
    with pytest.raises(InputError, match="expected"):
        resolve_extractor(f"torchvision:resnet18:{small_resnet[1]}")(images)


def test_reference_statistics_come_back_and_give_the_same_distance(tmp_path):
    fake, real = (np.random.default_rng(s).standard_normal((200, 8)) for s in (0, 1))
    exchange.write_statistics(tmp_path / "real.npz", real, Means())
    saved = exchange.read_statistics(tmp_path / "real.npz")
    assert (saved.n, saved.extractor, saved.resize) == (200, "means", "none")
    assert fid_to(saved.reference(), fake).value == pytest.approx(fid(fake, real).value, rel=1e-10)


@pytest.mark.parametrize("names", [("mu", "sigma"), ("fid_mu", "fid_sigma"), ("fid/mu", "fid/sigma")])
def test_statistics_of_another_program_need_no_number_of_images(tmp_path, names):
    """pytorch-fid, clean-fid and ADM call them mu and sigma; ADM's of spatial features and images are left alone."""
    more = {"mu_s": np.zeros(3), "sigma_s": np.eye(3), "arr_0": np.zeros((2, 4, 4, 3), np.uint8)}
    np.savez(tmp_path / "theirs.npz", **dict(zip(names, (np.zeros(4), 2 * np.eye(4)), strict=True)), **more)
    saved = exchange.read_statistics(tmp_path / "theirs.npz")
    assert (saved.n, len(saved.mu)) == (None, 4)
    assert exchange.read_statistics(tmp_path / "theirs.npz", num_images=50_000).n == 50_000
    fake = np.random.default_rng(0).standard_normal((300, 4))
    mean, covariance = moments(fake)
    assert fid_to(saved.reference(), fake).value == pytest.approx(
        frechet_distance(mean, covariance, np.zeros(4), 2 * np.eye(4)), rel=1e-9)


def test_a_pickled_entry_is_never_opened_and_its_way_out_is_named(tmp_path):
    np.savez(tmp_path / "edm2.npz", fid={"mu": np.zeros(4), "sigma": np.eye(4)})
    with pytest.raises(InputError, match="never unpickled: write its parts"):
        exchange.read_statistics(tmp_path / "edm2.npz")


def test_moments_whose_squares_overflow_are_refused(tmp_path):
    np.savez(tmp_path / "huge.npz", mu=np.array([0, 1e300, 0, 0]), sigma=np.eye(4))
    with pytest.raises(InputError, match=r"huge.npz: mu reaches 1.0e\+300"):
        exchange.read_statistics(tmp_path / "huge.npz")


def test_a_file_that_announces_more_than_it_holds_is_refused_unread(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (4, 4)})
    with zipfile.ZipFile(tmp_path / "short.npz", "w") as archive:
        archive.writestr("sigma.npy", header.getvalue() + bytes(8))
        whole = io.BytesIO()
        np.save(whole, np.zeros(4))
        archive.writestr("mu.npy", whole.getvalue())
    with pytest.raises(InputError, match="sigma.npy announces float64"):
        exchange.read_statistics(tmp_path / "short.npz")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK"])
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(InputError, match="not a readable"):
        exchange.read_statistics(tmp_path / "bad.npz")


def test_another_number_of_images_than_the_file_s_is_refused(tmp_path):
    exchange.write_statistics(tmp_path / "real.npz", np.random.default_rng(0).standard_normal((20, 3)), Means())
    with pytest.raises(InputError, match="is of 20 images"):
        exchange.read_statistics(tmp_path / "real.npz", num_images=30)


@pytest.mark.parametrize("arrays", [{"mu": np.zeros(4)}, {"mu": np.zeros(4), "sigma": np.eye(5), "n": 9},
                                    {"mu": np.full(4, np.nan), "sigma": np.eye(4), "n": 9},
                                    {"mu": np.zeros(3), "sigma": np.triu(np.ones((3, 3)))},
                                    {"mu": np.zeros(3), "sigma": -np.eye(3)}])
def test_damaged_statistics_are_refused(tmp_path, arrays):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(InputError, match="expected"):
        exchange.read_statistics(tmp_path / "bad.npz")


def test_exported_png_files_hold_the_same_pixels(tmp_path):
    images = Pixels(7)
    assert exchange.export_png(tmp_path, images) == 7
    read = [np.asarray(Image.open(path)).transpose(2, 0, 1) for path in sorted(tmp_path.glob("*.png"))]
    np.testing.assert_array_equal(read, images.array)


def test_an_interrupted_png_export_continues(tmp_path):
    exchange.export_png(tmp_path, Pixels(7))
    (tmp_path / "00000003.png").unlink()
    assert exchange.export_png(tmp_path, Pixels(7)) == 1


def test_exported_npz_is_adms_format(tmp_path):
    images = Pixels(7)
    exchange.export_npz(tmp_path / "samples.npz", images)
    array = np.load(tmp_path / "samples.npz")["arr_0"]
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array.transpose(0, 3, 1, 2), images.array)


@pytest.mark.network
def test_inception_features_equal_torch_fidelitys():
    from bench.metrics.inception import InceptionCompat, inception_oracle

    images = torch.from_numpy(Pixels(4, size=32).array)
    with torch.inference_mode():
        theirs = inception_oracle()(images)[0]
    assert (InceptionCompat()(images) - theirs).abs().max() < 2e-5


@pytest.mark.network
def test_inception_refuses_float_images():
    from bench.metrics.inception import InceptionCompat

    with pytest.raises(InputError, match="expected uint8"):
        InceptionCompat()(torch.rand(2, 3, 8, 8))
