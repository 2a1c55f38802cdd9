"""The token cache: what goes in comes out, a killed run goes on, a damaged shard is made again, rubbish is refused."""

import json
import pickle
import tracemalloc

import numpy as np
import pytest

from bench.data.splits import ResizedImages
from bench.data.tokens import TokenArray, encode_split, import_tokens
from bench.errors import BenchError, InputError

K = 256


@pytest.fixture
def data():
    pixels = np.random.default_rng(0).integers(0, 256, (25, 4, 4, 3), dtype=np.uint8)
    return ResizedImages(pixels, resolution=4, resize="plain")


def first_channel(images):
    """An honest little tokenizer: the red value of each pixel is its token."""
    return images[:, 0].reshape(len(images), -1).astype(np.int64)


def expected(data):
    return first_channel(data.images(range(len(data))))


def encode(data, folder, encoder=first_channel, **options):
    return encode_split(encoder, data, folder, **{"codebook_size": K, "batch_size": 3, "shard_size": 10, **options})


def test_tokens_come_out_as_they_went_in(data, tmp_path):
    tokens = encode(data, tmp_path)
    assert len(tokens) == 25 and tokens[range(25)].dtype == np.int64
    assert np.array_equal(tokens[range(25)], expected(data))


def test_random_indices_across_shards_keep_their_order(data, tmp_path):
    indices = np.array([24, 0, 11, 9, 10, 0, 20])
    assert np.array_equal(encode(data, tmp_path)[indices], expected(data)[indices])


def test_a_slice_is_a_range_of_indices(data, tmp_path):
    assert np.array_equal(encode(data, tmp_path)[8:12], expected(data)[8:12])


@pytest.mark.parametrize("bad", [[25], [-1], 3])
def test_an_index_beyond_the_end_is_an_error(data, tmp_path, bad):
    with pytest.raises(IndexError):
        encode(data, tmp_path)[bad]


def test_disk_holds_uint16(data, tmp_path):
    encode(data, tmp_path)
    assert np.load(tmp_path / "tokens-00000.npy").dtype == np.uint16


def test_a_killed_run_goes_on_with_the_shard_it_was_in(data, tmp_path):
    seen = []

    def dying(images):
        seen.append(len(images))
        if sum(seen) > 14:
            raise KeyboardInterrupt
        return first_channel(images)

    with pytest.raises(KeyboardInterrupt):
        encode(data, tmp_path, dying)
    with pytest.raises(InputError, match="10 of 25"):
        TokenArray(tmp_path)
    encoded = []
    tokens = encode(data, tmp_path, lambda images: encoded.append(len(images)) or first_channel(images))
    assert sum(encoded) == 15 and np.array_equal(tokens[range(25)], expected(data))


def test_a_finished_cache_encodes_nothing(data, tmp_path):
    encode(data, tmp_path)
    encode(data, tmp_path, lambda images: pytest.fail("encoded again"))


def test_a_damaged_shard_alone_is_encoded_again(data, tmp_path):
    encode(data, tmp_path)
    path = tmp_path / "tokens-00001.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(InputError, match="tokens-00001"):
        TokenArray(tmp_path).check()
    encoded = []
    tokens = encode(data, tmp_path, lambda images: encoded.append(len(images)) or first_channel(images))
    assert sum(encoded) == 10 and np.array_equal(tokens[range(25)], expected(data))


@pytest.mark.parametrize("name", ["tokens.json", "tokens-00001.npy"])
def test_damage_ends_in_the_same_tokens(data, tmp_path, name, damage, capsys):
    encode(data, tmp_path)
    damage(tmp_path / name)
    was_there = (tmp_path / name).exists()
    tokens = encode(data, tmp_path)
    assert tokens.num_tokens == 16 and np.array_equal(tokens[range(25)], expected(data))
    assert (f"{name} is damaged" in capsys.readouterr().err) or not was_there


@pytest.mark.parametrize("text", ["[]", "{", "3", '{"format": 1}',
                                  '{"format": 1, "num_images": "1", "num_tokens": 1, "codebook_size": 1, '
                                  '"shard_size": 1, "shards": []}'])
def test_tokens_with_an_odd_manifest_are_refused_by_name(tmp_path, text):
    (tmp_path / "tokens.json").write_text(text)
    with pytest.raises(InputError, match=str(tmp_path)):
        TokenArray(tmp_path)


def test_a_lost_shard_is_encoded_again(data, tmp_path):
    encode(data, tmp_path)
    (tmp_path / "tokens-00002.npy").unlink()
    assert np.array_equal(encode(data, tmp_path)[range(25)], expected(data))


def test_another_codebook_begins_again(data, tmp_path):
    encode(data, tmp_path)
    assert encode(data, tmp_path, codebook_size=512).codebook_size == 512


def test_progress_counts_every_image_once_also_when_resuming(data, tmp_path):
    counted = []
    encode(data, tmp_path, progress=counted.append)
    encode(data, tmp_path, progress=counted.append)
    assert sum(counted) == 50


def test_a_codebook_beyond_uint32_is_refused(data, tmp_path):
    with pytest.raises(InputError, match="4,294,967,297"):
        encode(data, tmp_path, codebook_size=2**32 + 1)


