"""Import of VQGANs trained elsewhere: "Unleashing Transformers", taming-transformers and LlamaGen.

    model = load_official("vqgan_ema_1400000.th", channels=128, channel_multipliers=(1, 1, 2, 2, 4), num_res_blocks=2,
                          attention_resolutions=(16,), embedding_dim=256, codebook_size=1024, resolution=256)
    model.unused_keys   # what the file holds and the model has no use for
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vq.autoencoder import Attention, Downsample, ResBlock, Upsample
from vq.model import VQGANModel
from vq.options import VQGANOptions
from vq.quantize import GumbelQuantizer, NearestQuantizer

log = logging.getLogger(__name__)
WRAPPERS = ("state_dict", "ema", "model")
"""Under what names files keep their weights; LlamaGen's own loader, too, prefers averaged ones."""


@dataclass(frozen=True)
class Layout:
    """Where a code base keeps what.

    encoder, decoder: prefixes of every block, from the options and the resolution.
    skip: name of a residual block's 1x1 convolution. codebook, discriminator, logsigma: prefixes.
    unused: pattern of keys known to be of no use here.
    """

    encoder: Callable[[VQGANOptions, int], list[str]]
    decoder: Callable[[VQGANOptions, int], list[str]]
    skip: str
    codebook: str
    discriminator: str
    logsigma: str
    unused: re.Pattern[str]


