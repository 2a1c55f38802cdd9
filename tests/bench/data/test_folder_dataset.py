"""A folder or a zip of images: what is found, what is refused, and which image goes where."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from bench.config import DatasetConfig
from bench.data.folder import ImageFolder
from bench.errors import InputError


def png(seed, size=(12, 10)):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "photos"
    for i in range(20):
        path = root / f"class{i % 3}" / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(i))
    return root


def config(path, **changes):
    return DatasetConfig(**{"name": "folder", "path": str(path), "resolution": 8, **changes})


def zipped(tree, target):
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(tree.rglob("*.png")):
            archive.write(path, path.relative_to(tree))
    return target


def test_nested_images_become_two_disjoint_splits(tree):
    splits = ImageFolder().open(config(tree, validation_fraction=0.2))
    assert (len(splits.train), len(splits.validation)) == (16, 4)
    assert not set(splits.train.names) & set(splits.validation.names)


def test_a_zip_holds_the_same_pixels_in_the_same_order_as_its_folder(tree, tmp_path):
    from_tree = ImageFolder().open(config(tree))
    from_zip = ImageFolder().open(config(zipped(tree, tmp_path / "photos.zip")))
    assert from_tree.train.names == from_zip.train.names
    assert np.array_equal(from_tree.train.images(range(19)), from_zip.train.images(range(19)))


def test_images_come_in_the_order_of_the_indices(tree):
    train = ImageFolder().open(config(tree)).train
    assert np.array_equal(train.images([5, 2, 5]), train.images(range(19))[[5, 2, 5]])


def test_no_index_gives_an_empty_batch(tree):
    assert ImageFolder().open(config(tree)).train.images([]).shape == (0, 3, 8, 8)


def test_a_text_file_among_the_images_is_ignored_and_counted(tree):
    (tree / "notes.txt").write_text("hello")
    (tree / ".hidden.png").write_bytes(b"")
    splits = ImageFolder().open(config(tree))
    assert splits.notes["ignored_non_images"] == 2 and len(splits.train) + len(splits.validation) == 20


def test_a_truncated_png_is_an_error_that_names_it(tree):
    (tree / "class0" / "bad.png").write_bytes(png(99)[:-40])
    with pytest.raises(InputError, match="class0/bad.png"):
        ImageFolder().open(config(tree))


def test_at_most_ten_corrupt_images_are_named(tree):
    for i in range(13):
        (tree / f"bad{i:02}.png").write_bytes(b"not an image")
    with pytest.raises(InputError, match="13 corrupt") as error:
        ImageFolder().open(config(tree))
    assert "bad09.png" in str(error.value) and "bad10.png" not in str(error.value) and "3 more" in str(error.value)


def test_corrupt_images_are_skipped_when_asked_and_recorded(tree):
    (tree / "bad.png").write_bytes(png(99)[:-40])
    splits = ImageFolder().open(config(tree, on_corrupt="skip"))
    assert splits.notes["skipped_corrupt"] == 1 and splits.notes["skipped_corrupt_files"] == ["bad.png"]
    assert splits.train.images(range(len(splits.train))).shape[0] == 19


def test_a_corrupt_image_that_is_repaired_is_looked_at_again(tree):
    (tree / "bad.png").write_bytes(b"no")
    with pytest.raises(InputError):
        ImageFolder().open(config(tree))
    (tree / "bad.png").write_bytes(png(99))
    assert ImageFolder().open(config(tree)).notes["skipped_corrupt"] == 0


def test_damage_of_what_is_remembered_of_the_images_changes_nothing(tree, tmp_path, damage):
    first = ImageFolder().open(config(tree))
    memo, = tmp_path.rglob("datasets/*.json")
    damage(memo)
    again = ImageFolder().open(config(tree))
    assert again.fingerprint == first.fingerprint and len(again.train) == len(first.train)


def test_an_image_damaged_after_opening_is_an_error_that_names_it(tree):
    train = ImageFolder().open(config(tree)).train
    (tree / train.names[3]).write_bytes(b"gone")
    with pytest.raises(InputError, match=train.names[3]):
        train.images(range(5))


def test_a_zip_member_with_a_wrong_checksum_is_corrupt(tree, tmp_path):
    path = zipped(tree, tmp_path / "photos.zip")
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("class1/001.png")
    data = bytearray(path.read_bytes())
    data[member.header_offset + 30 + len(member.filename) + 60] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError, match="class1/001.png"):
        ImageFolder().open(config(path))


def test_an_empty_folder_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        ImageFolder().open(config(tmp_path / "empty"))


def test_a_single_image_is_too_few(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.png").write_bytes(png(0))
    with pytest.raises(InputError, match="at least 2"):
        ImageFolder().open(config(tmp_path / "one"))


def test_a_missing_path_is_found_by_the_check(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        ImageFolder().check(config(tmp_path / "nowhere"))


def test_a_folder_without_a_path_says_how_to_give_one():
    with pytest.raises(InputError, match="dataset.path="):
        ImageFolder().check(DatasetConfig(name="folder"))


def test_a_file_that_is_no_zip_is_an_error(tmp_path):
    (tmp_path / "photos.tar").write_bytes(b"x" * 100)
    with pytest.raises(InputError, match="not a zip"):
        ImageFolder().open(config(tmp_path / "photos.tar"))


def test_train_and_val_folders_are_the_splits(tree):
    for name in ("train/a.png", "train/b.png", "val/c.png"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_bytes(png(7))
    splits = ImageFolder().open(config(tree))
    assert sorted(splits.train.names) == ["train/a.png", "train/b.png"] and splits.validation.names == ["val/c.png"]


def test_adding_an_image_moves_no_other_from_training_to_validation_and_back(tree):
    before = set(ImageFolder().open(config(tree, validation_fraction=0.5)).validation.names)
    (tree / "new.png").write_bytes(png(1000))
    after = set(ImageFolder().open(config(tree, validation_fraction=0.5)).validation.names)
    assert len((before ^ after) - {"new.png"}) <= 1


def test_the_fingerprint_is_of_contents_and_not_of_places(tree, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    moved = tree.rename(tmp_path / "elsewhere" / "pictures")
    fingerprints = [ImageFolder().open(config(moved)).fingerprint]
    back = moved.rename(tree)
    fingerprints.append(ImageFolder().open(config(back)).fingerprint)
    assert fingerprints[0] == fingerprints[1]


@pytest.mark.parametrize("change", [{"resolution": 9}, {"resize": "plain"}, {"max_train": 5}, {"max_validation": 1}])
def test_the_fingerprint_follows_every_option_that_changes_pixels(tree, change):
    assert ImageFolder().open(config(tree)).fingerprint != ImageFolder().open(config(tree, **change)).fingerprint


def test_the_fingerprint_follows_one_changed_pixel(tree):
    before = ImageFolder().open(config(tree)).fingerprint
    path = tree / "class0" / "000.png"
    image = Image.open(path).copy()
    image.putpixel((0, 0), (1, 2, 3))
    image.save(path)
    assert ImageFolder().open(config(tree)).fingerprint != before


def test_a_cap_keeps_the_first_images(tree):
    whole, few = ImageFolder().open(config(tree)), ImageFolder().open(config(tree, max_train=5))
    assert few.train.names == whole.train.names[:5]


def test_enlarged_images_are_noted(tree):
    assert "20 of 20" in ImageFolder().open(config(tree, resolution=64)).notes["enlarged"]
    assert "enlarged" not in ImageFolder().open(config(tree)).notes


@pytest.mark.parametrize("change", [{"resize": "bicubic"}, {"resolution": 0}, {"on_corrupt": "ignore"},
                                    {"max_train": 0}, {"validation_fraction": 1.0}])
def test_a_wrong_option_is_found_by_the_check(tree, change):
    with pytest.raises(InputError):
        ImageFolder().check(config(tree, **change))


def test_a_dangling_link_is_a_corrupt_image(tree):
    (tree / "gone.png").symlink_to(tree / "nowhere.png")
    with pytest.raises(InputError, match="gone.png"):
        ImageFolder().open(config(tree))


def test_linked_folders_are_followed_once(tree, tmp_path):
    (tree / "loop").symlink_to(tree)
    splits = ImageFolder().open(config(tree))
    assert len(splits.train) + len(splits.validation) == 20


def test_grey_alpha_and_palette_images_mix_with_colour(tree):
    Image.new("L", (9, 9), 7).save(tree / "grey.png")
    Image.new("RGBA", (9, 9), (1, 2, 3, 0)).save(tree / "clear.png")
    Image.new("P", (9, 9)).save(tree / "palette.png")
    train = ImageFolder().open(config(tree)).train
    assert train.images(range(len(train))).shape[1:] == (3, 8, 8)


def test_a_forked_process_reads_a_zip_beside_its_parent(tree, tmp_path):
    import os

    train = ImageFolder().open(config(zipped(tree, tmp_path / "photos.zip"))).train
    expected = train.images(range(19))
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(train.images(range(19)), expected) else 1)
    assert np.array_equal(train.images(range(19)), expected) and os.waitpid(child, 0)[1] == 0
