"""The frozen text encoder: its layers are torch's, its features transformers', and its errors come early."""

import json
import sys

import pytest
import torch
from torch import nn

from bench.assets.cache import asset_folder
from bench.assets.torchvision_compat import ensure_torchvision
from bench.data.encoder_files import EncoderConfig, check_folder, identity_of
from bench.data.text_encoder import BertEncoder, _names
from bench.errors import InputError

CONFIG = {"model_type": "bert", "hidden_act": "gelu", "hidden_size": 16, "num_hidden_layers": 2,
          "num_attention_heads": 4, "max_position_embeddings": 12, "layer_norm_eps": 1e-12}
SIZES = EncoderConfig(16, 2, 4, 12, 1e-12)
TEXTS = ["a red fox", "fox", "", "a red red red fox fox a a a a a a a", "  "]


class Encoding:
    def __init__(self, ids):
        self.ids = ids


class Words:
    """A tokenizer of a few words between a start, 1, and an end, 2."""

    def no_padding(self):
        pass

    def enable_truncation(self, length):
        self.length = length

    def encode_batch(self, texts):
        words = {"a": 3, "red": 4, "fox": 5}
        return [Encoding([1, *[words[word] for word in text.split()][: self.length - 2], 2]) for text in texts]


def tiny():
    generator = torch.Generator().manual_seed(0)
    shapes = {"word": (6, 16), "position": (12, 16), "token_type": (2, 16)}
    weights = {}
    for name in sorted(_names(SIZES)):
        if name.startswith("embeddings.") and "LayerNorm" not in name:
            shape = shapes[name.split(".")[1].removesuffix("_embeddings")]
        else:
            out = 32 if "intermediate" in name else 16
            within = 32 if ".output.dense" in name and "attention" not in name else 16
            shape = (out,) if name.endswith("bias") or "LayerNorm" in name else (out, within)
        weights[name] = torch.randn(shape, generator=generator) * 0.5
    return BertEncoder(SIZES, weights, Words())


def torchs_layer(weights, name):
    """The same layer as torch has it."""
    layer = nn.TransformerEncoderLayer(
        16, 4, 32, dropout=0.0, activation="gelu", batch_first=True, layer_norm_eps=1e-12)
    places = {"linear1": "intermediate.dense", "linear2": "output.dense", "norm1": "attention.output.LayerNorm",
              "norm2": "output.LayerNorm", "self_attn.out_proj": "attention.output.dense"}
    state = {f"{ours}.{part}": weights[f"{name}.{theirs}.{part}"] for ours, theirs in places.items()
             for part in ("weight", "bias")}
    for part in ("weight", "bias"):
        state[f"self_attn.in_proj_{part}"] = torch.cat(
            [weights[f"{name}.attention.self.{which}.{part}"] for which in ("query", "key", "value")])
    layer.load_state_dict(state)
    return layer.train()   # its fast path for evaluation pads in its own way


