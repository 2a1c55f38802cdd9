"""Files that are traps: they are refused by name, before they are read, and cost neither memory nor time."""

import gzip
import io
import os
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.config import DatasetConfig
from bench.data.cifar10 import Cifar10
from bench.data.fashion_mnist import read_idx
from bench.data.ffhq import FFHQ
from bench.data.files import open_files
from bench.data.folder import ImageFolder
from bench.data.pixels import CorruptImage, check_decodes, decode
from bench.data.regular import MAX_IMAGE_BYTES, read_regular
from bench.errors import InputError

SMALL = 64 << 20   # bytes: more than any refusal here should take


def png(size=(12, 12)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (1, 2, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def png_announcing(width, height) -> bytes:
    """A PNG whose header alone says how large it is."""
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
            + chunk(b"IEND", b""))


def config(path, **changes):
    return DatasetConfig(**{"name": "folder", "path": str(path), "resolution": 8, **changes})


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    for i in range(4):
        (root / f"{i}.png").write_bytes(png())
    return root


@pytest.fixture
def little_memory():
    tracemalloc.start()
    yield tracemalloc.reset_peak   # for after a trap was built
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < SMALL, f"{peak:,} bytes"


def device(path):
    path.symlink_to("/dev/zero")


def pipe(path):
    os.mkfifo(path)


def linked_pipe(path):
    os.mkfifo(path.with_suffix(".pipe"))
    path.symlink_to(path.with_suffix(".pipe"))


@pytest.mark.parametrize("on_corrupt", ["error", "skip"])
@pytest.mark.parametrize(("trap", "kind"), [(device, "a device"), (pipe, "a pipe"), (linked_pipe, "a pipe")])
def test_an_image_that_is_no_regular_file_is_refused_and_named(photos, trap, kind, on_corrupt):
    trap(photos / "trap.png")
    with pytest.raises(InputError, match=f"trap.png is {kind}"):
        ImageFolder().open(config(photos, on_corrupt=on_corrupt))


def test_an_image_that_turned_into_a_pipe_after_it_was_listed_is_corrupt(photos):
    data = ImageFolder().open(config(photos)).train
    (photos / data.names[0]).unlink()
    os.mkfifo(photos / data.names[0])
    with pytest.raises(InputError, match="is a pipe"):
        data.images([0])


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
def test_a_data_set_that_is_a_device_is_refused(path):
    with pytest.raises(InputError, match="is a device"):
        open_files(Path(path))


def test_a_pipe_in_place_of_the_whole_data_set_is_refused(tmp_path):
    os.mkfifo(tmp_path / "photos.zip")
    with pytest.raises(InputError, match="no device, pipe or socket"):
        ImageFolder().check(config(tmp_path / "photos.zip"))


def test_links_that_lead_in_circles_are_corrupt_images_and_no_hang(photos):
    (photos / "a.png").symlink_to(photos / "b.png")
    (photos / "b.png").symlink_to(photos / "a.png")
    (photos / "around").symlink_to(photos / "around")
    with pytest.raises(InputError, match="2 corrupt") as caught:
        ImageFolder().open(config(photos))
    assert "a.png" in str(caught.value) and "b.png" in str(caught.value)


def test_an_enormous_file_is_refused_before_it_is_read(photos, little_memory):
    with open(photos / "huge.png", "wb") as file:
        file.truncate(3 << 30)   # sparse: takes no room
    with pytest.raises(InputError, match="huge.png takes 3,221,225,472 bytes, and at most 268,435,456"):
        ImageFolder().open(config(photos))
    with pytest.raises(CorruptImage, match="at most"):
        read_regular(photos / "huge.png")


def test_a_zip_member_that_inflates_to_gigabytes_is_refused_before_it_is_read(tmp_path, little_memory):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", png())
        with archive.open("bomb.png", "w", force_zip64=True) as member:
            for _ in range((MAX_IMAGE_BYTES >> 20) + 1):
                member.write(bytes(1 << 20))
    with pytest.raises(InputError, match="bomb.png takes 269,484,032 bytes"):
        open_files(tmp_path / "bomb.zip")


def test_a_zip_member_that_inflates_to_more_than_it_announces_is_cut_off_and_corrupt(tmp_path, little_memory):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(100 << 20))
    whole = (tmp_path / "bomb.zip").read_bytes()
    (tmp_path / "bomb.zip").write_bytes(whole.replace(struct.pack("<I", 100 << 20), struct.pack("<I", 1000)))
    del whole
    little_memory()
    files = open_files(tmp_path / "bomb.zip")
    with pytest.raises(CorruptImage, match="CRC"):
        files.read("bomb.png")


