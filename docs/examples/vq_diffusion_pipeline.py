"""The transformer of a saved VQDiffusionPipeline of `diffusers` as a frozen prior, sampled as the pipeline samples.

Gu et al. 2022, "Vector Quantized Diffusion Model for Text-to-Image Synthesis". With the parts of
microsoft/vq-diffusion-ithq, each with .safetensors, in the folder ithq:

    PYTHONPATH=docs/examples python -m bench.run prior=vq_diffusion_pipeline:SavedVQDiffusion prior.layout=diffusers \
        prior.path=ithq vq=diffusers vq.path=ithq/vqvae dataset=folder dataset.path=photos dataset.resolution=256

Without a condition it is told the pipeline's null: the learned embedding, or the features of no text.
"""
import dataclasses
import json
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from bench.assets.torchvision_compat import ensure_torchvision
from priors.base import UNKNOWN, Sample, Unsupported
from priors.checks import check_known
from priors.condition_options import ConditionSize
from priors.denoising import SampledTime, check_steps
from priors.guidance import Guidance, guided
from priors.option_checks import check_choice
from priors.transition_options import VQDiffusionSampler
from priors.transitions import Corruption
from priors.vq_diffusion import VQDiffusion

WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclasses.dataclass(frozen=True)
class Options:   # condition=text sets them; all else stands in the folder
    num_prefix: ClassVar[int] = 0   # a text is cross-attended: no positions beside the tokens
    text_width: int | None = None
    text_length: int | None = None

    @property
    def condition(self):
        return self.text_width and ConditionSize(text_width=self.text_width, text_length=self.text_length)


@dataclasses.dataclass(frozen=True)
class Sampler(VQDiffusionSampler):
    """method: "pipeline" is the package's loop, which has steps (num_inference_steps: the last so many timesteps, from
        masks alone, and no stride), guidance (guidance_scale) and top_p (truncation_rate); "posterior" and "purity",
        with strides and known tokens, are those of priors.vq_diffusion.
    """

    method: str = "pipeline"

    def __post_init__(self):
        check_choice("method", self.method, ("pipeline", "posterior", "purity"))
        if self.method != "pipeline":
            return super().__post_init__()
        given = VQDiffusionSampler(steps=self.steps, guidance=self.guidance, top_p=self.top_p)
        for name in ("temperature", "top_k", "purity_weight", "guidance_schedule"):
            if (value := getattr(self, name)) != getattr(given, name):
                raise ValueError(f"{name}={value!r}: the pipeline has none; leave it out, or use method='posterior'")


