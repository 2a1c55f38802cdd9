"""The VQGAN: an autoencoder whose latents are tokens, trained against a discriminator.

Esser et al. 2021, as used by Bond-Taylor et al. 2022 ("Unleashing Transformers", section 3.1).

    tokenizer = VQGAN(options=VQGANOptions(), resolution=256)
    tokenizer.decode(tokenizer.encode(images))   # (B, 3, 256, 256) uint8, there and back
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from torch import nn

from vq import checkpoints
from vq.losses import Perceptual
from vq.model import VQGANModel
from vq.training import LikelihoodTraining, VQGANTraining

SIZES = ("channels", "channel_multipliers", "num_res_blocks", "attention_resolutions", "embedding_dim", "codebook_size",
         "z_channels")
"""What no checkpoint says of itself, and `vq.checkpoints.load_official` must be told."""
ARCHITECTURE = (*SIZES, "norm_groups", "final_activation", "decoder_res_blocks", "quant_convs", "input_range",
                "likelihood_head", "quantizer", "levels", "lookup", "codebook_init", "restart_dead_codes_every")
"""The options that decide which weights there are and what they mean."""


class VQGAN(VQGANModel):
    """A model (vq.model) with its training and its import of other code bases' checkpoints."""

    def trainable(self, *, perceptual: Perceptual, learning_rate: float, betas: tuple[float, float]) -> nn.Module:
        """What the training loop trains: this model, its discriminator and their two optimizers."""
        return VQGANTraining(self, perceptual=perceptual, learning_rate=learning_rate, betas=betas)

    def load_official(self, path: str | PathLike[str], *, layout: str) -> VQGAN:
        """Take the autoencoder's weights of a checkpoint of another code base; layout: see vq.checkpoints.

        The discriminator, which has no part in a tokenizer's work, stays as it is, and so does a likelihood head that
        the file lacks: its fine-tuning comes later. Raises ValueError on an unknown layout, a file that cannot be read,
        and one of another architecture than this model's options.
        """
        options = self.options
        found = checkpoints.load_official(Path(path), layout=layout, fold=options.quant_convs == "folded",
                              resolution=self.resolution, **{name: getattr(options, name) for name in SIZES})
        differing = [f"{name}={getattr(options, name)} (the file: {getattr(found.options, name)})"
                     for name in ARCHITECTURE if getattr(options, name) != getattr(found.options, name)
                     and not (name == "likelihood_head" and options.likelihood_head)]
        if differing:
            raise ValueError(f"{path} is of layout {layout}, which has other options: {', '.join(differing)}")
        weights = {key: value for key, value in found.state_dict().items() if not key.startswith("discriminator.")}
        missing, unexpected = self.load_state_dict(weights, strict=False)
        fresh = ("discriminator.", "decoder.logsigma.")
        assert not unexpected and all(key.startswith(fresh) for key in missing), (missing, unexpected)
        return self

    def trainable_likelihood(self, *, bits: int, learning_rate: float, betas: tuple[float, float]) -> nn.Module:
        """What the training loop trains so that `log_likelihood` at this bit depth means something: the head alone."""
        return LikelihoodTraining(self, bits=bits, learning_rate=learning_rate, betas=betas)
