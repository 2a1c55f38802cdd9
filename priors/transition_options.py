"""Knobs of the diffusions with transition matrices, VQ-Diffusion and uniform, as frozen dataclasses; needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from priors.condition_options import GuidedSampler
from priors.option_checks import check_choice, check_flag, check_integer, check_number, check_sampling, later
from priors.options import BackboneOptions


@dataclass(frozen=True)
class VQDiffusionOptions(BackboneOptions):
    """Mask-and-replace diffusion (Gu et al. 2022).

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

    form: "d3pm", the diffusion of T steps with its bound (Austin et al. 2021, Hoogeboom et al. 2021); "udlm", that of
        continuous time, trained on the bound of infinitely many steps (Schiff et al. 2024; Duo, Sahoo et al. 2025,
        trains it too, after a curriculum that is left out here); "perturbation": a random share of tokens resampled
        gives x_a, a further share gives x_b, the network predicts x_a from x_b.
    timesteps: of d3pm, T; None: 100.
    auxiliary_weight: of d3pm, of the cross-entropy of x_0 beside the bound; None: 0.001.
    importance_sampling: of d3pm, draw t where the bound's terms are large; None: true.
    perturbed_share (None: 0.1): of perturbation, the probability that a token of x_a is resampled in x_b.
    noise_schedule: of udlm, the probability that a token is left alone until time t of [0, 1]: "linear" (None), 1 - t,
        or "cosine", cos(pi t / 2), whose training sees more of little noise. The bound is the same.
    """

    form: str = "d3pm"
    timesteps: int | None = None
    auxiliary_weight: float | None = None
    importance_sampling: bool | None = None
    perturbed_share: float | None = None
    noise_schedule: str | None = later(None)

    def __post_init__(self):
        super().__post_init__()
        check_choice("form", self.form, ("d3pm", "udlm", "perturbation"))
        owners = {"timesteps": "d3pm", "auxiliary_weight": "d3pm", "importance_sampling": "d3pm",
                  "perturbed_share": "perturbation", "noise_schedule": "udlm"}
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
        check_choice("noise_schedule", self.noise_schedule, (None, "linear", "cosine"))


@dataclass(frozen=True)
class UniformSampler(GuidedSampler):
    """How it is sampled.

    steps: of d3pm, network evaluations spread evenly over T timesteps (None: all); of udlm, spread evenly over time
        (None: 100); of perturbation, how often all tokens are drawn anew from the network's prediction (None: 50).
    temperature: logits are divided by it; in the perturbation form a low one changes only tokens the network is sure
        about.
    top_k, top_p: sample among the k likeliest tokens, or the likeliest ones that hold probability p; None: all.
    guidance_of: what guidance combines, "x_0", the prediction (Tang et al. 2022), or, of d3pm and udlm, "posterior",
        the reverse step q(x_s | x_t) (Schiff et al. 2024).
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
