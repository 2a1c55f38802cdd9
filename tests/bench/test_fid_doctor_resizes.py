"""A reference that someone resized in another way is found from its original files."""

import numpy as np
import pytest
import torch
from PIL import Image

from bench import doctor, fid_doctor
from bench.config import DatasetConfig
from bench.data.arrays import ArrayImages
from bench.data.foreign import look_at
from bench.data.other_resizes import other_ways, reread
from bench.fid_doctor import Case, choices, examine, explanations, verdict
from bench.metrics.frechet import frechet_distance, moments

SIDE, WIDTH, HEIGHT, NUM = 16, 57, 41, 90
PREFIX = "reference resized otherwise: "
LANCZOS = Image.Resampling.LANCZOS


class Textures:
    """Colours, contrasts and steps between neighbours, which filters move."""

    weights, resize, num_features, device = "none", "none", 12, torch.device("cpu")

    def __init__(self, name="textures"):
        self.name = name

    def __call__(self, images):
        x = images.float() / 25
        down, across = x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]
        parts = [x[..., :8].mean((2, 3)), x.std((2, 3)), across.square().mean((2, 3)), down.square().mean((2, 3))]
        return torch.cat(parts, 1)


def photographs(num, seed, width=WIDTH, height=HEIGHT):
    """Coloured pictures with fine grain, brighter to the right, (n, H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(120, 40, (num, 3, 5, 7)))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear").numpy()
    slope = np.linspace(-40, 40, width) * rng.normal(1, 0.5, (num, 1, 1, 1))
    return np.clip(smooth + slope + rng.normal(0, 30, smooth.shape), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


ORIGINALS = photographs(NUM, 0)
SAMPLES = np.random.default_rng(5).normal(125, 30, (80, 3, SIDE, SIDE)).clip(0, 255).astype(np.uint8)


def save(folder, pictures):
    folder.mkdir()
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{index:03}.png")
    return folder


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = save(tmp_path_factory.mktemp("originals") / "train", ORIGINALS)
    return look_at(str(folder), DatasetConfig(name="folder", resolution=SIDE), num=NUM).images


@pytest.fixture(scope="module")
def outcomes(reference):
    return list(examine(Case(ArrayImages(SAMPLES), reference, None, {"textures": Textures()})))


def claim(pictures):
    """The FID that someone printed of (H, W, 3) pictures of the right size."""
    real = np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2))
    sides = [Textures()(torch.from_numpy(x)).numpy() for x in (SAMPLES, real)]
    return f"{frechet_distance(*moments(sides[0]), *moments(sides[1])):.4f}"


def cut(picture, side):
    top, left = round((picture.shape[0] - side) / 2), round((picture.shape[1] - side) / 2)
    return picture[top:top + side, left:left + side]


def short_side(picture, filter_):
    """The shorter side to SIDE, the longer in proportion, and the middle of it."""
    image = Image.fromarray(picture).resize((int(WIDTH * SIDE / HEIGHT), SIDE), filter_)
    return cut(np.asarray(image), SIDE)


def two_taps(picture):
    x = torch.from_numpy(picture.transpose(2, 0, 1)[None]).float()
    size = (SIDE, int(WIDTH * SIDE / HEIGHT))
    found = torch.nn.functional.interpolate(x, size, mode="bilinear", align_corners=False)[0]
    return cut(found.round().byte().numpy().transpose(1, 2, 0), SIDE)


def square_first(picture, filter_):
    left = (WIDTH - HEIGHT) // 2
    return np.asarray(Image.fromarray(picture[:, left:left + HEIGHT]).resize((SIDE, SIDE), filter_))


def center_crop_arr(picture):
    """As printed in guided-diffusion's image_datasets.py."""
    image = Image.fromarray(picture)
    while min(*image.size) >= 2 * SIDE:
        image = image.resize(tuple(x // 2 for x in image.size), resample=Image.BOX)
    scale = SIDE / min(*image.size)
    image = image.resize(tuple(round(x * scale) for x in image.size), resample=Image.BICUBIC)
    arr = np.array(image)
    crop_y, crop_x = (arr.shape[0] - SIDE) // 2, (arr.shape[1] - SIDE) // 2
    return arr[crop_y:crop_y + SIDE, crop_x:crop_x + SIDE]


PLANTED = {
    "bilinear of two taps, not antialiased": two_taps,
    "bicubic": lambda picture: short_side(picture, Image.Resampling.BICUBIC),
    "Lanczos": lambda picture: short_side(picture, LANCZOS),
    "box": lambda picture: short_side(picture, Image.Resampling.BOX),
    "box to halves, then bicubic (ADM)": center_crop_arr,
    "the same filter, cropped to a square first":
        lambda picture: square_first(picture, Image.Resampling.BILINEAR),
    "Lanczos, cropped to a square first (StyleGAN)": lambda picture: square_first(picture, LANCZOS),
    "bilinear, stretched to a square":
        lambda picture: np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BILINEAR)),
}


