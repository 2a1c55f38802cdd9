"""LSUN: the official LMDB layout, from threads and forked processes, whole or damaged."""

import io
import os
from concurrent.futures import ThreadPoolExecutor

import lmdb
import numpy as np
import pytest
from PIL import Image

from bench.config import DatasetConfig
from bench.data.lmdb_files import LmdbFiles
from bench.data.lsun import Bedroom, Churches
from bench.errors import InputError


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(tmp_path / "cache"))


def encoded(index, kind):
    buffer = io.BytesIO()
    Image.fromarray(np.full((20, 24, 3), index, np.uint8)).save(buffer, kind, lossless=True)   # JPEG has no such option
    return buffer.getvalue()


def write_lmdb(path, count, kind="WEBP"):
    path.mkdir(parents=True)
    with lmdb.open(str(path), map_size=1 << 24) as env, env.begin(write=True) as transaction:
        for index in range(count):
            transaction.put(f"{index:040x}".encode(), encoded(index, kind))


@pytest.fixture
def root(tmp_path):
    write_lmdb(tmp_path / "lsun" / "church_outdoor_train_lmdb", 30)
    write_lmdb(tmp_path / "lsun" / "church_outdoor_val_lmdb", 5, "JPEG")
    return tmp_path / "lsun"


def config(path, **changes):
    return DatasetConfig(**{"name": "churches", "path": str(path), "resolution": 16, **changes})


def values(data, indices):
    return [int(image[0, 0, 0]) for image in data.images(indices)]


def test_both_lmdbs_are_read_in_the_order_of_their_keys(root):
    splits = Churches().open(config(root))
    assert values(splits.train, range(30)) == list(range(30)) and len(splits.validation) == 5


def test_the_train_lmdb_itself_may_be_named(root):
    assert len(Churches().open(config(root / "church_outdoor_train_lmdb")).train) == 30


def test_a_cap_keeps_the_first_keys(root):
    assert values(Churches().open(config(root, max_train=3)).train, [0, 1, 2]) == [0, 1, 2]


def test_nothing_is_written_beside_the_lmdb(root):
    before = sorted(root.rglob("*"))
    Churches().open(config(root)).train.images([0])
    assert sorted(root.rglob("*")) == before


def test_threads_read_the_same_pixels(root):
    train = Churches().open(config(root)).train
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda i: values(train, [i])[0], list(range(30)) * 4)) == list(range(30)) * 4


def test_a_forked_process_reads_the_same_pixels(root):
    train = Churches().open(config(root)).train
    train.images([0])
    child = os.fork()
    if child == 0:
        os._exit(0 if values(train, [7, 8, 9]) == [7, 8, 9] else 1)
    assert os.waitpid(child, 0)[1] == 0 and values(train, [1]) == [1]


def test_keys_come_from_the_cache_the_second_time(root, monkeypatch):
    path = root / "church_outdoor_train_lmdb"
    first = list(LmdbFiles(path).names)
    monkeypatch.setattr("bench.data.lmdb_files._write_keys", lambda *a: pytest.fail("listed again"))
    assert list(LmdbFiles(path).names) == first


def test_a_value_that_is_no_image_is_named_by_its_key(root):
    path = str(root / "church_outdoor_train_lmdb")
    with lmdb.open(path, map_size=1 << 24) as env, env.begin(write=True) as transaction:
        transaction.put(f"{3:040x}".encode(), b"not an image")
    with pytest.raises(InputError, match=f"{3:040x}"):
        Churches().open(config(root)).train.images([2, 3])
    splits = Churches().open(config(root, on_corrupt="skip"))
    assert splits.notes["skipped_corrupt"] == 1 and values(splits.train, [2, 3]) == [2, 4]


def test_a_truncated_lmdb_is_an_error_and_no_crash(root):
    data = root / "church_outdoor_train_lmdb" / "data.mdb"
    data.write_bytes(data.read_bytes()[:8192])
    with pytest.raises(InputError, match="truncated"):
        Churches().check(config(root))


def test_a_missing_validation_lmdb_is_named(tmp_path):
    write_lmdb(tmp_path / "bedroom_train_lmdb", 2)
    with pytest.raises(InputError, match="bedroom_val_lmdb"):
        Bedroom().check(DatasetConfig(name="bedroom", path=str(tmp_path), resolution=16))


def test_a_zip_that_was_never_unpacked_is_noticed(tmp_path):
    (tmp_path / "bedroom_train_lmdb.zip").write_bytes(b"")
    with pytest.raises(InputError, match="unzip it"):
        Bedroom().check(DatasetConfig(name="bedroom", path=str(tmp_path), resolution=16))


def test_a_folder_without_data_is_no_lmdb(tmp_path):
    (tmp_path / "bedroom_train_lmdb").mkdir()
    with pytest.raises(InputError, match="no data.mdb"):
        Bedroom().check(DatasetConfig(name="bedroom", path=str(tmp_path), resolution=16))


def test_the_fingerprint_is_the_same_elsewhere_and_follows_the_content(root, tmp_path):
    before = Churches().open(config(root)).fingerprint
    assert Churches().open(config(root.rename(tmp_path / "moved"))).fingerprint == before
    write_lmdb(tmp_path / "other" / "church_outdoor_train_lmdb", 31)
    write_lmdb(tmp_path / "other" / "church_outdoor_val_lmdb", 5, "JPEG")
    assert Churches().open(config(tmp_path / "other")).fingerprint != before


def test_a_share_to_set_aside_is_refused_because_the_split_is_given(root):
    with pytest.raises(InputError, match="no effect"):
        Churches().check(config(root, validation_fraction=0.3))


def test_damage_of_the_list_of_keys_changes_nothing(root, tmp_path, damage):
    path = root / "church_outdoor_train_lmdb"
    names = list(LmdbFiles(path).names)
    memo, = tmp_path.rglob("*-keys.npy")
    damage(memo)
    assert list(LmdbFiles(path).names) == names
