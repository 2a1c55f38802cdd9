"""What an image is drawn for, a class or a text, and how it reaches the transformer: as positions before the tokens.

    labels = Condition(labels=torch.tensor([3, 3, NO_LABEL]))               # the last image unconditional
    caption = Condition(features=features, lengths=lengths)                 # (B, M, D) of a frozen encoder
    prior.sample(3, sampler=prior.Sampler(guidance=2.0), condition=labels, draws=Draws.seeded(0))

Prepending is what every prior can do alike, causal or not, with or without a cache (Esser et al. 2021, Section 3.2).
Where nothing is given stands a learned null, which training sees as often as `condition_dropout` says (Ho & Salimans
2022): the unconditional model that guidance needs.

Symbols: B images, M condition positions, D width of text features, C width of the network.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from priors.base import Draws, Unsupported
from priors.condition_options import ConditionSize
from priors.linear import Linear

NO_LABEL = -1
"""The label of an image without one."""


@dataclass(frozen=True)
class Condition:
    """Labels, or text features and their lengths; an image of NO_LABEL, or of length 0, has the learned null.

    labels: (B,) int64, NO_LABEL or in [0, num_labels).
    features: (B, M, D) float; lengths: (B,) int64 in 0..M, how many positions of each image count.
    Raises ValueError unless it is one or the other.
    """

    labels: Tensor | None = None
    features: Tensor | None = None
    lengths: Tensor | None = None

    def __post_init__(self):
        if (self.labels is None) == (self.features is None) or (self.features is None) != (self.lengths is None):
            raise ValueError("a condition is labels=(B,), or features=(B, M, D) together with lengths=(B,)")
        if self.labels is not None and (self.labels.ndim != 1 or self.labels.dtype != torch.int64):
            raise ValueError(f"labels are {self.labels.dtype} of shape {tuple(self.labels.shape)}: expected int64 (B,)")
        if self.features is not None and self.lengths is not None:
            _check_features(self.features, self.lengths)

    def __len__(self) -> int:
        given = self.labels if self.labels is not None else self.lengths
        assert given is not None
        return len(given)

    def __getitem__(self, images: Tensor | slice) -> Condition:
        """Some of the images: indices (A,) or a slice."""
        def chosen(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[images.to(value.device) if isinstance(images, Tensor) else images]

        return Condition(chosen(self.labels), chosen(self.features), chosen(self.lengths))

    def to(self, device: torch.device | str) -> Condition:
        return Condition(*(None if value is None else value.to(device)
                           for value in (self.labels, self.features, self.lengths)))

    def dropped(self, images: Tensor) -> Condition:
        """The null for the images (B,) bool that are true."""
        if self.labels is not None:
            return Condition(labels=self.labels.masked_fill(images, NO_LABEL))
        assert self.lengths is not None
        return Condition(features=self.features, lengths=self.lengths.masked_fill(images, 0))

    def null(self) -> Condition:
        """The null for every image."""
        given = self.labels if self.labels is not None else self.lengths
        assert given is not None
        return self.dropped(torch.ones_like(given, dtype=torch.bool))

    @classmethod
    def cat(cls, parts: Sequence[Condition]) -> Condition:
        """The images of all parts, one after another; parts of features have one M."""
        def joined(values: list[Tensor | None]) -> Tensor | None:
            return torch.cat([value for value in values if value is not None]) if values[0] is not None else None

        return cls(joined([part.labels for part in parts]), joined([part.features for part in parts]),
                   joined([part.lengths for part in parts]))


class ConditionPrefix(nn.Module):
    """A condition as M positions before the tokens: (B, M, C); M is 1 for labels.

    Text positions beyond an image's length hold the null as well, so that no attention mask is needed and a text of no
    length is no text (Nichol et al. 2022 pad with a learned embedding too).
    """

    def __init__(self, size: ConditionSize, width: int):
        super().__init__()
        self.size, self.num_positions = size, size.num_positions
        if size.num_labels is not None:
            self.embedding: nn.Module = nn.Embedding(size.num_labels, width)
        else:
            assert size.text_width is not None
            self.embedding = Linear(size.text_width, width)
            self.positions = nn.Parameter(torch.zeros(1, self.num_positions, width))
        self.null = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.normal_(self.null, std=0.02)   # as the embeddings it stands in for

    @property
    def num_parameters(self) -> int:
        """What the condition adds to the unconditional network."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, condition: Condition | None, batch: int) -> Tensor:
        """(B, M, C); the null everywhere without a condition."""
        if condition is None:
            x = self.null.expand(batch, self.num_positions, -1)
            return x if self.size.num_labels is not None else x + self.positions
        if len(condition) != batch:
            raise ValueError(f"a condition of {len(condition)} images for {batch} images: expected one for each")
        if condition.labels is not None:
            given = (condition.labels >= 0)[:, None, None]
            return torch.where(given, self.embedding(condition.labels.clamp(min=0)).unsqueeze(1), self.null)
        assert condition.features is not None and condition.lengths is not None
        x = self.embedding(condition.features.to(self.null.dtype))
        x = F.pad(x, (0, 0, 0, self.num_positions - x.shape[1]))   # (B, M, C)
        given = torch.arange(self.num_positions, device=x.device) < condition.lengths.unsqueeze(1)   # (B, M)
        return torch.where(given.unsqueeze(-1), x, self.null.to(x.dtype)) + self.positions


