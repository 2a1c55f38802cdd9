"""A condition before the tokens: the network with it is the textbook's, without it nothing has changed."""

import pytest
import torch
from torch import nn

from priors.absorbing import AbsorbingDiffusion
from priors.any_order import AnyOrder
from priors.autoregressive import Autoregressive
from priors.base import Draws, Unsupported
from priors.condition_options import ConditionSize
from priors.conditions import NO_LABEL, Condition, drop_conditions, takes_condition
from priors.options import (
    AbsorbingOptions,
    AbsorbingSampler,
    AnyOrderOptions,
    AutoregressiveOptions,
    BackboneOptions,
    UnigramOptions,
)
from priors.reference import textbook_logits
from priors.transformer import Transformer
from priors.transition_options import UniformOptions, UniformSampler, VQDiffusionOptions
from priors.uniform import UniformDiffusion
from priors.unigram import Unigram
from priors.vq_diffusion import VQDiffusion

CLOSE = dict(rtol=1e-5, atol=1e-5)
SIZES = dict(num_tokens=12, vocabulary=7, num_classes=6, width=16, num_layers=3, num_heads=2)
TOKENS = torch.arange(5 * 12).view(5, 12) % 6
LABELS = Condition(labels=torch.tensor([0, 3, 1, NO_LABEL, 2]))
TEXTS = Condition(features=torch.randn(5, 4, 8, generator=torch.Generator().manual_seed(0)),
                  lengths=torch.tensor([4, 1, 0, 2, 3]))
KINDS = {"labels": (ConditionSize(num_labels=4), LABELS), "text": (ConditionSize(text_width=8, text_length=5), TEXTS)}
every_kind = pytest.mark.parametrize("kind", KINDS)
LEARNED = [(AbsorbingDiffusion, AbsorbingOptions), (AnyOrder, AnyOrderOptions), (Autoregressive, AutoregressiveOptions),
           (VQDiffusion, VQDiffusionOptions), (UniformDiffusion, UniformOptions)]
every_learned_prior = pytest.mark.parametrize(("cls", "options"), LEARNED, ids=lambda value: value.__name__)


def network(kind, causal=False, **more):
    torch.manual_seed(0)
    net = Transformer(**SIZES, causal=causal, condition=KINDS[kind][0], **more)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net.eval().requires_grad_(False)


def prior_of(cls, options, **more):
    torch.manual_seed(0)
    return cls(grid=(2, 3), codebook_size=5, options=options(width=16, num_layers=2, num_heads=2, **more))


@every_kind
@pytest.mark.parametrize("causal", [False, True])
def test_the_conditional_network_is_the_textbook_network(kind, causal):
    net, condition = network(kind, causal), KINDS[kind][1]
    torch.testing.assert_close(net(TOKENS, condition=condition), textbook_logits(net, TOKENS, condition), **CLOSE)


@every_kind
@pytest.mark.parametrize("causal", [False, True])
def test_logits_at_some_positions_are_those_of_the_whole(kind, causal):
    net, condition, at = network(kind, causal), KINDS[kind][1], torch.tensor([[0, 11], [3, 3], [1, 2], [7, 0], [5, 9]])
    expected = net(TOKENS, condition=condition).gather(1, at.unsqueeze(-1).expand(-1, -1, 6))
    torch.testing.assert_close(net(TOKENS, condition=condition, at=at), expected, **CLOSE)


@every_kind
@pytest.mark.parametrize("timed", [False, True])
def test_logits_where_a_mask_is_true_are_those_of_the_whole(kind, timed):
    net, condition, where = network(kind, time_conditioned=timed), KINDS[kind][1], TOKENS % 3 == 0
    t = torch.arange(5) if timed else None
    expected = net(TOKENS, t, condition=condition)[where]
    torch.testing.assert_close(net(TOKENS, t, condition=condition, where=where), expected, **CLOSE)


@every_kind
@pytest.mark.parametrize("prefix", [0, 4])
def test_the_cache_gives_the_logits_of_the_whole_sequence(kind, prefix):
    net, condition = network(kind, causal=True), KINDS[kind][1]
    cache = net.new_cache(5)
    logits = [net.extend(TOKENS[:, :prefix] if prefix else None, 0, cache, condition=condition)]
    logits += [net.extend(TOKENS[:, i : i + 1], i + 1, cache) for i in range(prefix, 11)]
    torch.testing.assert_close(torch.stack(logits, 1), net(TOKENS, condition=condition)[:, prefix:], **CLOSE)


