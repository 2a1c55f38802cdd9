"""FFHQ: layouts, order by index, and what is said when it is missing."""

import io
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from bench.config import DatasetConfig
from bench.data.ffhq import FFHQ, in_index_order
from bench.errors import InputError


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(tmp_path / "cache"))


def png(index, side=16):
    buffer = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), index, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def release(root, folder="images1024x1024", count=40, side=16, name="{:05}.png"):
    for index in range(count):
        path = root / folder / f"{index // 10 * 10:05}" / name.format(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(index, side))
    return root


def config(path, **changes):
    return DatasetConfig(**{"name": "ffhq", "path": str(path), "resolution": 16, **changes})


def values(data):
    return [int(image[0, 0, 0]) for image in data.images(range(len(data)))]


def test_the_last_five_percent_by_index_validate(tmp_path):
    splits = FFHQ().open(config(release(tmp_path / "ffhq")))
    assert values(splits.train) == list(range(38)) and values(splits.validation) == [38, 39]


def test_a_flat_folder_with_other_names_is_in_index_order(tmp_path):
    for index in (3, 20, 100):
        (tmp_path / f"img{index}.png").write_bytes(png(index))
    splits = FFHQ().open(config(tmp_path))
    assert values(splits.train) + values(splits.validation) == [3, 20, 100]


def test_a_zip_of_the_release_reads_as_the_tree(tmp_path):
    root = release(tmp_path / "ffhq")
    with zipfile.ZipFile(tmp_path / "ffhq.zip", "w") as archive:
        for path in root.rglob("*.png"):
            archive.write(path, path.relative_to(tmp_path))
        archive.writestr("ffhq/images1024x1024/LICENSE.txt", "text")
    tree, packed = FFHQ().open(config(root)), FFHQ().open(config(tmp_path / "ffhq.zip"))
    assert values(packed.train) == values(tree.train) and packed.notes["ignored_non_images"] == 1


def test_the_smallest_layout_that_need_not_grow_is_used(tmp_path):
    release(tmp_path, "thumbnails128x128", count=4, side=8)
    release(tmp_path, "images1024x1024", count=4, side=32)
    assert FFHQ().open(config(tmp_path, resolution=8)).notes["layout"] == "thumbnails128x128"
    assert FFHQ().open(config(tmp_path, resolution=16)).notes["layout"] == "images1024x1024"


def test_thumbnails_are_not_enlarged(tmp_path):
    with pytest.raises(InputError, match="8x8, smaller than dataset.resolution=16"):
        FFHQ().check(config(release(tmp_path, "thumbnails128x128", side=8)))


def test_unaligned_images_are_refused(tmp_path):
    with pytest.raises(InputError, match="aligned"):
        FFHQ().check(config(release(tmp_path, "in-the-wild-images")))


def test_tfrecords_are_named_in_the_error(tmp_path):
    (tmp_path / "ffhq-r08.tfrecords").write_bytes(b"")
    with pytest.raises(InputError, match="TFRecords"):
        FFHQ().check(config(tmp_path))


def test_two_layouts_in_one_folder_are_refused():
    with pytest.raises(InputError, match="same face"):
        in_index_order(["a/00001.png", "b/00001.png"], "ffhq")


def test_an_incomplete_set_is_noted(tmp_path):
    assert FFHQ().open(config(release(tmp_path))).notes["incomplete"] == "40 of 70,000 images"


def test_a_truncated_face_is_an_error_when_it_is_met_and_skipped_when_asked(tmp_path):
    release(tmp_path)
    (tmp_path / "images1024x1024" / "00010" / "00011.png").write_bytes(png(11)[:-30])
    with pytest.raises(InputError, match="00011.png"):
        FFHQ().open(config(tmp_path)).train.images(range(20))
    splits = FFHQ().open(config(tmp_path, on_corrupt="skip"))
    assert splits.notes["skipped_corrupt"] == 1 and 11 not in values(splits.train)


def test_a_missing_ffhq_says_where_in_which_layouts_and_how_to_point_at_it(tmp_path):
    with pytest.raises(InputError) as error:
        FFHQ().check(DatasetConfig(name="ffhq", resolution=256))
    for part in (str(tmp_path / "cache" / "datasets" / "ffhq"), "images1024x1024/00000/00000.png", ".zip",
                 "dataset.path="):
        assert part in str(error.value)


def test_a_missing_ffhq_is_noticed_without_torch():
    code = ("import sys\nfrom bench.config import DatasetConfig\nfrom bench.data.ffhq import FFHQ\n"
            "try: FFHQ().check(DatasetConfig(name='ffhq', path='/nowhere'))\n"
            "except ValueError: sys.exit('torch' in sys.modules)\nsys.exit(3)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
