"""LlamaGen's VQ-8 and VQ-16 (Sun et al. 2024) against an assembly written here from the published architecture."""

import pytest
import torch
import torch.nn.functional as F

from vq.checkpoints import load_official
from vq.options import VQGANOptions
from vq.vqgan import VQGAN

WIDTHS, Z, E, K = (32, 32, 64), 12, 4, 24   # three levels of 16, 8 and 4 pixels, one residual block each
SMALL = dict(channels=32, channel_multipliers=(1, 1, 2), num_res_blocks=1, attention_resolutions=(4,), embedding_dim=E,
             codebook_size=K, z_channels=Z, resolution=16)


class LlamaGen:
    """Its tensors, each made where it is first used; then encoder, lookup and decoder as functional calls on them."""

    def __init__(self, z=Z):
        self.state, self.generator, self.z = {}, torch.Generator().manual_seed(0), z
        self.tokens(torch.zeros(1, 3, 16, 16))
        self.image(torch.zeros(1, 16, dtype=torch.int64))

    def tensor(self, name, *shape, scale):
        if name not in self.state:
            self.state[name] = scale * torch.randn(shape, generator=self.generator)
        return self.state[name]

    def conv(self, name, x, out, kernel=3, **options):
        weight = self.tensor(f"{name}.weight", out, x.shape[1], kernel, kernel, scale=(x.shape[1] * kernel**2) ** -0.5)
        return F.conv2d(x, weight, self.tensor(f"{name}.bias", out, scale=0.1), **options)

    def norm(self, name, x):
        weight = self.tensor(f"{name}.weight", x.shape[1], scale=1.0)
        return F.group_norm(x, 32, weight, self.tensor(f"{name}.bias", x.shape[1], scale=0.1), eps=1e-6)

    def residual(self, name, x, out):
        h = self.conv(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", x)), out, padding=1)
        h = self.conv(f"{name}.conv2", F.silu(self.norm(f"{name}.norm2", h)), out, padding=1)
        return h + (x if x.shape[1] == out else self.conv(f"{name}.nin_shortcut", x, out, kernel=1))

    def attention(self, name, x):
        b, c, h, w = x.shape
        normed = self.norm(f"{name}.norm", x)
        q, k, v = (self.conv(f"{name}.{part}", normed, c, kernel=1).flatten(2) for part in "qkv")   # (B, C, hw)
        weights = torch.einsum("bcq,bck->bqk", q, k).mul(c**-0.5).softmax(-1)
        return x + self.conv(f"{name}.proj_out", torch.einsum("bqk,bck->bcq", weights, v).view(b, c, h, w), c, kernel=1)

    def middle(self, network, h):
        h = self.attention(f"{network}.mid.1", self.residual(f"{network}.mid.0", h, WIDTHS[-1]))
        return self.residual(f"{network}.mid.2", h, WIDTHS[-1])

    def latents(self, x):
        h = self.conv("encoder.conv_in", x, WIDTHS[0], padding=1)
        for level, width in enumerate(WIDTHS):
            h = self.residual(f"encoder.conv_blocks.{level}.res.0", h, width)
            if level < 2:
                h = self.conv(f"encoder.conv_blocks.{level}.downsample.conv", F.pad(h, (0, 1, 0, 1)), width, stride=2)
        h = self.middle("encoder", self.attention("encoder.conv_blocks.2.attn.0", h))
        h = self.conv("encoder.conv_out", F.silu(self.norm("encoder.norm_out", h)), self.z, padding=1)
        return self.conv("quant_conv", h, E, kernel=1)

    def codes(self):
        codes = self.tensor("quantize.embedding.weight", K, E, scale=3.0)
        return codes / codes.norm(dim=1, keepdim=True)

    def tokens(self, x):
        h = self.latents(x).permute(0, 2, 3, 1).flatten(1, 2)   # (B, hw, E)
        return torch.cdist(h / h.norm(dim=2, keepdim=True), self.codes()[None]).argmin(-1)

    def image(self, tokens):
        h = self.codes()[tokens].transpose(1, 2).reshape(len(tokens), E, 4, 4)
        h = self.middle("decoder", self.conv("decoder.conv_in", self.conv("post_quant_conv", h, self.z, kernel=1),
                                             WIDTHS[-1], padding=1))
        for place, width in enumerate(reversed(WIDTHS)):   # counted from the tokens' side
            for index in (0, 1):
                h = self.residual(f"decoder.conv_blocks.{place}.res.{index}", h, width)
                if place == 0:
                    h = self.attention(f"decoder.conv_blocks.0.attn.{index}", h)
            if place < 2:
                h = self.conv(f"decoder.conv_blocks.{place}.upsample.conv",
                              h.repeat_interleave(2, 2).repeat_interleave(2, 3), width, padding=1)
        return self.conv("decoder.conv_out", F.silu(self.norm("decoder.norm_out", h)), 3, padding=1)


@pytest.fixture(scope="module")
def theirs():
    return LlamaGen()


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("fold", [True, False])
@torch.no_grad()
def test_tokens_are_those_of_an_independent_assembly(theirs, images, fold):
    model = load_official(theirs.state, **SMALL, layout="llamagen", fold=fold)
    signed = images.float() / 127.5 - 1
    torch.testing.assert_close(model.encoder(signed), theirs.latents(signed), atol=1e-5, rtol=1e-5)
    tokens = theirs.tokens(signed)
    assert torch.equal(model.encode(images), tokens) and len(tokens.unique()) > 5


@pytest.mark.parametrize("fold", [True, False])
@torch.no_grad()
def test_images_are_those_of_an_independent_assembly(theirs, fold):
    tokens = torch.randint(0, K, (4, 16), generator=torch.Generator().manual_seed(2))
    model = load_official(theirs.state, **SMALL, layout="llamagen", fold=fold)
    expected = theirs.image(tokens)
    torch.testing.assert_close(model.decoder(model.quantizer.lookup(tokens.view(-1, 4, 4))), expected, atol=1e-5,
                               rtol=1e-5)
    as_bytes = ((expected + 1) * 127.5 + 0.5).clamp(0, 255).to(torch.uint8)
    assert (model.decode(tokens).int() - as_bytes.int()).abs().max() <= 1


@pytest.mark.parametrize("wrapper", ["model", "ema", None])
def test_the_weights_inside_a_training_s_file_are_found(theirs, images, tmp_path, wrapper):
    state = theirs.state | {"quantize.codebook_used": torch.zeros(65_536)}
    other = {name: torch.zeros_like(value) for name, value in state.items()}
    content = {None: state, "model": {"model": state, "optimizer": {"lr": 0.1}, "steps": 7},
               "ema": {"model": other, "ema": state}}[wrapper]
    torch.save(content, tmp_path / "vq_ds4.pt")
    model = VQGAN(options=options(), resolution=16).eval().load_official(tmp_path / "vq_ds4.pt", layout="llamagen")
    assert torch.equal(model.encode(images), load_official(state, **SMALL, layout="llamagen").encode(images))


def without_z_channels():
    return {name: value for name, value in SMALL.items() if name != "z_channels"}


def test_left_out_z_channels_are_the_published_256(images):
    theirs = LlamaGen(z=256)
    model = load_official(theirs.state, **without_z_channels(), layout="llamagen")
    assert torch.equal(model.encode(images), theirs.tokens(images.float() / 127.5 - 1))


def test_a_file_of_other_z_channels_is_refused_by_that_name(theirs):
    with pytest.raises(ValueError, match=r"\(12, 64, 3, 3\), expected \(256, 64, 3, 3\).*and z_channels"):
        load_official(theirs.state, **without_z_channels(), layout="llamagen")


def options():
    sizes = {name: value for name, value in SMALL.items() if name != "resolution"}
    return VQGANOptions(**VQGANOptions.of_layout("llamagen", SMALL) | sizes)


def test_the_published_sizes_are_implied():
    implied = VQGANOptions.of_layout("llamagen", {"resolution": 256, "channel_multipliers": (1, 2, 2, 4)})
    assert (implied["codebook_size"], implied["embedding_dim"], implied["z_channels"]) == (16_384, 8, 256)
    assert implied["attention_resolutions"] == (32,) and implied["lookup"] == "cosine"


def test_other_objects_in_the_weights_are_named(theirs, tmp_path):
    torch.save({"model": theirs.state | {"config": "VQ-16"}}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="holds config beside tensors"):
        load_official(tmp_path / "model.pt", **SMALL, layout="llamagen")


def test_parameters_at_full_size_are_those_of_vq_16():
    """72 million (Sun et al. 2024, table 1), counted on the meta device: no memory is taken."""
    implied = VQGANOptions.of_layout("llamagen", {"resolution": 256, "channel_multipliers": (1, 1, 2, 2, 4)})
    with torch.device("meta"):
        model = VQGAN(options=VQGANOptions(**implied | {"quant_convs": "separate"}), resolution=256)
    parts = (model.encoder, model.decoder, model.quantizer)
    assert sum(parameter.numel() for part in parts for parameter in part.parameters()) == pytest.approx(72e6, rel=0.01)
