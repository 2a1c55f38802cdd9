"""Uniform diffusion's contract, in every form; enumerated: d3pm beside VQ-Diffusion, udlm by itself."""

import math

import pytest
import torch

from priors.base import UNKNOWN, Draws, Unsupported
from priors.transition_options import UniformOptions, UniformSampler
from priors.uniform import UniformDiffusion

TINY = dict(width=8, num_layers=1, num_heads=1)


def make(**options):
    torch.manual_seed(0)
    return UniformDiffusion(grid=(2, 3), codebook_size=5, options=UniformOptions(**TINY, **options))


def tokens(num=8):
    return torch.randint(0, 5, (num, 6), generator=torch.Generator().manual_seed(0))


def sample(prior, num=50, known=None, **sampler):
    return prior.eval().sample(num, sampler=UniformSampler(**sampler), known=known, draws=Draws.seeded(0))


every_form = pytest.mark.parametrize("form", ["d3pm", "udlm", "perturbation"])


@every_form
def test_samples_are_tokens_of_the_codebook(form):
    drawn = sample(make(form=form), num=500, steps=7)
    assert drawn.tokens.min() >= 0 and drawn.tokens.max() < 5
    assert (drawn.network_evaluations == 7).all() and (drawn.token_forwards == 42).all()


@pytest.mark.parametrize(("form", "evaluations"), [("d3pm", 100), ("udlm", 100), ("perturbation", 50)])
def test_without_steps_each_form_takes_its_own_number(form, evaluations):
    assert (sample(make(form=form), num=2).network_evaluations == evaluations).all()


@every_form
def test_the_loss_of_an_untrained_network_is_finite_and_has_a_gradient(form):
    prior = make(form=form)
    prior.training_loss(tokens(), draws=Draws.seeded(0)).backward()
    assert all(p.grad.isfinite().all() for p in prior.parameters() if p.grad is not None)


def test_the_perturbation_form_has_no_likelihood_and_says_why():
    with pytest.raises(Unsupported, match="defines no density"):
        make(form="perturbation").nll(tokens(), draws=Draws.seeded(0))


@pytest.mark.parametrize("form", ["d3pm", "udlm"])
def test_a_diffusion_refuses_known_tokens_and_says_why(form):
    with pytest.raises(Unsupported, match=f"in its {form} form cannot keep known tokens"):
        sample(make(form=form), num=8, known=tokens())


def test_refinement_returns_known_tokens_unchanged():
    known = tokens(50)
    known[:, 2:4] = UNKNOWN
    drawn = sample(make(form="perturbation"), known=known, steps=3).tokens
    assert (drawn[known != UNKNOWN] == known[known != UNKNOWN]).all() and (drawn >= 0).all()


def test_a_perturbed_share_of_tokens_is_drawn_anew_uniformly():
    prior, whole = make(form="perturbation"), torch.zeros(4000, 6, dtype=torch.int64)
    changed = (prior.perturb(whole, torch.full((4000,), 0.5), draws=Draws.seeded(0)) != 0).float().mean()
    assert float(changed) == pytest.approx(0.5 * 4 / 5, abs=0.01)   # one in five is drawn as what it was


def test_the_perturbation_loss_of_an_ignorant_network_is_log2_of_the_codebook():
    prior = make(form="perturbation")
    torch.nn.init.zeros_(prior.net.head.weight)
    loss = prior.training_loss(tokens(), draws=Draws.seeded(0)).detach()
    assert float(loss) == pytest.approx(math.log2(5), abs=1e-5)


def test_refinement_with_a_table_follows_the_enumerated_chain():
    """Two tokens of two codes, each drawn from a table that sees both: three steps are the power of a 4 x 4 matrix."""
    prior = UniformDiffusion(grid=(1, 2), codebook_size=2, options=UniformOptions(form="perturbation", **TINY))
    table = torch.randn(2, 2, 2, 2, generator=torch.Generator().manual_seed(1))

    class Table(torch.nn.Module):
        def forward(self, x):
            return table[x[:, 0], x[:, 1]]

    prior.net.forward = Table().forward
    rows = table.softmax(-1).double().flatten(0, 1)   # (4, N, K)
    matrix = torch.einsum("sa,sb->sab", rows[:, 0], rows[:, 1]).flatten(1)
    expected = 20_000 * torch.full((4,), 0.25, dtype=torch.float64) @ matrix.matrix_power(3)
    drawn = sample(prior, num=20_000, steps=3).tokens
    counts = torch.bincount(2 * drawn[:, 0] + drawn[:, 1], minlength=4)
    assert ((counts - expected) ** 2 / expected).sum() < 16.3   # 3 degrees, p = .001


@every_form
def test_training_learns_a_constant_image(form):
    options = {"d3pm": {"timesteps": 20}, "udlm": {}, "perturbation": {"perturbed_share": 0.3}}[form]
    steps = 50 if form == "perturbation" else 20
    prior, data = make(form=form, **options), tokens(1).repeat(32, 1)
    optimizer = torch.optim.Adam(prior.parameters(), lr=3e-2)
    for step in range(200):
        optimizer.zero_grad()
        prior.training_loss(data, draws=Draws.seeded("step", step)).backward()
        optimizer.step()
    drawn = sample(prior, num=200, steps=steps, temperature=0.5).tokens
    assert float((drawn == data[:1]).float().mean()) > 0.9


@pytest.mark.parametrize("wrong", [{"form": "d3mp"}, {"timesteps": 1}, {"perturbed_share": 0.1},
                                   {"form": "perturbation", "timesteps": 10}, {"form": "udlm", "timesteps": 10},
                                   {"noise_schedule": "cosine"}, {"form": "udlm", "noise_schedule": "cosin"},
                                   {"form": "udlm", "auxiliary_weight": 0.1}], ids=str)
def test_an_option_of_the_other_form_is_refused(wrong):
    with pytest.raises(ValueError, match=list(wrong)[-1]):
        UniformOptions(**wrong)