@every_kind
def test_an_image_without_a_condition_has_the_learned_null(kind):
    net, condition = network(kind), KINDS[kind][1]
    without = 3 if kind == "labels" else 2
    torch.testing.assert_close(net(TOKENS, condition=condition)[without], net(TOKENS)[without], **CLOSE)
    torch.testing.assert_close(net(TOKENS, condition=condition.null()), net(TOKENS), **CLOSE)
    assert not torch.allclose(net(TOKENS, condition=condition)[0], net(TOKENS)[0], atol=1e-2)


@every_kind
def test_every_image_has_its_own_condition(kind):
    net, condition = network(kind), KINDS[kind][1]
    alone = torch.cat([net(TOKENS[i : i + 1], condition=condition[torch.tensor([i])]) for i in range(5)])
    torch.testing.assert_close(net(TOKENS, condition=condition), alone, **CLOSE)


def test_features_beyond_an_images_length_are_not_read():
    net, features = network("text"), TEXTS.features.clone()
    features[1, 1:] = 99.0
    other = Condition(features=features, lengths=TEXTS.lengths)
    assert torch.equal(net(TOKENS, condition=other), net(TOKENS, condition=TEXTS))


@every_learned_prior
@pytest.mark.parametrize("more", [dict(num_labels=4), dict(text_width=8, text_length=5)], ids=["labels", "text"])
def test_a_condition_adds_a_countable_prefix_and_changes_no_other_weight(cls, options, more):
    plain, conditional = prior_of(cls, options), prior_of(cls, options, **more)
    ours, theirs = plain.state_dict(), conditional.state_dict()
    assert set(theirs) - set(ours) == {f"net.prefix.{name}" for name in conditional.net.prefix.state_dict()}
    assert all(torch.equal(ours[name], theirs[name]) or ours[name].isnan().all() for name in ours)
    added = sum(p.numel() for p in conditional.parameters()) - sum(p.numel() for p in plain.parameters())
    assert added == conditional.net.prefix.num_parameters == (80 if "num_labels" in more else 8 * 16 + 16 + 5 * 16 + 16)


@every_learned_prior
def test_training_learns_the_condition_and_the_null(cls, options):
    prior = prior_of(cls, options, num_labels=4, condition_dropout=0.5).train()
    tokens, labels = TOKENS[:, :6] % 5, Condition(labels=torch.tensor([0, 3, 1, 1, 2]))
    prior.training_loss(tokens.repeat(4, 1), condition=Condition.cat([labels] * 4), draws=Draws.seeded(0)).backward()
    gradient = prior.net.prefix.embedding.weight.grad
    assert prior.net.prefix.null.grad.abs().sum() > 0 and (gradient.abs().sum(1) > 0).all()


def test_a_conditional_prior_learns_which_label_means_what():
    prior = prior_of(Autoregressive, AutoregressiveOptions, num_labels=2).train()
    optimiser, draws = torch.optim.Adam(prior.parameters(), lr=0.02), Draws.seeded(0)
    labels = torch.arange(32) % 2
    tokens = labels.unsqueeze(1).expand(-1, 6).contiguous()
    for _ in range(80):
        optimiser.zero_grad()
        prior.training_loss(tokens, condition=Condition(labels=labels), draws=draws).backward()
        optimiser.step()
    nats = [prior.eval().nll(tokens, condition=given, draws=draws).nats.mean() for given in
            (Condition(labels=labels), Condition(labels=1 - labels), None)]
    assert nats[0] < 0.2 and nats[1] > 5 and 0.5 < nats[2] < 1.5   # the null has to guess one bit, 0.69 nats


def test_conditions_are_hidden_as_often_as_asked_and_only_where_drawn():
    condition = Condition(labels=torch.arange(10_000) % 4)
    hidden = drop_conditions(condition, 0.1, draws=Draws.seeded(0)).labels == NO_LABEL
    assert hidden.double().mean() == pytest.approx(0.1, abs=0.01)
    assert drop_conditions(condition, 0.0, draws=None) is condition and drop_conditions(None, 0.1, draws=None) is None


