"""Samplers that take tokens back, on a problem small enough to enumerate: K = 3 codes, N = 2 or 3 tokens.

The denoiser is a table: the exact conditionals of a random law of images. States are grids of codes and masks, laws and
kernels over them are float64 vectors and matrices.
"""

import itertools
import math

import pytest
import torch
from scipy.stats import chisquare

from priors.absorbing import AbsorbingDiffusion
from priors.base import UNKNOWN, Draws, inverse_cdf
from priors.correctors import Move, by_remasking_kernel, largest_sigma, predictor_corrector_moves, remasking_moves
from priors.options import AbsorbingOptions, AbsorbingSampler
from priors.samplers import Adjust
from priors.schedules import revealed_shares

K, MASK = 3, 3


def states(n):
    """(4^N, N): every grid of codes and masks."""
    return torch.tensor(list(itertools.product(range(K + 1), repeat=n)))


def law_of_images(n, *, independent=False, seed=0):
    """(3, ..., 3) float64, a random law of N tokens."""
    torch.manual_seed(seed)
    if independent:
        factors = torch.rand(n, K, dtype=torch.float64).softmax(-1)
        return math.prod(factors[i].view([K if j == i else 1 for j in range(n)]) for i in range(n))
    return (3 * torch.randn([K] * n, dtype=torch.float64)).flatten().softmax(0).view([K] * n)


def denoiser(law):
    """The table p(x_i | revealed tokens), as priors predict: (tokens (A, N), positions (A, R)) -> logits (A, R, K)."""
    n = law.ndim
    images = torch.tensor(list(itertools.product(range(K), repeat=n)))
    table = torch.zeros(len(states(n)), n, K, dtype=torch.float64)
    for row, state in enumerate(states(n)):
        agrees = ((state == MASK) | (images == state)).all(1)
        for i, code in itertools.product(range(n), range(K)):
            table[row, i, code] = law.flatten()[agrees & (images[:, i] == code)].sum()
    table = (table / table.sum(-1, keepdim=True)).log()
    powers = (K + 1) ** torch.arange(n - 1, -1, -1)

    def predict(tokens, positions):
        return table[(tokens * powers).sum(1).unsqueeze(1), positions]

    return predict


def noised(law, alpha):
    """q_alpha over states: every token of an image revealed with probability alpha."""
    n = law.ndim
    q = torch.zeros(len(states(n)), dtype=torch.float64)
    for row, state in enumerate(states(n)):
        agreeing = law[tuple(slice(None) if token == MASK else int(token) for token in state)].sum()
        hidden = int((state == MASK).sum())
        q[row] = agreeing * alpha ** (n - hidden) * (1 - alpha) ** hidden
    return q


def kernel(predict, n, move):
    """(4^N, 4^N): how one move takes a state to another, as the formula of the paper has it."""
    sigma, reveal = float(move.sigma[0]), float(move.reveal[0])
    everywhere = torch.arange(n).expand(len(states(n)), n)
    p = predict(states(n), everywhere).exp()   # (S, N, K)
    revealed = torch.nn.functional.one_hot(states(n), K + 1).double() * (1 - sigma)
    revealed[..., MASK] = sigma
    hidden = torch.cat([p * reveal, torch.full_like(p[..., :1], 1 - reveal)], -1)
    one = torch.where((states(n) == MASK).unsqueeze(-1), hidden, revealed)   # (S, N, K + 1)
    return one[:, torch.arange(n), states(n)].prod(-1)   # (S, S, N) -> (S, S)


def enumerated(predict, n, moves):
    """Law of the images, (3^N,), that the moves make of nothing but masks."""
    q = torch.zeros(len(states(n)), dtype=torch.float64)
    q[-1] = 1
    for move in moves:
        q = q @ kernel(predict, n, move)
    whole = (states(n) != MASK).all(1)
    assert float(q[whole].sum()) == pytest.approx(1, abs=1e-12)
    return q[whole]


