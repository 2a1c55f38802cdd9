"""Resizing, cropping and colour, against torchvision and against what the formats mean."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from bench.assets.torchvision_compat import ensure_torchvision
from bench.data.pixels import CorruptImage, check_decodes, decode, fit, fit_array


def photograph(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


SHAPES = [(64, 64), (50, 71), (71, 50), (33, 200), (16, 16), (9, 13), (101, 37)]


@pytest.mark.parametrize("shape", SHAPES)
def test_antialiased_resize_and_crop_equal_torchvision(shape):
    ensure_torchvision()
    from torchvision.transforms import CenterCrop, Compose, Resize

    image = photograph(*shape)
    expected = np.asarray(Compose([Resize(16), CenterCrop(16)])(image)).transpose(2, 0, 1)
    assert np.array_equal(fit(image, resolution=16, resize="antialias"), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_plain_resize_equals_interpolate_without_antialiasing(shape):
    ensure_torchvision()
    from torchvision.transforms.functional import center_crop, resize

    image = photograph(*shape)
    tensor = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float()
    expected = center_crop(resize(tensor, [16], antialias=False), [16, 16]).round().numpy()
    difference = np.abs(fit(image, resolution=16, resize="plain").astype(np.float32) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3   # ties of the rounding


def test_native_pixels_pass_through_unchanged():
    pixels = np.asarray(photograph(16, 16))[None]
    assert np.array_equal(fit_array(pixels, resolution=16, resize="plain")[0], pixels[0].transpose(2, 0, 1))


def test_grey_is_repeated():
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    pixels = decode(encoded(image), resolution=8, resize="antialias")
    assert (pixels[0] == pixels[1]).all() and (pixels[0] == pixels[2]).all() and pixels[0, 0, 1] == 1


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    image = Image.fromarray(np.array([[0, 257], [32896, 65535]], np.uint16))
    assert decode(encoded(image), resolution=2, resize="antialias")[0].tolist() == [[0, 1], [128, 255]]


def test_half_transparent_black_is_grey_on_white():
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert set(decode(encoded(image), resolution=4, resize="antialias").ravel()) == {127}


def test_a_transparent_palette_entry_is_white():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30] + [0] * 765)
    assert decode(encoded(image, transparency=0), resolution=4, resize="antialias").min() == 255


def test_cmyk_becomes_rgb():
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red = decode(encoded(image, "JPEG"), resolution=16, resize="antialias")[:, 8, 8]
    assert red[0] > 240 and red[1] < 15 and red[2] < 15


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (8, 8))
    image.paste((255, 255, 255), (0, 0, 8, 4))   # white above
    exif = Image.Exif()
    exif[0x0112] = 3   # turn by 180 degrees
    pixels = decode(encoded(image, exif=exif), resolution=8, resize="antialias")
    assert pixels[0, 0, 0] == 0 and pixels[0, 7, 7] == 255


def test_the_first_frame_of_an_animation_counts():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data, resolution=4, resize="antialias")[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_file_is_corrupt_to_decoder_and_checker(kind):
    data = encoded(photograph(64, 64), kind)[:-200]
    for look in (check_decodes, lambda bad: decode(bad, resolution=8, resize="antialias")):
        with pytest.raises(CorruptImage):
            look(data)


@pytest.mark.parametrize("cut", [1, 4, 12, 16, 100])
def test_a_png_is_truncated_wherever_it_breaks_off(cut):
    data = encoded(Image.new("RGB", (64, 64), (1, 2, 3)))[:-cut]
    for look in (check_decodes, lambda bad: decode(bad, resolution=8, resize="antialias")):
        with pytest.raises(CorruptImage):
            look(data)


def test_a_flipped_bit_in_a_png_is_found():
    data = bytearray(encoded(photograph(64, 64)))
    data[len(data) // 2] ^= 0x10
    with pytest.raises(CorruptImage):
        check_decodes(bytes(data))


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0" + b"\0" * 50])
def test_rubbish_is_corrupt(data):
    with pytest.raises(CorruptImage):
        decode(data, resolution=8, resize="antialias")
