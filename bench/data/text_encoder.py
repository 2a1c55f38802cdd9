"""A frozen text encoder from a folder as transformers keeps one: BERT's layers (Devlin et al. 2019), nothing trained.

    encoder = BertEncoder.load(default_folder())              # MiniLM (Wang et al. 2020), 6 layers, 384 features
    features, lengths = encoder(["a red fox", ""], length=16)   # (2, 16, 384) float32, (2,) int64: 5 and 0

The folder holds model.safetensors, config.json and tokenizer.json, which the package `tokenizers` (extra `text`) reads.
That of a CLIP: bench.data.clip_encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.data.encoder_files import TOKENIZER, WEIGHTS, EncoderConfig, check_folder, tokenizers_package
from bench.errors import InputError

BATCH = 64   # texts encoded at once: fixed, so that features do not depend on how they are asked for


class TextEncoder:
    """Texts -> the last layer's features of each of their positions, the start and the end included."""

    def __init__(self, config: EncoderConfig, tokenizer: Any):
        self.config, self.tokenizer = config, tokenizer

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str], *, length: int) -> tuple[Tensor, Tensor]:
        """(n, length, D) float32 features, 0 beyond the end of a text, and (n,) int64 lengths, 0 for an empty one.

        Longer texts are cut, their end mark kept. Raises ValueError if `length` is below 3 or above max_length.
        """
        if not 3 <= length <= self.config.max_length:
            raise ValueError(f"length={length}: expected 3 (start, a word, end) to {self.config.max_length}")
        ids, lengths = self.tokenize(texts, length)
        features = [self.encode(*pair) for pair in zip(ids.split(BATCH), lengths.split(BATCH), strict=True)]
        return torch.cat(features) if features else torch.zeros(0, length, self.config.width), lengths

    def tokenize(self, texts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
        """(n, length) int64 ids, 0 beyond the end, and (n,) lengths."""
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(length)
        found = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        lengths = torch.tensor([len(ids) if text.strip() else 0 for ids, text in zip(found, texts, strict=True)],
                               dtype=torch.int64)
        padded = torch.zeros(len(found), length, dtype=torch.int64)
        for row, ids in zip(padded, found, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        return padded, lengths

    def encode(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, M) ids, (B,) lengths -> (B, M, D) float32 on the CPU, 0 beyond the end."""
        raise NotImplementedError


class BertEncoder(TextEncoder):
    """Of a BERT: weights by their names, layers as functions of them."""

    def __init__(self, config: EncoderConfig, weights: dict[str, Tensor], tokenizer: Any):
        super().__init__(config, tokenizer)
        self.weights = weights

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> BertEncoder:
        """Raises InputError for a folder that is no BERT encoder."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        config = check_folder(folder)
        try:
            weights = {name.removeprefix("bert."): value.to(device).float()
                       for name, value in load_file(folder / WEIGHTS).items()}
        except (SafetensorError, OSError) as error:
            raise InputError(f"{folder / WEIGHTS} cannot be read: {error}.") from None
        tokenizer = tokenizer_of(folder)
        if absent := sorted(_names(config) - set(weights)):
            raise InputError(f"{folder / WEIGHTS} lacks {absent[0]} and {len(absent) - 1} other weights that a BERT of "
                             f"{config.num_layers} layers has.")
        return cls(config, weights, tokenizer)

    def encode(self, ids: Tensor, lengths: Tensor) -> Tensor:
        w = self.weights
        device = w["embeddings.word_embeddings.weight"].device
        ids, given = ids.to(device), (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).to(device)   # (B, M)
        seen = given.clone()
        seen[:, 0] = True   # something to attend to, where there is no text; the result is not used
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0]
        x = x + w["embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = self._normalised(x, "embeddings.LayerNorm")
        for layer in range(self.config.num_layers):
            x = self._layer(x, seen, f"encoder.layer.{layer}")
        return (x * given.unsqueeze(-1)).cpu()

    def _layer(self, x: Tensor, seen: Tensor, name: str) -> Tensor:
        """LN(x + attention(x)), then LN(x + MLP(x)): normalised after each sum, unlike our own transformer."""
        q, k, v = (self._linear(x, f"{name}.attention.self.{part}").unflatten(-1, (self.config.num_heads, -1))
                   .transpose(1, 2) for part in ("query", "key", "value"))   # (B, H, M, D/H)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None, None]).transpose(1, 2).flatten(2)
        y = self._linear(y, f"{name}.attention.output.dense")
        x = self._normalised(x + y, f"{name}.attention.output.LayerNorm")
        h = F.gelu(self._linear(x, f"{name}.intermediate.dense"))
        return self._normalised(x + self._linear(h, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _normalised(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"],
                            self.config.epsilon)


def tokenizer_of(folder: Path) -> Any:
    """The `tokenizers.Tokenizer` of its tokenizer.json.  Raises InputError where that is none."""
    package = tokenizers_package()
    try:
        return package.Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:   # all that `tokenizers` raises
        raise InputError(f"{folder / TOKENIZER} is no tokenizer: {error}.") from None


def _names(config: EncoderConfig) -> set[str]:
    """The weights that `encode` reads."""
    layer = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
             "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm"]
    parts = ["embeddings.LayerNorm"] + [f"encoder.layer.{i}.{part}" for i in range(config.num_layers) for part in layer]
    tables = {f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")}
    return tables | {f"{part}.{which}" for part in parts for which in ("weight", "bias")}