def moves_of(method, steps, schedule="even", strength=0.5, **more):
    levels = revealed_shares(schedule, torch.tensor([steps]))
    if method == "predictor_corrector":
        return predictor_corrector_moves(levels, more.get("correctors", 1), strength=strength)
    return remasking_moves(levels, method, strength=strength)


def error(law, moves):
    """Total variation between what is sampled and the law of the images, the denoiser being perfect."""
    return float((enumerated(denoiser(law), law.ndim, moves) - law.flatten()).abs().sum() / 2)


METHODS = ["cap", "rescale", "flow", "predictor_corrector"]


@pytest.mark.parametrize("schedule", ["even", "cosine"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("strength", [0.0, 0.1, 1.0])
def test_every_move_keeps_the_marginals_of_the_absorbing_process(method, schedule, strength):
    """Given x_0, a token that is revealed with probability alpha_t before a move is so with alpha_s after it."""
    for move in moves_of(method, 7, schedule, strength):
        after = move.alpha_t * (1 - move.sigma) + (1 - move.alpha_t) * move.reveal
        assert torch.allclose(after, move.alpha_s, rtol=0, atol=1e-12)
        assert 0 <= float(move.sigma) <= float(largest_sigma(move.alpha_t, move.alpha_s)) <= 1
        assert 0 <= float(move.reveal) <= 1


@pytest.mark.parametrize("method", METHODS)
def test_the_law_of_every_level_is_kept_exactly_where_tokens_are_independent(method):
    law = law_of_images(3, independent=True)
    q, predict = noised(law, 0.0), denoiser(law)
    for move in moves_of(method, 4):
        q = q @ kernel(predict, 3, move)
        assert torch.allclose(q, noised(law, float(move.alpha_s)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.8])
def test_a_corrector_leaves_the_law_of_its_level_still_to_first_order(alpha):
    """The rates are stationary: what a corrector step moves falls with the square of its size."""
    law, level = law_of_images(3), torch.tensor([alpha], dtype=torch.float64)
    moved = []
    for size in (0.02, 0.01, 0.005):
        q = noised(law, alpha)
        after = q @ kernel(denoiser(law), 3, Move(level, level, torch.tensor([size], dtype=torch.float64)))
        moved.append(float((after - q).abs().sum()))
    assert moved[0] / moved[1] == pytest.approx(4, rel=0.05) and moved[1] / moved[2] == pytest.approx(4, rel=0.03)


@pytest.mark.parametrize(("method", "strength", "falls"), [
    ("flow", lambda n: 0.1, 4), ("predictor_corrector", lambda n: 0.1, 4), ("cap", lambda n: 1 / n, 4),
    ("rescale", lambda n: 0.1, 2)])
def test_the_law_of_samples_tends_to_that_of_the_images_as_steps_grow(method, strength, falls):
    """As 1/n where sigma falls with the step, about as its root where it does not; four times the steps each."""
    law = law_of_images(2)
    few, more, many = (error(law, moves_of(method, n, strength=strength(n))) for n in (16, 64, 256))
    assert 0.9 * falls < few / more and 0.9 * falls < more / many and many < 0.01


def test_a_cap_that_does_not_fall_with_the_steps_keeps_an_error_of_its_own():
    """Nothing falls by 4 here: the kernel of a fixed sigma does not keep the law, however many steps it is given."""
    law = law_of_images(2)
    few, many = (error(law, moves_of("cap", n, strength=0.1)) for n in (64, 256))
    assert many < few < 2 * many


def test_correctors_mend_what_a_few_steps_got_wrong():
    law = law_of_images(3)
    errors = [error(law, moves_of("predictor_corrector", 4, correctors=c, strength=0.2)) for c in (1, 4, 16)]
    plain = error(law, moves_of("rescale", 4, strength=0.0))
    assert plain > errors[0] > errors[1] > errors[2]


def test_flow_matchings_corrector_of_strength_one_is_forward_plus_backward():
    """Rates per step: masks are revealed twice as fast as without it, tokens masked as fast as the process does."""
    for move in moves_of("flow", 50, strength=1.0)[1:-1]:
        gained, most = move.alpha_s - move.alpha_t, largest_sigma(move.alpha_t, move.alpha_s)
        assert torch.allclose(move.sigma, torch.minimum(gained / move.alpha_t, most))
        if float(move.alpha_t) > 0.05 and float(move.alpha_s) < 0.95:
            assert torch.allclose(move.reveal, 2 * gained / (1 - move.alpha_t))


def make_prior(law):
    """Absorbing diffusion with the table for a network."""
    n = law.ndim
    options = AbsorbingOptions(width=8, num_layers=1, num_heads=1)
    prior = AbsorbingDiffusion(grid=(1, n), codebook_size=K, options=options).eval()
    predict = denoiser(law)
    prior.logits_at = lambda tokens, positions: predict(tokens.masked_fill(tokens == UNKNOWN, MASK), positions)
    return prior


@pytest.mark.parametrize("method", METHODS)
def test_sampled_frequencies_match_the_enumerated_law(method):
    law, steps, num = law_of_images(2, seed=1), 3, 20_000
    more = dict(method="predictor_corrector", corrector_steps=2) if method == "predictor_corrector" else \
        dict(method="remdm", remasking=method)
    sampler = AbsorbingSampler(steps=steps, schedule="cosine", remasking_strength=0.5, **more)
    tokens = make_prior(law).sample(num, sampler=sampler, draws=Draws.seeded(3)).tokens
    counts = torch.bincount((tokens * torch.tensor([3, 1])).sum(1), minlength=9)
    expected = enumerated(denoiser(law), 2, moves_of(method, steps, "cosine", 0.5, correctors=2))
    assert chisquare(counts, expected / expected.sum() * num).pvalue > 0.001


def test_of_strength_zero_nothing_is_taken_back():
    law, n = law_of_images(2), 2
    plain = enumerated(denoiser(law), n, moves_of("cap", 4, strength=0.0))
    for method in METHODS[1:]:
        assert torch.allclose(enumerated(denoiser(law), n, moves_of(method, 4, strength=0.0)), plain, atol=1e-12)


def published_confidence_loop(predict, log, levels, num, n):
    """ReMDM-conf as the published code has it, one image and one token at a time, with recorded uniforms."""
    state, sureness = torch.full((num, n), MASK), torch.full((num, n), -math.inf, dtype=torch.float64)
    everywhere = torch.arange(n).expand(num, n)
    for step in range(len(levels) - 1):
        alpha_t, alpha_s = float(levels[step]), float(levels[step + 1])
        chances, uniforms = log[2 * step], log[2 * step + 1]
        logits, before = predict(state, everywhere), state.clone()
        share = sureness.softmax(1)
        for image, i in itertools.product(range(num), range(n)):
            if before[image, i] != MASK:
                most = min(1, (1 - alpha_s) / alpha_t)
                if chances[image, i] < most * share[image, i]:
                    state[image, i], sureness[image, i] = MASK, -math.inf
            elif chances[image, i] < (alpha_s - alpha_t) / (1 - alpha_t):
                value = inverse_cdf(logits[image, i].float(), uniforms[image, i])
                state[image, i], sureness[image, i] = value, -logits[image, i, value].exp()
    return state


class RecordingDraws(Draws):
    """Keeps every uniform it hands out."""

    def uniform(self, *shape):
        self.log = [*getattr(self, "log", []), super().uniform(*shape)]
        return self.log[-1]


def test_confidence_remasking_equals_the_published_loop_token_by_token():
    law, num, draws = law_of_images(3), 60, RecordingDraws.seeded("confidence")
    levels = revealed_shares("even", torch.full((num,), 6))
    tokens = by_remasking_kernel(
        denoiser(law), torch.full((num, 3), UNKNOWN), remasking_moves(levels, "confidence", strength=1.0), mask=MASK,
        adjust=Adjust(), draws=draws, by_confidence=True,
    ).tokens
    assert torch.equal(tokens, published_confidence_loop(denoiser(law), draws.log, levels[0], num, 3))


def test_confidence_remasking_takes_back_what_was_drawn_with_little_probability():
    """Two revealed tokens, drawn with probabilities 0.99 and 0.01: the odds of masking are e^-0.99 to e^-0.01."""
    num = 20_000
    sure = torch.tensor([[0.99, 0.01, 1e-30], [0.01, 1e-30, 0.99]]).log()

    def predict(tokens, positions):
        return sure[positions]

    level = torch.ones(num, dtype=torch.float64)
    moves = [Move(0 * level, 0.5 * level, 0 * level), Move(0.5 * level, 0.5 * level, 0.8 * level)]
    first, second = (by_remasking_kernel(predict, torch.full((num, 2), UNKNOWN), moves[:stop], mask=MASK,
                                         adjust=Adjust(), draws=Draws.seeded(0), by_confidence=True).tokens
                     for stop in (1, 2))
    unlikely = (first[:, 0] == 0) & (first[:, 1] == 0)
    odds = (second[unlikely] == MASK).double().mean(0)
    share = torch.tensor([-0.99, -0.01]).softmax(0).double()
    assert int(unlikely.sum()) > 30 and torch.allclose(odds, 0.8 * share, atol=4 * (0.25 / int(unlikely.sum())) ** 0.5)


@pytest.mark.parametrize(("steps", "correctors"), [(5, 1), (4, 3), (1, 2)])
def test_steps_are_those_of_the_predictor_and_correctors_cost_their_own(steps, correctors):
    sampler = AbsorbingSampler(steps=steps, method="predictor_corrector", corrector_steps=correctors,
                               remasking_strength=5.0)
    sample = make_prior(law_of_images(3)).sample(400, sampler=sampler, draws=Draws.seeded(0))
    most = steps + correctors * (steps - 1)
    assert len(moves_of("predictor_corrector", steps, correctors=correctors)) == most
    assert int(sample.network_evaluations.max()) <= most and int(sample.network_evaluations.min()) >= 1
    assert torch.equal(sample.token_forwards, 3 * sample.network_evaluations)


def test_images_with_known_tokens_take_their_share_of_the_steps():
    levels = revealed_shares("even", torch.tensor([4, 2, 1]))
    assert levels.tolist() == [[0, 0.25, 0.5, 0.75, 1], [0, 0.5, 1, 1, 1], [0, 1, 1, 1, 1]]


@pytest.mark.parametrize("sampler", [
    AbsorbingSampler(steps=8, method="remdm", remasking="rescale", remasking_strength=1.0),
    AbsorbingSampler(steps=8, method="remdm", remasking="confidence"),
    AbsorbingSampler(steps=8, method="predictor_corrector", corrector_steps=3),
], ids=lambda sampler: f"{sampler.method} {sampler.remasking}")
def test_what_is_filled_in_is_conditioned_on_known_tokens_which_are_never_masked(sampler):
    law, seen = law_of_images(3), []
    prior = make_prior(law)
    predict = prior.logits_at
    prior.logits_at = lambda tokens, positions: seen.append(tokens.clone()) or predict(tokens, positions)
    known = torch.tensor([[2, UNKNOWN, UNKNOWN]]).repeat(4000, 1)
    tokens = prior.sample(4000, sampler=sampler, known=known, draws=Draws.seeded(0)).tokens
    assert all((tokens[:, 0] == 2).all() for tokens in [*seen, tokens])
    frequencies = torch.bincount(tokens[:, 1] * 3 + tokens[:, 2], minlength=9) / 4000
    conditional, unconditional = law[2].flatten() / law[2].sum(), law.sum(0).flatten()
    assert (frequencies - conditional).abs().sum() < 0.5 * (frequencies - unconditional).abs().sum()
