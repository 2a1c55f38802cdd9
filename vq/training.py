"""How a VQGAN is trained: one step of the autoencoder, one of the discriminator (Bond-Taylor et al. 2022, Eq. 9).

    trainable = VQGANTraining(model, perceptual=lpips_network, learning_rate=1e-3)
    trainable.update(batch, step, draws, optimize)   # the training loop calls this
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.distributed
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from vq.base import UniformDraws
from vq.diffaug import diffaug
from vq.health import perplexity
from vq.losses import (
    Perceptual,
    adaptive_weight,
    discretised_gaussian_log_mass,
    discriminator_loss,
    generator_loss,
    l1,
    perceptual_distance,
)
from vq.model import VQGANModel, bin_centres, reduce_bits
from vq.quantize import NearestQuantizer

Optimize = Callable[[Tensor, Optimizer], None]
"""Zero the gradients, go backward from the loss, average over processes, step."""


class VQGANTraining(nn.Module):
    """What the one training loop trains in the tokenizer stage.

    perceptual: LPIPS, frozen and on the model's device already; it is no part of the state.
    Everything else that a step depends on is in `state_dict()`, the optimizers, the step number and the draws.
    Raises ValueError if the model's quant convs are folded: such a model can only be used.
    """

    def __init__(self, model: VQGANModel, *, perceptual: Perceptual, learning_rate: float,
                 betas: tuple[float, float] = (0.9, 0.999)):
        super().__init__()
        if model.options.quant_convs == "folded":
            raise ValueError("quant_convs='folded': this imported model cannot be trained further; import it with "
                             "fold=False, which keeps the quant convs separate")
        self.model = model
        self.options = model.options
        self._frozen = (perceptual,)   # in a tuple, so that it is not registered as part of the state
        betas = (betas[0], betas[1])   # configuration may give a list
        self._autoencoder = Adam(_autoencoder_parameters(model), lr=learning_rate, betas=betas)
        self._discriminator = Adam(model.discriminator.parameters(), betas=betas,
                                   lr=learning_rate * model.options.disc_learning_rate_factor)

    def optimizers(self) -> list[Optimizer]:
        """The autoencoder's, and the discriminator's where there will be an adversarial loss."""
        return [self._autoencoder] if self.options.disc_start_step is None else [self._autoencoder, self._discriminator]

    def update(self, batch: Tensor, step: int, draws: UniformDraws, optimize: Optimize) -> dict[str, Tensor]:
        """One step on (B, 3, H, W) uint8; returns what to log, detached."""
        images = self.model.to_float(batch)
        h = self.model.encoder(images)
        log = self._keep_codebook_alive(h, step, draws)
        latents, indices, codebook_loss = self.model.quantizer(h, step=step, draws=draws)
        reconstruction = self.model.decoder(latents).float()
        log |= self._update_autoencoder(images, reconstruction, codebook_loss, step, draws, optimize)
        if self._has_discriminator(step):
            log |= self._update_discriminator(images, reconstruction.detach(), draws, optimize)
        self._count_uses(indices)
        log |= {"codebook_loss": codebook_loss, "perplexity": perplexity(indices, self.options.codebook_size)}
        return {name: value.detach() for name, value in log.items()}

    @torch.no_grad()
    def validate(self, model: VQGANModel, batch: Tensor, draws: UniformDraws) -> dict[str, Tensor]:
        """Means over one batch with `model`; "loss" is L1 + LPIPS, what the reconstruction itself costs."""
        images = model.to_float(batch)
        latents, indices, codebook_loss = model.quantizer(model.encoder(images))
        terms = self._reconstruction_terms(images, model.decoder(latents).float())
        return terms | {"codebook_loss": codebook_loss, "perplexity": perplexity(indices, self.options.codebook_size)}

    def _reconstruction_terms(self, images: Tensor, reconstruction: Tensor) -> dict[str, Tensor]:
        options = self.options
        pixels = l1(images, reconstruction)
        if not options.perceptual_weight:
            return {"loss": pixels, "l1": pixels}
        distance = perceptual_distance(
            images, reconstruction, perceptual=self._frozen[0], values=options.input_range,
            fed=options.perceptual_input, resolution=options.perceptual_resolution)
        return {"loss": pixels + options.perceptual_weight * distance, "l1": pixels, "lpips": distance}

    def _update_autoencoder(self, images: Tensor, reconstruction: Tensor, codebook_loss: Tensor, step: int,
                            draws: UniformDraws, optimize: Optimize) -> dict[str, Tensor]:
        """One step on Eq. 9a; without the adversarial term before its time."""
        codebook_loss = self.options.codebook_weight * codebook_loss
        if not self._has_discriminator(step):
            terms = self._reconstruction_terms(images, reconstruction)
            optimize(terms["loss"] + codebook_loss, self._autoencoder)
            return terms
        gradient, terms = self._adversarial_gradient(images, reconstruction, step, draws)
        optimize((reconstruction * gradient).sum() + codebook_loss, self._autoencoder)
        return terms

    def _adversarial_gradient(self, images: Tensor, reconstruction: Tensor, step: int,
                              draws: UniformDraws) -> tuple[Tensor, dict[str, Tensor]]:
        """Gradient of L_rec + lambda L_G at the reconstruction, and what to log.

        Gradients stop at the reconstruction first: lambda needs them there, and going on from their weighted sum spares
        a second pass through LPIPS and discriminator. They are taken of `scale` times the losses, a power of two that
        brings them to about 1/64 a pixel, where half precision neither vanishes nor overflows; in float32 that
        changes no bit.
        """
        output = reconstruction.detach().requires_grad_()
        scale = 2.0 ** (output.numel().bit_length() - 7)
        terms = self._reconstruction_terms(images, output)
        (towards_images,) = torch.autograd.grad(terms["loss"] * scale, output)
        adversarial = generator_loss(self.model.discriminator(self._augment(output, draws)))
        (towards_photographs,) = torch.autograd.grad(adversarial * scale, output)
        weight = adaptive_weight(*(self._at_last_weight(reconstruction, gradient) / scale
                                   for gradient in (towards_images, towards_photographs)),
                                 lambda_max=self.options.lambda_max)
        weight = weight * self._ramp(step)
        gradient = (towards_images + weight * towards_photographs) / scale
        return gradient, terms | {"lambda": weight, "generator_loss": adversarial}

    def _update_discriminator(self, images: Tensor, reconstruction: Tensor, draws: UniformDraws,
                              optimize: Optimize) -> dict[str, Tensor]:
        scores_of_reals = self.model.discriminator(self._augment(images, draws))
        scores_of_fakes = self.model.discriminator(self._augment(reconstruction, draws))
        hinge = discriminator_loss(scores_of_reals, scores_of_fakes)
        optimize(hinge, self._discriminator)
        return {"discriminator_loss": hinge, "scores_of_reals": scores_of_reals.mean(),
                "scores_of_fakes": scores_of_fakes.mean()}

    def _at_last_weight(self, reconstruction: Tensor, gradient: Tensor) -> Tensor:
        weight = self.model.decoder.last_weight
        return torch.autograd.grad(reconstruction, weight, grad_outputs=gradient, retain_graph=True)[0]

    def _has_discriminator(self, step: int) -> bool:
        return self.options.disc_start_step is not None and step >= self.options.disc_start_step

    def _ramp(self, step: int) -> float:
        """Share of lambda that counts at this step, from 1 / warm-up to 1."""
        assert self.options.disc_start_step is not None
        return min(1.0, (step - self.options.disc_start_step + 1) / max(1, self.options.disc_warmup_steps))

    def _augment(self, images: Tensor, draws: UniformDraws) -> Tensor:
        return diffaug(images, draws) if self.options.diffaug else images

    def _keep_codebook_alive(self, h: Tensor, step: int, draws: UniformDraws) -> dict[str, Tensor]:
        every = self.options.restart_dead_codes_every
        if self.options.codebook_init == "data" and not self._codebook.started:
            self._codebook.start_from(h, draws)
            _copy_from_first_process(self._codebook.embedding.weight)
        elif every and step and step % every == 0:
            restarted = self._codebook.restart_dead_codes(h, draws)
            _copy_from_first_process(self._codebook.embedding.weight)
            return {"restarted_codes": restarted}
        return {}

    def _count_uses(self, indices: Tensor) -> None:
        if self.options.restart_dead_codes_every:
            uses = torch.bincount(indices.flatten(), minlength=self.options.codebook_size)
            if torch.distributed.is_initialized():
                torch.distributed.all_reduce(uses)
            self._codebook.uses += uses

    @property
    def _codebook(self) -> NearestQuantizer:
        """The quantizer, where an option is set that VQGANOptions allows with nearest codes alone."""
        assert isinstance(self.model.quantizer, NearestQuantizer)
        return self.model.quantizer


class LikelihoodTraining(nn.Module):
    """Fine-tunes the log-sigma head alone, so that the decoder is a distribution over pixels (paper, section 4.2).

    The loss is the one that is reported, bits a channel value of images reduced to `bits`; unlike the Gaussian's
    density it cannot fall without end where a constant background is predicted exactly. Tokens and mean stay as they
    are, so whatever was measured with this tokenizer remains true.
    """

    def __init__(self, tokenizer: VQGANModel, *, bits: int, learning_rate: float,
                 betas: tuple[float, float] = (0.9, 0.999)):
        super().__init__()
        if tokenizer.decoder.logsigma is None:
            raise ValueError("likelihood_head=False: there is no log-sigma head to train; build the model with "
                             "likelihood_head=True")
        self.model = tokenizer.decoder.logsigma.requires_grad_(True)
        self.bits = bits
        self._frozen = (tokenizer,)   # in a tuple, so that it is not registered as part of the state
        self._optimizer = Adam(self.model.parameters(), lr=learning_rate, betas=(betas[0], betas[1]))

    def optimizers(self) -> list[Optimizer]:
        return [self._optimizer]

    def update(self, batch: Tensor, step: int, draws: UniformDraws, optimize: Optimize) -> dict[str, Tensor]:
        """One step on (B, 3, H, W) uint8; "loss" is the decoder's part of the bits per dimension."""
        loss = self._bits_per_dim(self.model, batch)
        optimize(loss, self._optimizer)
        return {"loss": loss.detach()}

    @torch.no_grad()
    def validate(self, model: nn.Module, batch: Tensor, draws: UniformDraws) -> dict[str, Tensor]:
        """The same, mean over one batch, with `model` as the head."""
        loss = self._bits_per_dim(model, batch)
        return {"loss": loss, "decoder_bits_per_dim": loss}

    def _bits_per_dim(self, head: nn.Module, images: Tensor) -> Tensor:
        tokenizer, = self._frozen
        reduced = reduce_bits(images, self.bits)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):   # as `log_likelihood` computes them
            tokens = tokenizer.encode(reduced).view(-1, *tokenizer.grid)
            features = tokenizer.decoder.features(tokenizer.quantizer.lookup(tokens))
            mean = tokenizer.decoder.blocks[-1](features)
        mean, logsigma = tokenizer.in_unit_range(mean, head(features))
        # float64: far from the mean, float32 loses the gradient of log_ndtr
        log_mass = discretised_gaussian_log_mass(bin_centres(reduced, self.bits), mean.double(), logsigma.double(),
                                                 width=2.0**-self.bits)
        return -log_mass.mean() / math.log(2)


def _autoencoder_parameters(model: VQGANModel) -> list[nn.Parameter]:
    """All but the discriminator's and the log-sigma head's, which has no part in this loss."""
    parts = (model.encoder, model.quantizer, model.decoder.blocks, model.decoder.post_quant_conv)
    return [parameter for part in parts for parameter in part.parameters()]


def _copy_from_first_process(tensor: Tensor) -> None:
    """Processes draw different codes from their own batches; all take those of process 0."""
    if torch.distributed.is_initialized():
        torch.distributed.broadcast(tensor.data, src=0)
