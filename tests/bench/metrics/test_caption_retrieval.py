"""R-precision and CLIPScore: exact on planted embeddings, transformers' cosines on a small random CLIP, and holes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bench.compose import compose
from bench.config import MetricsConfig, ProtocolConfig, SpeedConfig
from bench.data.arrays import ArrayImages
from bench.data.clip_encoder import ClipCaptions
from bench.data.labels import Captions
from bench.errors import InputError
from bench.metrics import caption_retrieval
from bench.metrics.base import Evidence
from bench.metrics.caption_retrieval import CaptionRetrieval, compare, different, drawn
from bench.metrics.intervals import wilson_interval
from bench.stages.base import Run
from bench.stages.identity import protocol_id
from bench.testing import check_metric
from tests.small_clip import save_clip

NUM = 120
TEXTS = tuple(f"{a}{b} {a}" for a in "abcdefghijkl" for b in "mnopqrstuv")   # 120 different ones


@pytest.fixture(scope="module")
def clip(transformers, tmp_path_factory):
    return save_clip(transformers, tmp_path_factory.mktemp("clip"))


def evidence_of(folder, clip=None, texts=TEXTS, num=NUM, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (num, 3, 20, 20), dtype=np.uint8)
    return Evidence(
        role="prior", protocol=ProtocolConfig(clip=clip and str(clip)), protocol_id="p", settings=MetricsConfig(),
        speed=SpeedConfig(), images={"fake": ArrayImages(pixels)}.__getitem__, features=None, validation_tokens=None,
        workspace=folder, caches=folder, captions=Captions((), texts), judged_as=np.arange(num) % len(texts))


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def measured(pairs, monkeypatch, tmp_path):
    monkeypatch.setattr(caption_retrieval, "_pairs", lambda evidence, told: pairs)
    return {m.metric: m for m in CaptionRetrieval()(evidence_of(tmp_path, clip="somewhere"))}


CAPTIONS = unit(np.random.default_rng(0).standard_normal((NUM, 64)))


def test_images_that_lie_on_their_captions_are_all_found(monkeypatch, tmp_path):
    found = measured(compare(CAPTIONS, CAPTIONS, np.arange(NUM)), monkeypatch, tmp_path)
    assert found["caption_retrieval_10"].value == found["caption_retrieval_100"].value == 1
    assert found["clip_score"].value == pytest.approx(2.5)
    assert (found["caption_retrieval_10"].ci_low, found["caption_retrieval_10"].ci_high) == wilson_interval(1.0, NUM)


def test_images_dealt_to_captions_at_random_are_found_as_often_as_chance_has_it(monkeypatch, tmp_path):
    own = np.arange(4000) % NUM
    images = CAPTIONS[np.random.default_rng(1).integers(0, NUM, 4000)]
    found = measured(compare(images, CAPTIONS, own), monkeypatch, tmp_path)
    for num in (10, 100):
        precision = found[f"caption_retrieval_{num}"]
        assert precision.ci_low < 1 / num < precision.ci_high and precision.extra["chance"] == 1 / num


def test_a_score_below_0_counts_as_0(monkeypatch, tmp_path):
    own = np.array([0, 1, 2, 3])
    images = CAPTIONS[own] * np.array([[1], [1], [1], [-1]], np.float32)
    found = measured(compare(images, CAPTIONS, own), monkeypatch, tmp_path)["clip_score"]
    assert found.value == pytest.approx(2.5 * 3 / 4) and found.standard_error == pytest.approx(2.5 * 0.25)


def test_others_are_different_captions_never_the_own_one_and_the_same_for_every_row():
    own = np.arange(30) % 12
    found = drawn(own, 12, 9)
    assert all(len(set(row)) == 9 and number not in row for row, number in zip(found, own, strict=True))
    assert np.array_equal(drawn(own[:7], 12, 9), found[:7]) and set(found.ravel()) == set(range(12))


def test_pairs_of_many_images_are_those_of_one_matrix(monkeypatch):
    monkeypatch.setattr(caption_retrieval, "BLOCK", 7)
    images, own = unit(np.random.default_rng(2).standard_normal((40, 64))), np.arange(40)
    found, cosines = compare(images, CAPTIONS, own), images @ CAPTIONS.T
    assert np.allclose(found.own, cosines[own, own], atol=1e-6)
    assert np.allclose(found.others, np.take_along_axis(cosines, drawn(own, NUM, 99), 1), atol=1e-6)


def test_captions_that_the_clip_reads_alike_are_one(clip):
    texts, number = different(ClipCaptions.load(clip), ["A fox", "a dog", "a fox"])
    assert len(texts) == 2 and number["A fox"] == number["a fox"] != number["a dog"]


def test_on_a_clip_it_is_made_of_transformers_own_cosines(transformers, clip, tmp_path):
    evidence = evidence_of(tmp_path, clip)
    found = {m.metric: m for m in CaptionRetrieval()(evidence)}
    pixels = torch.from_numpy(evidence.images("fake").array)
    resized = torch.nn.functional.interpolate(pixels.float() / 255, 28, mode="bicubic")
    processor = transformers.CLIPImageProcessor(do_resize=False, do_center_crop=False, do_rescale=False)
    model, tokenizer = (cls.from_pretrained(clip) for cls in (transformers.CLIPModel, transformers.CLIPTokenizerFast))
    with torch.inference_mode():
        output = model(**processor(list(resized), return_tensors="pt"),
                       **tokenizer(list(TEXTS), padding=True, return_tensors="pt"))
        cosines = (output.logits_per_image / model.logit_scale.exp()).numpy()   # (images, texts)
    own = np.diagonal(cosines)
    assert found["clip_score"].value == pytest.approx(2.5 * np.maximum(own, 0).mean(), abs=1e-4)
    best = (cosines <= own[:, None]).sum(1)   # how many captions are no nearer than the own one
    assert (best == NUM).mean() <= found["caption_retrieval_100"].value <= found["caption_retrieval_10"].value
    expected = (((best - 1) / (NUM - 1)) ** 9).mean()   # nine others, all farther than the own one
    assert found["caption_retrieval_10"].value == pytest.approx(expected, abs=0.1)


def test_too_few_captions_are_a_hole_and_those_without_any_are_left_out(clip, tmp_path):
    found = {m.metric: m for m in CaptionRetrieval()(evidence_of(tmp_path, clip, texts=(*TEXTS[:20], ""), num=42))}
    assert found["caption_retrieval_100"].note == "held-out images have 20 different captions: 100 are needed"
    assert found["caption_retrieval_10"].n == found["clip_score"].n == 40
    none = CaptionRetrieval()(evidence_of(tmp_path, clip, texts=("", "a"), num=2))
    assert {m.note for m in none} == {"1 of the judged images have a caption: 2 are needed"}


def test_without_a_clip_it_is_a_hole_that_says_what_is_missing(tmp_path):
    found = CaptionRetrieval()(evidence_of(tmp_path))
    assert [m.metric for m in found] == ["caption_retrieval_10", "caption_retrieval_100", "clip_score"]
    assert {m.value for m in found} == {None}
    assert all("protocol.clip=<folder> of a whole CLIP, with model.safetensors" in m.note for m in found)


def test_it_keeps_the_contract(clip, tmp_path):
    assert check_metric(CaptionRetrieval, evidence=evidence_of(tmp_path, clip)).faults == ()
    assert check_metric("caption_retrieval").faults == ()
    assert not CaptionRetrieval().applies(SimpleNamespace(captions=None, judged_as=np.arange(3)))


RUN = ["preset=smoke", "dataset=digits", "prior=unigram"]


def test_a_clip_is_part_of_the_protocol_by_its_content(clip, transformers, tmp_path):
    asked = [*RUN, "metrics.names=[caption_retrieval]"]
    other = save_clip(transformers, tmp_path, seed=1)
    ids = [protocol_id(Run(compose([*asked, *more]))) for more in ([], [f"protocol.clip={clip}"],
                                                                   [f"protocol.clip={other}"])]
    assert len(set(ids)) == 3 and ids[0] == protocol_id(Run(compose(RUN)))


def test_a_clip_that_nothing_looks_at_is_refused(tmp_path):
    with pytest.raises(InputError, match="used by the metric caption_retrieval alone"):
        compose([*RUN, f"protocol.clip={tmp_path}"])
    with pytest.raises(InputError, match="lacks model.safetensors and config.json.*Leave protocol.clip out"):
        protocol_id(Run(compose([*RUN, "metrics.names=[caption_retrieval]", f"protocol.clip={tmp_path}"])))
