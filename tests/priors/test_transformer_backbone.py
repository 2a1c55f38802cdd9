"""The one backbone: its fast paths are the plain network, causality, time, cache, dropout."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from priors.base import Draws
from priors.linear import FEWEST_ROWS, Linear
from priors.reference import textbook_logits
from priors.transformer import Transformer, seeded_dropout

CLOSE = dict(rtol=1e-5, atol=1e-5)


def network(causal=False, time_conditioned=False, dropout=0.0, num_layers=3):
    torch.manual_seed(0)
    net = Transformer(
        num_tokens=12, vocabulary=7, num_classes=6, width=16, num_layers=num_layers, num_heads=2, causal=causal,
        time_conditioned=time_conditioned, dropout=dropout,
    )
    for parameter in net.parameters():   # away from the zeros that some start with
        nn.init.normal_(parameter, std=0.3)
    return net.eval()


TOKENS = torch.arange(5 * 12).view(5, 12) % 6


@pytest.mark.parametrize("causal", [False, True])
def test_the_network_is_the_textbook_network(causal):
    net = network(causal)
    torch.testing.assert_close(net(TOKENS), textbook_logits(net, TOKENS), **CLOSE)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_logits_at_some_positions_are_those_of_the_whole(causal, num_layers):
    net, at = network(causal, num_layers=num_layers), torch.tensor([[0, 3], [11, 11], [5, 2], [7, 8], [1, 0]])
    expected = net(TOKENS).gather(1, at.unsqueeze(-1).expand(-1, -1, 6))
    torch.testing.assert_close(net(TOKENS, at=at), expected, **CLOSE)


@pytest.mark.parametrize("time_conditioned", [False, True])
def test_logits_where_a_mask_is_true_are_those_of_the_whole(time_conditioned):
    net, where = network(time_conditioned=time_conditioned), (TOKENS + torch.arange(5).view(5, 1)) % 3 == 0
    t = torch.arange(5) if time_conditioned else None
    torch.testing.assert_close(net(TOKENS, t, where=where), net(TOKENS, t)[where], **CLOSE)


def test_logits_at_some_positions_know_the_time():
    net, t, at = network(time_conditioned=True), torch.arange(5), torch.tensor([[4]] * 5)
    torch.testing.assert_close(net(TOKENS, t, at=at), net(TOKENS, t)[:, 4:5], **CLOSE)


def test_an_empty_mask_gives_no_logits():
    assert network()(TOKENS, where=torch.zeros(5, 12, dtype=torch.bool)).shape == (0, 6)


def test_a_causal_network_does_not_see_its_own_or_later_tokens():
    net, changed = network(causal=True), TOKENS.clone()
    changed[:, 4:] = 5 - changed[:, 4:]
    difference = (net(changed) - net(TOKENS)).abs().amax((0, 2))
    assert (difference[:5] < 1e-6).all() and (difference[5:] > 1e-4).all()


def test_a_time_conditioned_network_starts_as_the_plain_one():
    torch.manual_seed(0)
    sizes = dict(num_tokens=12, vocabulary=7, num_classes=6, width=16, num_layers=2, num_heads=2)
    net = Transformer(**sizes, time_conditioned=True)
    torch.testing.assert_close(net(TOKENS, torch.arange(5)), textbook_logits(net, TOKENS), **CLOSE)


def test_every_image_has_its_own_time():
    net, t = network(time_conditioned=True), torch.tensor([1, 2, 3, 50, 99])
    alone = torch.cat([net(TOKENS[i : i + 1], t[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(net(TOKENS, t), alone, **CLOSE)


def test_time_where_none_is_expected_is_an_error():
    with pytest.raises(ValueError, match="time_conditioned"):
        network()(TOKENS, torch.arange(5))


@pytest.mark.parametrize("prefix", [0, 1, 4])
def test_the_cache_gives_the_logits_of_the_whole_sequence(prefix):
    net = network(causal=True)
    expected, cache = net(TOKENS), net.new_cache(5)
    with torch.no_grad():
        logits = [net.extend(TOKENS[:, :prefix] if prefix else None, 0, cache)]
        logits += [net.extend(TOKENS[:, i : i + 1], i + 1, cache) for i in range(prefix, 11)]
    torch.testing.assert_close(torch.stack(logits, 1), expected[:, prefix:], **CLOSE)


def test_several_tokens_may_follow_a_filled_cache():
    net = network(causal=True)
    cache = net.new_cache(5)
    with torch.no_grad():
        net.extend(TOKENS[:, :3], 0, cache)
        logits = net.extend(TOKENS[:, 3:7], 4, cache)
    torch.testing.assert_close(logits, net(TOKENS)[:, 7], **CLOSE)


def test_dropout_follows_from_the_draws_and_leaves_the_global_state_alone():
    net = network(dropout=0.5).train()
    state = torch.get_rng_state()
    outputs = []
    for seed in (1, 1, 2):
        with seeded_dropout(net, Draws.seeded(seed), 5):
            outputs.append(net(TOKENS))
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("rows", [1, FEWEST_ROWS, 100])
@pytest.mark.parametrize("bias", [True, False])
def test_the_linear_layer_and_its_gradients_are_torchs(rows, bias):
    torch.manual_seed(0)
    layer, x = Linear(24, 40, bias=bias), torch.randn(2, rows, 24, requires_grad=True)
    expected = F.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), expected, **CLOSE)
    inputs = [x, *layer.parameters()]
    ours = torch.autograd.grad(layer(x).square().sum(), inputs)
    theirs = torch.autograd.grad(expected.square().sum(), inputs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_linear_layer_keeps_float64():
    layer, x = Linear(24, 40).double(), torch.randn(100, 24, dtype=torch.float64)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


def test_the_linear_layer_obeys_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert Linear(24, 40)(torch.randn(100, 24)).dtype == torch.bfloat16
