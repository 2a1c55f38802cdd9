"""Options: the published setting by default, and errors that say what to do."""

import subprocess
import sys

import pytest

from vq.options import VQGANOptions


def test_options_need_no_torch():
    code = "import sys, vq.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_published_grid_is_16_by_16():
    assert VQGANOptions().grid(256) == (16, 16)


def test_lists_become_tuples():
    assert VQGANOptions(channel_multipliers=[1, 2]).channel_multipliers == (1, 2)


@pytest.mark.parametrize(("wrong", "message"), [
    ({"quantizer": "residual"}, "quantizer='residual': expected one of nearest, gumbel"),
    ({"norm_groups": 48}, r"norm_groups=48: expected a divisor of every level's width \[128, 128, 256, 256, 512\]"),
    ({"codebook_size": 0}, "codebook_size=0: expected a positive integer"),
    ({"codebook_size": 2**32 + 1}, "codebook_size=4294967297: expected at most 4294967296"),
    ({"beta": -1.0}, "beta=-1.0: expected zero or more"),
    ({"disc_start_step": -5}, "disc_start_step=-5: expected a step number, or null"),
    ({"disc_learning_rate_factor": 0}, "disc_learning_rate_factor=0: expected a positive factor"),
    ({"channel_multipliers": []}, r"channel_multipliers=\[\]: expected positive integers"),
    ({"entropy_weight": 0.2}, "entropy_weight=0.2: expected 0.1 with quantizer=nearest, whose loss has no entropies"),
    ({"quantizer": "gumbel", "entropy_temperature": 1.0}, "entropy_temperature=1.0: expected 0.01 with quantizer=gu"),
    ({"quantizer": "gumbel", "lookup": "cosine"}, "lookup='cosine': expected 'euclidean' with quantizer=gumbel"),
])
def test_a_wrong_option_names_value_and_expectation(wrong, message):
    with pytest.raises(ValueError, match=message):
        VQGANOptions(**wrong)


def test_a_resolution_that_does_not_divide_is_an_error():
    with pytest.raises(ValueError, match="resolution=100: expected a multiple of 16"):
        VQGANOptions().grid(100)


def test_attention_at_a_height_that_no_level_has_is_an_error():
    with pytest.raises(ValueError, match=r"no level has height \[12\]; at resolution 32 the levels have \[32, 16, 8\]"):
        VQGANOptions(channel_multipliers=(1, 1, 1), attention_resolutions=(16, 12)).grid(32)
