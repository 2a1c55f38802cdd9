"""check_prior passes every prior of ours, and catches each way of breaking the contract by name."""

import dataclasses
from dataclasses import dataclass

import pytest
import torch

from bench import registry
from bench.testing import CheckFailed, check_prior
from priors.absorbing import AbsorbingDiffusion
from priors.base import UNKNOWN, Likelihood, Sample, Unsupported
from priors.options import UnigramSampler
from priors.unigram import Unigram

TINY = dict(width=16, num_layers=1, num_heads=2)
SHORT = TINY | dict(timesteps=12)
BUILT_INS = [("unigram", {}), ("absorbing", TINY), ("absorbing", TINY | dict(objective="elbo", mask_schedule="fixed")),
             ("autoregressive", TINY), ("autoregressive", TINY | dict(order="spiral")), ("any_order", TINY),
             ("any_order", TINY | dict(order="raster")), ("vq_diffusion", SHORT),
             ("vq_diffusion", SHORT | dict(final_mask=0.9)), ("uniform", SHORT),
             ("uniform", TINY | dict(form="udlm")), ("uniform", TINY | dict(form="udlm", noise_schedule="cosine")),
             ("uniform", TINY | dict(form="perturbation")), ("block_diffusion", TINY),
             ("block_diffusion", TINY | dict(block_size=1)), ("block_diffusion", TINY | dict(block_size=6))]


@pytest.mark.parametrize(("name", "options"), BUILT_INS, ids=str)
def test_a_built_in_prior_keeps_the_contract(name, options):
    prior = registry.resolve("priors", name)
    report = check_prior(prior, options=prior.Options(**options))
    assert len(report.passed) + len(report.notes) >= 12


def test_every_registered_prior_is_among_those_checked():
    assert {name for name, _ in BUILT_INS} == set(registry.names("priors"))


def test_the_report_says_what_holds_and_what_could_not_be_asked():
    prior = registry.resolve("priors", "uniform")
    text = str(check_prior(prior, options=prior.Options(form="perturbation", **TINY)))
    assert "ok    Samples are (num, N) int64 ids in [0, K)" in text and "note  nll is not supported: " in text


def test_an_instance_is_checked_as_it_is():
    prior = Unigram(grid=(2, 2), codebook_size=3, options=Unigram.Options())
    prior.fit([torch.tensor([[0, 0, 1, 2]])])
    counts = prior.counts.clone()
    assert "exactly as it is" not in str(check_prior(prior)) and torch.equal(prior.counts, counts)


class Frozen(Unigram):
    def training_loss(self, tokens, *, draws):
        raise Unsupported("its weights are someone else's")


def test_a_frozen_prior_keeps_the_contract_without_a_training_loss():
    prior = Frozen(grid=(2, 2), codebook_size=3, options=Unigram.Options())
    prior.fit([torch.tensor([[0, 0, 1, 2]])])
    report = check_prior(prior)
    assert "training_loss is not supported: its weights are someone else's" in report.notes


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="unigram"):
        check_prior("unigramm")


class EmitsTheMask(Unigram):
    def sample(self, num, *, sampler, known=None, draws):
        sample = super().sample(num, sampler=sampler, known=known, draws=draws)
        return dataclasses.replace(sample, tokens=torch.where(draws.uniform(*sample.tokens.shape) < 0.01,
                                                              self.codebook_size, sample.tokens))


class ForgetsDraws(Unigram):
    def sample(self, num, *, sampler, known=None, draws):
        none = torch.zeros(num, dtype=torch.int64)
        return Sample(torch.randint(self.codebook_size, (num, self.num_tokens)), none, none)


class IgnoresDraws(Unigram):
    def sample(self, num, *, sampler, known=None, draws):
        none = torch.zeros(num, dtype=torch.int64)
        return Sample(torch.zeros(num, self.num_tokens, dtype=torch.int64), none, none)


