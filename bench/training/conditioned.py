"""The condition of a run as tensors: of images by their rows, in training, likelihood and sampling.

    encode_captions(given, out)                           # text alone, once: an artefact of its own
    conditions = conditions_of(given, out)                # of both splits
    conditions.of(conditions.rows("validation", indices))   # a priors.conditions.Condition
    ConditionedTask(prior, config, conditions)            # trains on batches of tokens with their rows

A row numbers the images of both splits: the training images first, then the held-out ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bench.config.models import PriorTrainingConfig
from bench.data.clip_encoder import ClipEncoder
from bench.data.conditions import Given
from bench.data.encoder_files import CLIPS, check_folder
from bench.data.text_encoder import BertEncoder, TextEncoder
from bench.training.tasks import PriorTask
from priors.conditions import Condition

FEATURES, ENDS, TEXT_OF_ROW = "features.npy", "ends.npy", "text_of_row.npy"
TEXTS_A_BLOCK = 1024
ENCODERS: dict[str, type[BertEncoder] | type[ClipEncoder]] = {"bert": BertEncoder, **dict.fromkeys(CLIPS, ClipEncoder)}
"""By the model_type of a folder's configuration."""


class Conditions(Protocol):
    """The conditions of a data set's images."""

    @property
    def num_train(self) -> int: ...

    def of(self, rows: np.ndarray | Tensor) -> Condition:
        """(B,) rows -> B conditions, on the CPU."""

    def rows(self, split: str, indices: np.ndarray) -> np.ndarray:
        """(B,) indices within "train" or "validation" -> rows."""


@dataclass(frozen=True)
class _Rows:
    num_train: int

    def rows(self, split: str, indices: np.ndarray) -> np.ndarray:
        return np.asarray(indices, dtype=np.int64) + {"train": 0, "validation": self.num_train}[split]


@dataclass(frozen=True)
class LabelConditions(_Rows):
    """labels: (n,) int64, of all rows."""

    labels: Tensor

    def of(self, rows: np.ndarray | Tensor) -> Condition:
        return Condition(labels=self.labels[torch.as_tensor(rows).cpu()])


@dataclass(frozen=True)
class TextConditions(_Rows):
    """Features of the different captions one after another, and where each ends.

    features: (positions of all texts, D) float16, a memory map; ends: (texts + 1,); text_of_row: (n,).
    """

    length: int
    features: np.ndarray
    ends: np.ndarray
    text_of_row: np.ndarray

    def of(self, rows: np.ndarray | Tensor) -> Condition:
        texts = self.text_of_row[torch.as_tensor(rows).cpu().numpy()]
        features = np.zeros((len(texts), self.length, self.features.shape[1]), np.float32)
        lengths = (self.ends[texts + 1] - self.ends[texts]).astype(np.int64)
        for row, text, length in zip(features, texts, lengths, strict=True):
            row[:length] = self.features[self.ends[text] : self.ends[text] + length]
        return Condition(features=torch.from_numpy(features), lengths=torch.from_numpy(lengths))

    def means(self, rows: np.ndarray) -> np.ndarray:
        """(B,) rows -> (B, D) float32, the mean of a text's features over its positions; 0 for an empty text."""
        texts, places = np.unique(self.text_of_row[rows], return_inverse=True)
        found = np.zeros((len(texts), self.features.shape[1]), np.float32)
        for row, text in zip(found, texts, strict=True):
            if len(own := self.features[self.ends[text] : self.ends[text + 1]]):
                row[:] = own.mean(0, dtype=np.float32)
        return found[places]


def conditions_of(given: Given, folder: Path | None) -> LabelConditions | TextConditions:
    """folder: what `encode_captions` wrote; needed for text only."""
    if given.labels is not None:
        both = np.concatenate([given.labels.train, given.labels.validation])
        return LabelConditions(len(given.labels.train), torch.from_numpy(both))
    assert given.captions is not None and folder is not None
    return TextConditions(len(given.captions.train), given.options["text_length"],
                          np.load(folder / FEATURES, mmap_mode="r"), np.load(folder / ENDS),
                          np.load(folder / TEXT_OF_ROW))


def encode_captions(given: Given, out: Path, *, device: str = "cpu",
                    progress: Callable[[int], None] = lambda texts: None) -> None:
    """Features of every different caption of both splits, float16, without the positions beyond its end.

    Raise bench.stages.condition's version when what comes out changes.
    """
    assert given.captions is not None and given.folder is not None
    captions = [*given.captions.train, *given.captions.validation]
    texts = sorted(set(captions))
    number = {text: i for i, text in enumerate(texts)}
    encoder = encoder_of(given.folder, device)
    lengths, parts = [np.zeros(0, np.int64)], [np.zeros((0, encoder.config.width), np.float16)]
    for start in range(0, len(texts), TEXTS_A_BLOCK):
        features, found = encoder(texts[start : start + TEXTS_A_BLOCK], length=given.options["text_length"])
        seen = torch.arange(features.shape[1]) < found.unsqueeze(1)
        parts.append(features[seen].half().numpy())
        lengths.append(found.numpy())
        progress(len(found))
    np.save(out / FEATURES, np.concatenate(parts))
    np.save(out / ENDS, np.concatenate([[0], np.cumsum(np.concatenate(lengths))]))
    np.save(out / TEXT_OF_ROW, np.array([number[caption] for caption in captions], dtype=np.int64))


def encoder_of(folder: Path, device: str = "cpu") -> TextEncoder:
    """The text encoder in a folder.  Raises InputError where there is none that can be read."""
    return ENCODERS[check_folder(folder).kind].load(folder, device)


def with_rows(tokens: Tensor, rows: np.ndarray) -> Tensor:
    """(B, N), (B,) -> (B, N + 1): how the training loop, which moves one tensor about, carries rows along."""
    return torch.cat([tokens, torch.from_numpy(rows).unsqueeze(1).to(tokens)], 1)


class ConditionedTask(PriorTask):
    """A PriorTask whose batches are `with_rows`, (B, N + 1): every image is trained and judged under its condition."""

    def __init__(self, prior: Any, config: PriorTrainingConfig, conditions: Conditions):
        super().__init__(prior, config)
        self.conditions = conditions

    def _parts(self, batch: Tensor) -> tuple[Tensor, dict[str, Any]]:
        return batch[:, :-1], {"condition": self.conditions.of(batch[:, -1]).to(batch.device)}
