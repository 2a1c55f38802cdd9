"""Every knob of the built-in priors, as frozen dataclasses; nothing here imports torch, so errors come early.

    AbsorbingSampler(steps=0)   # ValueError: steps=0: expected an integer of at least 1 ...

`*Options` are the valid `prior.*` keys (what is trained), `*Sampler` the valid `sampler.*` keys (how it is sampled).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from priors.condition_options import ConditionOptions, ConditionSize, GuidedSampler
from priors.option_checks import (
    check_choice,
    check_flag,
    check_integer,
    check_number,
    check_sampling,
    check_window,
    later,
)

STRENGTHS = {"rescale": 0.05, "cap": 0.008, "confidence": 1.0, "flow": 1.0}
"""remasking_strength of ReMDM's schedules where none is given."""


@dataclass(frozen=True)
class TransformerOptions:
    """The transformer that every learned prior shares; the defaults are the paper's (Appendix A).

    width: of embeddings; num_layers: blocks; num_heads: attention heads, a divisor of the width.
    dropout: probability on embeddings, attention weights and both residual branches; the paper trains with 0.
    position_init: how the learned embeddings of positions start: "zeros" (the published code), "normal" (deviation
        0.02, as those of tokens) or "sincos2d" (sines and cosines of row and column, of the same size).

    calibrates: whether the prior has a `calibrate`, which looks at held-out images.
    """

    calibrates: ClassVar[bool] = False
    width: int = 512
    num_layers: int = 24
    num_heads: int = 8
    dropout: float = 0.0
    position_init: str = later("zeros")

    def __post_init__(self):
        check_integer("width", self.width, "use a multiple of num_heads, such as 512")
        check_integer("num_layers", self.num_layers, "use a positive number of blocks, such as 24")
        check_integer("num_heads", self.num_heads, "use a divisor of width, such as 8")
        if self.width % self.num_heads:
            raise ValueError(f"width={self.width}: expected a multiple of num_heads={self.num_heads}; change one")
        check_number("dropout", self.dropout, 0.0, 1.0, "use 0 for none (the paper) or about 0.1", high_open=True)
        check_choice("position_init", self.position_init, ("zeros", "normal", "sincos2d"))
        if self.position_init == "sincos2d" and self.width % 4:
            raise ValueError(
                f"position_init='sincos2d': width={self.width} is no multiple of 4, for a sine and a cosine of row and "
                "column each; change the width or leave position_init out"
            )


@dataclass(frozen=True)
class BackboneOptions(ConditionOptions, TransformerOptions):
    """The shared transformer, which may be told of each image."""

    def __post_init__(self):
        TransformerOptions.__post_init__(self)
        ConditionOptions.__post_init__(self)


@dataclass(frozen=True)
class AbsorbingOptions(BackboneOptions):
    """Absorbing diffusion (Bond-Taylor et al. 2022, Section 3.2).

    timesteps: T; None means one step a token, T = N (the paper's 256).
    objective: "reweighted_elbo" (Eq. 7, what the paper trains), "elbo" (Eq. 6), "mlm" (mean over masked tokens) or
        "cross_entropy" (their sum, the same weight at all times: Gat et al. 2024, with kappa_t = t).
    weighting: of reweighted_elbo. "official": 1 - t/T, as the published models were trained; "eq7": (T - t + 1)/T.
    mask_schedule: "random" masks each token with probability t/T; "fixed" masks exactly max(1, round(tN/T)) tokens.
    mask_ratio: of objective="mlm": "even" (None), every share t/T equally often, or "cosine", the shares cos(pi r / 2)
        of r even in [0, 1), most of them large (Chang et al. 2022, Section 3.3).
    """

    calibrates: ClassVar[bool] = True
    timesteps: int | None = None
    objective: str = "reweighted_elbo"
    weighting: str = "official"
    mask_schedule: str = "random"
    mask_ratio: str | None = later(None)

    def __post_init__(self):
        super().__post_init__()
        if self.timesteps is not None:
            check_integer("timesteps", self.timesteps, "leave it out for one step a token")
        check_choice("objective", self.objective, ("reweighted_elbo", "elbo", "mlm", "cross_entropy"))
        check_choice("weighting", self.weighting, ("official", "eq7"))
        check_choice("mask_schedule", self.mask_schedule, ("random", "fixed"))
        check_choice("mask_ratio", self.mask_ratio, (None, "even", "cosine"))
        if self.mask_ratio is not None and self.objective != "mlm":
            raise ValueError(
                f"mask_ratio={self.mask_ratio!r}: the other objectives weigh times that are drawn evenly, and "
                f"objective={self.objective!r}; leave mask_ratio out or train objective='mlm'"
            )
        if self.weighting != "official" and self.objective != "reweighted_elbo":
            raise ValueError(
                f"weighting={self.weighting!r}: a weighting of objective='reweighted_elbo', "
                f"but objective={self.objective!r}; leave weighting out or train the reweighted objective"
            )


