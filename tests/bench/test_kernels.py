"""Kernels are chosen by time, once a machine, told, and equal to rounding; a training goes on with its own."""

import json

import pytest
import torch

from bench import kernels, provenance
from bench.errors import InputError
from priors.linear import HAS_ONEDNN, KERNELS, kernel_in_use, linear, use_kernel

pytestmark = pytest.mark.skipif(not HAS_ONEDNN, reason="this torch has no oneDNN: there is no choice")


@pytest.fixture(autouse=True)
def own(monkeypatch, tmp_path):
    """A cache of one's own, nothing chosen by hand, and afterwards the kernels from before."""
    before = kernel_in_use()
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(tmp_path))
    monkeypatch.delenv(kernels.VARIABLE, raising=False)
    monkeypatch.setattr(provenance, "_kernels", {})
    yield tmp_path
    use_kernel(before)


@pytest.mark.parametrize(("seconds", "expected"), [
    ({"onednn": 1.0, "torch": 0.8}, "torch"), ({"onednn": 1.0, "torch": 0.97}, "onednn"),
    ({"onednn": 0.5, "torch": 0.8}, "onednn")])
def test_the_clearly_faster_one_is_taken_kept_and_told(own, monkeypatch, seconds, expected):
    monkeypatch.setattr(kernels, "timed", lambda width: seconds)
    assert kernels.settle(128) == kernel_in_use() == expected
    assert provenance.provenance()["kernels"] == {"linear": expected}
    kept, = (own / "kernels").glob("*.json")
    assert json.loads(kept.read_text()) == {"kernel": expected, "seconds": seconds}
    kernels._fastest.cache_clear()   # another process
    monkeypatch.setattr(kernels, "timed", lambda width: pytest.fail("timed again"))
    assert kernels.settle(128) == expected


def test_another_width_is_timed_for_itself(own, monkeypatch):
    asked = []
    monkeypatch.setattr(kernels, "timed", lambda width: asked.append(width) or {"onednn": 1.0, "torch": 2.0})
    for width in (64, 128, 64):
        kernels.settle(width)
    assert asked == [64, 128]


def test_timing_takes_both_in_turn_and_leaves_the_choice_as_it_was():
    use_kernel("torch")
    seconds = kernels.timed(64)
    assert set(seconds) == set(KERNELS) and all(value > 0 for value in seconds.values())
    assert kernel_in_use() == "torch"


def test_timing_leaves_what_is_drawn_next_as_it_was():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    kernels.timed(64)
    assert torch.equal(torch.rand(3), expected)


def test_a_choice_by_hand_is_taken_without_timing_and_a_wrong_one_is_named(monkeypatch):
    monkeypatch.setattr(kernels, "timed", lambda width: pytest.fail("timed"))
    monkeypatch.setenv(kernels.VARIABLE, "torch")
    assert kernels.settle(128) == "torch"
    monkeypatch.setenv(kernels.VARIABLE, "mkl")
    with pytest.raises(InputError, match="VQ_PRIOR_BENCH_LINEAR=mkl: expected onednn or torch"):
        kernels.settle(128)


def test_a_cache_that_cannot_be_written_to_stops_nothing(own, monkeypatch):
    (own / "kernels").write_text("in the way")
    monkeypatch.setattr(kernels, "timed", lambda width: {"onednn": 1.0, "torch": 0.5})
    assert kernels.settle(96) == "torch"


def test_both_compute_the_same_to_rounding():
    x, weight, bias = torch.randn(64, 96, requires_grad=True), torch.randn(128, 96), torch.randn(128)
    found = {}
    for name in KERNELS:
        use_kernel(name)
        y = linear(x, weight, bias)
        found[name] = y.detach(), torch.autograd.grad(y.square().sum(), x)[0]
    for ours, theirs in zip(*found.values(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)
