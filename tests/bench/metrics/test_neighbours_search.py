"""The LPIPS search: equal to lpips, equal to brute force, cached, resumable, within its memory."""

import warnings

import numpy as np
import pytest
import torch

from bench.assets.torchvision_compat import ensure_torchvision
from bench.config import MetricsConfig, ProtocolConfig, SpeedConfig
from bench.data.arrays import ArrayImages
from bench.errors import InputError
from bench.metrics import embedding_cache, neighbours
from bench.metrics.base import Evidence
from bench.metrics.embedding_cache import compress, open_candidates
from bench.metrics.lpips_embedding import LpipsEmbedding
from bench.metrics.neighbours import NearestNeighbours, nearest


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)   # these networks are too small to share
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model():
    """lpips with its own heads on a random trunk: what is tested holds for any weights."""
    ensure_torchvision()
    import lpips

    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        return lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def embedding(model):
    return LpipsEmbedding(model, resolution=32)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(embedding_cache, "BLOCK_IMAGES", 16)


def pictures(num, *, seed=0, side=32):
    """Smooth random images, which differ in more than their noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (num, 3, 4, 4), dtype=np.uint8)
    return coarse.repeat(side // 4, 2).repeat(side // 4, 3)


def all_distances(embedding, queries, candidates):
    """(Q, M) by the package itself, one query at a time."""
    right = embedding.prepare(candidates)
    with torch.inference_mode():
        rows = [embedding.model(embedding.prepare(q[None]).expand_as(right), right).flatten() for q in queries]
    return torch.stack(rows).double().numpy()


def opened(embedding, images, caches, *, fingerprint="test", disk_gb=1.0):
    return open_candidates(embedding, ArrayImages(images), count=len(images), fingerprint=fingerprint, caches=caches,
                           disk_gb=disk_gb)


def test_squared_distances_of_embeddings_are_lpips(embedding):
    left, right = pictures(6, seed=1), pictures(6, seed=2)
    squared = (embedding.embed(left) - embedding.embed(right)).square().sum(1)
    with torch.inference_mode():
        expected = embedding.model(embedding.prepare(left), embedding.prepare(right)).flatten()
    torch.testing.assert_close(squared, expected, rtol=1e-5, atol=1e-7)


def test_distances_of_features_are_lpips(embedding):
    left, right = pictures(6, seed=1), pictures(6, seed=2)
    ours = embedding.distances(embedding.features(left), embedding.features(right))
    with torch.inference_mode():
        expected = embedding.model(embedding.prepare(left), embedding.prepare(right)).flatten()
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.network
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_embeddings_equal_lpips_with_the_real_weights(net):
    from bench.assets.weights import lpips_model

    real = LpipsEmbedding(lpips_model(net), resolution=64)
    left, right = pictures(4, seed=1), pictures(4, seed=2)
    squared = (real.embed(left) - real.embed(right)).square().sum(1)
    with torch.inference_mode():
        expected = real.model(real.prepare(left), real.prepare(right)).flatten()
    torch.testing.assert_close(squared, expected, rtol=0, atol=1e-5)


def test_a_negative_head_is_refused(model):
    head = model.lins[0].model[-1].weight
    kept = head.clone()
    try:
        head[0, 0] = -1
        with pytest.raises(InputError, match="negative weight"):
            LpipsEmbedding(model)
    finally:
        head.copy_(kept)


@pytest.mark.parametrize("cached", [True, False])
def test_the_search_equals_brute_force(embedding, tmp_path, cached):
    queries, images = pictures(5, seed=1), pictures(40, seed=2)
    found = nearest(queries, opened(embedding, images, tmp_path, fingerprint="test" if cached else None), top_k=7)
    expected = all_distances(embedding, queries, images)
    order = expected.argsort(1, kind="stable")[:, :7]
    np.testing.assert_array_equal(found.indices, order)
    np.testing.assert_allclose(found.distances, np.take_along_axis(expected, order, 1), rtol=1e-6, atol=1e-8)


def test_identical_candidates_beyond_the_shortlist_are_returned_in_their_order(embedding, tmp_path):
    images = np.concatenate([pictures(20, seed=2), np.repeat(pictures(1, seed=3), 40, 0)])
    found = nearest(pictures(1, seed=3), opened(embedding, images, tmp_path), top_k=3)
    assert found.indices.tolist() == [[20, 21, 22]]
    assert found.passes > 1


def test_a_copy_is_found_at_distance_zero(embedding, tmp_path):
    images = pictures(40, seed=2)
    found = nearest(images[[37, 3]], opened(embedding, images, tmp_path), top_k=1)
    assert found.indices.tolist() == [[37], [3]] and np.abs(found.distances).max() < 1e-9


def test_rounding_errors_are_measured_and_bound_what_float16_moves():
    centred = torch.randn(10, 500, generator=torch.Generator().manual_seed(0)) * 1e-3
    block = compress(0, centred, 4096.0)
    moved = (block.vectors.double() / 4096 - centred.double()).norm(dim=1)
    assert (moved <= block.errors).all() and (block.errors < 1e-3 * centred.norm(dim=1)).all()


def test_a_search_over_a_full_cache_embeds_no_candidate(embedding, tmp_path, monkeypatch):
    images, queries = pictures(40, seed=2), pictures(2, seed=1)
    first = nearest(queries, opened(embedding, images, tmp_path), top_k=2)
    monkeypatch.setattr(embedding_cache, "compress", lambda *args: pytest.fail("embedded again"))
    again = nearest(queries, opened(embedding, images, tmp_path), top_k=2)
    np.testing.assert_array_equal(again.distances, first.distances)


@pytest.mark.parametrize("damage", [lambda data: data[:-100], lambda data: data[:-3] + b"abc", lambda data: b""])
def test_a_damaged_cache_file_is_made_again(embedding, tmp_path, damage):
    images, queries = pictures(40, seed=2), pictures(2, seed=1)
    first = nearest(queries, opened(embedding, images, tmp_path), top_k=2)
    path = next(tmp_path.rglob("000001.safetensors"))
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    again = nearest(queries, opened(embedding, images, tmp_path), top_k=2)
    np.testing.assert_array_equal(again.distances, first.distances)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("name", ["000001.safetensors", "centre.safetensors"])
def test_whatever_happens_to_a_cache_file_the_answer_stays(embedding, tmp_path, name, damage):
    images, queries = pictures(40, seed=2), pictures(2, seed=1)
    first = nearest(queries, opened(embedding, images, tmp_path), top_k=2)
    damage(next(tmp_path.rglob(name)))
    again = nearest(queries, opened(embedding, images, tmp_path), top_k=2)
    np.testing.assert_array_equal(again.distances, first.distances)


@pytest.mark.parametrize("name", ["vectors", "squared_norms", "errors", "scale", "checksum"])
def test_a_flipped_bit_in_a_name_of_a_cache_file_is_noticed(embedding, tmp_path, name, capsys):
    images, queries = pictures(40, seed=2), pictures(2, seed=1)
    first = nearest(queries, opened(embedding, images, tmp_path), top_k=2)
    path = next(tmp_path.rglob("000001.safetensors"))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(name.encode(), name[:-1].encode() + bytes([ord(name[-1]) ^ 1]), 1))
    again = nearest(queries, opened(embedding, images, tmp_path), top_k=2)
    np.testing.assert_array_equal(again.distances, first.distances)
    assert path.read_bytes() == whole and "000001.safetensors is damaged" in capsys.readouterr().err


def test_nothing_is_cached_beyond_the_disk_budget(embedding, tmp_path):
    nearest(pictures(1, seed=1), opened(embedding, pictures(30, seed=2), tmp_path, disk_gb=1e-6), top_k=1)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_an_interrupted_search_goes_on_where_it_was(embedding, tmp_path, monkeypatch):
    images, queries = pictures(70, seed=2), pictures(2, seed=1)
    monkeypatch.setattr(neighbours, "SAVE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(embedding_cache, "LINE_EVERY_SECONDS", 0.0)
    candidates = opened(embedding, images, tmp_path, fingerprint=None)
    seen = []

    def interrupt(text):
        seen.append(text)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nearest(queries, candidates, top_k=2, workspace=tmp_path, progress=interrupt)
    resumed = []
    found = nearest(queries, candidates, top_k=2, workspace=tmp_path, progress=resumed.append)
    assert resumed[0] == seen[2]
    np.testing.assert_array_equal(found.indices, nearest(queries, candidates, top_k=2).indices)
    assert not list(tmp_path.glob("neighbours-*"))


def test_an_interrupted_search_with_a_damaged_state_begins_again(embedding, tmp_path, monkeypatch, damage):
    images, queries = pictures(70, seed=2), pictures(2, seed=1)
    monkeypatch.setattr(neighbours, "SAVE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(embedding_cache, "LINE_EVERY_SECONDS", 0.0)
    candidates = opened(embedding, images, tmp_path, fingerprint=None)
    seen = []

    def interrupt(text):
        seen.append(text)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nearest(queries, candidates, top_k=2, workspace=tmp_path, progress=interrupt)
    path, = tmp_path.glob("neighbours-*.npz")
    damage(path)
    found = nearest(queries, candidates, top_k=2, workspace=tmp_path)
    np.testing.assert_array_equal(found.distances, nearest(queries, candidates, top_k=2).distances)


def test_queries_in_groups_give_the_same_answer(embedding, tmp_path, monkeypatch):
    candidates, queries = opened(embedding, pictures(60, seed=2), tmp_path), pictures(5, seed=1)
    together = nearest(queries, candidates, top_k=2)
    monkeypatch.setattr(neighbours, "queries_per_pass", lambda *args: 2)
    np.testing.assert_array_equal(nearest(queries, candidates, top_k=2).indices, together.indices)


def test_too_little_memory_is_an_error_that_says_how_much_is_needed(embedding, tmp_path):
    with pytest.raises(InputError, match="need at least 0.* GB"):
        nearest(pictures(1), opened(embedding, pictures(5), tmp_path), top_k=1, memory_gb=1e-4)


@pytest.mark.parametrize("queries, top_k", [(0, 1), (1, 0), (1, 6)])
def test_impossible_searches_are_errors(embedding, tmp_path, queries, top_k):
    with pytest.raises(InputError, match="1 <= top_k <= candidates"):
        nearest(pictures(queries), opened(embedding, pictures(5), tmp_path), top_k=top_k)


def test_float_images_are_refused(embedding):
    with pytest.raises(InputError, match="uint8"):
        embedding.embed(torch.rand(1, 3, 32, 32))


def evidence_of(fake, train, folder, **protocol):
    sides = {"fake": ArrayImages(fake), "train": ArrayImages(train)}
    settings = ProtocolConfig(neighbours_resolution=32, **protocol)
    return Evidence(role="prior", protocol=settings, protocol_id="test", settings=MetricsConfig(), speed=SpeedConfig(),
                    images=sides.__getitem__, features=lambda side: pytest.fail("needs no features"),
                    validation_tokens=lambda: pytest.fail("needs no tokens"), workspace=folder, caches=folder,
                    fingerprints={"train": "train"})


@pytest.fixture
def random_lpips(model, monkeypatch):
    monkeypatch.setattr(neighbours, "lpips_model", lambda net: model)


def test_the_metric_leaves_a_figure_of_each_sample_beside_its_neighbours(random_lpips, tmp_path):
    train, sheets = pictures(30, seed=2), {}
    evidence = evidence_of(train[[4, 9]], train, tmp_path, neighbours_top_k=3)
    evidence.picture = lambda name, tiles, **layout: sheets.update({name: (tiles, layout)})
    mean, least = NearestNeighbours()(evidence)
    tiles, layout = sheets["neighbours"]
    assert abs(mean.value) < 1e-9 and abs(least.value) < 1e-9
    assert [row[0] for row in mean.extra["train_indices"]] == [4, 9]
    assert tiles.shape == (8, 3, 32, 32) and (layout["rows"], layout["columns"]) == (2, 4)
    np.testing.assert_array_equal(tiles[0], tiles[1])
    assert layout["labels"][:2] == ("sample", "0.000")


def test_fewer_training_images_than_neighbours_is_a_hole_with_its_reason(random_lpips, tmp_path):
    measurements = NearestNeighbours()(evidence_of(pictures(2), pictures(4), tmp_path))
    assert [m.value for m in measurements] == [None, None] and "neighbours_top_k=10" in measurements[0].note


def test_candidates_are_spread_over_the_training_split(random_lpips, tmp_path):
    train = pictures(31, seed=2)
    evidence = evidence_of(train[[30]], train, tmp_path, neighbours_top_k=1, neighbours_candidates=4)
    mean, _ = NearestNeighbours()(evidence)
    assert mean.extra["train_indices"] == [[30]] and mean.extra["candidates"] == 4
