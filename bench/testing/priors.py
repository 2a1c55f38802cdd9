"""The checks behind `bench.testing.check_prior`; each docstring's first line is the fact it establishes."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from scipy.stats import chi2
from torch import Tensor, nn

from bench.testing.contracts import CheckFailed, Note, check_dataclass, of_the_loss, require, unchanged
from priors.base import UNKNOWN, Draws, Fitted, Likelihood, Sample, Unsupported

NUM = 64   # images in most checks
TRAINING_STEPS = 60
MOST_GRIDS = 1024   # that are enumerated
LEAST_VARIANCE = 0.5   # of the true one, that a bound may state: it is an estimate itself


@dataclass
class PriorCase:
    """A prior under test. make: (number of codes, grid) -> a fresh prior; None where an instance was handed in."""

    prior: Any
    make: Callable[[int, tuple[int, int]], Any] | None
    options: object | None
    sampler: object
    likelihood_gap: str = field(default="", init=False)

    def sample(self, *key: int | str, num: int = NUM, known: Tensor | None = None, prior: Any = None,
               sampler: object | None = None) -> Sample:
        prior = prior or self.prior
        prior.eval()
        with torch.inference_mode():
            drawn = prior.sample(num, sampler=sampler or self.sampler, known=known, draws=Draws.seeded("check", *key))
        require(isinstance(drawn, Sample), f"sample returned {type(drawn).__name__}, expected priors.base.Sample")
        require(not prior.training, "sample left the prior in training mode, with dropout on: leave that to the caller")
        return drawn

    def nll(self, tokens: Tensor, *key: int | str, budget: int | None = None, prior: Any = None) -> Likelihood:
        prior = prior or self.prior
        prior.eval()
        with torch.inference_mode():
            found = prior.nll(tokens, draws=Draws.seeded("check", *key), budget=budget)
        require(isinstance(found, Likelihood), f"nll returned {type(found).__name__}, expected priors.base.Likelihood")
        require(not prior.training, "nll left the prior in training mode, with dropout on: leave that to the caller")
        return found

    @cached_property
    def small(self) -> Any:
        """A prior of few enough grids to enumerate, trained for a moment: two codes on the same grid; None if none."""
        if self.make is None:
            return self.prior if self.prior.codebook_size ** self.prior.num_tokens <= MOST_GRIDS else None
        if 2 ** self.prior.num_tokens > MOST_GRIDS:
            return None
        prior = self.make(2, self.prior.grid)
        _train(prior, self.tokens(prior=prior))
        return prior

    def tokens(self, num: int = NUM, prior: Any = None) -> Tensor:
        """Images with something to learn: one code an image, low codes more often, and a fifth of noise."""
        prior = prior or self.prior
        generator = torch.Generator().manual_seed(0)
        codes = torch.randint(prior.codebook_size, (2, num, 1), generator=generator).amin(0)
        noise = torch.randint(prior.codebook_size, (num, prior.num_tokens), generator=generator)
        return torch.where(torch.rand(noise.shape, generator=generator) < 0.2, noise, codes)


def describes_itself(case: PriorCase) -> Note:
    """The prior is an nn.Module that states its grid, number of tokens and codebook size."""
    prior = case.prior
    require(isinstance(prior, nn.Module), f"it is a {type(prior).__mro__[1].__name__}")
    missing = [name for name in ("grid", "num_tokens", "codebook_size") if not hasattr(prior, name)]
    require(not missing, f"it has no {' and no '.join(missing)}")
    h, w = prior.grid
    require(prior.num_tokens == h * w, f"num_tokens={prior.num_tokens} for grid={prior.grid}")
    require(isinstance(prior.codebook_size, int) and prior.codebook_size > 1, f"codebook_size={prior.codebook_size!r}")
    return None


def options_are_checked(case: PriorCase) -> Note:
    """Options and Sampler are frozen dataclasses with defaults that refuse a wrong value."""
    notes = [check_dataclass(type(case.prior), name) for name in ("Options", "Sampler")]
    require(dataclasses.is_dataclass(case.sampler) and isinstance(case.sampler, type(case.prior).Sampler),
            f"the sampler to check with is {case.sampler!r}")
    return "; ".join(filter(None, notes)) or None


def learns(case: PriorCase) -> Note:
    """A few steps of training bring the loss of the training images down."""
    if case.make is None:
        return "An instance was given: it is checked as it is, without training it."
    tokens = case.tokens()
    before = _objective(case, case.prior, tokens)
    _train(case.prior, tokens)
    after = _objective(case, case.prior, tokens)
    require(after < before, f"it was {before:.4f} before and {after:.4f} after {TRAINING_STEPS} steps of AdamW at 1e-2")
    return None


def loss_is_a_finite_scalar(case: PriorCase) -> Note:
    """The training loss is a finite scalar that equal draws repeat, whatever torch's global state."""
    case.prior.train()
    tokens, state = case.tokens(), {name: value.clone() for name, value in case.prior.state_dict().items()}
    losses = []
    for seed in (1, 2):
        case.prior.load_state_dict(state)
        with unchanged("tokens", tokens), _global_seed(seed):
            losses.append(case.prior.training_loss(tokens, draws=Draws.seeded("check", "loss")).detach())
    case.prior.load_state_dict(state)
    require(losses[0].ndim == 0 and bool(losses[0].isfinite()), f"it is {losses[0]}")
    require(torch.equal(*losses), f"it was {losses[0]} and {losses[1]}: take every random number from `draws`")
    return None


