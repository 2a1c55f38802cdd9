"""Samples of another model: what is taken, how it is read, what is refused before torch is imported."""

import io
import os
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from bench.baselines import with_baselines
from bench.compose import Request, compose
from bench.config import DatasetConfig
from bench.data.foreign import look_at, name_of
from bench.data.npz import ImageArray, NpzImages
from bench.errors import InputError
from bench.labels import label_of
from bench.needs import check_data
from bench.run import execute
from bench.stages.base import Run
from bench.stages.identity import run_key

DATASET = DatasetConfig(name="digits", resolution=16)


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(tmp_path / "cache"))


def images(num=6, size=16, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 256, (num, size, size, 3)).astype(dtype)


def saved(path, *args, compressed=False, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    (np.savez_compressed if compressed else np.savez)(path, *args, **arrays)
    return path


def read(path, num=6):
    return look_at(str(path), DATASET, num=num)


def refusal(path, num=4) -> str:
    with pytest.raises(InputError) as caught:
        look_at(str(path), DATASET, num=num)
    return str(caught.value)


def pixels(samples):
    return samples.images.images(np.arange(len(samples.images)))


# -- how it is read --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("compressed", [False, True])
def test_an_npz_of_enough_images_is_taken_channels_first(tmp_path, compressed):
    samples = read(saved(tmp_path / "a.npz", images(), compressed=compressed))
    assert (pixels(samples) == images().transpose(0, 3, 1, 2)).all()
    assert samples.described == "6 of 6 images, arr_0: uint8 NHWC"


@pytest.mark.parametrize(("convert", "took"), [
    (lambda x: x, "uint8"), (lambda x: (x / 255).astype(np.float32), "float32 {} in 0..1"),
    (lambda x: x / 127.5 - 1, "float64 {} in -1..1"), (lambda x: x.astype(np.float16), "float16 {} in 0..255")])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_floats_and_channels_first_give_the_same_pixels_and_say_what_was_taken(tmp_path, convert, took, layout):
    array = convert(images())
    samples = read(saved(tmp_path / "a.npz", array if layout == "NHWC" else array.transpose(0, 3, 1, 2).copy()))
    assert (pixels(samples) == images().transpose(0, 3, 1, 2)).all()
    assert took.format(layout) in samples.took and layout in samples.took


def test_grey_images_are_repeated_in_three_channels(tmp_path):
    samples = read(saved(tmp_path / "a.npz", images()[..., :1]))
    assert (pixels(samples) == images()[..., :1].transpose(0, 3, 1, 2)).all() and "grey" in samples.took


def test_any_key_serves_and_labels_beside_the_images_do_no_harm(tmp_path):
    samples = read(saved(tmp_path / "a.npz", mine=images(), y=np.arange(6)))
    assert samples.took.startswith("mine: ") and len(samples.images) == 6


def test_of_several_arrays_of_images_one_is_named(tmp_path):
    path = saved(tmp_path / "a.npz", first=images(), second=255 - images())
    assert "several" in refusal(path) and f"{path}:first" in refusal(path)
    assert (pixels(read(f"{path}:second")) == 255 - images().transpose(0, 3, 1, 2)).all()
    assert "no array 'third'" in refusal(f"{path}:third")
    assert read(f"{path}:first").sha256 != read(f"{path}:second").sha256


@pytest.mark.parametrize("compressed", [False, True])
def test_images_of_a_sorted_npz_are_spread_over_all_of_it_as_real_ones_are(tmp_path, compressed):
    classes = np.repeat(np.arange(10, dtype=np.uint8), 180)[:1797]
    path = saved(tmp_path / "sorted.npz", np.broadcast_to(classes[:, None, None, None], (1797, 16, 16, 3)),
                 compressed=compressed)
    samples = read(path, num=24)
    assert set(pixels(samples)[:, 0, 0, 0]) == set(range(10))
    assert samples.described.startswith("24 of 1,797 images")


def test_pictures_of_a_sorted_folder_are_spread_over_all_of_it(tmp_path):
    for i in range(40):
        path = tmp_path / "photos" / f"class{i // 10}" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (i // 10, 0, 0)).save(path)
    samples = read(tmp_path / "photos", num=8)
    assert list(pixels(samples)[:, 0, 0, 0]) == [0, 0, 1, 1, 2, 2, 3, 3] and samples.total == 40


def test_the_order_of_the_indices_is_kept_in_a_compressed_array_too(tmp_path):
    samples = read(saved(tmp_path / "a.npz", images(), compressed=True))
    assert (samples.images.images([5, 0, 3]) == images().transpose(0, 3, 1, 2)[[5, 0, 3]]).all()


def test_a_large_npz_is_never_held_whole(tmp_path):
    path = saved(tmp_path / "a.npz", np.zeros((100_000, 16, 16, 3), np.uint8), compressed=True)   # 77 MB
    tracemalloc.start()
    assert pixels(read(path, num=20)).shape == (20, 3, 16, 16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20


# -- what is refused -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("array", "says"), [(images(size=8), "uint8 (6, 8, 8, 3)"), (images()[0], "uint8 (16, 16, 3)"),
                                             (images(dtype=np.int64), "int64 (6, 16, 16, 3)"),
                                             (images(dtype=np.float32) * 9, "float32 (6, 16, 16, 3) with values")])
def test_an_array_of_another_kind_is_named(tmp_path, array, says):
    said = refusal(saved(tmp_path / "a.npz", array))
    assert says in said and "expected uint8 (n, 16, 16, 3)" in said


def test_floats_that_are_not_finite_are_refused(tmp_path):
    array = images(dtype=np.float32) / 255
    array[3, 2, 1, 0] = np.nan
    assert "not finite" in refusal(saved(tmp_path / "a.npz", array))


def test_too_few_images_say_which_option_fits_them(tmp_path):
    assert "protocol.num_fake=6" in refusal(saved(tmp_path / "a.npz", images()), num=7)


def test_an_npz_without_images_lists_what_it_holds(tmp_path):
    assert "['labels']" in refusal(saved(tmp_path / "a.npz", labels=np.arange(6)))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04cut off"])
def test_a_damaged_npz_is_refused_without_a_word_of_pickles(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    said = refusal(tmp_path / "a.npz")
    assert "not an .npz file" in said and "np.savez" in said and "pickle" not in said


def test_a_flipped_byte_and_a_missing_end_are_found_before_anything_is_built(tmp_path):
    whole = bytearray(saved(tmp_path / "a.npz", images()).read_bytes())
    flipped = bytearray(whole)
    flipped[2000] ^= 1
    for content in (flipped, whole[:-200], whole[:3000]):
        (tmp_path / "b.npz").write_bytes(content)
        assert "not an .npz file" in refusal(tmp_path / "b.npz")


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trap-was-sprung",)


def test_pickled_objects_are_refused_and_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    array = np.empty((6, 16, 16, 3), object)
    array[:] = Trap()
    assert "never unpickled" in refusal(saved(tmp_path / "a.npz", array))
    assert not (tmp_path / "trap-was-sprung").exists()


def npz_of(path, header: bytes, data: bytes = b"", compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("arr_0.npy", header + data)
    return path


def npy_header(shape) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def test_a_header_that_announces_more_than_there_is_is_refused(tmp_path):
    path = npz_of(tmp_path / "a.npz", npy_header((10**9, 16, 16, 3)), bytes(1000))
    assert "announces uint8 (1000000000, 16, 16, 3), 768,000,000,000 bytes, and holds 1,000" in refusal(path)


def test_a_member_that_announces_more_than_deflate_can_hold_is_refused(tmp_path):
    size, header = 3_000_000_000 // 768 * 768, npy_header((3_000_000_000 // 768, 16, 16, 3))
    path = npz_of(tmp_path / "a.npz", header, bytes(1000))
    entry, content = path.read_bytes().rindex(b"PK\x01\x02"), bytearray(path.read_bytes())
    content[entry + 24:entry + 28] = (size + len(header)).to_bytes(4, "little")   # its size: APPNOTE.TXT 4.3.12
    path.write_bytes(content)
    assert "more than can be" in refusal(path)


def test_a_header_of_gigabytes_is_not_read(tmp_path):
    header = b"\x93NUMPY\x02\x00" + (4_000_000_000).to_bytes(4, "little")
    assert "not an .npz file" in refusal(npz_of(tmp_path / "a.npz", header, b" " * (8 << 20)))


@pytest.mark.parametrize("text", ["{'descr': '|u1', (", "{'descr'; '|u1'", "{'descr': '|u1', 'shape': (1L", "\\",
                                  "(" * 900, "{[]: 1}"])
def test_a_header_that_is_no_python_is_refused(tmp_path, text):
    line = text.encode().ljust(1000) + b"\n"
    header = b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line
    assert "not an .npz file" in refusal(npz_of(tmp_path / "a.npz", header, bytes(100)))


def test_an_array_in_fortran_order_says_what_to_save(tmp_path):
    assert "np.ascontiguousarray" in refusal(saved(tmp_path / "a.npz", np.asfortranarray(images())))


def test_an_npz_that_shrinks_while_it_is_read_is_an_error(tmp_path):
    path = saved(tmp_path / "a.npz", images())
    longer = ImageArray(path, "arr_0", (60, 16, 16, 3), np.dtype(np.uint8), "NHWC", 128)
    with pytest.raises(InputError, match="image 50 is missing"):
        NpzImages(longer, "").images([50])


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
@pytest.mark.parametrize("name", ["a.npz", "a.zip", "a"])
def test_a_pipe_or_a_device_is_refused(tmp_path, make, name):
    make(tmp_path / name)
    assert "expected a regular file or a folder" in refusal(tmp_path / name)


def test_an_empty_folder_and_a_missing_path_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no images" in refusal(tmp_path / "empty")
    assert "or an existing folder" in refusal(tmp_path / "nowhere.npz")


def test_the_command_refuses_before_torch_is_imported(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"no archive")
    code = ("import sys; from bench.run import main; "
            f"print(main(['source={tmp_path / 'a.npz'}', 'dataset=digits', 'preset=smoke']), 'torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]


# -- what it is ------------------------------------------------------------------------------------------------------

def spec(source, *more):
    return compose([f"source={source}", "dataset=digits", "preset=smoke", "dataset.resolution=16",
                    "protocol.num_fake=6", *more])


def test_samples_are_what_they_hold_and_not_where_they_lie(tmp_path):
    first, second = (saved(tmp_path / run / "samples.npz", images(num)) for run, num in (("run1", 6), ("run2", 7)))
    copy = tmp_path / "copy.npz"
    copy.write_bytes(first.read_bytes())
    keys = [run_key(Run(spec(path))) for path in (first, second, copy)]
    assert keys[0] == keys[2] != keys[1]


def test_pictures_behind_a_linked_folder_are_part_of_what_samples_are(tmp_path):
    hashes = []
    for shade in (1, 2):
        folder, real = tmp_path / f"run{shade}", tmp_path / f"real{shade}"
        folder.mkdir()
        real.mkdir()
        Image.new("RGB", (16, 16), (shade, 0, 0)).save(real / "a.png")
        (folder / "linked").symlink_to(real)
        hashes.append(read(folder, num=1).sha256)
    assert hashes[0] != hashes[1]


def test_a_row_is_named_by_its_folder_and_file_or_by_its_label(tmp_path):
    path = saved(tmp_path / "run1" / "samples.npz", images())
    assert label_of(spec(path)) == name_of(str(path)) == "run1/samples.npz"
    assert label_of(spec(path, "label='StyleGAN2, psi 0.7'")) == "StyleGAN2, psi 0.7"


@pytest.mark.parametrize("label", ["label=''", "label='  '"])
def test_an_empty_label_is_refused(tmp_path, label):
    with pytest.raises(InputError, match="label"):
        spec(saved(tmp_path / "a.npz", images()), label)


def test_real_against_real_stands_beside_samples_from_elsewhere(tmp_path):
    path = saved(tmp_path / "a.npz", images())
    runs = with_baselines([Request(spec(path, "label=theirs"), (f"source={path}",))])
    assert [(run.spec.source, run.spec.label) for run in runs] == [("real", None), (str(path), "theirs")]
    assert len(with_baselines([Request(spec(path, "baselines=false"), ())])) == 1


def test_the_command_says_what_it_took(tmp_path):
    said: list[str] = []
    check_data([spec(saved(tmp_path / "run1" / "a.npz", images(50)))], announce=said.append)
    assert said == ["source run1/a.npz: 6 of 50 images, arr_0: uint8 NHWC"]


def test_a_new_label_is_a_new_record_and_the_same_one_is_not(tmp_path, monkeypatch):
    import dataclasses

    from rich.console import Console

    from bench import run as run_module
    from bench.pipeline import failed_record
    from bench.records import save_record
    launched = []

    def launch(specs, console):
        launched.append([spec.label for spec in specs])
        records = [dataclasses.replace(failed_record(spec, label_of(spec), ValueError()), status="ok",
                                       run_key=run_key(Run(spec))) for spec in specs]
        for record in records:
            save_record(record, tmp_path / "results")
        return records

    monkeypatch.setattr(run_module, "launch", launch)
    monkeypatch.setattr(run_module, "prepare", lambda specs, assets: None)
    path, quiet = saved(tmp_path / "a.npz", images()), Console(quiet=True)
    for label in (["label=one"], ["label=two"], ["label=two"], []):
        execute([Request(spec(path, f"results_dir={tmp_path / 'results'}", *label), ())], "command", quiet)
    assert launched == [["one"], ["two"], [], []]
