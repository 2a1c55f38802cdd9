"""What a run's prior is told of each image: nothing, its class, or its caption. Torch-free: checks, keys, choices.

    given = resolve(ConditionConfig("class"), splits, "cifar10")
    given.options                             # {"num_labels": 10}: what the prior is made with
    given.key                                 # enters the prior's key, and so that of its samples
    sampled_images(10_000, 50_000, seed=0)    # held-out images whose conditions are sampled for

Without a condition `resolve` gives None, and every key is what it was. As tensors: bench.training.conditioned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.condition_config import DEFAULT_LENGTH, OPTIONS, ConditionConfig
from bench.data import encoder_files
from bench.data.base import Splits
from bench.data.labels import Captions, Labels, captions_of, labels_of
from bench.errors import InputError

ORDER_SEED = 31415   # so that the orders of samples are not those of training


@dataclass(frozen=True)
class Given:
    """A condition of a data set's images.

    options: fields of the prior's Options. identity: all that the conditions of the images depend on.
    labels or captions: of both splits. folder: of the text encoder.
    """

    name: str
    options: dict[str, int]
    identity: dict[str, Any]
    labels: Labels | None = None
    captions: Captions | None = None
    folder: Path | None = None

    @property
    def key(self) -> dict[str, Any]:
        """What enters the configuration that a prior's key is the hash of, under "condition"."""
        return {"name": self.name, **self.identity}

    @property
    def protocol(self) -> dict[str, Any]:
        """What enters a protocol's details, under "condition": numbers of conditional and other runs never compare.

        sampled: whose conditions samples have.
        """
        return {"name": self.name, "sampled": "held-out images", **self.identity}


def resolve(config: ConditionConfig, splits: Splits, dataset: str) -> Given | None:
    """The condition of a run; None for "none". Reads labels or captions, and of an encoder the configuration.

    Raises InputError where the data set has none, or the encoder cannot be used.
    """
    if config.name == "none":
        return None
    if config.name == "class":
        labels = labels_of(splits, dataset)
        return Given("class", {"num_labels": len(labels.names)}, {"labels": labels.digest}, labels=labels)
    captions = captions_of(splits, dataset)
    folder = encoder_files.default_folder() if config.encoder is None else Path(config.encoder).expanduser()
    sizes = encoder_files.check_folder(folder)
    length = config.length or DEFAULT_LENGTH
    if length > sizes.max_length:
        raise InputError(f"condition.length={length}: the encoder in {folder} has {sizes.max_length} positions.")
    identity = {"captions": captions.digest, "encoder": encoder_files.identity_of(folder), "length": length}
    return Given("text", {"text_width": sizes.width, "text_length": length}, identity, captions=captions, folder=folder)


def why_unsupported(config: ConditionConfig, prior: str, options: type, takes_condition: bool) -> str:
    """Why a prior cannot have this condition, before anything is built; "" where it can.

    options: its Options dataclass; takes_condition: whether its methods have the argument (priors.conditions).
    """
    if config.name == "none":
        return ""
    missing = sorted(set(OPTIONS[config.name]) - {field.name for field in dataclasses.fields(options)})
    if not takes_condition:
        return f"prior={prior} knows no condition: its training_loss, nll and sample take none"
    return f"prior={prior} knows no condition={config.name}: its Options lack {', '.join(missing)}" if missing else ""


def sampled_images(num_held_out: int, num: int, *, seed: int) -> np.ndarray:
    """(num,) int64: held-out images, whose conditions samples are drawn for.

    Every image once in an order of its own, then every image again in another: so the conditions are distributed as the
    held-out ones, to within one round. Of two numbers the smaller's are the beginning of the larger's, so they depend
    neither on shards nor on how many are drawn.
    """
    rounds = -(-num // num_held_out)
    orders = [np.random.default_rng([ORDER_SEED, seed, number]).permutation(num_held_out) for number in range(rounds)]
    return np.concatenate(orders)[:num] if orders else np.zeros(0, np.int64)


def shown(given: Given, images: Sequence[int] | np.ndarray) -> list[str]:
    """The conditions of held-out images in words, to stand under their pictures."""
    if given.labels is not None:
        return [given.labels.names[label] for label in given.labels.validation[np.asarray(images, dtype=np.int64)]]
    assert given.captions is not None
    return [given.captions.validation[int(i)] for i in images]
