"""Quantisers: latent vectors to codebook entries, with a gradient that goes through.

Van den Oord et al. 2017 (nearest code, straight-through) and Jang et al. 2017 (Gumbel softmax), as Bond-Taylor et al.
2022 use them (Eqs. 4-5). Both answer the same call:

    latents, indices, loss = quantizer(h, step=step, draws=draws)   # training
    latents, indices, loss = quantizer(h)                           # evaluation: no randomness, one code a position
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vq.base import UniformDraws
from vq.options import VQGANOptions


class NearestQuantizer(nn.Module):
    """The nearest code of every position.

    State beside the codes: `started`, whether codes have been taken from data; `uses`, how often each code was chosen
    since dead codes were last restarted. With folded quant convs, `decoded` holds what the decoder is given.
    """

    started: Tensor
    uses: Tensor

    def __init__(self, options: VQGANOptions):
        super().__init__()
        self.options = options
        size = options.codebook_size
        self.embedding = nn.Embedding(size, options.embedding_dim)
        nn.init.uniform_(self.embedding.weight, -1 / size, 1 / size)   # official code
        if options.quant_convs == "folded":
            self.decoded = nn.Embedding(size, options.decoder_channels)
        if options.codebook_init == "data":
            self.register_buffer("started", torch.tensor(False))
        if options.restart_dead_codes_every:
            self.register_buffer("uses", torch.zeros(size, dtype=torch.int64))

    def forward(self, h: Tensor, *, step: int | None = None,
                draws: UniformDraws | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, D, h, w) -> latents (B, D, h, w), indices (B, h*w) int64, loss (). Neither step nor draws matter here.

        loss: with beta on the codebook, mean (sg[zq] - h)^2 + beta mean (zq - sg[h])^2; on the commitment, Eq. 5.
        """
        h = self._onto_sphere(h.float(), dim=1)
        indices = self.indices(h)
        tokens = indices.view(h.shape[0], *h.shape[2:])
        codes = F.embedding(tokens, self.codes()).permute(0, 3, 1, 2)
        loss = self._loss(h, codes)
        if self.options.quant_convs == "folded":   # of an imported model, which no gradient has to pass
            return self.lookup(tokens), indices, loss
        return h + (codes - h).detach(), indices, loss

    def codes(self) -> Tensor:
        """The codebook as it is compared with latent vectors: (K, D)."""
        return self._onto_sphere(self.embedding.weight, dim=1)

    @torch.no_grad()
    def indices(self, h: Tensor) -> Tensor:
        """The code nearest to each position: (B, D, h, w) float32 -> (B, h*w) int64."""
        with torch.autocast(h.device.type, enabled=False):   # half precision would choose other codes
            vectors, codes = _rows(self._onto_sphere(h.float(), dim=1)), self.codes().float()
            # |h - e|^2 without the |h|^2 that all codes share
            distances = torch.addmm(codes.square().sum(1), vectors, codes.t(), alpha=-2)   # (B*h*w, K)
        return distances.argmin(1).view(h.shape[0], -1)

    def lookup(self, tokens: Tensor) -> Tensor:
        """What the decoder is given: (B, h, w) int64 -> (B, D, h, w)."""
        table = self.decoded.weight if self.options.quant_convs == "folded" else self.codes()
        return F.embedding(tokens, table).permute(0, 3, 1, 2)

    @torch.no_grad()
    def start_from(self, h: Tensor, draws: UniformDraws) -> None:
        """Set every code to a vector of h (B, D, h, w), all from different positions."""
        self.embedding.weight.copy_(self._random_vectors(h, draws))
        self.started.fill_(True)

    @torch.no_grad()
    def restart_dead_codes(self, h: Tensor, draws: UniformDraws) -> Tensor:
        """Move codes unused since the last call to vectors of h (B, D, h, w); returns how many, ()."""
        dead = self.uses == 0
        self.embedding.weight.copy_(torch.where(dead[:, None], self._random_vectors(h, draws), self.embedding.weight))
        self.uses.zero_()
        return dead.sum()

    def _loss(self, h: Tensor, codes: Tensor) -> Tensor:
        to_codes, to_latents = F.mse_loss(h, codes.detach()), F.mse_loss(codes, h.detach())
        if self.options.beta_on == "codebook":
            return to_codes + self.options.beta * to_latents
        return self.options.beta * to_codes + to_latents

    def _onto_sphere(self, vectors: Tensor, *, dim: int) -> Tensor:
        return F.normalize(vectors, dim=dim) if self.options.lookup == "cosine" else vectors

    def _random_vectors(self, h: Tensor, draws: UniformDraws) -> Tensor:
        vectors = _rows(h.float())
        num, size = len(vectors), self.options.codebook_size
        if num < size:
            raise ValueError(f"a batch of {num} latent vectors cannot give codebook_size={size} different codes; "
                             "enlarge the batch, or set codebook_init=uniform and restart_dead_codes_every=0")
        return vectors[draws.uniform(num).argsort()[:size].to(vectors.device)]