def loss_is_a_mean_over_images(case: PriorCase) -> Note:
    """The training loss of a batch is on the scale of one image's, so that a learning rate suits any batch size."""
    case.prior.train()
    tokens, state = case.tokens(8), {name: value.clone() for name, value in case.prior.state_dict().items()}

    def average(batch: Tensor) -> float:
        losses = [float(case.prior.training_loss(batch, draws=Draws.seeded("check", "mean", i))) for i in range(16)]
        case.prior.load_state_dict(state)
        return sum(losses) / len(losses)

    with torch.no_grad():
        few, many = average(tokens), average(tokens.repeat(8, 1))
    require(abs(many) <= 3 * abs(few) or abs(few) < 1e-3, f"it is {few:.4g} for 8 images and {many:.4g} for each of "
            "them 8 times: divide the sum by the number of images")
    return None


def logits_cover_the_codebook(case: PriorCase) -> Note:
    """Logits are (B, N, K) floats, one image's independent of the others in the batch."""
    case.prior.eval()
    tokens = case.tokens(4)
    with torch.inference_mode(), unchanged("tokens", tokens):
        logits, alone = case.prior.logits(tokens), case.prior.logits(tokens[:1])
    expected = (4, case.prior.num_tokens, case.prior.codebook_size)
    require(tuple(logits.shape) == expected and logits.is_floating_point(),
            f"they are {logits.dtype} of shape {tuple(logits.shape)}, expected {expected}")
    require(not bool(logits.isnan().any() | logits.isposinf().any()), "they hold nan or infinity")
    require(torch.allclose(logits[:1], alone, atol=1e-4, rtol=1e-4), "they change with the rest of the batch")
    return None


def samples_are_tokens(case: PriorCase) -> Note:
    """Samples are (num, N) int64 ids in [0, K), never a mask, and their costs are counted for every image."""
    drawn = case.sample("range", num=256)
    tokens, (prior, num) = drawn.tokens, (case.prior, 256)
    require(tokens.dtype == torch.int64 and tuple(tokens.shape) == (num, prior.num_tokens),
            f"tokens are {tokens.dtype} of shape {tuple(tokens.shape)}, expected int64 of {(num, prior.num_tokens)}")
    low, high = int(tokens.min()), int(tokens.max())
    require(0 <= low and high < prior.codebook_size, f"tokens lie in [{low}, {high}] and K is {prior.codebook_size}")
    for name in ("network_evaluations", "token_forwards"):
        cost = getattr(drawn, name)
        require(isinstance(cost, Tensor), f"{name} is {cost!r}, expected counts, int64 of ({num},)")
        require(cost.dtype == torch.int64 and tuple(cost.shape) == (num,) and int(cost.min()) >= 0,
                f"{name} is {cost.dtype} of shape {tuple(cost.shape)}, expected counts, int64 of ({num},)")
    require(bool((drawn.token_forwards >= drawn.network_evaluations).all()),
            "token_forwards are fewer than network_evaluations: an evaluation is of one token at least")
    alone = tuple(case.sample("range", num=1).tokens.shape)
    require(alone == (1, prior.num_tokens), f"one image has shape {alone}, expected {(1, prior.num_tokens)}")
    return None


