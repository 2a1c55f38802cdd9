"""The folder of a text encoder, as transformers keeps one: looked at quickly, without torch, before anything is built.

    check_folder(default_folder()).width      # 384; raises InputError for a folder that is of no encoder

A BERT, the text half of a CLIP, or a whole CLIP.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.assets.cache import asset_folder
from bench.assets.transformers_models import check_installed
from bench.errors import InputError
from bench.provenance import sha256_of

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
BPE = ("vocab.json", "merges.txt")
"""The tokenizer of a CLIP, where there is no tokenizer.json."""
BESIDE_BPE = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""What transformers reads with these, where they are there."""
EXPECTED = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
"""What the configuration of a BERT may say; position_embedding_type need not be said."""
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "layer_norm_eps")
WHOLE_CLIP, CLIPS = "clip", ("clip", "clip_text_model")
CLIP_DEFAULTS = dict(zip(SIZES, (512, 12, 8, 77, 1e-5), strict=True))
"""Of transformers' CLIPTextConfig: a configuration need not say what is so."""
DEFAULT = "Leave condition.encoder out for the default one."


@dataclass(frozen=True)
class EncoderConfig:
    """width: features a position; max_length: positions, with those of the start and the end; kind: its model_type."""

    width: int
    num_layers: int
    num_heads: int
    max_length: int
    epsilon: float
    kind: str = "bert"


def default_folder() -> Path:
    """The pinned sentence encoder, fetched if need be."""
    return asset_folder("text-encoder")


def check_folder(folder: Path, *, way_out: str = DEFAULT) -> EncoderConfig:
    """The sizes of an encoder.

    Raises InputError if a file is missing, the configuration is of another kind of network, or a package that reads it
    is not installed. way_out: what the user can do instead.
    """
    _require(folder, (WEIGHTS, CONFIG), way_out)
    try:
        config = json.loads((folder / CONFIG).read_text())
        kind = config.get("model_type")
        sizes = _clip_sizes(config) if kind in CLIPS else _bert_sizes(config, folder)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{folder / CONFIG} is not the configuration of a BERT or CLIP encoder: "
                         f"{type(error).__name__}: {error}.") from None
    if kind in CLIPS:
        _require(folder, () if tokenizer_files(folder) else (f"{TOKENIZER} (or {' and '.join(BPE)})",), way_out)
        check_installed(f"the CLIP in {folder}")
    else:
        _require(folder, (TOKENIZER,), way_out)
    tokenizers_package()
    width, num_layers, num_heads, max_length, epsilon = sizes
    return EncoderConfig(width, num_layers, num_heads, max_length, epsilon, kind)


def check_clip(folder: Path) -> EncoderConfig:
    """The same for a whole CLIP, its image half included.  Raises InputError for anything less."""
    way_out = "Leave protocol.clip out for no measure by CLIP."
    found = check_folder(folder, way_out=way_out)
    if found.kind != WHOLE_CLIP:
        raise InputError(f"{folder / CONFIG} says model_type={found.kind!r}: expected {WHOLE_CLIP!r}, a whole CLIP, "
                         f"which embeds images and texts. {way_out}")
    return found


def tokenizer_files(folder: Path) -> tuple[str, ...]:
    """The files that its tokenizer is read from; () where there are none."""
    if (folder / TOKENIZER).is_file():
        return (TOKENIZER,)
    if all((folder / name).is_file() for name in BPE):
        return (*BPE, *(name for name in BESIDE_BPE if (folder / name).is_file()))
    return ()


def identity_of(folder: Path) -> str:
    """sha256 of what the features depend on: the weights, the tokenizer and the configuration."""
    paths = tuple(folder / name for name in (WEIGHTS, CONFIG, *tokenizer_files(folder)))
    return _hashes(paths, tuple(path.stat().st_mtime_ns for path in paths))


@functools.lru_cache(maxsize=16)
def _hashes(paths: tuple[Path, ...], stamps: tuple[int, ...]) -> str:
    return " ".join(sha256_of(path)[:16] for path in paths)


def tokenizers_package() -> Any:
    """Raises InputError, which says how to install it."""
    try:
        import tokenizers
    except ImportError:
        raise InputError("captions need the package `tokenizers`, which is not installed: "
                         "pip install 'vq-prior-bench[text]'") from None
    return tokenizers


def _require(folder: Path, names: tuple[str, ...], way_out: str) -> None:
    if absent := [name for name in names if not (folder / name).is_file()]:
        raise InputError(f"{folder} lacks {' and '.join(absent)}: expected a folder as transformers saves one, with "
                         f"{WEIGHTS}, {CONFIG}, {TOKENIZER}. {way_out}")


def _bert_sizes(config: dict[str, Any], folder: Path) -> list[Any]:
    wrong = [f"{key}={config.get(key)!r}" for key, value in EXPECTED.items()
             if config.get(key, value if key == "position_embedding_type" else None) != value]
    if wrong:
        raise InputError(f"{folder / CONFIG} says {', '.join(wrong)}: this reads BERT encoders alone, "
                         f"{', '.join(f'{key}={value!r}' for key, value in EXPECTED.items())}, and those of CLIP.")
    return [config[key] for key in SIZES]


def _clip_sizes(config: dict[str, Any]) -> list[Any]:
    """Of the text half; older files say it twice, and the second counts."""
    text = config if config["model_type"] != WHOLE_CLIP else {
        **(config.get("text_config") or {}), **(config.get("text_config_dict") or {})}
    return [text.get(key, CLIP_DEFAULTS[key]) for key in SIZES]