@dataclass(frozen=True)
class AbsorbingSampler(GuidedSampler):
    """How tokens are unmasked.

    steps: diffusion steps asked for; None means T, the number it was trained with. Fewer is step skipping. An image
        with known tokens enters the same loop where it would have that many unknown ones left: with u of N unknown it
        takes round(steps * u / N) steps (the paper's inpainting, which starts at t = u when T = N).
    temperature: logits are divided by it.
    top_k, top_p: sample among the k likeliest tokens, or the likeliest ones that hold probability p; None: all.
    schedule: what share stays masked after each step. "even" (the paper), "cosine" (Chang et al. 2022) or "optimal"
        (the dynamic programme over nats measured by `calibrate`; Watson et al. 2021).
    counts: "random" reveals each token independently at a step drawn from the schedule (the paper's loop); "exact"
        reveals exactly the schedule's number of tokens at every step. None: "random" where the order and the schedule
        allow it, otherwise "exact".
    order: "random"; "confidence" (the most confident first: MaskGIT, Chang et al. 2022); "halton" (one low-discrepancy
        order for all images: Besnier et al. 2025).
    confidence_noise: Gumbel noise added to confidences, annealed to zero (MaskGIT's choice temperature); None: 4.5.
    method: "event" calls the network only when a token is revealed; "loop" is the paper's loop as printed, the same
        distribution at more cost; "remask" masks the current image anew with probability t/T at each step and refills
        it (the official `sample_mlm`). Two take back some tokens and so correct themselves (priors.correctors):
        "remdm" masks revealed tokens as it goes, at no further evaluation (Wang et al. 2025); "predictor_corrector"
        follows each step but the last by `corrector_steps` further evaluations that mask and reveal equally many
        (Campbell et al. 2022).
    remasking: of remdm, how likely a revealed token is masked: "rescale" (None; the strength's share of what is
        possible), "cap" (at most the strength), "confidence" (rescale, shared out towards tokens that were drawn with
        little probability) or "flow" (the strength is beta_t of discrete flow matching: Gat et al. 2024).
    remasking_strength: None: 0.05 of rescale, 0.008 of cap (the published script), 1 of confidence, flow and
        predictor_corrector, where it counts steps of the forward process.
    corrector_steps: of predictor_corrector, corrector steps after each step of `steps` but the last; None: 1.
    """

    steps: int | None = None
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    schedule: str = "even"
    counts: str | None = None
    order: str = "random"
    confidence_noise: float | None = None
    method: str = "event"
    remasking: str | None = later(None)
    remasking_strength: float | None = later(None)
    corrector_steps: int | None = later(None)

    def __post_init__(self):
        super().__post_init__()
        if self.steps is not None:
            check_integer("steps", self.steps, "leave it out for the number of steps of training")
        check_sampling(self.temperature, self.top_k, self.top_p)
        check_choice("schedule", self.schedule, ("even", "cosine", "optimal"))
        check_choice("counts", self.counts, (None, "random", "exact"))
        check_choice("order", self.order, ("random", "confidence", "halton"))
        check_choice("method", self.method, ("event", "loop", "remask", "remdm", "predictor_corrector"))
        self._check_combination()
        self._check_corrections()

    def _check_combination(self):
        if self.confidence_noise is not None:
            check_number("confidence_noise", self.confidence_noise, 0.0, math.inf, "use 0 for none, or MaskGIT's 4.5")
            if self.order != "confidence":
                raise ValueError(
                    f"confidence_noise={self.confidence_noise!r}: used by order='confidence' alone, "
                    f"but order={self.order!r}; leave it out"
                )
        if self.method != "event":
            for name, default in (("schedule", "even"), ("order", "random"), ("counts", "random")):
                value = getattr(self, name) or default
                if value != default and not (self.corrects and value == "cosine"):
                    raise ValueError(
                        f"{name}={value!r}: method={self.method!r} has only {name}={default!r}; "
                        f"leave {name} out or use method='event'"
                    )
        if self.counts == "random" and (self.order != "random" or self.schedule == "optimal"):
            raise ValueError(
                f"counts='random': order={self.order!r} with schedule={self.schedule!r} reveals exact counts; "
                "leave counts out"
            )

    def _check_corrections(self):
        owners = {"remasking": ("remdm",), "remasking_strength": ("remdm", "predictor_corrector"),
                  "corrector_steps": ("predictor_corrector",)}
        for name, methods in owners.items():
            if getattr(self, name) is not None and self.method not in methods:
                raise ValueError(f"{name}={getattr(self, name)!r}: used by method={' and '.join(map(repr, methods))} "
                                 f"alone, but method={self.method!r}; leave it out")
        check_choice("remasking", self.remasking, (None, *STRENGTHS))
        if self.corrector_steps is not None:
            check_integer("corrector_steps", self.corrector_steps, "leave it out for one after each step")
        if self.remasking_strength is not None:
            most = math.inf if self.remasking == "flow" or self.method == "predictor_corrector" else 1.0
            check_number("remasking_strength", self.remasking_strength, 0.0, most, "use 0 for none")

    @property
    def corrects(self) -> bool:
        return self.method in ("remdm", "predictor_corrector")

    @property
    def strength(self) -> float:
        """remasking_strength, or the default of the method."""
        if self.remasking_strength is not None:
            return self.remasking_strength
        return STRENGTHS[self.remasking or "rescale"] if self.method == "remdm" else 1.0

    @property
    def has_exact_counts(self) -> bool:
        return self.counts == "exact" or self.order != "random" or self.schedule == "optimal"