@torch.no_grad()
def test_the_layers_are_torchs_own():
    encoder = tiny()
    ids, lengths = encoder.tokenize(TEXTS[:2], 8)
    w = encoder.weights
    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][:8]
    x = torch.nn.functional.layer_norm(x + w["embeddings.token_type_embeddings.weight"][0], (16,),
                                       w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"], 1e-12)
    padding = torch.arange(8) >= lengths.unsqueeze(1)
    for i in range(2):
        x = torchs_layer(w, f"encoder.layer.{i}")(x, src_key_padding_mask=padding)
    features, found = encoder(TEXTS[:2], length=8)
    torch.testing.assert_close(features, x.masked_fill(padding.unsqueeze(-1), 0), rtol=1e-4, atol=1e-5)
    assert found.tolist() == [5, 3]


def test_features_depend_on_the_text_alone():
    encoder = tiny()
    together, lengths = encoder(TEXTS, length=8)
    assert lengths.tolist() == [5, 3, 0, 8, 0] and together.dtype == torch.float32
    for i, text in enumerate(TEXTS):
        torch.testing.assert_close(encoder([text], length=8)[0][0], together[i], rtol=1e-5, atol=1e-5)
        assert (together[i, lengths[i]:] == 0).all()
    longer = encoder(TEXTS[:2], length=12)[0]
    torch.testing.assert_close(longer[:, :8], together[:2], rtol=1e-5, atol=1e-5)


def test_features_are_those_of_no_batch_size(monkeypatch):
    whole = tiny()(TEXTS, length=8)[0]
    monkeypatch.setattr("bench.data.text_encoder.BATCH", 2)
    torch.testing.assert_close(tiny()(TEXTS, length=8)[0], whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [2, 13])
def test_a_length_that_the_encoder_does_not_have_is_an_error(length):
    with pytest.raises(ValueError, match=f"length={length}: expected 3"):
        tiny()(TEXTS, length=length)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    from safetensors.torch import save_file

    monkeypatch.setitem(sys.modules, "tokenizers", type(sys)("tokenizers"))
    save_file({f"bert.{name}": value for name, value in tiny().weights.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "tokenizer.json").write_text("{}")
    return tmp_path


def test_a_folder_is_known_by_its_content(folder):
    assert check_folder(folder) == SIZES
    before = identity_of(folder)
    (folder / "tokenizer.json").write_text("{ }")
    assert identity_of(folder) != before


@pytest.mark.parametrize(("change", "message"), [
    (lambda f: (f / "tokenizer.json").unlink(), "lacks tokenizer.json"),
    (lambda f: (f / "config.json").write_text("{"), "is not the configuration"),
    (lambda f: (f / "config.json").write_text("[]"), "is not the configuration"),
    (lambda f: (f / "config.json").write_text(json.dumps({**CONFIG, "model_type": "t5"})), "model_type='t5'"),
    (lambda f: (f / "config.json").write_text(json.dumps({**CONFIG, "hidden_act": "relu"})), "hidden_act='relu'"),
    (lambda f: (f / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_act": "gelu"})), "hidden_size"),
])
def test_another_folder_is_an_error(folder, change, message):
    change(folder)
    with pytest.raises(InputError, match=message):
        check_folder(folder)


def test_without_the_extra_the_error_says_how_to_install_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(InputError, match=r"pip install 'vq-prior-bench\[text\]'"):
        check_folder(folder)


def test_weights_of_fewer_layers_are_an_error(folder, monkeypatch):
    monkeypatch.setattr(sys.modules["tokenizers"], "Tokenizer", type("T", (), {"from_file": Words}), raising=False)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": 3}))
    monkeypatch.setattr(Words, "__init__", lambda self, *unused: None)
    with pytest.raises(InputError, match="lacks encoder.layer.2.attention.output.LayerNorm.bias"):
        BertEncoder.load(folder)


@pytest.mark.network
def test_the_default_encoder_gives_the_features_that_transformers_gives():
    pytest.importorskip("tokenizers", reason="the extra text is not installed")
    ensure_torchvision()   # transformers imports it where it is installed
    transformers = pytest.importorskip("transformers", reason="transformers, the oracle, is not installed")
    folder = asset_folder("text-encoder")
    texts = ["woman, medium skin tone, rocket", "a photograph of a frog", "", "ß ☃ 漢字 " + "word " * 40]
    features, lengths = BertEncoder.load(folder)(texts, length=24)
    model = transformers.BertModel.from_pretrained(str(folder)).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]")
    inputs = tokenizer(texts, padding="max_length", truncation=True, max_length=24, return_tensors="pt")
    with torch.no_grad():
        theirs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
    given = torch.arange(24) < lengths.unsqueeze(1)
    assert lengths.tolist() == [*inputs["attention_mask"].sum(1)[:2].tolist(), 0, 24]
    torch.testing.assert_close(features[given], theirs[given], rtol=1e-4, atol=1e-5)
    near, far = (torch.cosine_similarity(features[0, :lengths[0]].mean(0), features[i, :lengths[i]].mean(0), 0)
                 for i in (0, 1))
    assert near > far
