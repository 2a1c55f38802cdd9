"""The unigram prior against counts made by hand."""

import math
from dataclasses import dataclass

import pytest
import torch
from scipy.stats import chisquare

from priors.base import UNKNOWN, Draws, Unsupported
from priors.conditions import Condition
from priors.options import UnigramOptions, UnigramSampler
from priors.unigram import Unigram


@pytest.fixture
def prior():
    prior = Unigram(grid=(1, 4), codebook_size=3, options=UnigramOptions())
    prior.fit([torch.tensor([[0, 0, 0, 1]]), torch.tensor([[0, 0, 1, 1]])])   # counts 5, 3, 0
    return prior


def test_frequencies_are_smoothed_by_one(prior):
    torch.testing.assert_close(prior.log_probabilities.exp(), torch.tensor([6, 4, 1], dtype=torch.float64) / 11)


def test_the_likelihood_is_exact(prior):
    likelihood = prior.nll(torch.tensor([[0, 1, 2, 2]]), draws=Draws.seeded(0))
    assert float(likelihood.nats) == pytest.approx(-math.log(6 * 4 * 1 * 1 / 11**4))
    assert likelihood.kind == "exact" and likelihood.network_evaluations == 0


def test_fitting_again_starts_from_nothing(prior):
    prior.fit([torch.tensor([[2, 2, 2, 2]])])
    assert prior.counts.tolist() == [0, 0, 4]


def test_batches_and_their_conditions_are_equally_many():
    prior = Unigram(grid=(1, 4), codebook_size=3, options=UnigramOptions(num_labels=2))
    batches, labels = torch.zeros(2, 1, 4, dtype=torch.int64), Condition(labels=torch.tensor([0]))
    for conditions in ([labels], [labels] * 3):
        with pytest.raises(ValueError, match="argument 2 is (shorter|longer)"):
            prior.fit(batches, conditions)
    prior.fit(batches, [labels] * 2)
    assert prior.label_counts.tolist() == [[8, 0, 0], [0, 0, 0]]


def test_options_of_a_subclass_need_know_no_condition():
    @dataclass(frozen=True)
    class Options:
        smoothing: float = 1.0

    prior = Unigram(grid=(1, 4), codebook_size=3, options=Options())
    prior.fit([torch.tensor([[0, 0, 1, 1]])])
    assert prior.nll(torch.tensor([[0, 0, 0, 0]]), draws=Draws.seeded(0)).kind == "exact"
    with pytest.raises(Unsupported, match="made without a condition"):
        prior.sample(1, sampler=UnigramSampler(), condition=Condition(labels=torch.tensor([0])), draws=Draws.seeded(0))


def test_sampled_frequencies_match_at_a_temperature(prior):
    sample = prior.sample(5_000, sampler=UnigramSampler(temperature=0.5), draws=Draws.seeded(0))
    expected = torch.tensor([36, 16, 1], dtype=torch.float64) / 53
    assert chisquare(torch.bincount(sample.tokens.flatten(), minlength=3), expected * 20_000).pvalue > 0.001
    assert not sample.network_evaluations.any() and not sample.token_forwards.any()


def test_known_tokens_are_kept(prior):
    known = torch.tensor([[UNKNOWN, 2, UNKNOWN, 0]])
    tokens = prior.sample(1, sampler=UnigramSampler(), known=known, draws=Draws.seeded(0)).tokens
    assert tokens[0, 1] == 2 and tokens[0, 3] == 0 and tokens.min() >= 0


def test_weights_travel_in_the_state_dict(prior):
    copy = Unigram(grid=(1, 4), codebook_size=3, options=UnigramOptions())
    copy.load_state_dict(prior.state_dict())
    tokens = torch.zeros(1, 4, dtype=torch.int64)
    assert torch.equal(copy.logits(tokens), prior.logits(tokens))
