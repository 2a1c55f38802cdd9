"""Codebook health and likeness of reconstructions against closed forms and loops."""

import math

import pytest
import torch

from vq.health import codebook_health, count_codes, health_of_counts, perplexity, psnr, ssim


def test_equal_use_of_every_code_has_perplexity_k():
    health = codebook_health(torch.arange(12).repeat(5), codebook_size=12)
    assert (health.usage, health.dead_codes) == (1.0, 0)
    assert health.perplexity == pytest.approx(12)


def test_a_single_code_has_perplexity_one():
    health = codebook_health(torch.full((3, 4), 2), codebook_size=8)
    assert (health.perplexity, health.usage, health.dead_codes) == (1.0, 1 / 8, 7)


def test_perplexity_is_the_exponential_of_the_entropy():
    tokens = torch.tensor([0, 0, 0, 1])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert perplexity(tokens, 4).item() == pytest.approx(math.exp(entropy))


def test_counts_of_parts_add_up_to_the_health_of_the_whole():
    tokens = torch.randint(0, 20, (10, 16), generator=torch.Generator().manual_seed(0))
    parts = count_codes(tokens[:3], 20) + count_codes(tokens[3:], 20)
    assert health_of_counts(parts) == codebook_health(tokens, codebook_size=20)


def test_no_tokens_is_an_error():
    with pytest.raises(ValueError, match="no tokens"):
        codebook_health(torch.zeros(0, dtype=torch.int64), codebook_size=4)


def test_psnr_of_a_constant_error_is_the_closed_form():
    images = torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
    assert psnr(images, images + 5).tolist() == pytest.approx([20 * math.log10(255 / 5)] * 2)
    assert psnr(images, images).isinf().all()


def test_ssim_of_equal_images_is_one():
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert ssim(images, images).tolist() == pytest.approx([1, 1])


def test_ssim_of_constant_images_is_its_luminance_term():
    x, y, c1 = 50.0, 150.0, (0.01 * 255) ** 2
    images = [torch.full((1, 3, 12, 12), int(v), dtype=torch.uint8) for v in (x, y)]
    assert ssim(*images).item() == pytest.approx((2 * x * y + c1) / (x * x + y * y + c1))


def test_ssim_agrees_with_a_loop_over_windows():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randint(0, 256, (1, 1, 13, 12), generator=generator, dtype=torch.uint8) for _ in range(2))
    axis = torch.exp(-((torch.arange(11.0, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    window = axis[:, None] * axis / axis.sum() ** 2
    c1, c2, values = (0.01 * 255) ** 2, (0.03 * 255) ** 2, []
    for i in range(3):
        for j in range(2):
            a, b = (t[0, 0, i:i + 11, j:j + 11].double() for t in (x, y))
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
            cab = (window * (a - ma) * (b - mb)).sum()
            values.append((2 * ma * mb + c1) * (2 * cab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    assert ssim(x, y).item() == pytest.approx(torch.stack(values).mean().item())


def test_images_of_another_type_are_an_error():
    with pytest.raises(ValueError, match="expected .* uint8"):
        psnr(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))