class SavedVQDiffusion(VQDiffusion):
    Options, Sampler = Options, Sampler

    def __init__(self, *, grid, codebook_size, options):
        nn.Module.__init__(self)   # without a network of ours: theirs comes with its weights
        self.grid, self.codebook_size, self.options = tuple(grid), codebook_size, options
        self.num_tokens, self.mask, self.configs = grid[0] * grid[1], codebook_size, ""

    def load_official(self, path, *, layout):   # ValueError where the folder does not fit
        if layout != "diffusers":
            raise ValueError(f"layout={layout!r}: expected diffusers")
        folder = Path(path)   # part by part: diffusers 0.35 saves a whole one that it cannot load
        null = null_of(folder)
        configs = {"transformer": read_json(folder / "transformer" / "config.json"),
                   "scheduler": read_json(folder / "scheduler" / "scheduler_config.json"), "length": len(null)}
        self._build(json.dumps(configs))
        weights = load_file(folder / "transformer" / WEIGHTS)
        self.net.load_state_dict({name: value.float() for name, value in weights.items()})
        self.null.load_state_dict({"weight": null})
        return self

    def get_extra_state(self):   # kept with the weights, so that they are opened again without the folder
        return torch.tensor(list(self.configs.encode()), dtype=torch.uint8)

    def set_extra_state(self, state):
        if (configs := bytes(state.tolist()).decode()) != self.configs:
            self._build(configs)

    def _build(self, configs):
        found, self.configs = json.loads(configs), configs
        plain = {"norm_type": "ada_norm"} | found["transformer"]   # an old folder leaves it out
        self.net = package().Transformer2DModel.from_config(plain)
        self.scheduler = package().VQDiffusionScheduler.from_config(found["scheduler"])
        side, width, codes = (self.net.config[of] for of in ("sample_size", "cross_attention_dim", "num_vector_embeds"))
        if ((side, side), codes - 1) != (self.grid, self.codebook_size):
            raise ValueError(f"it models {side}x{side} tokens of {codes - 1} codes, the tokenizer makes {self.grid[0]}x"
                             f"{self.grid[1]} of {self.codebook_size}; use the vqvae beside it, at its resolution")
        told = self.options.condition
        if told and (told.text_width != width or told.text_length > found["length"]):
            raise ValueError(f"it reads up to {found['length']} positions of {width} features, the condition has "
                             f"{told.text_length} of {told.text_width}; change condition.encoder or condition.length")
        self.null = nn.Embedding(found["length"], width)
        kept, masked = (torch.linspace(*(self.scheduler.config[f"{name}_cum_{end}"] for end in ("start", "end")),
                                       self.scheduler.config["num_train_timesteps"], dtype=torch.float64)
                        for name in ("alpha", "gamma"))   # (T,), of the transition from the data
        self.corruption = Corruption(F.pad(kept, (1, 0), value=1.0), F.pad(masked, (1, 0)), codebook_size=codes - 1)
        self.time = SampledTime(self.corruption.num_timesteps, importance=False)

    def denoise(self, x_t, t, *, condition=None):   # (B, N), (B,) in 1..T -> log-probabilities of x_0, (B, N, K)
        told, seen = self._told(condition, len(x_t))
        log_x_0 = torch.empty(*x_t.shape, self.codebook_size, device=x_t.device)
        for time in t.unique():   # one a call: the network's normalisation takes a single time
            rows = (t == time).nonzero().squeeze(1)
            mask = None if seen[rows].all() else seen[rows]
            log_x_0[rows] = self.net(x_t[rows], encoder_hidden_states=told[rows], timestep=time - 1,
                                     encoder_attention_mask=mask).sample.transpose(1, 2)
        return log_x_0

    def _told(self, condition, num):   # what is cross-attended, (B, M, D), and which of it is seen, (B, M)
        null = self.null.weight.expand(num, -1, -1)
        if condition is None:
            return null, null.new_ones(null.shape[:2], dtype=torch.bool)
        missing = null.shape[1] - condition.features.shape[1]
        features = F.pad(F.normalize(condition.features.to(null), dim=-1), (0, 0, 0, missing))   # as the pipeline does
        given = (condition.lengths > 0).unsqueeze(1)   # (B, 1)
        within = torch.arange(null.shape[1], device=null.device) < condition.lengths.unsqueeze(1)
        return torch.where(given.unsqueeze(2), features, null), within | ~given

    def training_loss(self, tokens, *, condition=None, draws):
        raise Unsupported("it is frozen: give its weights, prior.path=<folder> prior.layout=diffusers")

    @torch.no_grad()
    def sample(self, num, *, sampler, known=None, condition=None, draws):
        if sampler.method != "pipeline":
            return super().sample(num, sampler=sampler, known=known, condition=condition, draws=draws)
        x = check_known(known, num, self.num_tokens, self.codebook_size, device=self.null.weight.device)
        if (x != UNKNOWN).any():
            raise Unsupported("the pipeline starts from masks alone; sampler.method=posterior keeps known tokens")
        steps = check_steps(sampler.steps, self.corruption.num_timesteps)
        predict = guided(self.denoise, self._checked(condition, num), Guidance.of(sampler))
        x = torch.full_like(x, self.mask)
        self.scheduler.set_timesteps(steps, device=x.device)
        for t in self.scheduler.timesteps:   # VQDiffusionPipeline.__call__, whose times start at 0
            log_x_0 = predict(x, (t + 1).expand(num)).transpose(1, 2)   # (num, K, N)
            log_x_0 = package().VQDiffusionPipeline.truncate(self, log_x_0, sampler.top_p or 1.0).clamp(-70)
            x = self.scheduler.step(log_x_0, timestep=t, sample=x, generator=draws.generator).prev_sample
        evaluations = torch.full((num,), steps)
        return predict.counted(Sample(x, evaluations, evaluations * self.num_tokens))


@torch.no_grad()
def null_of(folder):   # what the pipeline is told instead of a text, (M, D): learned, or the features of none
    learned = folder / "learned_classifier_free_sampling_embeddings"
    if read_json(learned / "config.json")["learnable"]:
        return load_file(learned / WEIGHTS)["embeddings"].float()
    package()
    from transformers import CLIPTextModel, CLIPTokenizer
    ids = CLIPTokenizer.from_pretrained(folder / "tokenizer")("", padding="max_length", return_tensors="pt").input_ids
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", use_safetensors=True, local_files_only=True)
    return F.normalize(encoder.float()(ids)[0][0], dim=-1)


def read_json(file):
    return json.loads(file.read_text())


def package():   # ValueError where it cannot be imported
    ensure_torchvision()   # which it imports
    try:
        import diffusers
        import transformers  # noqa: F401, which its pipeline needs
    except (ImportError, RuntimeError) as error:
        raise ValueError(f"{error}: pip install 'vq-prior-bench[diffusers]'") from error
    return diffusers
