"""The speed metric: what is called, how often and in what order. Nothing here looks at a time."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from bench.config import MetricsConfig, ProtocolConfig, SpeedConfig
from bench.metrics.base import Evidence
from bench.metrics.speed import Speed, take_turns, threads
from priors.base import Sample, Unsupported


@dataclass(frozen=True)
class CachedSampler:
    cache: bool = True


@dataclass(frozen=True)
class PlainSampler:
    steps: int = 8


class Counting:
    """Three evaluations an image, and a note of every call."""

    def __init__(self):
        self.calls = []

    def sample(self, num, *, sampler, known=None, draws):
        self.calls.append((num, sampler))
        return Sample(torch.zeros(num, 4, dtype=torch.int64), torch.full((num,), 3), torch.arange(num))


class Refusing:
    def sample(self, num, **options):
        raise Unsupported("cannot sample")


class Blank:
    def decode(self, tokens):
        return torch.zeros(len(tokens), 3, 4, 4, dtype=torch.uint8)


def measure(prior, sampler, *, tokenizer=None, **speed):
    evidence = Evidence(role="prior", protocol=ProtocolConfig(), protocol_id="p", settings=MetricsConfig(),
                        speed=SpeedConfig(throughput_batch=5, **speed), images=lambda side: pytest.fail("no images"),
                        features=lambda side: pytest.fail("needs no features"),
                        validation_tokens=lambda: pytest.fail("needs no tokens"), workspace=Path(), caches=Path(),
                        prior=prior, tokenizer=tokenizer, sampler=sampler)
    return {m.metric: m for m in Speed()(evidence)}


def test_every_method_takes_its_turn_in_every_round_and_the_order_alternates():
    called = []
    laps = take_turns({name: lambda name=name: called.append(name) for name in "ab"}, rounds=2, warmup=1, device="cpu")
    assert called == ["a", "b", "a", "b", "b", "a"]
    assert len(laps["a"].wall) == len(laps["b"].cpu) == 2


def test_a_cache_is_timed_on_and_off():
    prior = Counting()
    result = measure(prior, CachedSampler(), rounds=2, warmup=1)
    assert prior.calls.count((1, CachedSampler(cache=False))) == 3
    assert "seconds_per_image_uncached" in result


def test_a_sampler_without_a_cache_is_sampled_no_more_than_needed():
    prior = Counting()
    result = measure(prior, PlainSampler(), rounds=2, warmup=1)
    assert sorted(num for num, _ in prior.calls) == [1, 1, 1, 5, 5, 5]
    assert "seconds_per_image_uncached" not in result


def test_costs_are_means_over_the_images_of_one_batch():
    result = measure(Counting(), PlainSampler())
    assert (result["network_evaluations"].value, result["token_forwards"].value) == (3, 2)
    assert result["token_forwards"].n == 5


def test_without_a_tokenizer_decoded_columns_are_holes_with_their_reason():
    result = measure(Counting(), PlainSampler())
    assert result["seconds_per_image_decoded"].value is None
    assert "no tokenizer" in result["images_per_second_decoded"].note


def test_decoding_is_counted_on_top_of_sampling():
    result = measure(Counting(), PlainSampler(), tokenizer=Blank(), rounds=1)
    assert result["seconds_per_image_decoded"].value > result["seconds_per_image"].value
    assert result["images_per_second_decoded"].value < result["images_per_second"].value


def test_timings_come_with_their_conditions_and_their_spread():
    extra = measure(Counting(), PlainSampler(), rounds=3, threads=1)["seconds_per_image"].extra
    assert extra["threads"] == 1 and len(extra["rounds"]) == 3 and extra["lowest"] <= extra["highest"]
    assert extra["peak_memory_gb"] > 0 and extra["peak_memory_of"] == "process" and extra["compiled"] is False


def test_a_prior_that_cannot_sample_leaves_holes_with_its_reason():
    result = measure(Refusing(), PlainSampler())
    assert {m.value for m in result.values()} == {None} and result["images_per_second"].note == "cannot sample"


def test_the_number_of_threads_is_put_back():
    before = torch.get_num_threads()
    with threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
