"""DINOv2 and CLIP folders as extractors, CMMD on their features: small random models, saved by the test."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from bench.compose import compose
from bench.errors import InputError
from bench.metrics.cmmd import ClipDiscrepancy, cmmd
from bench.metrics.extractor_names import folder_of, weights_of
from bench.metrics.features import extractor_assets, resolve_extractor
from bench.metrics.frechet import fid
from bench.stages.base import Run
from bench.stages.features import REAL_FEATURES
from bench.stages.identity import plugins_of, protocol_id

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 20, 20), dtype=np.uint8))
RUN = ["preset=smoke", "dataset=digits", "prior=unigram"]


@pytest.fixture(scope="module")
def dinov2(transformers, tmp_path_factory):
    torch.manual_seed(0)
    config = transformers.Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=56)
    folder = tmp_path_factory.mktemp("dinov2")
    transformers.Dinov2Model(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(transformers, tmp_path_factory):
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, image_size=28,
                                           num_attention_heads=2, patch_size=14, projection_dim=12)
    folder = tmp_path_factory.mktemp("clip")
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return folder


def test_dinov2_features_are_the_class_token_of_bicubic_pictures(transformers, dinov2):
    extractor = resolve_extractor(f"dinov2:{dinov2}")
    processor = transformers.BitImageProcessor(
        size={"height": 224, "width": 224}, resample=Image.Resampling.BICUBIC, do_center_crop=False,
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in IMAGES]
    with torch.inference_mode():
        expected = transformers.Dinov2Model.from_pretrained(dinov2)(
            **processor(pictures, return_tensors="pt")).pooler_output
    torch.testing.assert_close(extractor(IMAGES), expected, atol=2e-2, rtol=0)   # resized to uint8 there too, or floats
    assert extractor.num_features == 16 and extractor.resize == "pil-bicubic-224"


def test_clip_features_are_unit_image_embeddings(transformers, clip):
    extractor = resolve_extractor(f"clip:{clip}")
    resized = torch.nn.functional.interpolate(IMAGES.float() / 255, 28, mode="bicubic")
    processor = transformers.CLIPImageProcessor(do_resize=False, do_center_crop=False, do_rescale=False)
    with torch.inference_mode():
        found = transformers.CLIPVisionModelWithProjection.from_pretrained(clip)(
            **processor(list(resized), return_tensors="pt")).image_embeds
    torch.testing.assert_close(extractor(IMAGES), found / found.norm(dim=1, keepdim=True), atol=1e-4, rtol=0)
    assert extractor(IMAGES).norm(dim=1).numpy() == pytest.approx(1, abs=1e-5)


def test_features_do_not_depend_on_the_batch_and_give_a_distance(dinov2):
    extractor = resolve_extractor(f"dinov2:{dinov2}")
    torch.testing.assert_close(extractor(IMAGES)[1:2], extractor(IMAGES[1:2]), atol=1e-5, rtol=0)
    features = extractor(IMAGES).numpy()
    assert fid(features, features, uncertainty=False).value == pytest.approx(0, abs=1e-6)


def test_a_folder_of_another_model_is_refused(clip):
    with pytest.raises(InputError, match="is no dinov2 model"):
        resolve_extractor(f"dinov2:{clip}")


def test_without_transformers_the_way_out_is_named(tmp_path, monkeypatch):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes(b"{}")
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(InputError, match="pip install transformers"):
        resolve_extractor(f"dinov2:{tmp_path}")


def test_a_folder_is_known_by_its_weights_wherever_it_lies(tmp_path):
    ids = {}
    for name, content in (("a", b"1"), ("b", b"2"), ("c", b"1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(content)
        made = Run(compose([*RUN, f"protocol.extractor=dinov2:{tmp_path / name}"]))
        ids[name] = protocol_id(made), made.recipe(REAL_FEATURES).key
        assert plugins_of(made) == [] and extractor_assets(made.spec.protocol.extractor) == set()
    assert ids["a"] == ids["c"] and ids["a"] != ids["b"]


def test_a_folder_without_weights_is_refused_before_any_work(tmp_path):
    with pytest.raises(InputError, match="lacks config.json and model.safetensors"):
        protocol_id(Run(compose([*RUN, f"protocol.extractor=clip:{tmp_path}"])))
    assert folder_of("torchvision:resnet50") is folder_of("my.module:Name") is folder_of("dinov2") is None
    with pytest.raises(InputError, match="lacks"):
        weights_of(tmp_path)


def test_cmmd_is_the_published_estimator():
    """Means over whole kernel matrices, the diagonals among them; sigma 10, scale 1,000."""
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((n, 6)).astype(np.float32) * 4 for n in (70, 50))

    def mean(a, b):
        return np.exp(-np.square(a[:, None].astype("f8") - b[None]).sum(2) / (2 * 10.0**2)).mean()
    assert cmmd(x, y) == pytest.approx(1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y)), rel=1e-9)
    assert cmmd(x, x) == pytest.approx(0, abs=1e-9)


def test_cmmd_is_of_clip_features_alone():
    features = {"fake": np.eye(4, dtype=np.float32), "real": np.ones((5, 4), np.float32)}
    evidence = SimpleNamespace(protocol=SimpleNamespace(extractor="clip:/models/clip"), features=features.get,
                               protocol_id="demo-1")
    assert ClipDiscrepancy().applies(evidence)
    found, = ClipDiscrepancy()(evidence)
    assert (found.metric, found.n, found.better) == ("cmmd", 4, "lower") and found.note
    evidence.protocol.extractor = "inception-v3-compat"
    assert not ClipDiscrepancy().applies(evidence)