@dataclass(frozen=True)
class AutoregressiveOptions(BackboneOptions):
    """The paper's autoregressive baseline: the same backbone with a causal mask.

    order: how the grid is walked: "raster" (row by row, the paper), "column", "spiral" (outside in) or "halton".
    input_mask: probability that training replaces a token of the input by a learned mask, each independently, while
        every token is still predicted: the noise that absorbing diffusion has by nature. Evaluation sees all tokens.
    """

    order: str = "raster"
    input_mask: float = later(0.0)

    def __post_init__(self):
        super().__post_init__()
        check_choice("order", self.order, ("raster", "column", "spiral", "halton"))
        check_number("input_mask", self.input_mask, 0.0, 1.0, "use 0 for none (the paper) or about 0.1", high_open=True)


@dataclass(frozen=True)
class NextTokenSampler(GuidedSampler):
    """What the samplers of causal networks share.

    temperature: logits are divided by it.
    top_k, top_p: sample among the k likeliest tokens, or the likeliest ones that hold probability p; None: all.
    cache: keep keys and values of earlier tokens; the same tokens for less work.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    cache: bool = True

    def __post_init__(self):
        super().__post_init__()
        check_sampling(self.temperature, self.top_k, self.top_p)
        check_flag("cache", self.cache)


@dataclass(frozen=True)
class AutoregressiveSampler(NextTokenSampler):
    """One token at a time, in the order that the prior was trained in.

    method: "sequential", one token a call; "jacobi", the same distribution from fewer calls of more positions each: the
        tokens to come are guessed, evaluated together, and kept as far as they are right (priors.jacobi), of a prior
        without a condition.
    jacobi_window: how many tokens a call of jacobi guesses; None: all that are left.
    """

    method: str = later("sequential")
    jacobi_window: int | None = later(None)

    def __post_init__(self):
        super().__post_init__()
        check_choice("method", self.method, ("sequential", "jacobi"))
        check_window("jacobi_window", self.jacobi_window, self.method, "jacobi")


@dataclass(frozen=True)
class AnyOrderOptions(BackboneOptions):
    """An autoregressive prior that is told which position comes next (sigma-GPT: Pannatier et al. 2024).

    order: of training. "random" draws a new one for every image; "raster" takes them row by row, as a plain
        autoregressive prior does; "annealed" goes from the one to the other (RAR: Yu et al. 2024).
    annealed_over: of order="annealed", training steps over which the share of images in random order falls from 1 to 0,
        linearly; raster order follows.
    """

    order: str = "random"
    annealed_over: int | None = later(None)

    def __post_init__(self):
        super().__post_init__()
        check_choice("order", self.order, ("random", "raster", "annealed"))
        if self.order == "annealed":
            check_integer("annealed_over", self.annealed_over, "give the number of steps, such as half of all")
        elif self.annealed_over is not None:
            raise ValueError(f"annealed_over={self.annealed_over}: of order='annealed' alone; leave it out")


@dataclass(frozen=True)
class AnyOrderSampler(NextTokenSampler):
    """One token at a time, in an order of one's choice.

    order: in which unknown tokens are drawn, after all known ones: "raster" (whose law `nll` is of), "column",
        "spiral", "halton", or "random", another one for every image.
    method: "sequential", one token a call, or the same distribution from fewer calls of more positions each: "jacobi"
        guesses the tokens to come, evaluates them together, keeps them as far as they are right and guesses the rest
        anew by the same call (priors.jacobi); "speculative" drafts them in one call, each given the settled ones alone,
        and verifies them in a second one (priors.speculative; Guo and Ermon 2025).
    jacobi_window: how many tokens a call of jacobi guesses; None: all that are left.
    speculative_window: how many tokens speculative drafts at a time; None: all that are left.
    """

    order: str = "raster"
    method: str = later("sequential")
    jacobi_window: int | None = later(None)
    speculative_window: int | None = later(None)

    def __post_init__(self):
        super().__post_init__()
        check_choice("order", self.order, ("raster", "column", "spiral", "halton", "random"))
        check_choice("method", self.method, ("sequential", "jacobi", "speculative"))
        check_window("jacobi_window", self.jacobi_window, self.method, "jacobi")
        check_window("speculative_window", self.speculative_window, self.method, "speculative")


@dataclass(frozen=True)
class UnigramOptions:
    """Tokens drawn independently from their frequencies. smoothing: added to every count (1: add-one).

    num_labels: of one conditioned on classes, with frequencies of each; None: unconditional.

    is_fitted: it counts tokens and has no steps of training.
    """

    is_fitted: ClassVar[bool] = True
    calibrates: ClassVar[bool] = False
    smoothing: float = 1.0
    num_labels: int | None = later(None)

    def __post_init__(self):
        check_number("smoothing", self.smoothing, 0.0, math.inf, "use 1 for add-one smoothing", low_open=True)
        if self.num_labels is not None:
            check_integer("num_labels", self.num_labels, "leave it out for an unconditional prior")

    @property
    def condition(self) -> ConditionSize | None:
        """None for an unconditional prior."""
        return None if self.num_labels is None else ConditionSize(self.num_labels)


@dataclass(frozen=True)
class UnigramSampler:
    """temperature: the logarithms of the frequencies are divided by it. guidance: as elsewhere; all tokens are drawn
    at once, so that it has no schedule."""

    temperature: float = 1.0
    guidance: float = later(1.0)

    def __post_init__(self):
        check_number("guidance", self.guidance, 0.0, math.inf, "use 1 for the conditional model itself")
        check_sampling(self.temperature, None, None)
