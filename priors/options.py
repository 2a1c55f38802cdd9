"""Every knob of the built-in priors, as frozen dataclasses; nothing here imports torch, so errors come early.

    AbsorbingSampler(steps=0)   # ValueError: steps=0: expected an integer of at least 1 ...

`*Options` are the valid `prior.*` keys (what is trained), `*Sampler` the valid `sampler.*` keys (how it is sampled).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from priors.condition_options import ConditionOptions, ConditionSize, GuidedSampler, later
from priors.option_checks import check_choice, check_flag, check_integer, check_number, check_sampling


@dataclass(frozen=True)
class BackboneOptions(ConditionOptions):
    """The transformer that every learned prior shares; the defaults are the paper's (Appendix A).

    width: of embeddings; num_layers: blocks; num_heads: attention heads, a divisor of the width.
    dropout: probability on embeddings, attention weights and both residual branches; the paper trains with 0.
    position_init: how the learned embeddings of positions start: "zeros" (the published code), "normal" (deviation
        0.02, as those of tokens) or "sincos2d" (sines and cosines of row and column, of the same size).
    """

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
        super().__post_init__()


@dataclass(frozen=True)
class AbsorbingOptions(BackboneOptions):
    """Absorbing diffusion (Bond-Taylor et al. 2022, Section 3.2).

    timesteps: T; None means one step a token, T = N (the paper's 256).
    objective: "reweighted_elbo" (Eq. 7, what the paper trains), "elbo" (Eq. 6) or "mlm" (mean over masked tokens).
    weighting: of reweighted_elbo. "official": 1 - t/T, as the published models were trained; "eq7": (T - t + 1)/T.
    mask_schedule: "random" masks each token with probability t/T; "fixed" masks exactly max(1, round(tN/T)) tokens.
    """

    timesteps: int | None = None
    objective: str = "reweighted_elbo"
    weighting: str = "official"
    mask_schedule: str = "random"

    def __post_init__(self):
        super().__post_init__()
        if self.timesteps is not None:
            check_integer("timesteps", self.timesteps, "leave it out for one step a token")
        check_choice("objective", self.objective, ("reweighted_elbo", "elbo", "mlm"))
        check_choice("weighting", self.weighting, ("official", "eq7"))
        check_choice("mask_schedule", self.mask_schedule, ("random", "fixed"))
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
        it (the official `sample_mlm`).
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

    def __post_init__(self):
        super().__post_init__()
        if self.steps is not None:
            check_integer("steps", self.steps, "leave it out for the number of steps of training")
        check_sampling(self.temperature, self.top_k, self.top_p)
        check_choice("schedule", self.schedule, ("even", "cosine", "optimal"))
        check_choice("counts", self.counts, (None, "random", "exact"))
        check_choice("order", self.order, ("random", "confidence", "halton"))
        check_choice("method", self.method, ("event", "loop", "remask"))
        self._check_combination()

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
                if value != default:
                    raise ValueError(
                        f"{name}={value!r}: method={self.method!r} has only {name}={default!r}; "
                        f"leave {name} out or use method='event'"
                    )
        if self.counts == "random" and (self.order != "random" or self.schedule == "optimal"):
            raise ValueError(
                f"counts='random': order={self.order!r} with schedule={self.schedule!r} reveals exact counts; "
                "leave counts out"
            )

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
class AutoregressiveSampler(GuidedSampler):
    """One token at a time.

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
        if not isinstance(self.cache, bool):
            raise ValueError(f"cache={self.cache!r}: expected true or false; leave it out for true")


@dataclass(frozen=True)
class AnyOrderOptions(BackboneOptions):
    """An autoregressive prior that is told which position comes next (sigma-GPT: Pannatier et al. 2024).

    order: of training. "random" draws a new one for every image; "raster" takes them row by row, as a plain
        autoregressive prior does.
    """

    order: str = "random"

    def __post_init__(self):
        super().__post_init__()
        check_choice("order", self.order, ("random", "raster"))


@dataclass(frozen=True)
class AnyOrderSampler(AutoregressiveSampler):
    """One token at a time; temperature, top_k, top_p and cache as for the autoregressive sampler.

    order: in which unknown tokens are drawn, after all known ones: "raster" (whose law `nll` is of), "column",
        "spiral", "halton", or "random", another one for every image.
    """

    order: str = "raster"

    def __post_init__(self):
        super().__post_init__()
        check_choice("order", self.order, ("raster", "column", "spiral", "halton", "random"))


@dataclass(frozen=True)
class UnigramOptions:
    """Tokens drawn independently from their frequencies. smoothing: added to every count (1: add-one).

    num_labels: of one conditioned on classes, with frequencies of each; None: unconditional.
    """

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


@dataclass(frozen=True)
class VQDiffusionOptions(BackboneOptions):
    """Mask-and-replace diffusion (Gu et al. 2022), unconditional.

    timesteps: T.
    final_mask: probability that a token is masked at time T; what is neither masked nor kept is replaced by a uniform
        token. 0.99999 as in the published code (one token in a million is replaced), 0.9 as in the paper's text.
    auxiliary_weight: of the cross-entropy of x_0 beside the bound; 0 for none.
    adaptive_auxiliary: weight it twice as much at t = 1 as at t = T (the published code).
    importance_sampling: draw t where the bound's terms are large.
    """

    timesteps: int = 100
    final_mask: float = 0.99999
    auxiliary_weight: float = 5e-4
    adaptive_auxiliary: bool = True
    importance_sampling: bool = True

    def __post_init__(self):
        super().__post_init__()
        check_integer("timesteps", self.timesteps, "use the paper's 100", minimum=2)
        check_number("final_mask", self.final_mask, 0.0, 0.99999, "use 0.99999 or the paper's 0.9", low_open=True)
        check_number("auxiliary_weight", self.auxiliary_weight, 0.0, math.inf, "use 0 for none, or the paper's 5e-4")
        check_flag("adaptive_auxiliary", self.adaptive_auxiliary)
        check_flag("importance_sampling", self.importance_sampling)


@dataclass(frozen=True)
class VQDiffusionSampler(GuidedSampler):
    """How the diffusion is reversed.

    steps: network evaluations, spread evenly over the T timesteps; None means all T of them.
    temperature: logits of the predicted x_0 are divided by it.
    top_k, top_p: draw x_0 among the k likeliest tokens, or the likeliest ones that hold probability p; None: all. top_p
        is the paper's truncation sampling (r = 0.86).
    method: "posterior" samples x_s from the composite posterior; "purity" reveals as many tokens as the schedule has
        at every step, surer predictions likelier first, and never changes them (Tang et al. 2022, section 3.2).
    purity_weight: of method="purity": how much surer predictions are sharpened besides; None: 0.
    """

    steps: int | None = None
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    method: str = "posterior"
    purity_weight: float | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.steps is not None:
            check_integer("steps", self.steps, "leave it out for the number of steps of training")
        check_sampling(self.temperature, self.top_k, self.top_p)
        check_choice("method", self.method, ("posterior", "purity"))
        if self.purity_weight is not None:
            check_number("purity_weight", self.purity_weight, 0.0, math.inf, "use 0 for none")
            if self.method != "purity":
                raise ValueError(
                    f"purity_weight is used by method='purity' alone, but method={self.method!r}; leave it out"
                )


@dataclass(frozen=True)
class UniformOptions(BackboneOptions):
    """Diffusion towards uniform tokens.

    form: "d3pm", the diffusion of T steps with its bound (Austin et al. 2021, Hoogeboom et al. 2021); "perturbation":
        a random share of tokens resampled gives x_a, a further share gives x_b, the network predicts x_a from x_b.
    timesteps: of d3pm, T; None: 100.
    auxiliary_weight: of d3pm, of the cross-entropy of x_0 beside the bound; None: 0.001.
    importance_sampling: of d3pm, draw t where the bound's terms are large; None: true.
    perturbed_share (None: 0.1): of perturbation, the probability that a token of x_a is resampled in x_b.
    """

    form: str = "d3pm"
    timesteps: int | None = None
    auxiliary_weight: float | None = None
    importance_sampling: bool | None = None
    perturbed_share: float | None = None

    def __post_init__(self):
        super().__post_init__()
        check_choice("form", self.form, ("d3pm", "perturbation"))
        owners = {"timesteps": "d3pm", "auxiliary_weight": "d3pm", "importance_sampling": "d3pm",
                  "perturbed_share": "perturbation"}
        for name, owner in owners.items():
            if getattr(self, name) is not None and owner != self.form:
                raise ValueError(f"{name} is used by form={owner!r} alone, but form={self.form!r}; leave it out")
        if self.timesteps is not None:
            check_integer("timesteps", self.timesteps, "leave it out for 100", minimum=2)
        if self.auxiliary_weight is not None:
            check_number("auxiliary_weight", self.auxiliary_weight, 0.0, math.inf, "use 0 for none")
        if self.importance_sampling is not None:
            check_flag("importance_sampling", self.importance_sampling)
        if self.perturbed_share is not None:
            check_number("perturbed_share", self.perturbed_share, 0.0, 1.0, "leave it out for 0.1", low_open=True)


@dataclass(frozen=True)
class UniformSampler(GuidedSampler):
    """How it is sampled.

    steps: of d3pm, network evaluations spread evenly over T timesteps (None: all); of perturbation, how often all
        tokens are drawn anew from the network's prediction (None: 50).
    temperature: logits are divided by it; in the perturbation form a low one changes only tokens the network is sure
        about.
    top_k, top_p: sample among the k likeliest tokens, or the likeliest ones that hold probability p; None: all.
    guidance_of: what guidance combines, "x_0", the prediction (Tang et al. 2022), or, of d3pm, "posterior", the reverse
        step q(x_s | x_t) (Schiff et al. 2024).
    """

    steps: int | None = None
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    guidance_of: str = later("x_0")

    def __post_init__(self):
        super().__post_init__()
        if self.steps is not None:
            check_integer("steps", self.steps, "leave it out for the default of the prior's form")
        check_choice("guidance_of", self.guidance_of, ("x_0", "posterior"))
        if self.guidance_of != "x_0" and self.guidance in (0, 1) and self.guidance_schedule == "constant":
            raise ValueError(f"guidance_of={self.guidance_of!r}: guidance={self.guidance:g} is one model alone, with "
                             "nothing to combine; give another guidance, or leave guidance_of out")
        check_sampling(self.temperature, self.top_k, self.top_p)