class GumbelQuantizer(nn.Module):
    """A softmax over codes with Gumbel noise, its temperature falling with the step; one code at evaluation.

    Where the official code still samples at evaluation, this takes the most probable code, so that encoding the same
    image twice gives the same tokens.
    """

    def __init__(self, options: VQGANOptions):
        super().__init__()
        self.options = options
        self.proj = nn.Conv2d(options.embedding_dim, options.codebook_size, 1)
        self.embedding = nn.Embedding(options.codebook_size, options.embedding_dim)

    def forward(self, h: Tensor, *, step: int | None = None,
                draws: UniformDraws | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, D, h, w) -> latents (B, D, h, w), indices (B, h*w) int64, loss () = weight * KL(q || uniform) in nats.

        With draws (training) the step sets the temperature; without, codes are one-hot and free of noise.
        """
        logits = self.proj(h).float().permute(0, 2, 3, 1)   # (B, h, w, K)
        loss = self.options.gumbel_kl_weight * kl_from_uniform(logits).mean()
        if draws is None:
            indices = logits.argmax(-1)
            return self.lookup(indices), indices.flatten(1), loss
        if step is None:
            raise ValueError("step=None: the Gumbel quantiser's temperature depends on the step; pass step=")
        weights = self.relax(logits, uniforms=draws.uniform(*logits.shape).to(logits.device), step=step)
        latents = (weights @ self.embedding.weight).permute(0, 3, 1, 2)
        return latents, weights.argmax(-1).flatten(1), loss

    def temperature(self, step: int) -> float:
        """tau at this step."""
        return max(self.options.gumbel_temperature_floor, 1 - step / self.options.gumbel_anneal_steps)

    def relax(self, logits: Tensor, *, uniforms: Tensor, step: int) -> Tensor:
        """softmax((logits + Gumbel noise) / tau) over the last dimension; one-hot with its gradient if asked for."""
        exponential = -torch.log(uniforms.clamp(min=1e-20))
        noise = -torch.log(exponential.clamp(min=1e-20))
        soft = ((logits + noise) / self.temperature(step)).softmax(-1)
        if not self.options.gumbel_straight_through:
            return soft
        hard = F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft)
        return hard + soft - soft.detach()

    def indices(self, h: Tensor) -> Tensor:
        """The most probable code of each position: (B, D, h, w) -> (B, h*w) int64."""
        return self.proj(h).argmax(1).flatten(1)

    def lookup(self, tokens: Tensor) -> Tensor:
        """What the decoder is given: (B, h, w) int64 -> (B, D, h, w)."""
        return self.embedding(tokens).permute(0, 3, 1, 2)


def kl_from_uniform(logits: Tensor) -> Tensor:
    """KL(softmax(logits) || uniform over K) in nats: (..., K) -> (...)."""
    log_probs = logits.log_softmax(-1)
    return (log_probs.exp() * log_probs).sum(-1) + torch.tensor(float(logits.shape[-1])).log().to(logits)


def _rows(h: Tensor) -> Tensor:
    """(B, D, h, w) -> (B*h*w, D); free of copies where h is channels_last."""
    return h.permute(0, 2, 3, 1).reshape(-1, h.shape[1])
