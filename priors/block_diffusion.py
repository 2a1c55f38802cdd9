"""Block diffusion: blocks of tokens one after the other, each by absorbing diffusion (Arriola et al. 2025, BD3-LM).

    prior = BlockDiffusion(grid=(16, 16), codebook_size=1024, options=BlockDiffusionOptions(width=256, block_size=32))
    prior.sample(4, sampler=BlockDiffusionSampler(), draws=Draws.seeded(0)).tokens   # (4, 256), two rows a block

p(x) = prod_b p(x_b | x_<b), and each factor is bounded as in priors.absorbing, with as many times as a block has tokens
(T = L, so its noise is linear). L = 1 is an autoregressive model: one time, all masked, an exact likelihood. L = N is
absorbing diffusion of objective "elbo" and T = N, whose network's weights it can load and whose loss, bound and samples
it then repeats.

One pass trains all blocks: the clean image but for its last block and the noisy one side by side, a noisy token seeing
its own noisy block and the clean blocks before it, a clean one its own block and those before (their vectorised
training). So a training step pushes 2N - L tokens where the other priors push N; one block needs no clean ones. Not
taken over: the clipped noise schedules that lower the variance of the loss. It knows no condition.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from priors import bounds, samplers, schedules
from priors.attention import Remember, attend
from priors.backbone import backbone
from priors.base import UNKNOWN, Draws, Likelihood, Sample, Unsupported, inverse_cdf
from priors.block_options import BlockDiffusionOptions, BlockDiffusionSampler
from priors.checks import check_known, check_tokens
from priors.option_checks import check_sampler
from priors.transformer import seeded_dropout


class BlockDiffusion(nn.Module):
    """See the module. Symbols: L tokens a block, D = N / L blocks."""

    Options = BlockDiffusionOptions
    Sampler = BlockDiffusionSampler
    seen: Tensor

    def __init__(self, *, grid: tuple[int, int], codebook_size: int, options: BlockDiffusionOptions):
        super().__init__()
        self.grid, self.codebook_size, self.options = (grid[0], grid[1]), codebook_size, options
        self.num_tokens = grid[0] * grid[1]
        self.block = options.block_size or grid[1]
        if self.num_tokens % self.block:
            raise ValueError(f"block_size={self.block}: expected a divisor of the {self.num_tokens} tokens of a "
                             f"{grid[0]}x{grid[1]} grid, such as {grid[1]}, one row")
        self.num_blocks = self.num_tokens // self.block
        self.mask = codebook_size   # the id after the last code
        self.net = backbone(options, grid=grid, vocabulary=codebook_size + 1, num_classes=codebook_size)
        self.register_buffer("seen", two_streams(self.num_tokens, self.block), persistent=False)

    def logits(self, tokens: Tensor) -> Tensor:
        """(B, N) int64 in [0, K), with UNKNOWN or K where masked -> (B, N, K), each from its own block and earlier."""
        tokens = tokens.masked_fill(tokens == UNKNOWN, self.mask)
        check_tokens(tokens, self.num_tokens, self.codebook_size + 1)
        return self._predict(tokens, tokens)

    def _predict(self, noisy: Tensor, clean: Tensor, where: Tensor | None = None) -> Tensor:
        """Logits of every block from its own noisy tokens and the clean ones before it: (B, N, K), or (M, K)."""
        if self.num_blocks == 1:
            return self.net(noisy, where=where)
        before = self.num_tokens - self.block   # no one reads the last clean block
        at = torch.arange(self.num_tokens, device=noisy.device)
        x = self.embed(torch.cat([clean[:, :before], noisy], 1), torch.cat([at[:before], at]))
        for layer in self.net.layers:
            x = attend(layer, x, self.seen)
        x = x[:, before:] if where is None else x[:, before:][where]
        return self.net.head(self.net.ln_f(x))

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        return self.net.drop(self.net.tok_emb(tokens) + self.net.pos_emb[:, positions])

    def training_loss(self, tokens: Tensor, *, draws: Draws) -> Tensor:
        """The bound in bits a token, mean over images; every block has a time of its own."""
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        t = draws.integers(1, self.block + 1, len(tokens), self.num_blocks).to(tokens.device)
        uniforms = draws.uniform(*tokens.shape).to(tokens.device)
        masked = uniforms < (t / self.block).repeat_interleave(self.block, 1)
        with seeded_dropout(self, draws, len(tokens)):
            logits = self._predict(tokens.masked_fill(masked, self.mask), tokens, masked)   # (M, K)
        cross_entropy = F.cross_entropy(logits.float(), tokens[masked], reduction="none")
        image, position = masked.nonzero(as_tuple=True)
        of_block = image * self.num_blocks + position // self.block
        nats = cross_entropy.new_zeros(t.numel()).index_add(0, of_block, cross_entropy).view_as(t)   # (B, D)
        return (self.block / t * (nats / (self.num_tokens * math.log(2)))).sum(1).mean()

    @torch.no_grad()
    def nll(self, tokens: Tensor, *, draws: Draws, budget: int | None = None) -> Likelihood:
        """Upper bound on the negative log-likelihood of each image, in nats: the sum of its blocks' bounds.

        tokens: (B, N) int64 in [0, K).  budget: as in AbsorbingDiffusion.nll, T being the tokens of a block, since one
        evaluation serves all blocks.  Blocks of one token are exact, by one evaluation.
        """
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        blocks = tokens.view(-1, self.block)   # (B D, L), independent given the tokens
        score = self._scorer(tokens)
        if self.block == 1:
            everything = torch.ones_like(blocks, dtype=torch.bool)
            nats = score(everything, everything).view(tokens.shape).sum(1)
            return Likelihood(nats, torch.zeros_like(nats), "exact", 1)
        estimate, kind = bounds.bound(score, blocks, timesteps=self.block, budget=budget, draws=draws)
        nats, variance = (part.view(len(tokens), -1).sum(1) for part in (estimate.nats, estimate.variance))
        return Likelihood(nats, variance, kind, estimate.evaluations)

    def _scorer(self, tokens: Tensor) -> bounds.Score:
        def score(masked: Tensor, wanted: Tensor) -> Tensor:
            where = wanted.view(tokens.shape)
            logits = self._predict(tokens.masked_fill(masked.view(tokens.shape), self.mask), tokens, where)
            nats = torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)
            nats[where] = F.cross_entropy(logits.float(), tokens[where], reduction="none").double()
            return nats.view(masked.shape)

        return score

    @torch.inference_mode()
    def sample(
        self, num: int, *, sampler: BlockDiffusionSampler, known: Tensor | None = None, draws: Draws
    ) -> Sample:
        """Draw `num` images; tokens of `known` (num, N) that are not UNKNOWN are kept.

        Raises Unsupported for fewer steps than blocks, and where a token is known in a block after one that is not
        whole.
        """
        check_sampler(sampler, BlockDiffusionSampler)
        if sampler.steps is not None and sampler.steps < self.num_blocks:
            raise Unsupported(f"steps={sampler.steps}: each of the {self.num_blocks} blocks takes one at least; use "
                              f"{self.num_blocks} or more, or train larger blocks")
        state = check_known(known, num, self.num_tokens, self.codebook_size, device=self.net.pos_emb.device)
        unknown = state == UNKNOWN
        self._check_order(unknown)
        reveal = schedules.random_reveal_steps(
            "even", draws.uniform(*state.shape), self._num_steps(unknown, sampler).to(draws.device)
        )
        uniforms = draws.uniform(*state.shape)
        state = state.masked_fill(unknown, self.mask)
        adjust = samplers.Adjust(sampler.temperature, sampler.top_k, sampler.top_p)
        reader = _Reader(self, num, cached=sampler.cache)
        for start in range(0, self.num_tokens, self.block):
            here = slice(start, start + self.block)
            for event in samplers.plan_events(reveal[:, here], unknown[:, here]):
                images = torch.arange(num) if event.images is None else event.images
                logits = reader.read(state, images.to(state.device), start, event.positions.to(state.device))
                rows, columns = images[event.rows], event.positions[event.rows, event.slots] + start
                values = inverse_cdf(adjust(logits[event.rows, event.slots]), uniforms[rows, columns])
                state[rows.to(state.device), columns.to(state.device)] = values.to(state.device)
        return Sample(state, reader.evaluations.cpu(), reader.pushed.cpu())

    def _check_order(self, unknown: Tensor) -> None:
        blocks = unknown.view(len(unknown), self.num_blocks, self.block)
        after = blocks.any(2).long().cumsum(1) - blocks.any(2).long() > 0   # a block before is not whole
        if (after & ~blocks.all(2)).any():
            raise Unsupported(
                f"block diffusion generates blocks of {self.block} tokens in raster order and cannot honour a known "
                "token in a block after one with unknown tokens"
            )

    def _num_steps(self, unknown: Tensor, sampler: BlockDiffusionSampler) -> Tensor:
        """(B, N) int64: steps of each token's block, its share of them all by its unknown tokens, one at least.

        Sums over blocks are rounded, not blocks, so that all take as many as one block of all tokens would.
        """
        counts = unknown.view(len(unknown), -1, self.block).sum(2).cpu()   # (B, D)
        ends = ((sampler.steps or self.num_tokens) * (counts.cumsum(1).double() / self.num_tokens)).round().long()
        least = (counts > 0).cumsum(1)
        ends = least + (ends - least).clamp(min=0).cummax(1).values   # no block of unknown tokens without a step
        steps = ends.diff(dim=1, prepend=torch.zeros_like(ends[:, :1]))
        return steps.repeat_interleave(self.block, 1)


class _Reader:
    """Predicts the tokens of one block after another.

    cached: keys and values of finished blocks are kept, so that a call pushes its own block and the finished ones that
    are not kept yet: for all images of the call the same ones, those that one of them needs.
    """

    def __init__(self, prior: BlockDiffusion, num: int, *, cached: bool):
        self.prior = prior
        device = prior.net.pos_emb.device
        # Zeros, since a masked key has weight 0 and a value of whatever the memory held, which may be nan.
        self.cache = [room.zero_() for room in prior.net.new_cache(num)] if cached and prior.num_blocks > 1 else None
        self.fed, self.evaluations, self.pushed = (torch.zeros(num, dtype=torch.int64, device=device) for _ in range(3))

    def read(self, state: Tensor, images: Tensor, start: int, positions: Tensor) -> Tensor:
        """Logits at positions (A, R) of the block that begins at `start`, of images (A,): (A, R, K)."""
        net, end = self.prior.net, start + self.prior.block
        first = 0 if self.cache is None else int(self.fed[images].min())
        self.evaluations[images] += 1
        self.pushed[images] += end - first
        self.fed[images] = start
        if self.prior.num_blocks == 1:
            return net(state[images], at=positions)
        at = torch.arange(first, end, device=state.device)
        seen = torch.arange(end, device=state.device) < (at // self.prior.block + 1).unsqueeze(1) * self.prior.block
        x = self.prior.embed(state[images, first:end], at)
        for i, layer in enumerate(net.layers):
            x = attend(layer, x, seen, _keeping(self.cache[i], images, first, end) if self.cache else None)
        x = x[:, start - first :].gather(1, positions.unsqueeze(-1).expand(-1, -1, x.shape[-1]))   # (A, R, C)
        return net.head(net.ln_f(x))


def _keeping(room: Tensor, images: Tensor, first: int, end: int) -> Remember:
    """Write keys and values at first..end and give all before `end`; a block's noisy ones are written over later."""

    def remember(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        room[:, images, :, first:end] = torch.stack([k, v])
        keys, values = room[:, images, :, :end].unbind()
        return keys, values

    return remember


def two_streams(num_tokens: int, block: int) -> Tensor:
    """(2N - L, 2N - L) bool: who sees whom among all clean tokens but the last block's, then the noisy ones."""
    of = torch.arange(num_tokens) // block
    clean, noisy = of[: num_tokens - block], of
    before = clean.unsqueeze(0) < noisy.unsqueeze(1)
    own = noisy.unsqueeze(0) == noisy.unsqueeze(1)
    of_clean = torch.cat([clean.unsqueeze(0) <= clean.unsqueeze(1), own.new_zeros(len(clean), num_tokens)], 1)
    return torch.cat([of_clean, torch.cat([before, own], 1)])
