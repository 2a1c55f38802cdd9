"""The folder of a text encoder, as transformers keeps one: looked at quickly, without torch, before anything is built.

    check_folder(default_folder()).width      # 384; raises InputError for a folder that is of no encoder
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.assets.cache import asset_folder
from bench.errors import InputError
from bench.provenance import sha256_of

WEIGHTS, CONFIG, TOKENIZER = FILES = ("model.safetensors", "config.json", "tokenizer.json")
EXPECTED = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
"""What a configuration may say; position_embedding_type need not be said."""


@dataclass(frozen=True)
class EncoderConfig:
    """width: features a position; max_length: positions, with those of the start and the end."""

    width: int
    num_layers: int
    num_heads: int
    max_length: int
    epsilon: float


def default_folder() -> Path:
    """The pinned sentence encoder, fetched if need be."""
    return asset_folder("text-encoder")


def check_folder(folder: Path) -> EncoderConfig:
    """The sizes of an encoder.

    Raises InputError if a file is missing, the configuration is of another kind of network, or `tokenizers` is not
    installed.
    """
    if absent := [name for name in FILES if not (folder / name).is_file()]:
        raise InputError(f"{folder} lacks {' and '.join(absent)}: expected a folder of transformers with "
                         f"{', '.join(FILES)}. Leave condition.encoder out for the default one.")
    try:
        config = json.loads((folder / CONFIG).read_text())
        wrong = [f"{key}={config.get(key)!r}" for key, value in EXPECTED.items()
                 if config.get(key, value if key == "position_embedding_type" else None) != value]
        if wrong:
            raise InputError(f"{folder / CONFIG} says {', '.join(wrong)}: this reads BERT encoders alone, "
                             f"{', '.join(f'{key}={value!r}' for key, value in EXPECTED.items())}.")
        sizes = [config[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads",
                                         "max_position_embeddings", "layer_norm_eps")]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder / CONFIG} is not the configuration of a BERT encoder: "
                         f"{type(error).__name__}: {error}.") from None
    tokenizers_package()
    return EncoderConfig(*sizes)


def identity_of(folder: Path) -> str:
    """sha256 of what the features depend on: the weights, the tokenizer and the configuration."""
    return " ".join(sha256_of(folder / name)[:16] for name in FILES)


def tokenizers_package() -> Any:
    """Raises InputError, which says how to install it."""
    try:
        import tokenizers
    except ImportError:
        raise InputError("captions need the package `tokenizers`, which is not installed: "
                         "pip install 'vq-prior-bench[text]'") from None
    return tokenizers
