"""Checkpoints of other code bases: complete, or an error; taming's against an assembly written here from its keys."""

import pytest
import torch
import torch.nn.functional as F

from vq.checkpoints import fold_quant_convs, load_official, taming_decoder, taming_encoder
from vq.options import VQGANOptions
from vq.vqgan import VQGAN

SMALL = dict(channels=32, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(8,), embedding_dim=6,
             codebook_size=16, resolution=16)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


# --- an independent statement of both layouts -------------------------------------------------------------------------

def conv(state, name, out, inp, kernel):
    state[f"{name}.weight"] = torch.randn(out, inp, kernel, kernel) / (inp * kernel**2) ** 0.5
    state[f"{name}.bias"] = 0.1 * torch.randn(out)


def norm(state, name, width):
    state[f"{name}.weight"], state[f"{name}.bias"] = 1 + 0.1 * torch.randn(width), 0.1 * torch.randn(width)


def res(state, name, inp, out, skip):
    norm(state, f"{name}.norm1", inp)
    conv(state, f"{name}.conv1", out, inp, 3)
    norm(state, f"{name}.norm2", out)
    conv(state, f"{name}.conv2", out, out, 3)
    if inp != out:
        conv(state, f"{name}.{skip}", out, inp, 1)


def attention(state, name, width):
    norm(state, f"{name}.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        conv(state, f"{name}.{part}", width, width, 1)


def discriminator(state, name, width=8):
    conv(state, f"{name}.0", width, 3, 4)
    inp = width
    for index, out in ((2, 2 * width), (5, 4 * width), (8, 8 * width)):
        conv(state, f"{name}.{index}", out, inp, 4)
        del state[f"{name}.{index}.bias"]
        norm(state, f"{name}.{index + 1}", out)
        state[f"{name}.{index + 1}.running_mean"] = torch.zeros(out)
        state[f"{name}.{index + 1}.running_var"] = torch.ones(out)
        state[f"{name}.{index + 1}.num_batches_tracked"] = torch.tensor(0)
        inp = out
    conv(state, f"{name}.11", 1, inp, 4)


@pytest.fixture
def taming_state():
    """The VQModel of SMALL, key by key: levels of 16x16 (32 channels) and 8x8 (64, with attention)."""
    torch.manual_seed(0)
    state, skip = {}, "nin_shortcut"
    conv(state, "encoder.conv_in", 32, 3, 3)
    res(state, "encoder.down.0.block.0", 32, 32, skip)
    conv(state, "encoder.down.0.downsample.conv", 32, 32, 3)
    res(state, "encoder.down.1.block.0", 32, 64, skip)
    attention(state, "encoder.down.1.attn.0", 64)
    for network in ("encoder", "decoder"):
        res(state, f"{network}.mid.block_1", 64, 64, skip)
        attention(state, f"{network}.mid.attn_1", 64)
        res(state, f"{network}.mid.block_2", 64, 64, skip)
    norm(state, "encoder.norm_out", 64)
    conv(state, "encoder.conv_out", 6, 64, 3)
    conv(state, "quant_conv", 6, 6, 1)
    state["quantize.embedding.weight"] = torch.randn(16, 6)
    conv(state, "post_quant_conv", 6, 6, 1)
    conv(state, "decoder.conv_in", 64, 6, 3)
    for index in (0, 1):
        res(state, f"decoder.up.1.block.{index}", 64, 64, skip)
        attention(state, f"decoder.up.1.attn.{index}", 64)
    conv(state, "decoder.up.1.upsample.conv", 64, 64, 3)
    res(state, "decoder.up.0.block.0", 64, 32, skip)
    res(state, "decoder.up.0.block.1", 32, 32, skip)
    norm(state, "decoder.norm_out", 32)
    conv(state, "decoder.conv_out", 3, 32, 3)
    discriminator(state, "loss.discriminator.main")
    return state


class Assembly:
    """taming's encoder and decoder of SMALL, spelt out with functional calls on its own keys."""

    def __init__(self, state):
        self.state = state

    def conv(self, name, x, **options):
        return F.conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], **options)

    def norm(self, name, x):
        return F.group_norm(x, 32, self.state[f"{name}.weight"], self.state[f"{name}.bias"], eps=1e-6)

    def swish(self, x):
        return x * torch.sigmoid(x)

    def res(self, name, x):
        h = self.conv(f"{name}.conv1", self.swish(self.norm(f"{name}.norm1", x)), padding=1)
        h = self.conv(f"{name}.conv2", self.swish(self.norm(f"{name}.norm2", h)), padding=1)
        return (self.conv(f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in self.state else x) + h

    def attention(self, name, x):
        b, c, h, w = x.shape
        normed = self.norm(f"{name}.norm", x)
        q, k, v = (self.conv(f"{name}.{part}", normed).reshape(b, c, h * w) for part in "qkv")
        weights = torch.softmax(torch.bmm(q.transpose(1, 2), k) * c**-0.5, dim=2)
        return x + self.conv(f"{name}.proj_out", torch.bmm(v, weights.transpose(1, 2)).reshape(b, c, h, w))

    def middle(self, network, x):
        x = self.res(f"{network}.mid.block_1", x)
        return self.res(f"{network}.mid.block_2", self.attention(f"{network}.mid.attn_1", x))

    def latents(self, x):
        h = self.res("encoder.down.0.block.0", self.conv("encoder.conv_in", x, padding=1))
        h = self.conv("encoder.down.0.downsample.conv", F.pad(h, (0, 1, 0, 1)), stride=2)
        h = self.attention("encoder.down.1.attn.0", self.res("encoder.down.1.block.0", h))
        h = self.swish(self.norm("encoder.norm_out", self.middle("encoder", h)))
        return self.conv("quant_conv", self.conv("encoder.conv_out", h, padding=1))

    def tokens(self, x):
        vectors = self.latents(x).permute(0, 2, 3, 1)
        return (vectors.unsqueeze(-2) - self.state["quantize.embedding.weight"]).square().sum(-1).argmin(-1).flatten(1)

    def image(self, tokens, height=8, width=8):
        codes = self.state["quantize.embedding.weight"][tokens].view(-1, height, width, 6).permute(0, 3, 1, 2)
        h = self.middle("decoder", self.conv("decoder.conv_in", self.conv("post_quant_conv", codes), padding=1))
        for index in (0, 1):
            h = self.attention(f"decoder.up.1.attn.{index}", self.res(f"decoder.up.1.block.{index}", h))
        h = self.conv("decoder.up.1.upsample.conv", h.repeat_interleave(2, 2).repeat_interleave(2, 3), padding=1)
        h = self.res("decoder.up.0.block.1", self.res("decoder.up.0.block.0", h))
        return self.conv("decoder.conv_out", self.swish(self.norm("decoder.norm_out", h)), padding=1)


# --- taming -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("fold", [True, False])
@torch.no_grad()
def test_taming_latents_and_tokens_agree_with_an_independent_assembly(taming_state, fold):
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    model, assembly = load_official(taming_state, **SMALL, layout="taming", fold=fold), Assembly(taming_state)
    signed = images.float() / 127.5 - 1
    torch.testing.assert_close(model.encoder(signed), assembly.latents(signed), atol=1e-5, rtol=1e-5)
    assert torch.equal(model.encode(images), assembly.tokens(signed))


@pytest.mark.parametrize("fold", [True, False])
@torch.no_grad()
def test_taming_images_agree_with_an_independent_assembly(taming_state, fold):
    tokens = torch.randint(0, 16, (4, 64))
    expected = Assembly(taming_state).image(tokens)
    model = load_official(taming_state, **SMALL, layout="taming", fold=fold)
    latents = model.quantizer.lookup(tokens.view(-1, 8, 8))
    torch.testing.assert_close(model.decoder(latents), expected, atol=1e-5, rtol=1e-5)
    as_bytes = ((expected + 1) * 127.5 + 0.5).clamp(0, 255).to(torch.uint8)
    assert (model.decode(tokens).int() - as_bytes.int()).abs().max() <= 1


@torch.no_grad()
def test_folding_is_right_at_the_border_of_a_larger_canvas_too(taming_state):
    tokens = torch.randint(0, 16, (1, 6, 11))
    model = load_official(taming_state, **SMALL, layout="taming")
    expected = Assembly(taming_state).image(tokens.flatten(1), height=6, width=11)
    torch.testing.assert_close(model.decoder(model.quantizer.lookup(tokens)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fold", [True, False])
@torch.no_grad()
def test_taming_with_z_channels_apart_from_the_codes_agrees_with_the_assembly(taming_state, fold):
    for name, out, inp, kernel in (("encoder.conv_out", 10, 64, 3), ("quant_conv", 6, 10, 1),
                                   ("post_quant_conv", 10, 6, 1), ("decoder.conv_in", 64, 10, 3)):
        conv(taming_state, name, out, inp, kernel)
    model = load_official(taming_state, **SMALL, z_channels=10, layout="taming", fold=fold)
    images, tokens = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8), torch.randint(0, 16, (4, 64))
    assembly, signed = Assembly(taming_state), images.float() / 127.5 - 1
    assert torch.equal(model.encode(images), assembly.tokens(signed))
    decoded = model.decoder(model.quantizer.lookup(tokens.view(-1, 8, 8)))
    torch.testing.assert_close(decoded, assembly.image(tokens), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.quantizer(model.encoder(signed))[0],
                               model.quantizer.lookup(assembly.tokens(signed).view(-1, 8, 8)), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_taming_s_gumbel_model_takes_the_most_probable_code_and_no_noise(taming_state):
    codes = taming_state.pop("quantize.embedding.weight")
    conv(taming_state, "quantize.proj", 16, 6, 1)
    model = load_official(taming_state | {"quantize.embed.weight": codes}, **SMALL, layout="taming")
    images, tokens = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8), torch.randint(0, 16, (4, 64))
    assembly = Assembly(taming_state | {"quantize.embedding.weight": codes})
    latents = assembly.latents(images.float() / 127.5 - 1)
    most_probable = assembly.conv("quantize.proj", latents).softmax(1).argmax(1).flatten(1)
    assert torch.equal(model.encode(images), most_probable) and torch.equal(model.encode(images), most_probable)
    decoded = model.decoder(model.quantizer.lookup(tokens.view(-1, 8, 8)))
    torch.testing.assert_close(decoded, assembly.image(tokens), atol=1e-5, rtol=1e-5)


def test_a_gumbel_file_is_read_where_the_options_say_gumbel(taming_state, tmp_path):
    taming_state["quantize.embed.weight"] = taming_state.pop("quantize.embedding.weight")
    conv(taming_state, "quantize.proj", 16, 6, 1)
    torch.save({"state_dict": taming_state}, tmp_path / "gumbel.ckpt")
    sizes = {name: value for name, value in SMALL.items() if name != "resolution"}
    for quantizer in ("gumbel", "nearest"):
        implied = VQGANOptions.of_layout("taming", sizes | {"quantizer": quantizer})
        model = VQGAN(options=VQGANOptions(**implied | sizes | {"quantizer": quantizer}), resolution=16)
        if quantizer == "gumbel":
            read = model.load_official(tmp_path / "gumbel.ckpt", layout="taming")
            assert torch.equal(read.quantizer.embedding.weight, taming_state["quantize.embed.weight"])
        else:
            with pytest.raises(ValueError, match=r"quantizer=nearest \(the file: gumbel\)"):
                model.load_official(tmp_path / "gumbel.ckpt", layout="taming")


def test_folding_a_model_without_quant_convs_is_an_error():
    options = VQGANOptions(channels=8, norm_groups=8, channel_multipliers=(1,), attention_resolutions=())
    with pytest.raises(ValueError, match="quant_convs='none'"):
        fold_quant_convs(VQGAN(options=options, resolution=8))


def test_taming_names_at_full_size_are_those_of_the_published_files():
    options = VQGANOptions(decoder_res_blocks=3)
    encoder, decoder = taming_encoder(options, 256), taming_decoder(options, 256)
    assert encoder[3] == "encoder.down.0.downsample" and encoder[12] == "encoder.down.3.downsample"
    assert encoder[13:17] == ["encoder.down.4.block.0", "encoder.down.4.attn.0", "encoder.down.4.block.1",
                              "encoder.down.4.attn.1"]
    assert decoder[4:11] == ["decoder.up.4.block.0", "decoder.up.4.attn.0", "decoder.up.4.block.1",
                             "decoder.up.4.attn.1", "decoder.up.4.block.2", "decoder.up.4.attn.2",
                             "decoder.up.4.upsample"]
    assert decoder[-3:] == ["decoder.up.0.block.2", "decoder.norm_out", "decoder.conv_out"]


# --- the official layout ----------------------------------------------------------------------------------------------

@pytest.fixture
def official_state():
    """The official VQGAN of SMALL, whose residual blocks all hold a 1x1 convolution, called or not."""
    torch.manual_seed(1)
    state = {}

    def official_res(name, inp, out):
        res(state, name, inp, out, "conv_out")
        conv(state, f"{name}.conv_out", out, inp, 1)

    e, g = "ae.encoder.blocks", "ae.generator.blocks"
    conv(state, f"{e}.0", 32, 3, 3)
    official_res(f"{e}.1", 32, 32)
    conv(state, f"{e}.2.conv", 32, 32, 3)
    official_res(f"{e}.3", 32, 64)
    attention(state, f"{e}.4", 64)
    official_res(f"{e}.5", 64, 64)
    attention(state, f"{e}.6", 64)
    official_res(f"{e}.7", 64, 64)
    norm(state, f"{e}.8", 64)
    conv(state, f"{e}.9", 6, 64, 3)
    state["ae.quantize.embedding.weight"] = torch.randn(16, 6)
    conv(state, f"{g}.0", 64, 6, 3)
    official_res(f"{g}.1", 64, 64)
    attention(state, f"{g}.2", 64)
    official_res(f"{g}.3", 64, 64)
    official_res(f"{g}.4", 64, 64)
    attention(state, f"{g}.5", 64)
    conv(state, f"{g}.6.conv", 64, 64, 3)
    official_res(f"{g}.7", 64, 32)
    norm(state, f"{g}.8", 32)
    conv(state, f"{g}.9", 3, 32, 3)
    conv(state, "ae.generator.logsigma.0", 32, 32, 3)
    conv(state, "ae.generator.logsigma.2", 3, 32, 1)
    discriminator(state, "disc.main")
    state["perceptual.lin0.model.1.weight"] = torch.zeros(1, 64, 1, 1)
    return state


def test_known_unused_keys_are_listed(official_state):
    unused = load_official(official_state, **SMALL).unused_keys
    assert "perceptual.lin0.model.1.weight" in unused and "ae.encoder.blocks.1.conv_out.weight" in unused
    assert "ae.encoder.blocks.3.conv_out.weight" not in unused   # where the width changes, it is used


def test_a_missing_key_is_an_error_that_names_it(official_state):
    del official_state["ae.generator.blocks.4.conv2.bias"]
    with pytest.raises(ValueError, match=r"Missing ae\.generator\.blocks\.4\.conv2\.bias; unexpected nothing"):
        load_official(official_state, **SMALL)


def test_an_unexpected_key_is_an_error_that_names_it(official_state):
    official_state["ae.surprise"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"unexpected ae\.surprise"):
        load_official(official_state, **SMALL)


def test_a_wrong_size_is_an_error_that_names_the_shapes(official_state):
    with pytest.raises(ValueError, match=r"ae\.quantize\.embedding\.weight \(16, 6\), expected \(32, 6\)"):
        load_official(official_state, **{**SMALL, "codebook_size": 32})


def test_an_unknown_layout_lists_the_valid_ones(official_state):
    with pytest.raises(ValueError, match="layout='maskgit': expected one of unleashing, taming, llamagen"):
        load_official(official_state, **SMALL, layout="maskgit")


@pytest.mark.parametrize(("layout", "prefix"), [("unleashing", "disc."), ("taming", "loss.")])
def test_a_checkpoint_without_its_discriminator_is_the_same_tokenizer_and_says_so(layout, prefix, request, caplog):
    state = request.getfixturevalue({"unleashing": "official_state", "taming": "taming_state"}[layout])
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    whole = load_official(state, **SMALL, layout=layout).encode(images)
    stripped = {key: value for key, value in state.items() if not key.startswith(prefix)}
    assert torch.equal(load_official(stripped, **SMALL, layout=layout).encode(images), whole)
    assert "no discriminator" in caplog.text


def test_a_part_of_a_discriminator_is_an_error_that_names_the_rest(taming_state):
    del taming_state["loss.discriminator.main.0.weight"]
    with pytest.raises(ValueError, match=r"loss\.discriminator\.main\.0\.weight"):
        load_official(taming_state, **SMALL, layout="taming")


def test_a_file_and_its_tensors_load_alike(official_state, tmp_path):
    torch.save({"state_dict": official_state, "epoch": 3}, tmp_path / "model.ckpt")
    from_file = load_official(tmp_path / "model.ckpt", **SMALL).state_dict()
    assert all(torch.equal(value, from_file[key])
               for key, value in load_official(official_state, **SMALL).state_dict().items())


def test_objects_in_a_file_are_refused_not_executed(tmp_path):
    class Surprise:
        def __reduce__(self):
            return (pytest.fail, ("executed",))

    torch.save({"state_dict": {}, "callback": Surprise()}, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match="never executed"):
        load_official(tmp_path / "model.ckpt", **SMALL)


def test_a_gumbel_checkpoint_becomes_a_gumbel_model(official_state):
    official_state["ae.quantize.embed.weight"] = official_state.pop("ae.quantize.embedding.weight")
    conv(official_state, "ae.quantize.proj", 16, 6, 1)
    model = load_official(official_state, **SMALL)
    assert model.options.quantizer == "gumbel"
    assert torch.equal(model.quantizer.proj.weight, official_state["ae.quantize.proj.weight"])


# --- full size --------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def full_size():
    return VQGAN(options=VQGANOptions(), resolution=256)


def never_called(network):
    """Parameters of the 1x1 convolutions that the official blocks of unchanged width hold but never call."""
    return sum(block.conv1.in_channels * (block.conv1.in_channels + 1)
               for block in network.blocks if hasattr(block, "skip") and isinstance(block.skip, torch.nn.Identity))


def test_the_published_encoder_has_30_349_568_parameters(full_size):
    assert count(full_size.encoder) + never_called(full_size.encoder) == 30_349_568


def test_the_published_generator_has_35_168_262_parameters(full_size):
    assert count(full_size.decoder) + never_called(full_size.decoder) == 35_168_262
    assert count(full_size.decoder.logsigma) == 147_971


def test_the_published_codebook_has_262_144_and_the_discriminator_2_765_633(full_size):
    assert count(full_size.quantizer) == 262_144
    assert count(full_size.discriminator) == 2_765_633


def test_both_published_networks_have_22_blocks(full_size):
    assert len(full_size.encoder.blocks) == len(full_size.decoder.blocks) == 22