@every_learned_prior
def test_evaluation_hides_nothing(cls, options):
    prior = prior_of(cls, options, num_labels=4, condition_dropout=0.9).eval()
    always = prior_of(cls, options, num_labels=4, condition_dropout=0.0).eval()
    loss = [p.training_loss(TOKENS[:, :6] % 5, condition=LABELS, draws=Draws.seeded(0)) for p in (prior, always)]
    assert torch.equal(*loss)


@every_learned_prior
def test_a_condition_for_a_prior_made_without_one_is_unsupported(cls, options):
    prior = prior_of(cls, options).eval()
    for ask in (lambda c: prior.nll(TOKENS[:, :6] % 5, condition=c, draws=None),
                lambda c: prior.training_loss(TOKENS[:, :6] % 5, condition=c, draws=None),
                lambda c: prior.sample(5, sampler=prior.Sampler(), condition=c, draws=None)):
        with pytest.raises(Unsupported, match="made without a condition"):
            ask(LABELS)


WRONG = [
    (lambda: Condition(labels=torch.tensor([0, 4, 1, 1, 2])), r"labels lie in \[0, 4\]: expected \[0, 4\)"),
    (lambda: Condition(labels=torch.tensor([0, -2, 1, 1, 2])), r"labels lie in \[-2, 2\]"),
    (lambda: Condition(labels=torch.tensor([0, 1])), "a condition of 2 images for 5 images"),
    (lambda: Condition(labels=torch.tensor([0.5] * 5)), r"expected int64 \(B,\)"),
    (lambda: TEXTS, "the condition is text features, the prior was made for labels"),
    (lambda: Condition(features=TEXTS.features, lengths=torch.tensor([4, 1, 0, 2, 5])), r"lengths lie in \[0, 5\]"),
    (lambda: Condition(features=TEXTS.features), "together with lengths"),
    (lambda: Condition(), "a condition is labels="),
]


@pytest.mark.parametrize(("make", "message"), WRONG, ids=[message[:30] for _, message in WRONG])
def test_a_wrong_condition_is_an_error(make, message):
    prior = prior_of(AbsorbingDiffusion, AbsorbingOptions, num_labels=4)
    with pytest.raises(ValueError, match=message):
        prior.sample(5, sampler=AbsorbingSampler(), condition=make(), draws=None)


def test_features_of_another_width_are_an_error():
    prior = prior_of(AbsorbingDiffusion, AbsorbingOptions, text_width=9, text_length=5)
    with pytest.raises(ValueError, match=r"shape \(5, 4, 8\): expected \(B, up to 5, 9\)"):
        prior.nll(TOKENS[:, :6] % 5, condition=TEXTS, draws=None)


@pytest.mark.parametrize(("options", "values", "message"), [
    (BackboneOptions, dict(num_labels=0), "num_labels=0"),
    (BackboneOptions, dict(text_width=8), "needs both"),
    (BackboneOptions, dict(num_labels=2, text_width=8, text_length=3), "expected labels or text"),
    (BackboneOptions, dict(condition_dropout=0.1), "no condition to hide"),
    (BackboneOptions, dict(num_labels=2, condition_dropout=1.0), "condition_dropout=1.0"),
    (UnigramOptions, dict(num_labels=2.0), "num_labels=2.0"),
    (AbsorbingSampler, dict(guidance=-1), "guidance=-1"),
    (AbsorbingSampler, dict(guidance_schedule="linear"), "guidance=1 is the conditional model"),
    (AbsorbingSampler, dict(guidance=2, guidance_schedule="cosin"), "did you mean 'cosine'"),
    (UniformSampler, dict(guidance_of="posterior"), "one model alone"),
])
def test_wrong_options_are_errors(options, values, message):
    with pytest.raises(ValueError, match=message):
        options(**values)


def test_a_prior_that_leaves_the_argument_out_takes_no_condition():
    class Plain:
        def training_loss(self, tokens, *, draws): ...
        def nll(self, tokens, *, draws, budget=None): ...
        def sample(self, num, *, sampler, known=None, draws): ...

    assert takes_condition(AbsorbingDiffusion) and takes_condition(Unigram) and not takes_condition(Plain)


def test_neither_does_one_that_is_not_told_it_where_it_is_fitted_or_calibrated():
    class Fitted(Unigram):
        def fit(self, batches): ...

    class Calibrated(AbsorbingDiffusion):
        def calibrate(self, tokens, *, draws): ...

    assert not takes_condition(Fitted) and not takes_condition(Calibrated)