def load_official(state_dict_or_path: Mapping[str, Tensor] | str | Path, *, channels: int,
                  channel_multipliers: Iterable[int], num_res_blocks: int, attention_resolutions: Iterable[int],
                  embedding_dim: int, codebook_size: int, resolution: int, z_channels: int | None = None,
                  layout: str = "unleashing", fold: bool = True) -> VQGANModel:
    """The VQGAN in a checkpoint, in evaluation mode, with `unused_keys` listing the file's keys it has no use for.

    Weights are in the contiguous format, in which torch's GroupNorm rounds as it did for the official code (6e-6 from
    it at the latents, against 1.2e-5 in channels_last); `.to(memory_format=torch.channels_last)` is the faster choice.
    layout: "unleashing" (official .th files), "taming" (VQModel and GumbelVQ, Esser et al. 2021) or "llamagen"
        (vq_ds8 and vq_ds16, Sun et al. 2024; codes on the unit sphere). The weights inside a .ckpt or .pt are found.
    z_channels: on the far sides of the quant convs (None: the published 256 of llamagen, otherwise embedding_dim).
    fold: merge quant convs into their neighbours (`fold_quant_convs`); False keeps them, for training on, and so do
        Gumbel models, which take the most probable code without a temperature.
    A file without a discriminator, which judging a prior does not need, gets a fresh one, with a warning that says so.
    Raises ValueError on an unknown layout, missing or unexpected keys, or shapes that contradict the arguments.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r}: expected one of {', '.join(LAYOUTS)}")
    names = LAYOUTS[layout]
    state = read_state_dict(state_dict_or_path)
    sizes = dict(
        channels=channels, channel_multipliers=tuple(channel_multipliers), num_res_blocks=num_res_blocks,
        attention_resolutions=tuple(attention_resolutions), embedding_dim=embedding_dim, codebook_size=codebook_size)
    given = {} if z_channels is None else {"z_channels": z_channels}
    options = VQGANOptions(**_differences(layout, state, num_res_blocks)
                           | _discriminator_sizes(state, names.discriminator) | sizes | given)
    model = VQGANModel(options=options, resolution=resolution)
    has_discriminator = bool(names.discriminator) and any(key.startswith(f"{names.discriminator}.") for key in state)
    sources = dict(_sources(model, names, has_discriminator=has_discriminator))
    unused = _check_keys(state, sources, names.unused)
    model.load_state_dict(model.state_dict() | _gather(state, sources, model.state_dict()))
    if names.discriminator and not has_discriminator:
        log.warning("the checkpoint has no discriminator: a fresh one stands there, which training on would have to "
                    "train first; tokens and images do not depend on it")
    model.to(memory_format=torch.contiguous_format)   # type: ignore[call-overload]   # torch's stubs lack it
    if fold and options.quant_convs == "separate" and options.quantizer != "gumbel":
        model = fold_quant_convs(model)
    model.unused_keys = unused
    log.info("%d keys of the checkpoint are not used: %s", len(unused), ", ".join(unused) or "none")
    return model.eval()


def read_state_dict(state_dict_or_path: Mapping[str, Tensor] | str | Path) -> Mapping[str, Tensor]:
    """The tensors of a .safetensors, .th, .pt or .ckpt file, without running any code from it."""
    if isinstance(state_dict_or_path, Mapping):
        return state_dict_or_path
    path = Path(state_dict_or_path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:   # torch raises UnpicklingError, RuntimeError, EOFError ... by kind of damage
        raise ValueError(
            f"{path} cannot be read as plain tensors ({type(error).__name__}). Either it is damaged, or it holds other "
            "Python objects, which are never executed here: where you trust it, keep its tensors alone with "
            "torch.save(torch.load(path, weights_only=False)['state_dict'], 'tensors.pt')") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}: expected a state dict, names with their tensors")
    wrapped = next((content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)), content)
    if wrong := [name for name, value in wrapped.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"{path} holds {_some([str(name) for name in wrong])} beside tensors: expected a state dict, "
                         f"names with their tensors, as it is or under one of {', '.join(WRAPPERS)}")
    return wrapped


@torch.no_grad()
def fold_quant_convs(model: VQGANModel) -> VQGANModel:
    """The same tokenizer without its 1x1 quant convs: the first becomes part of the encoder's last convolution.

    The second becomes a codebook of its own for decoding. (It cannot join the decoder's first convolution, whose zero
    padding lies behind the 1x1 convolution's bias.) Raises ValueError if there are none to fold.
    """
    if model.options.quant_convs != "separate":
        raise ValueError(f"quant_convs={model.options.quant_convs!r}: expected 'separate', as there is nothing to fold")
    folded = VQGANModel(options=replace(model.options, quant_convs="folded"), resolution=model.resolution)
    state = {key: value for key, value in model.state_dict().items() if "quant_conv." not in key}
    last_weight, last_bias = _weight_and_bias(model.encoder.blocks[-1])
    before_weight, before_bias = _weight_and_bias(model.encoder.quant_conv)
    after_weight, after_bias = _weight_and_bias(model.decoder.post_quant_conv)
    mix, spread = before_weight[:, :, 0, 0], after_weight[:, :, 0, 0]
    key = f"encoder.blocks.{len(model.encoder.blocks) - 1}"
    state[f"{key}.weight"] = torch.einsum("om,mihw->oihw", mix, last_weight).float()
    state[f"{key}.bias"] = (mix @ last_bias + before_bias).float()
    assert isinstance(model.quantizer, NearestQuantizer)   # Gumbel models are not folded
    codes = model.quantizer.codes().double()
    state["quantizer.decoded.weight"] = (codes @ spread.t() + after_bias).float()
    folded.load_state_dict(state)
    folded.to(memory_format=torch.contiguous_format)   # type: ignore[call-overload]   # torch's stubs lack it
    return folded.train(model.training)


def _weight_and_bias(convolution: nn.Module) -> tuple[Tensor, Tensor]:
    """In float64."""
    assert isinstance(convolution, nn.Conv2d) and convolution.bias is not None
    return convolution.weight.double(), convolution.bias.double()


def _differences(layout: str, state: Mapping[str, Tensor], num_res_blocks: int) -> dict[str, Any]:
    """What sets a code base's models apart from the options' defaults, which are the official code's."""
    implied = VQGANOptions.of_layout(layout, {"num_res_blocks": num_res_blocks})
    implied["quantizer"] = "gumbel" if f"{LAYOUTS[layout].codebook}.proj.weight" in state else "nearest"
    if layout == "unleashing":
        return implied
    return implied | {"quant_convs": "separate", "perceptual_input": "signed", "diffaug": False, "lambda_max": 1e4}


def _discriminator_sizes(state: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    """Read off the file, since both code bases build it from their own defaults; {} where it has no discriminator."""
    first = f"{prefix}.0.weight"
    if not prefix or first not in state:
        return {}   # a part of one is reported with the other missing keys
    convolutions = [key for key, value in state.items() if key.startswith(f"{prefix}.") and value.ndim == 4]
    return {"disc_channels": state[first].shape[0], "disc_layers": len(convolutions) - 2}


def _sources(model: VQGANModel, names: Layout, *,
             has_discriminator: bool = True) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every native key with the keys it is made of; several are stacked along the first dimension."""
    for part, prefixes in (("encoder", names.encoder), ("decoder", names.decoder)):
        blocks = getattr(model, part).blocks
        for index, (block, theirs) in enumerate(zip(blocks, prefixes(model.options, model.resolution), strict=True)):
            yield from _block_sources(block, f"{part}.blocks.{index}", theirs, names.skip)
    if model.options.quant_convs == "separate":
        yield from _pair("encoder.quant_conv", "quant_conv")
        yield from _pair("decoder.post_quant_conv", "post_quant_conv")
    if model.decoder.logsigma is not None:
        for layer in (0, 2):
            yield from _pair(f"decoder.logsigma.{layer}", f"{names.logsigma}.{layer}")
    if isinstance(model.quantizer, GumbelQuantizer):
        yield from _pair("quantizer.proj", f"{names.codebook}.proj")
        yield "quantizer.embedding.weight", (f"{names.codebook}.embed.weight",)
    else:
        yield "quantizer.embedding.weight", (f"{names.codebook}.embedding.weight",)
    for key in model.discriminator.state_dict() if has_discriminator and names.discriminator else ():
        yield f"discriminator.{key}", (f"{names.discriminator}.{key.removeprefix('main.')}",)


def _block_sources(block: nn.Module, ours: str, theirs: str, skip: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    if isinstance(block, ResBlock):
        for name in ("norm1", "conv1", "norm2", "conv2"):
            yield from _pair(f"{ours}.{name}", f"{theirs}.{name}")
        if not isinstance(block.skip, nn.Identity):
            yield from _pair(f"{ours}.skip", f"{theirs}.{skip}")
    elif isinstance(block, Attention):
        yield from _pair(f"{ours}.norm", f"{theirs}.norm")
        yield from _pair(f"{ours}.qkv", f"{theirs}.q", f"{theirs}.k", f"{theirs}.v")
        yield from _pair(f"{ours}.proj_out", f"{theirs}.proj_out")
    elif isinstance(block, (Downsample, Upsample)):
        yield from _pair(f"{ours}.conv", f"{theirs}.conv")
    else:
        yield from _pair(ours, theirs)


def _pair(ours: str, *theirs: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for kind in ("weight", "bias"):
        yield f"{ours}.{kind}", tuple(f"{prefix}.{kind}" for prefix in theirs)


def _check_keys(state: Mapping[str, Tensor], sources: Mapping[str, tuple[str, ...]],
                known_unused: re.Pattern[str]) -> tuple[str, ...]:
    """The file's known unused keys; ValueError if it lacks a key, or holds one that is neither used nor known."""
    wanted = {key for keys in sources.values() for key in keys}
    left = [key for key in state if key not in wanted]
    missing, unexpected = sorted(wanted - set(state)), [key for key in left if not known_unused.fullmatch(key)]
    if missing or unexpected:
        raise ValueError(f"the checkpoint is not of the model the arguments describe. Missing {_some(missing)}; "
                         f"unexpected {_some(unexpected)}. Check channel_multipliers, num_res_blocks, "
                         "attention_resolutions, resolution and layout")
    return tuple(left)


def _gather(state: Mapping[str, Tensor], sources: Mapping[str, tuple[str, ...]],
            ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    gathered = {key: torch.cat([state[name] for name in names]) if len(names) > 1 else state[names[0]]
                for key, names in sources.items()}
    wrong = [f"{', '.join(sources[key])} {tuple(value.shape)}, expected {tuple(ours[key].shape)}"
             for key, value in gathered.items() if value.shape != ours[key].shape]
    if wrong:
        raise ValueError(f"shapes in the checkpoint contradict the arguments: {_some(wrong)}. Check channels, "
                         "channel_multipliers, embedding_dim, codebook_size and z_channels")
    return gathered


def _some(items: list[str], most: int = 6) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ("; ".join(items[:most]) + more) or "nothing"


def _numbered(prefix: str) -> Callable[[VQGANOptions, int], list[str]]:
    """Blocks counted through, attention included: prefix.0, prefix.1 ..."""
    def names(options: VQGANOptions, resolution: int) -> list[str]:
        is_encoder = prefix.endswith("encoder.blocks")
        nested = taming_encoder(options, resolution) if is_encoder else taming_decoder(options, resolution)
        return [f"{prefix}.{index}" for index in range(len(nested))]
    return names


def taming_encoder(options: VQGANOptions, resolution: int) -> list[str]:
    """taming-transformers' name of every encoder block, in order."""
    names = ["encoder.conv_in"]
    last = len(options.channel_multipliers) - 1
    for level in range(last + 1):
        names += _taming_level("encoder.down", level, options.num_res_blocks,
                               has_attention=resolution // 2**level in options.attention_resolutions)
        if level < last:
            names.append(f"encoder.down.{level}.downsample")
    return names + _taming_middle("encoder") + ["encoder.norm_out", "encoder.conv_out"]


def taming_decoder(options: VQGANOptions, resolution: int) -> list[str]:
    """taming-transformers' name of every decoder block, in order; its levels count from the image's side."""
    names = ["decoder.conv_in", *_taming_middle("decoder")]
    for level in reversed(range(len(options.channel_multipliers))):
        names += _taming_level("decoder.up", level, options.blocks_in_decoder,
                               has_attention=resolution // 2**level in options.attention_resolutions)
        if level > 0:
            names.append(f"decoder.up.{level}.upsample")
    return [*names, "decoder.norm_out", "decoder.conv_out"]


def _taming_level(prefix: str, level: int, num_blocks: int, *, has_attention: bool) -> list[str]:
    kinds = ("block", "attn") if has_attention else ("block",)
    return [f"{prefix}.{level}.{kind}.{index}" for index in range(num_blocks) for kind in kinds]


def _taming_middle(network: str) -> list[str]:
    return [f"{network}.mid.{name}" for name in ("block_1", "attn_1", "block_2")]


def llamagen_encoder(options: VQGANOptions, resolution: int) -> list[str]:
    """LlamaGen's name of every encoder block, in order."""
    return [_as_llamagen(name, level=lambda level: level) for name in taming_encoder(options, resolution)]


def llamagen_decoder(options: VQGANOptions, resolution: int) -> list[str]:
    """The same of the decoder, whose levels count from the tokens' side."""
    last = len(options.channel_multipliers) - 1
    return [_as_llamagen(name, level=lambda level: last - level) for name in taming_decoder(options, resolution)]


def _as_llamagen(name: str, *, level: Callable[[int], int]) -> str:
    for taming, theirs in (("block_1", "0"), ("attn_1", "1"), ("block_2", "2")):
        name = name.replace(f".mid.{taming}", f".mid.{theirs}")
    return re.sub(r"\.(?:down|up)\.(\d+)\.(block)?",
                  lambda found: f".conv_blocks.{level(int(found[1]))}." + ("res" if found[2] else ""), name)


LAYOUTS = {
    "unleashing": Layout(
        encoder=_numbered("ae.encoder.blocks"), decoder=_numbered("ae.generator.blocks"), skip="conv_out",
        codebook="ae.quantize", discriminator="disc.main", logsigma="ae.generator.logsigma",
        # LPIPS, and the 1x1 convolution of residual blocks that keep their width, which is made but never called
        unused=re.compile(r"perceptual\..*|ae\.(encoder|generator)\.blocks\.\d+\.conv_out\.(weight|bias)")),
    "taming": Layout(
        encoder=taming_encoder, decoder=taming_decoder, skip="nin_shortcut",
        codebook="quantize", discriminator="loss.discriminator.main", logsigma="",
        unused=re.compile(r"loss\.perceptual_loss\..*")),
    "llamagen": Layout(
        encoder=llamagen_encoder, decoder=llamagen_decoder, skip="nin_shortcut", codebook="quantize", discriminator="",
        logsigma="", unused=re.compile(r"quantize\.codebook_used")),
}
