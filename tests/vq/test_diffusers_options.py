"""A VQModel folder's config.json as options: read without torch, refused where it says what is not known."""

import json
import subprocess
import sys

import pytest

from vq.diffusers_options import DiffusersVQOptions
from vq.diffusers_vq import DiffusersVQ

CONFIG = {"_class_name": "VQModel", "_diffusers_version": "0.30.0", "act_fn": "silu", "block_out_channels": [32, 64],
          "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"], "in_channels": 3, "latent_channels": 12,
          "layers_per_block": 1, "norm_num_groups": 32, "num_vq_embeddings": 24, "out_channels": 3, "sample_size": 32,
          "scaling_factor": 0.18215, "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"], "vq_embed_dim": 4}


def folder(tmp_path, **changes):
    config = {name: value for name, value in (CONFIG | changes).items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def read(path):
    return DiffusersVQOptions(**DiffusersVQOptions.of_layout("diffusers", {"path": str(path)}))


def test_config_json_sets_the_options_and_the_grid(tmp_path):
    options = read(folder(tmp_path))
    assert options.num_vq_embeddings == 24 and options.block_out_channels == (32, 64)
    assert options.grid(16) == (8, 8)


def test_reading_it_needs_neither_torch_nor_diffusers():
    code = "import sys, vq.diffusers_options; sys.exit(bool({'torch', 'diffusers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("changes", "message"), [
    ({"_class_name": "AutoencoderKL"}, "its config.json is of AutoencoderKL"),
    ({"residual_levels": 4}, "without residual_levels, whose meaning is not known"),
    ({"in_channels": 1}, "in_channels=1: expected 3"),
    ({"block_out_channels": [32]}, "down_block_types=.* one block type for each of the 1"),
    ({"block_out_channels": [32, 65]}, "expected multiples of norm_num_groups=32"),
    ({"num_vq_embeddings": 0}, "num_vq_embeddings=0: expected a positive integer"),
])
def test_what_is_no_vq_model_of_colour_images_is_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        read(folder(tmp_path, **changes))


def test_a_folder_without_config_json_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"config\.json cannot be read"):
        read(tmp_path)


def test_a_resolution_that_does_not_divide_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="resolution=15: expected a multiple of 2"):
        read(folder(tmp_path)).grid(15)


def test_without_the_package_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ValueError, match="pip install diffusers"):
        DiffusersVQ(options=read(folder(tmp_path)), resolution=16)
