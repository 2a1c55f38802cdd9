"""A saved VQModel of diffusers against an assembly written here from its published architecture, and through a run."""

import json

import pytest
import torch
import torch.nn.functional as F

from bench.assets.torchvision_compat import ensure_torchvision
from bench.run import main
from bench.testing import check_tokenizer
from vq.diffusers_options import DiffusersVQOptions
from vq.diffusers_vq import DiffusersVQ

ensure_torchvision()   # which diffusers imports
diffusers = pytest.importorskip("diffusers", reason="needs the extra: pip install diffusers")


class Assembly:
    """Two levels of 32 and 64 channels, one block each (the decoder has one more), attention at the lower one."""

    def __init__(self, state):
        self.state = state

    def conv(self, name, x, **options):
        return F.conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], **options)

    def norm(self, name, x):
        return F.group_norm(x, 32, self.state[f"{name}.weight"], self.state[f"{name}.bias"], eps=1e-6)

    def residual(self, name, x):
        h = self.conv(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", x)), padding=1)
        h = self.conv(f"{name}.conv2", F.silu(self.norm(f"{name}.norm2", h)), padding=1)
        return h + (self.conv(f"{name}.conv_shortcut", x) if f"{name}.conv_shortcut.weight" in self.state else x)

    def linear(self, name, x):
        return x @ self.state[f"{name}.weight"].t() + self.state[f"{name}.bias"]

    def attention(self, name, x):
        """One head."""
        b, c, h, w = x.shape
        rows = self.norm(f"{name}.group_norm", x).flatten(2).transpose(1, 2)   # (B, hw, C)
        q, k, v = (self.linear(f"{name}.to_{part}", rows) for part in "qkv")
        mixed = (q @ k.transpose(1, 2)).mul(c**-0.5).softmax(-1) @ v
        return x + self.linear(f"{name}.to_out.0", mixed).transpose(1, 2).view(b, c, h, w)

    def middle(self, network, h):
        h = self.attention(f"{network}.mid_block.attentions.0", self.residual(f"{network}.mid_block.resnets.0", h))
        return self.residual(f"{network}.mid_block.resnets.1", h)

    def tokens(self, x):
        h = self.residual("encoder.down_blocks.0.resnets.0", self.conv("encoder.conv_in", x, padding=1))
        h = self.conv("encoder.down_blocks.0.downsamplers.0.conv", F.pad(h, (0, 1, 0, 1)), stride=2)
        h = self.attention("encoder.down_blocks.1.attentions.0", self.residual("encoder.down_blocks.1.resnets.0", h))
        h = F.silu(self.norm("encoder.conv_norm_out", self.middle("encoder", h)))
        h = self.conv("quant_conv", self.conv("encoder.conv_out", h, padding=1))
        rows = h.permute(0, 2, 3, 1).flatten(1, 2)
        return (rows[:, :, None] - self.state["quantize.embedding.weight"]).square().sum(-1).argmin(-1)

    def image(self, tokens):
        codes = self.state["quantize.embedding.weight"][tokens].transpose(1, 2).reshape(len(tokens), -1, 8, 8)
        h = self.middle("decoder", self.conv("decoder.conv_in", self.conv("post_quant_conv", codes), padding=1))
        for index in (0, 1):
            h = self.residual(f"decoder.up_blocks.0.resnets.{index}", h)
        h = self.conv("decoder.up_blocks.0.upsamplers.0.conv", h.repeat_interleave(2, 2).repeat_interleave(2, 3),
                      padding=1)
        for index in (0, 1):
            h = self.residual(f"decoder.up_blocks.1.resnets.{index}", h)
        return self.conv("decoder.conv_out", F.silu(self.norm("decoder.conv_norm_out", h)), padding=1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder as `save_pretrained` writes it, of random weights with codes apart."""
    torch.manual_seed(0)
    model = diffusers.VQModel(
        block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"), latent_channels=12, vq_embed_dim=4,
        num_vq_embeddings=24)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():   # codes among the latents, so that tokens differ
        vectors = model.encode(torch.rand(8, 3, 16, 16) * 2 - 1).latents.permute(0, 2, 3, 1).reshape(-1, 4)
        model.quantize.embedding.weight.copy_(vectors[torch.randperm(len(vectors))[:24]])
    folder = tmp_path_factory.mktemp("vqvae")
    model.save_pretrained(folder)
    return folder, model.state_dict()


def tokenizer(folder):
    options = DiffusersVQOptions(**DiffusersVQOptions.of_layout("diffusers", {"path": str(folder)}))
    return DiffusersVQ(options=options, resolution=16).load_official(folder, layout="diffusers").eval()


@torch.no_grad()
def test_tokens_and_images_are_those_of_an_independent_assembly(saved):
    folder, state = saved
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    ours, assembly = tokenizer(folder), Assembly(state)
    tokens = assembly.tokens(images.float() / 127.5 - 1)
    assert torch.equal(ours.encode(images), tokens) and len(tokens.unique()) > 5
    as_bytes = ((assembly.image(tokens) + 1) * 127.5 + 0.5).clamp(0, 255).to(torch.uint8)
    assert (ours.decode(tokens).int() - as_bytes.int()).abs().max() <= 1


def test_it_keeps_the_contract_of_a_tokenizer(saved):
    assert len(check_tokenizer(tokenizer(saved[0])).passed) == 6


def test_a_canvas_of_another_size_decodes_to_its_own_size(saved):
    assert tokenizer(saved[0]).decode(torch.zeros(2, 4, 12, dtype=torch.int64)).shape == (2, 3, 8, 24)


@pytest.mark.parametrize(("tokens", "message"), [
    (torch.zeros(2, 63, dtype=torch.int64), "63 tokens an image: expected 64 for grid"),
    (torch.zeros(2, 64), r"type torch.float32: expected \(B, N\) or \(B, h, w\) int64"),
    (torch.zeros(64, dtype=torch.int64), r"tokens of shape \(64,\)"),
    (torch.full((2, 64), 24), "tokens from 24 to 24: expected 0 to 23")])
def test_what_is_no_canvas_is_named(saved, tokens, message):
    with pytest.raises(ValueError, match=message):
        tokenizer(saved[0]).decode(tokens)


def test_weights_of_another_architecture_are_refused(saved, tmp_path):
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(
        (saved[0] / "diffusion_pytorch_model.safetensors").read_bytes())
    config = json.loads((saved[0] / "config.json").read_text()) | {"layers_per_block": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="not those of its config.json"):
        tokenizer(tmp_path)


def test_pickled_weights_are_not_read(saved, tmp_path):
    (tmp_path / "config.json").write_text((saved[0] / "config.json").read_text())
    torch.save(saved[1], tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="holds no .safetensors"):
        tokenizer(tmp_path)


def test_a_run_over_it_ends_in_records(saved, own_cache, tmp_path):
    command = ["vq=diffusers", f"vq.path={saved[0]}", "dataset=digits", "preset=smoke", "prior=unigram",
               "metrics.names=[nll]", f"results_dir={tmp_path / 'runs'}"]
    assert main(command) == 0
    assert len(list((tmp_path / "runs" / "records").glob("*.json"))) == 3