def test_a_codebook_beyond_uint16_is_kept_as_uint32_by_encoding_and_by_import(data, tmp_path):
    large = first_channel(data.images(range(25))) + 261_800
    encode(data, tmp_path / "encoded", lambda images: first_channel(images) + 261_800, codebook_size=2**18)
    np.save(tmp_path / "tokens.npy", large)
    import_tokens(tmp_path / "tokens.npy", tmp_path / "imported", num_tokens=16, codebook_size=2**18)
    for folder in (tmp_path / "encoded", tmp_path / "imported"):
        assert np.load(folder / "tokens-00000.npy").dtype == np.uint32
        assert np.array_equal(TokenArray(folder)[range(25)], large)


@pytest.mark.parametrize("encoder", [
    lambda images: first_channel(images) + 1000, lambda images: first_channel(images) - 300,
    lambda images: first_channel(images).astype(float), lambda images: first_channel(images)[:1],
    lambda images: first_channel(images)[..., None]])
def test_an_encoder_that_returns_no_tokens_is_an_error(data, tmp_path, encoder):
    with pytest.raises(BenchError):
        encode(data, tmp_path, encoder)


def test_the_largest_token_survives(data, tmp_path):
    tokens = encode(data, tmp_path, lambda images: np.full((len(images), 2), 65_535), codebook_size=65_536)
    assert tokens[[0]].tolist() == [[65_535, 65_535]]
    assert np.load(tmp_path / "tokens-00000.npy").dtype == np.uint16


def test_a_token_array_can_be_sent_to_another_process(data, tmp_path):
    tokens = encode(data, tmp_path)
    tokens[[1]]
    assert np.array_equal(pickle.loads(pickle.dumps(tokens))[[1]], tokens[[1]])


def test_memory_does_not_grow_with_the_data(tmp_path):
    class Endless:
        def __init__(self, n):
            self.n = n

        def __len__(self):
            return self.n

        def images(self, indices):
            return np.zeros((len(indices), 3, 8, 8), np.uint8)

    def peak(n, turn):
        tracemalloc.start()
        encode_split(first_channel, Endless(n), tmp_path / f"{n}-{turn}", codebook_size=K, batch_size=50,
                     shard_size=500)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    peak(500, "warm-up")   # what is imported at first use; other threads are seen too: the smallest of three counts
    assert min(peak(8000, turn) for turn in range(3)) < 1.1 * min(peak(2000, turn) for turn in range(3))


@pytest.mark.parametrize("shape", [(25, 16), (25, 4, 4)])
def test_imported_tokens_come_out_as_they_went_in(data, tmp_path, shape):
    np.save(tmp_path / "theirs.npy", expected(data).reshape(shape))
    tokens = import_tokens(tmp_path / "theirs.npy", tmp_path / "ours", num_tokens=16, codebook_size=K, shard_size=10)
    assert np.array_equal(tokens[range(25)], expected(data))


def test_an_npz_names_its_array(data, tmp_path):
    np.savez(tmp_path / "theirs.npz", codes=expected(data))
    with pytest.raises(InputError, match="codes"):
        import_tokens(tmp_path / "theirs.npz", tmp_path / "ours", num_tokens=16, codebook_size=K)
    tokens = import_tokens(tmp_path / "theirs.npz", tmp_path / "ours", num_tokens=16, codebook_size=K, key="codes")
    assert len(tokens) == 25


def test_a_refused_import_leaves_nothing_of_an_earlier_one(data, tmp_path):
    encode(data, tmp_path / "ours")
    np.save(tmp_path / "theirs.npy", np.full((25, 16), K))
    with pytest.raises(InputError):
        import_tokens(tmp_path / "theirs.npy", tmp_path / "ours", num_tokens=16, codebook_size=K, shard_size=10)
    with pytest.raises(InputError, match="holds no tokens"):
        TokenArray(tmp_path / "ours")


@pytest.mark.parametrize("array, message", [
    (np.full((25, 16), 256), "0..255"), (np.full((25, 16), -1), "0..255"), (np.zeros((25, 16)), "expected integers"),
    (np.zeros((25, 15), int), "shape"), (np.zeros((24, 16), int), "24 images"), (np.zeros((), int), "shape")])
def test_wrong_imports_are_refused(tmp_path, array, message):
    np.save(tmp_path / "theirs.npy", array)
    with pytest.raises(InputError, match=message):
        import_tokens(tmp_path / "theirs.npy", tmp_path / "ours", num_tokens=16, codebook_size=K, num_images=25)


def test_a_pickle_is_not_loaded(tmp_path):
    np.save(tmp_path / "theirs.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(InputError, match="not a .npy or .npz"):
        import_tokens(tmp_path / "theirs.npy", tmp_path / "ours", num_tokens=16, codebook_size=K)


def test_a_manifest_of_another_format_is_refused(data, tmp_path):
    encode(data, tmp_path)
    manifest = json.loads((tmp_path / "tokens.json").read_text())
    (tmp_path / "tokens.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(InputError, match="format 99"):
        TokenArray(tmp_path)