def test_a_zip_member_that_reaches_beyond_the_zip_is_refused_before_room_is_made_for_it(tmp_path, little_memory):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", png())
        stored = archive.getinfo("a.png").compress_size
    content = bytearray((tmp_path / "a.zip").read_bytes())
    entry = content.rindex(b"PK\x01\x02")   # its line in the central directory: APPNOTE.TXT 4.3.12
    assert struct.unpack("<I", content[entry + 20:entry + 24]) == (stored,)
    content[entry + 20:entry + 24] = struct.pack("<I", 4_000_000_000)
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(InputError, match="would take 4,000,000,000 bytes"):
        open_files(tmp_path / "a.zip")


def test_a_truncated_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", png())
        archive.writestr("b.png", png())
    (tmp_path / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:-10])
    with pytest.raises(InputError, match="not a"):
        open_files(tmp_path / "a.zip")


def test_names_in_a_zip_lead_out_of_it_nowhere(tmp_path):
    outside = tmp_path / "secret.png"
    outside.write_bytes(png((5, 5)))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("../secret.png", "x/../../secret.png", str(outside), "a.png"):
            archive.writestr(name, png((7, 7)))
    files = open_files(tmp_path / "a.zip")
    assert files.ignored == 2 and sorted(files.names) == sorted([str(outside), "a.png"])
    assert files.read(str(outside)) == png((7, 7))


@pytest.mark.parametrize("read", [check_decodes, lambda data: decode(data, resolution=8, resize="antialias")])
@pytest.mark.parametrize("size", [(10_000, 10_000), (60_000, 60_000)])
def test_an_image_of_too_many_pixels_is_corrupt_by_its_header_alone(read, size, little_memory):
    with pytest.raises(CorruptImage, match="at most 89,478,485|bomb"):
        read(png_announcing(*size))


def test_a_decompression_bomb_among_the_images_is_named(photos, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)   # as some packages set it
    (photos / "bomb.png").write_bytes(png_announcing(30_000, 30_000))
    with pytest.raises(InputError, match="bomb.png: 30000x30000 pixels"):
        ImageFolder().open(config(photos))


def test_a_picture_that_pil_would_hand_to_another_program_is_corrupt():
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    with pytest.raises(CorruptImage, match="identify"):
        decode(postscript, resolution=8, resize="antialias")


def test_a_pipe_among_the_faces_or_the_batches_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "00000.png")
    with pytest.raises(InputError, match="00000.png"):
        FFHQ().check(DatasetConfig(name="ffhq", path=str(tmp_path), resolution=8))
    (tmp_path / "data_batch_1").write_bytes(b"")
    for i in range(2, 6):
        os.mkfifo(tmp_path / f"data_batch_{i}")
    with pytest.raises(InputError, match="not CIFAR-10"):
        Cifar10().open(DatasetConfig(name="cifar10", path=str(tmp_path), resolution=32))


def test_an_idx_file_that_announces_or_inflates_to_too_much_is_refused(tmp_path, little_memory):
    header = b"\x00\x00\x08\x03"
    (tmp_path / "a").write_bytes(header + struct.pack(">III", 10**9, 28, 28))
    with pytest.raises(InputError, match="announces 1,000,000,000 images"):
        read_idx(tmp_path / "a")
    with gzip.open(tmp_path / "a.gz", "wb") as file:
        file.write(header + struct.pack(">III", 2, 28, 28) + bytes(100 << 20))
    little_memory()
    with pytest.raises(InputError, match="more than 1,568 bytes"):
        read_idx(tmp_path / "a.gz")


def test_the_plan_refuses_a_device_among_the_images_before_torch_is_imported(photos):
    device(photos / "trap.png")
    code = (f"import sys; from bench.run import main; print(main(['dataset=folder', 'dataset.path={photos}', "
            "'preset=smoke', 'plan=true']), 'torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["2", "False"] and "trap.png is a device" in " ".join(done.stderr.split())


def test_a_sound_image_is_read_as_before(photos):
    assert read_regular(photos / "0.png") == png()
    assert np.array_equal(decode(png(), resolution=4, resize="plain")[:, 0, 0], [1, 2, 3])