@pytest.mark.parametrize("cause", PLANTED)
def test_a_planted_filter_or_crop_is_named_first(outcomes, cause):
    claimed = claim([PLANTED[cause](picture) for picture in ORIGINALS])
    found = explanations(outcomes, claimed)
    assert found and found[0].choice.name == f"{PREFIX}{cause}", verdict(outcomes, found, claimed)
    assert found[0].value == pytest.approx(float(claimed), abs=1e-3)


def test_every_way_to_resize_has_a_planted_cause(outcomes):
    assert {o.choice.name for o in outcomes if o.choice.resizer} == {f"{PREFIX}{cause}" for cause in PLANTED}


def test_our_own_way_needs_no_explanation(outcomes):
    claimed = claim([short_side(picture, Image.Resampling.BILINEAR) for picture in ORIGINALS])
    assert "nothing needs explaining" in verdict(outcomes, explanations(outcomes, claimed), claimed)


def test_pictures_of_the_right_size_have_no_other_way(tmp_path):
    folder = save(tmp_path / "small", photographs(4, 1, SIDE, SIDE))
    assert other_ways(look_at(str(folder), DatasetConfig(name="folder", resolution=SIDE), num=4).images) == {}
    assert other_ways(ArrayImages(SAMPLES)) == {}


def test_square_pictures_are_not_cropped(tmp_path):
    folder = save(tmp_path / "square", photographs(4, 1, 40, 40))
    images = look_at(str(folder), DatasetConfig(name="folder", resolution=SIDE), num=4).images
    assert "bicubic" in other_ways(images) and not [name for name in other_ways(images) if "square" in name]


def test_the_pictures_read_again_are_those_chosen(reference):
    few = look_at(str(reference.whole.files.path), DatasetConfig(name="folder", resolution=SIDE), num=7).images
    again = reread(few, other_ways(few)["bicubic"])
    assert len(again) == 7 and np.abs(again.images(range(7)).astype(int) - few.images(range(7))).mean() < 12


def test_statistics_and_arrays_have_no_resizes_to_try():
    known = Case(ArrayImages(SAMPLES), (np.zeros(12), np.eye(12)), None, {"textures": Textures()})
    assert not [choice for choice in choices(known) if choice.resizer]


def test_the_command_finds_the_filter_in_a_folder_and_says_where_it_could_not_look(tmp_path, monkeypatch, capsys):
    np.savez(tmp_path / "samples.npz", SAMPLES.transpose(0, 2, 3, 1))
    np.savez(tmp_path / "small.npz", np.stack([PLANTED["box"](picture) for picture in ORIGINALS]))
    save(tmp_path / "train", ORIGINALS)
    monkeypatch.setattr("bench.metrics.features.resolve_extractor", lambda name: Textures(name))
    monkeypatch.setattr(fid_doctor, "NET_SIDE", 24)
    arguments = ["fid", f"source={tmp_path / 'samples.npz'}", f"resolution={SIDE}", "extractors=textures",
                 f"claimed={claim([PLANTED['box'](picture) for picture in ORIGINALS])}"]
    assert doctor.main([*arguments, f"reference={tmp_path / 'train'}"]) == 0
    assert f"Best explained by: {PREFIX}box" in " ".join(capsys.readouterr().out.split())
    assert doctor.main([*arguments, f"reference={tmp_path / 'small.npz'}"]) == 0
    assert "not tried: other filters and crops of the reference" in " ".join(capsys.readouterr().out.split())