def sampling_repeats(case: PriorCase) -> Note:
    """Equal draws give equal samples, other draws other ones, whatever torch's global state."""
    with _global_seed(1):
        first = case.sample("repeat").tokens
    with _global_seed(2):
        again, other = case.sample("repeat").tokens, case.sample("other").tokens
    require(torch.equal(first, again), "two samples of equal draws differ: take every random number from `draws`")
    require(not torch.equal(first, other), "samples of different draws are the same: `draws` is not used")
    require(bool((first != first[:1]).any()), f"all {NUM} images of one call are the same")
    return None


def chunks_are_independent(case: PriorCase) -> Note:
    """A chunk of samples does not depend on which chunks were drawn before it."""
    first, second = case.sample("chunk", 0).tokens, case.sample("chunk", 1).tokens
    require(torch.equal(case.sample("chunk", 1).tokens, second) and torch.equal(case.sample("chunk", 0).tokens, first),
            "drawing chunks in another order changes them: sampling must leave no state behind")
    return None


def state_travels(case: PriorCase) -> Note:
    """A fresh prior that loads the state_dict draws the same samples."""
    if case.make is None:
        return "An instance was given: its state_dict was not loaded into a fresh one."
    copy = case.make(case.prior.codebook_size, case.prior.grid)
    copy.load_state_dict(case.prior.state_dict())
    require(torch.equal(case.sample("state").tokens, case.sample("state", prior=copy).tokens),
            "it draws others: what training leaves behind must be parameters or buffers")
    return None


def known_tokens_are_kept(case: PriorCase) -> Note:
    """Known tokens are returned unchanged, anywhere in the grid."""
    tokens = case.tokens()
    known = torch.where(torch.rand(tokens.shape, generator=torch.Generator().manual_seed(1)) < 0.5, tokens, UNKNOWN)
    _check_kept(case, torch.full_like(tokens, UNKNOWN))   # nothing known: nothing to refuse, or refused with reason
    return _check_kept(case, known)


