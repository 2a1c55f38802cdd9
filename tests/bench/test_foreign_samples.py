"""Samples of another model are refused, with a way out, before torch is imported."""

import subprocess
import sys

import numpy as np
import pytest

from bench.config import DatasetConfig
from bench.errors import InputError
from bench.foreign import check_samples, npz_images

DATASET = DatasetConfig(name="digits", resolution=16)


def images(num=6, size=16, dtype=np.uint8):
    return np.arange(num * size * size * 3).reshape(num, size, size, 3).astype(dtype)


def refusal(path, num=4) -> str:
    with pytest.raises(InputError) as caught:
        check_samples(path, DATASET, num=num)
    return str(caught.value)


def test_an_npz_of_enough_images_is_taken_channels_first(tmp_path):
    np.savez(tmp_path / "a.npz", images())
    check_samples(tmp_path / "a.npz", DATASET, num=6)
    assert (npz_images(tmp_path / "a.npz", 16) == images().transpose(0, 3, 1, 2)).all()


@pytest.mark.parametrize(("array", "says"), [(images(size=8), "uint8 (6, 8, 8, 3)"), (images()[0], "uint8 (16, 16, 3)"),
                                             (images(dtype=np.float32), "float32 (6, 16, 16, 3)")])
def test_an_array_of_another_kind_is_named(tmp_path, array, says):
    np.savez(tmp_path / "a.npz", array)
    assert says in refusal(tmp_path / "a.npz") and "expected uint8 (n, 16, 16, 3)" in refusal(tmp_path / "a.npz")


def test_too_few_images_say_which_option_fits_them(tmp_path):
    np.savez(tmp_path / "a.npz", images())
    assert "protocol.num_fake=6" in refusal(tmp_path / "a.npz", num=7)


def test_an_npz_without_the_array_lists_what_it_holds(tmp_path):
    np.savez(tmp_path / "a.npz", samples=images())
    assert "['samples']" in refusal(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04cut off"])
def test_a_damaged_npz_is_refused_without_a_word_of_pickles(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    said = refusal(tmp_path / "a.npz")
    assert "not an .npz file" in said and "np.savez" in said and "pickle" not in said


def test_an_empty_folder_is_refused(tmp_path):
    assert "holds no images" in refusal(tmp_path)


def test_the_command_refuses_before_torch_is_imported(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"no archive")
    code = ("import sys; from bench.run import main; "
            f"print(main(['source={tmp_path / 'a.npz'}', 'dataset=digits', 'preset=smoke']), 'torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]
