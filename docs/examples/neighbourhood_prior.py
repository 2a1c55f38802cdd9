"""A prior of one's own: each token given its left and three upper neighbours, by a small network; exact."""
from dataclasses import dataclass

import torch
from torch import nn

from priors.base import UNKNOWN, Likelihood, Sample, Unsupported
from priors.checks import check_known, check_tokens
from priors.options import check_integer, check_sampling


@dataclass(frozen=True)
class Options:   # on the command line: prior.width=128
    width: int = 64
    def __post_init__(self):
        check_integer("width", self.width, "use a positive number, such as 64")


@dataclass(frozen=True)
class Sampler:   # on the command line: sampler.temperature=0.9
    temperature: float = 1.0
    def __post_init__(self):
        check_sampling(self.temperature, top_k=None, top_p=None)


class Neighbourhood(nn.Module):
    Options, Sampler = Options, Sampler
    def __init__(self, *, grid, codebook_size, options):
        super().__init__()
        self.grid, self.num_tokens, self.codebook_size = grid, grid[0] * grid[1], codebook_size
        width = options.width   # the id after the last code stands for what lies outside the grid
        self.net = nn.Sequential(nn.Embedding(codebook_size + 1, width), nn.Flatten(-2),
                                 nn.Linear(4 * width, 4 * width), nn.GELU(), nn.Linear(4 * width, codebook_size))

    def neighbours(self, tokens):   # (B, N) -> (B, N, 4)
        x = nn.functional.pad(tokens.view(-1, *self.grid), (1, 1, 1, 0), value=self.codebook_size)
        return torch.stack([x[:, :-1, :-2], x[:, :-1, 1:-1], x[:, :-1, 2:], x[:, 1:, :-2]], -1).flatten(1, 2)

    def logits(self, tokens):   # (B, N) -> (B, N, K)
        return self.net(self.neighbours(tokens))

    def training_loss(self, tokens, *, draws):   # nats a token
        return nn.functional.cross_entropy(self.logits(tokens).transpose(1, 2), tokens)

    def nll(self, tokens, *, draws, budget=None):
        check_tokens(tokens, self.num_tokens, self.codebook_size)
        nats = -self.logits(tokens).double().log_softmax(-1).gather(2, tokens.unsqueeze(2)).sum((1, 2))
        return Likelihood(nats, torch.zeros_like(nats), "exact", network_evaluations=1)

    def sample(self, num, *, sampler, known=None, draws):
        known = check_known(known, num, self.num_tokens, self.codebook_size, device=self.net[0].weight.device)
        tokens, missing = known.clamp(min=0), known == UNKNOWN
        if (missing[:, :-1] & ~missing[:, 1:]).any():
            raise Unsupported("it fills the grid row by row: no known token can follow an unknown one")
        for i in range(self.num_tokens):   # the network looks at one position a call
            drawn = draws.categorical(self.net(self.neighbours(tokens)[:, i]) / sampler.temperature)
            tokens[:, i] = torch.where(missing[:, i], drawn, tokens[:, i])
        cost = torch.full((num,), self.num_tokens)
        return Sample(tokens, network_evaluations=cost, token_forwards=cost)
