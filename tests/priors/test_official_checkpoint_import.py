"""What load_official accepts, and how it refuses the rest."""

import pytest
import torch

from priors.absorbing import AbsorbingDiffusion
from priors.autoregressive import Autoregressive
from priors.checkpoints import load_official
from priors.options import AbsorbingOptions, AutoregressiveOptions

SIZES = dict(width=8, num_layers=2, num_heads=2, grid=(2, 2), codebook_size=3)


def official_state(prefix="_denoise_fn.", rows=4):
    """A state dict with the keys and shapes of an official checkpoint of this size."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"pos_emb": (1, 4, 8), "start_tok": (1, 1, 8), "tok_emb.weight": (rows, 8), "head.weight": (3, 8)}
    shapes |= {"ln_f.weight": (8,), "ln_f.bias": (8,)}
    for i in range(2):
        block = f"blocks.{i}."
        shapes |= {f"{block}{ln}.{part}": (8,) for ln in ("ln1", "ln2") for part in ("weight", "bias")}
        for layer in ("key", "query", "value", "proj"):
            shapes |= {f"{block}attn.{layer}.weight": (8, 8), f"{block}attn.{layer}.bias": (8,)}
        shapes |= {f"{block}mlp.0.weight": (32, 8), f"{block}mlp.0.bias": (32,)}
        shapes |= {f"{block}mlp.2.weight": (8, 32), f"{block}mlp.2.bias": (8,)}
    return {prefix + name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_a_path_and_a_state_dict_give_the_same_prior(tmp_path):
    state = official_state() | {name: torch.zeros(5) for name in ("Lt_history", "Lt_count", "loss_history")}
    torch.save(state, tmp_path / "absorbing_ema_1.th")
    tokens = torch.tensor([[0, 1, 2, 3]])
    from_file = load_official(tmp_path / "absorbing_ema_1.th", kind="absorbing", **SIZES).logits(tokens)
    assert torch.equal(from_file, load_official(state, kind="absorbing", **SIZES).logits(tokens))


def test_the_causal_masks_of_an_autoregressive_checkpoint_are_not_weights():
    state = official_state("net.", rows=3) | {"net.blocks.0.attn.mask": torch.ones(1, 1, 4, 4).tril()}
    assert isinstance(load_official(state, kind="autoregressive", **SIZES), Autoregressive)


def test_a_missing_key_is_named():
    state = official_state()
    del state["_denoise_fn.blocks.1.attn.key.bias"]
    with pytest.raises(ValueError, match=r"blocks\.1\.attn\.key\.bias"):
        load_official(state, kind="absorbing", **SIZES)


def test_an_unexpected_key_is_named():
    with pytest.raises(ValueError, match="unexpected keys.*surplus"):
        load_official(official_state() | {"_denoise_fn.surplus": torch.zeros(1)}, kind="absorbing", **SIZES)


def test_a_wrong_size_says_found_and_expected():
    with pytest.raises(ValueError, match=r"tok_emb.weight \(4, 8\), expected \(6, 8\)"):
        load_official(official_state(), kind="absorbing", **SIZES | dict(codebook_size=5))


def test_a_checkpoint_of_the_other_kind_is_refused():
    with pytest.raises(ValueError, match="check kind"):
        load_official(official_state(), kind="autoregressive", **SIZES)


def test_a_misspelt_kind_gets_a_suggestion():
    with pytest.raises(ValueError, match="did you mean 'absorbing'"):
        load_official({}, kind="absorbin", **SIZES)


def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path):
    (tmp_path / "damaged.th").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="damaged.th"):
        load_official(tmp_path / "damaged.th", kind="absorbing", **SIZES)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        load_official(tmp_path / "nothing.th", kind="absorbing", **SIZES)


@pytest.mark.parametrize(
    ("prior", "options", "parameters"),
    [(AbsorbingDiffusion, AbsorbingOptions(), 76_838_912), (Autoregressive, AutoregressiveOptions(), 76_838_400)],
)
def test_parameter_counts_at_full_size_are_the_papers(prior, options, parameters, monkeypatch):
    monkeypatch.setattr("priors.transformer.init_gpt", lambda module: None)   # only shapes matter
    net = prior(grid=(16, 16), codebook_size=1024, options=options)
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters


def test_an_instance_takes_the_weights_of_a_file(tmp_path):
    torch.save(official_state() | {"Lt_history": torch.zeros(5)}, tmp_path / "a.th")
    options = AbsorbingOptions(width=8, num_layers=2, num_heads=2)
    prior = AbsorbingDiffusion(grid=(2, 2), codebook_size=3, options=options)
    expected = load_official(tmp_path / "a.th", kind="absorbing", **SIZES)
    tokens = torch.tensor([[0, 1, 2, 3]])
    imported = prior.load_official(tmp_path / "a.th", layout="official")
    assert torch.equal(imported.logits(tokens), expected.logits(tokens))


def test_a_checkpoint_of_another_number_of_steps_is_refused(tmp_path):
    torch.save(official_state() | {"Lt_history": torch.zeros(9)}, tmp_path / "a.th")
    options = AbsorbingOptions(width=8, num_layers=2, num_heads=2)
    with pytest.raises(ValueError, match="set timesteps=8"):
        AbsorbingDiffusion(grid=(2, 2), codebook_size=3, options=options).load_official(
            tmp_path / "a.th", layout="official"
        )