class RemembersChunks(Unigram):
    def sample(self, num, *, sampler, known=None, draws):
        self.seen = getattr(self, "seen", set()) | {draws.generator.initial_seed()}
        sample = super().sample(num, sampler=sampler, known=known, draws=draws)
        return dataclasses.replace(sample, tokens=(sample.tokens + len(self.seen) // 5) % self.codebook_size)


class DropsKnownTokens(Unigram):
    def sample(self, num, *, sampler, known=None, draws):
        return super().sample(num, sampler=sampler, draws=draws)


class WritesIntoKnown(Unigram):
    def sample(self, num, *, sampler, known=None, draws):
        if known is not None:
            known[known == UNKNOWN] = 0
        return super().sample(num, sampler=sampler, known=known, draws=draws)


class ClaimsTooMuch(Unigram):
    def nll(self, tokens, *, draws, budget=None):
        exact = super().nll(tokens, draws=draws)
        return dataclasses.replace(exact, nats=exact.nats * 0.9)


class BoundsTooLow(Unigram):
    def nll(self, tokens, *, draws, budget=None):
        exact = super().nll(tokens, draws=draws)
        return Likelihood(exact.nats * 0.9, torch.zeros_like(exact.nats), "bound_T", 1)


class SpendsTooMuch(Unigram):
    def nll(self, tokens, *, draws, budget=None):
        exact = super().nll(tokens, draws=draws)
        return Likelihood(exact.nats, torch.zeros_like(exact.nats), "bound_T", 100)


class SamplesAnotherDistribution(Unigram):
    def sample(self, num, *, sampler, known=None, draws):
        return super().sample(num, sampler=UnigramSampler(temperature=0.5), known=known, draws=draws)


class ForgetsItsCounts(Unigram):
    def fit(self, batches):
        super().fit(batches)
        self.counts, kept = torch.zeros_like(self.counts), self.counts
        self.kept = (kept,)

    @property
    def log_probabilities(self):
        counts = getattr(self, "kept", (self.counts,))[0].double() + self.options.smoothing
        return (counts / counts.sum()).log()


class LearnsNothing(Unigram):
    def fit(self, batches):
        pass


class HasCareless(Unigram):
    @dataclass(frozen=True)
    class Sampler:
        temperature: float = 1.0


class HasMutableOptions(Unigram):
    @dataclass
    class Options:
        smoothing: float = 1.0


class ReturnsBareTokens(Unigram):
    def sample(self, num, *, sampler, known=None, draws):
        return super().sample(num, sampler=sampler, known=known, draws=draws).tokens


class SqueezesOneImage(Unigram):
    def sample(self, num, *, sampler, known=None, draws):
        sample = super().sample(num, sampler=sampler, known=known, draws=draws)
        return dataclasses.replace(sample, tokens=sample.tokens.squeeze(0))


class RepeatsOneImage(Unigram):
    def sample(self, num, *, sampler, known=None, draws):
        sample = super().sample(num, sampler=sampler, known=known, draws=draws)
        return dataclasses.replace(sample, tokens=sample.tokens[:1].expand(num, -1).contiguous())


class IgnoresTemperature(Unigram):
    def sample(self, num, *, sampler, known=None, draws):
        return super().sample(num, sampler=UnigramSampler(), known=known, draws=draws)


class IsAlwaysTwoByThree(Unigram):
    def __init__(self, *, grid, codebook_size, options):
        super().__init__(grid=(2, 3), codebook_size=codebook_size, options=options)


class CannotBeBuilt(Unigram):
    def __init__(self, grid, num_codes, options):
        super().__init__(grid=grid, codebook_size=num_codes, options=options)


class SuitsOnlyItsBatch(Unigram):
    def nll(self, tokens, *, draws, budget=None):
        exact = super().nll(tokens, draws=draws)
        return dataclasses.replace(exact, nats=exact.nats + 0.1 * exact.nats.mean())


class LearnsFromValidation(Unigram):
    def nll(self, tokens, *, draws, budget=None):
        exact = super().nll(tokens, draws=draws)
        self.counts += torch.bincount(tokens.flatten(), minlength=self.codebook_size)
        return exact


class SumsItsLoss(Unigram):
    def training_loss(self, tokens, *, draws):
        return super().training_loss(tokens, draws=draws) * len(tokens)


class TurnsDropoutOn(Unigram):
    def sample(self, num, *, sampler, known=None, draws):
        self.train()
        return super().sample(num, sampler=sampler, known=known, draws=draws)


class Crashes(Unigram):
    def sample(self, num, *, sampler, known=None, draws):
        return self.missing


@pytest.mark.parametrize(("prior", "complaint"), [
    (ReturnsBareTokens, "sample returned Tensor"), (SqueezesOneImage, r"one image has shape [(]6,[)]"),
    (RepeatsOneImage, "all 64 images of one call are the same"),
    (IgnoresTemperature, "temperature=0.05 changes neither"),
    (IsAlwaysTwoByThree, r"grid=[(]3, 3[)] was asked for"), (CannotBeBuilt, "raised TypeError"),
    (SuitsOnlyItsBatch, "nats in a batch and"), (LearnsFromValidation, "evaluating changed counts"),
    (SumsItsLoss, "divide the sum by the number of images"), (TurnsDropoutOn, "left the prior in training mode"),
    (Crashes, "AttributeError: 'Crashes' object has no attribute 'missing'"),
    (EmitsTheMask, r"tokens lie in \[0, 5\] and K is 5"), (ForgetsDraws, "take every random number from `draws`"),
    (IgnoresDraws, "`draws` is not used"), (RemembersChunks, "leave no state behind"),
    (DropsKnownTokens, "came back as others"), (WritesIntoKnown, "work on a copy"),
    (ClaimsTooMuch, "they sum to 1[.]"), (BoundsTooLow, "below the likelihood"), (SpendsTooMuch, "100 were spent"),
    (SamplesAnotherDistribution, "chi-square"), (ForgetsItsCounts, "parameters or buffers"),
    (LearnsNothing, "before and"), (HasCareless, r"Sampler\(temperature=nan\) was accepted"),
    (HasMutableOptions, "frozen=True"),
], ids=lambda value: getattr(value, "__name__", ""))
def test_a_fault_is_caught_and_named(prior, complaint):
    with pytest.raises(CheckFailed, match=complaint):
        check_prior(prior)


class PastesKnownTokensIn(AbsorbingDiffusion):
    def sample(self, num, *, sampler, known=None, draws):
        sample = super().sample(num, sampler=sampler, draws=draws)
        return sample if known is None else dataclasses.replace(
            sample, tokens=torch.where(known == UNKNOWN, sample.tokens, known))


class StatesHalfItsCost(AbsorbingDiffusion):
    def sample(self, num, *, sampler, known=None, draws):
        sample = super().sample(num, sampler=sampler, known=known, draws=draws)
        return dataclasses.replace(sample, network_evaluations=sample.network_evaluations // 2)


class StatesOneEvaluation(AbsorbingDiffusion):
    def nll(self, tokens, *, draws, budget=None):
        return dataclasses.replace(super().nll(tokens, draws=draws, budget=budget), network_evaluations=1)


class StatesNoVariance(AbsorbingDiffusion):
    def nll(self, tokens, *, draws, budget=None):
        found = super().nll(tokens, draws=draws, budget=budget)
        return dataclasses.replace(found, monte_carlo_variance=torch.zeros_like(found.nats))


@pytest.mark.parametrize(("prior", "complaint"), [
    (PastesKnownTokensIn, "instead of pasting them in"), (StatesHalfItsCost, "while the network was called"),
    (StatesOneEvaluation, "states 1 evaluations while"), (StatesNoVariance, "monte_carlo_variance says 0"),
], ids=lambda value: getattr(value, "__name__", ""))
def test_a_fault_of_a_network_is_caught_and_named(prior, complaint):
    with pytest.raises(CheckFailed, match=complaint):
        check_prior(prior, options=prior.Options(**TINY))