def known_beginnings_are_kept(case: PriorCase) -> Note:
    """Known tokens are returned unchanged where they are the first half of the grid."""
    known = case.tokens()
    known[:, case.prior.num_tokens // 2:] = UNKNOWN
    return _check_kept(case, known)


def likelihood_is_well_formed(case: PriorCase) -> Note:
    """The likelihood is (B,) float64 nats of a stated kind, with its Monte-Carlo variance, repeated by equal draws."""
    tokens, state = case.tokens(), {name: value.clone() for name, value in case.prior.state_dict().items()}
    try:
        with unchanged("tokens", tokens), _global_seed(1):
            found = case.nll(tokens, "nll")
    except Unsupported as reason:
        require(bool(str(reason)), "Unsupported was raised without a reason")
        case.likelihood_gap = f"nll is not supported: {reason}"
        return case.likelihood_gap
    for name in ("nats", "monte_carlo_variance"):
        value = getattr(found, name)
        require(value.dtype == torch.float64 and tuple(value.shape) == (len(tokens),),
                f"{name} is {value.dtype} of shape {tuple(value.shape)}, expected float64 of ({len(tokens)},)")
    require(found.kind in ("exact", "bound_T", "bound_continuous"), f"kind is {found.kind!r}")
    require(not bool(found.nats.isnan().any()) and bool((found.nats >= 0).all()), "nats are negative or nan")
    require(found.kind != "exact" or bool((found.monte_carlo_variance == 0).all()), "an exact value has a variance")
    require(not bool((found.monte_carlo_variance < 0).any()), "a variance is negative")
    changed = [name for name, value in case.prior.state_dict().items()
               if not torch.allclose(state[name], value, rtol=0, atol=0, equal_nan=True)]
    require(not changed, f"evaluating changed {', '.join(changed[:3])}: nll must learn nothing from its tokens")
    with _global_seed(2):
        again = case.nll(tokens, "nll")
    require(torch.equal(found.nats, again.nats), "equal draws gave other nats: take random numbers from `draws`")
    alone = case.nll(tokens[:1], "nll").nats
    require(found.kind != "exact" or torch.allclose(alone, found.nats[:1], atol=1e-4, rtol=1e-4),
            f"the first image has {float(found.nats[0]):.4f} nats in a batch and {float(alone[0]):.4f} alone")
    return None


def likelihood_keeps_its_budget(case: PriorCase) -> Note:
    """A bound spends no more network evaluations than its budget."""
    if case.likelihood_gap:
        return case.likelihood_gap
    for budget in (4, 16):
        found = case.nll(case.tokens(4), "budget", budget=budget)
        require(found.kind == "exact" or found.network_evaluations <= budget,
                f"budget={budget} and {found.network_evaluations} were spent")
    return None


def likelihood_refuses_foreign_tokens(case: PriorCase) -> Note:
    """A token outside the codebook is a ValueError."""
    if case.likelihood_gap:
        return case.likelihood_gap
    for wrong in (case.prior.codebook_size, -1):
        tokens = case.tokens(2)
        tokens[0, 0] = wrong
        try:
            case.nll(tokens, "foreign")
        except ValueError:
            continue
        raise CheckFailed(f"nll accepted token {wrong}: raise ValueError, as priors.checks.check_tokens does")
    return None


def likelihood_is_a_distribution(case: PriorCase) -> Note:
    """Over all grids of a tiny problem exact probabilities sum to 1, and those of a bound to no more."""
    if case.likelihood_gap:
        return case.likelihood_gap
    prior = case.small
    if prior is None:
        return "The likelihood was not summed over all grids: the instance has too many."
    grids = _all_grids(prior)
    kind, mean, variance, stated = _mean_nats(case, prior, grids)
    total = float((-mean).exp().sum())
    if kind == "exact":
        require(abs(total - 1) < 1e-4, f"they sum to {total:.6f} over all {len(grids)} grids")
        return None
    noise = float(((-mean).exp() * variance).sum()) / 2 + 4 * float(((-2 * mean).exp() * variance).sum().sqrt())
    require(total <= 1.01 + noise, f"exp(-bound) sums to {total:.4f} over all {len(grids)} grids, +- {noise:.4f}: "
                                   "it lies below the likelihood somewhere")
    found = float(variance.sum())
    require(not stated < LEAST_VARIANCE * found,   # nan: the prior cannot tell
            f"monte_carlo_variance says {stated:.3g} on average, and estimates of other draws spread by {found:.3g}")
    return None


def samples_follow_the_likelihood(case: PriorCase) -> Note:
    """Samples of the default sampler have the frequencies that an exact likelihood states."""
    if case.likelihood_gap:
        return case.likelihood_gap
    prior = case.small
    if prior is None:
        return "Frequencies were not compared with the likelihood: the instance has too many grids."
    grids = _all_grids(prior)
    kind = case.nll(grids[:1], "sum", prior=prior).kind
    if kind != "exact":
        return f"Frequencies were not compared with the likelihood: it is a bound ({kind})."
    num = 4000
    codes = _codes(case.sample("frequencies", num=num, prior=prior).tokens, prior.codebook_size)
    expected = num * (-_mean_nats(case, prior, grids)[1]).exp()
    excess, degrees = _chi_square(torch.bincount(codes, minlength=len(grids)).double(), expected)
    require(excess < chi2.isf(1e-6, degrees), f"chi-square is {excess:.1f} with {degrees} degrees of freedom. If the "
            "default sampler is meant to differ from the model, pass sampler=... that does not")
    return None


PRIOR_CHECKS = (
    describes_itself, options_are_checked, learns, of_the_loss(loss_is_a_finite_scalar),
    of_the_loss(loss_is_a_mean_over_images), logits_cover_the_codebook, samples_are_tokens, sampling_repeats,
    chunks_are_independent, state_travels, known_tokens_are_kept, known_beginnings_are_kept, likelihood_is_well_formed,
    likelihood_keeps_its_budget, likelihood_refuses_foreign_tokens, likelihood_is_a_distribution,
    samples_follow_the_likelihood,
)


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Torch's global generator in a state of its own, put back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _train(prior: Any, tokens: Tensor) -> None:
    """As the benchmark does: `fit` where the prior has it, otherwise AdamW on its loss."""
    if isinstance(prior, Fitted):
        prior.fit([tokens])
        return
    prior.train()
    optimizer = torch.optim.AdamW(prior.parameters(), lr=1e-2, weight_decay=0.0)
    for step in range(TRAINING_STEPS):
        optimizer.zero_grad()
        prior.training_loss(tokens, draws=Draws.seeded("check", "train", step)).backward()
        optimizer.step()


def _objective(case: PriorCase, prior: Any, tokens: Tensor) -> float:
    """Mean nats where there is a likelihood, otherwise the mean loss over several draws."""
    try:
        return float(case.nll(tokens, "objective", prior=prior).nats.mean())
    except Unsupported:
        with torch.no_grad():
            losses = [prior.training_loss(tokens, draws=Draws.seeded("check", "objective", i)) for i in range(16)]
        return float(torch.stack(losses).mean())


def _check_kept(case: PriorCase, known: Tensor) -> Note:
    try:
        with unchanged("known tokens", known):
            tokens = case.sample("known", num=len(known), known=known).tokens
    except Unsupported as reason:
        require(bool(str(reason)), "Unsupported was raised without a reason")
        return f"known tokens: {reason}"
    is_known = known != UNKNOWN
    require(torch.equal(tokens[is_known], known[is_known]), "some came back as others")
    require(int(tokens.min()) >= 0 and int(tokens.max()) < case.prior.codebook_size, "what was filled in is no token")
    return None


def _all_grids(prior: Any) -> Tensor:
    return torch.tensor(list(itertools.product(range(prior.codebook_size), repeat=prior.num_tokens)))


def _codes(tokens: Tensor, base: int) -> Tensor:
    """The row of `_all_grids` of each grid."""
    return (tokens * base ** torch.arange(tokens.shape[1] - 1, -1, -1)).sum(1)


def _mean_nats(case: PriorCase, prior: Any, grids: Tensor) -> tuple[str, Tensor, Tensor, float]:
    """Kind, nats averaged over repeats, the variance of that average, and the sum that the prior states for it.

    One look is enough where the likelihood is exact.
    """
    first = case.nll(grids, "sum", prior=prior)
    if first.kind == "exact":
        return first.kind, first.nats, torch.zeros_like(first.nats), 0.0
    repeats = 24
    found = case.nll(grids.repeat(repeats, 1), "sum", prior=prior)
    nats, stated = found.nats.view(repeats, -1), float(found.monte_carlo_variance.sum()) / repeats**2
    return first.kind, nats.mean(0), nats.var(0) / repeats, stated


def _chi_square(counts: Tensor, expected: Tensor) -> tuple[float, int]:
    """Pearson's statistic and degrees of freedom, cells that expect fewer than 5 thrown together."""
    rare = expected < 5
    if rare.any():
        counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
        expected = torch.cat([expected[~rare], expected[rare].sum()[None].clamp(min=math.ulp(1.0))])
    return float(((counts - expected) ** 2 / expected).sum()), max(1, len(expected) - 1)
