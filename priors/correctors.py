"""Samplers of absorbing diffusion that take tokens back and so can correct them; nothing is trained for it.

    moves = remasking_moves(revealed_shares("even", torch.tensor([64])), "rescale", strength=0.05)
    by_remasking_kernel(prior.logits_at, tokens, moves, mask=K, adjust=Adjust(), draws=draws)   # ReMDM

One kernel serves them all (Wang et al. 2025, arXiv 2503.00307, Section 3). With alpha the share of tokens that is
revealed, a move from alpha_t to alpha_s >= alpha_t turns, independently at every position,

    a revealed token into the mask   with probability sigma <= min(1, (1 - alpha_s) / alpha_t)
    a mask into a token              with probability (alpha_s - (1 - sigma) alpha_t) / (1 - alpha_t),

the token drawn from the network's prediction from the state before the move. Whatever sigma is, a token that is
revealed with probability alpha_t before is so with probability alpha_s after: the marginals stay those of the absorbing
process (priors.absorbing), so any network trained for it serves. sigma = 0 is that process itself; alpha_s = alpha_t,
where nothing is gained, is the corrector of Campbell et al. (2022).

What is kept, and how well: one move changes several tokens without looking at each other, as every parallel sampler
does. The law of the whole image at a level is therefore kept exactly where tokens are independent, and otherwise up to
terms of second order in the probability that a token changes. Samples tend to the model's law as 1/steps where sigma
falls with the step ("flow", correctors), about as its root for "rescale", and hardly for a "cap" that stays the same
(all enumerated in tests/priors/test_correctors.py).
The probabilities of moves are float64, and tokens are drawn by inverse transform, so that the truncated Gumbel noise of
float32 that the published code guards against (Zheng et al. 2025) does not arise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from priors.base import UNKNOWN, Draws, Sample, inverse_cdf
from priors.guidance import of_images
from priors.samplers import Adjust, Predict

Sigma = Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class Move:
    """One evaluation of the network: each image's levels before and after, and how likely a revealed token is masked.

    alpha_t, alpha_s, sigma: (B,) float64.
    """

    alpha_t: Tensor
    alpha_s: Tensor
    sigma: Tensor

    @property
    def reveal(self) -> Tensor:
        """(B,) float64: the probability that a masked token is revealed; 1 where none is masked."""
        masked = 1 - self.alpha_t
        gained = self.alpha_s - (1 - self.sigma) * self.alpha_t
        return torch.where(masked > 0, gained / masked, 1.0)


def largest_sigma(alpha_t: Tensor, alpha_s: Tensor) -> Tensor:
    """The largest probability of masking that leaves every probability of the kernel in [0, 1]."""
    return torch.where(alpha_t > 0, (1 - alpha_s) / alpha_t, 1.0).clamp(max=1.0)


def _cap(alpha_t: Tensor, alpha_s: Tensor, strength: float) -> Tensor:
    """At most `strength`, and never more than is possible (ReMDM-cap)."""
    return largest_sigma(alpha_t, alpha_s).clamp(max=strength)


def _rescale(alpha_t: Tensor, alpha_s: Tensor, strength: float) -> Tensor:
    """A share of what is possible (ReMDM-rescale)."""
    return strength * largest_sigma(alpha_t, alpha_s)


def _flow(alpha_t: Tensor, alpha_s: Tensor, strength: float) -> Tensor:
    """The corrector of discrete flow matching from the mask (Gat et al. 2024), beta_t = `strength`.

    Its velocity is (1 + beta) times the forward one minus beta times the backward one. With kappa = alpha, over a step,
    a mask is revealed with probability (1 + beta) (alpha_s - alpha_t) / (1 - alpha_t) and a token masked with
    probability beta (alpha_s - alpha_t) / alpha_t: the kernel above with this sigma, and beta = 1 is the
    forward-backward process of Campbell et al. merged with the predictor, at no further evaluation. So it is a schedule
    and no sampler of its own.
    """
    sigma = torch.where(alpha_t > 0, strength * (alpha_s - alpha_t) / alpha_t, largest_sigma(alpha_t, alpha_s))
    return torch.minimum(sigma, largest_sigma(alpha_t, alpha_s))


SIGMAS: dict[str, Sigma] = {"cap": _cap, "rescale": _rescale, "flow": _flow, "confidence": _rescale}
"""Probability of masking by schedule; "confidence" shares the one of "rescale" out among tokens while sampling."""


def remasking_moves(levels: Tensor, remasking: str, *, strength: float) -> list[Move]:
    """ReMDM: levels (B, n + 1) float64 from 0 to 1 -> n moves, each of which may mask what was revealed."""
    sigma_of = SIGMAS[remasking]
    pairs = zip(levels.T[:-1], levels.T[1:], strict=True)
    return [Move(alpha_t, alpha_s, sigma_of(alpha_t, alpha_s, strength)) for alpha_t, alpha_s in pairs]


def predictor_corrector_moves(levels: Tensor, num_correctors: int, *, strength: float) -> list[Move]:
    """A step of absorbing diffusion, then so many corrector steps at the level it reached; none after the last step.

    Campbell et al. 2022, Section 4.4: the sum of the forward and the backward rates keeps the law of its level. A
    corrector masks as many tokens as the forward process would in `strength` of the step just made (their step size
    multiplier, 1.5), (alpha_s - alpha_t) / alpha_s, and reveals as many.
    """
    moves = []
    for i, (alpha_t, alpha_s) in enumerate(zip(levels.T[:-1], levels.T[1:], strict=True), start=1):
        moves.append(Move(alpha_t, alpha_s, torch.zeros_like(alpha_t)))
        if i < levels.shape[1] - 1:
            lost = strength * (alpha_s - alpha_t) / alpha_s
            moves += [Move(alpha_s, alpha_s, torch.minimum(lost, largest_sigma(alpha_s, alpha_s)))] * num_correctors
    return moves


def by_remasking_kernel(
    predict: Predict, tokens: Tensor, moves: list[Move], *, mask: int, adjust: Adjust, draws: Draws,
    by_confidence: bool = False,
) -> Sample:
    """Apply the moves in order, calling the network only for images and at positions that reveal something.

    tokens: (B, N), known tokens or UNKNOWN; known ones are never masked, and levels are shares of the unknown ones.
    by_confidence: ReMDM-conf as published. The probability of masking is shared out among the revealed tokens by the
        softmax of minus the probabilities they were drawn with, so about sigma tokens are masked a move, and masks are
        revealed as if sigma were 0.  That does not keep the marginals: between first and last move fewer tokens are
        revealed than the levels say.
    """
    unknown = tokens == UNKNOWN
    state = tokens.masked_fill(unknown, mask)
    drawn_with = torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)
    evaluations = torch.zeros(len(tokens), dtype=torch.int64, device=tokens.device)
    for move in moves:
        chances, uniforms = (draws.uniform(*tokens.shape).to(state.device) for _ in range(2))
        hidden = state == mask
        sigma = move.sigma.to(state.device).unsqueeze(1)   # (B, 1)
        if by_confidence:
            move = Move(move.alpha_t, move.alpha_s, torch.zeros_like(move.sigma))
            sigma = sigma * (-drawn_with).masked_fill(hidden | ~unknown, -torch.inf).softmax(1).nan_to_num()
        lost = (chances < sigma) & ~hidden & unknown
        filled = (chances < move.reveal.to(state.device).unsqueeze(1)) & hidden
        evaluations += filled.any(1)
        _fill(predict, state, filled, uniforms, drawn_with, adjust)
        state[lost] = mask
    evaluations = evaluations.cpu()
    return Sample(state, evaluations, evaluations * tokens.shape[1])


def _fill(
    predict: Predict, state: Tensor, filled: Tensor, uniforms: Tensor, drawn_with: Tensor, adjust: Adjust
) -> None:
    """Draw the tokens of `filled` (B, N) bool into `state`, and into `drawn_with` the probabilities they had."""
    images = filled.any(1).nonzero().squeeze(1)
    if not len(images):
        return
    chosen = filled[images]
    positions = chosen.int().argsort(dim=1, descending=True, stable=True)[:, : int(chosen.sum(1).max())]   # (A, R)
    rows, slots = chosen.gather(1, positions).nonzero(as_tuple=True)
    logits = adjust(of_images(predict, images)(state[images], positions))[rows, slots]   # (M, K)
    where = images[rows], positions[rows, slots]
    values = inverse_cdf(logits, uniforms[where])
    state[where] = values
    drawn_with[where] = logits.double().softmax(-1).gather(-1, values.unsqueeze(-1)).squeeze(-1)