def check_condition(condition: Condition | None, size: ConditionSize | None, num: int, *, device) -> Condition | None:
    """The condition on the device, if it is one that a prior of this size takes for `num` images.

    Raises Unsupported where the prior was made for none or for another kind, ValueError for wrong values.
    """
    if condition is None:
        return None
    if size is None:
        raise Unsupported("this prior was made without a condition: make it with prior.num_labels=<classes>, or with "
                          "prior.text_width=<features> and prior.text_length=<positions>")
    if (condition.labels is None) != (size.num_labels is None):
        kinds = {True: "text features", False: "labels"}
        raise Unsupported(f"the condition is {kinds[condition.labels is None]}, the prior was made for "
                          f"{kinds[size.num_labels is None]}")
    if len(condition) != num:
        raise ValueError(f"a condition of {len(condition)} images for {num} images: expected one for each")
    if condition.labels is not None and size.num_labels is not None:
        _check_labels(condition.labels, size.num_labels)
    if condition.features is not None:
        shape = tuple(condition.features.shape)
        if shape[2] != size.text_width or shape[1] > size.num_positions:
            raise ValueError(f"text features are of shape {shape}: expected (B, up to {size.num_positions}, "
                             f"{size.text_width}); is this the encoder that the prior was made for?")
    return condition.to(device)


def drop_conditions(condition: Condition | None, probability: float, *, draws: Draws) -> Condition | None:
    """The null for each image with this probability; nothing is drawn without a condition or at probability 0."""
    if condition is None or probability == 0:
        return condition
    given = condition.labels if condition.labels is not None else condition.lengths
    assert given is not None
    return condition.dropped((draws.uniform(len(condition)) < probability).to(given.device))


def takes_condition(prior: object) -> bool:
    """Whether a prior (or its class) has the `condition` argument at all, and `conditions` where it is fitted.

    One that lacks it in a method that it has knows no condition.
    """
    arguments = dict.fromkeys(("training_loss", "nll", "sample", "calibrate"), "condition") | {"fit": "conditions"}
    return all(argument in inspect.signature(getattr(prior, name)).parameters
               for name, argument in arguments.items() if hasattr(prior, name))


def _check_labels(labels: Tensor, num_labels: int) -> None:
    if labels.numel() and (int(labels.min()) < NO_LABEL or int(labels.max()) >= num_labels):
        raise ValueError(f"labels lie in [{int(labels.min())}, {int(labels.max())}]: expected [0, {num_labels}), or "
                         f"{NO_LABEL} for an image without one")


def _check_features(features: Tensor, lengths: Tensor) -> None:
    if features.ndim != 3 or not features.is_floating_point():
        raise ValueError(f"text features are {features.dtype} of shape {tuple(features.shape)}: expected floating "
                         "point (B, M, D)")
    if lengths.shape != features.shape[:1] or lengths.dtype != torch.int64:
        raise ValueError(f"lengths are {lengths.dtype} of shape {tuple(lengths.shape)}: expected int64 "
                         f"({len(features)},), one for each image")
    if lengths.numel() and (int(lengths.min()) < 0 or int(lengths.max()) > features.shape[1]):
        raise ValueError(f"lengths lie in [{int(lengths.min())}, {int(lengths.max())}]: expected 0 to "
                         f"{features.shape[1]}, the number of positions")
