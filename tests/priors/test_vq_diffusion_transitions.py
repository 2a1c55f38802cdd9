"""The closed forms of priors.transitions against enumerated (K + 1) x (K + 1) matrix products in float64."""

import pytest
import torch

from priors.base import Draws
from priors.transitions import Corruption, kl_divergence

K, T = 4, 6
PROCESSES = {
    "published": lambda T=T, K=K: Corruption.mask_and_replace(num_timesteps=T, codebook_size=K),
    "paper": lambda T=T, K=K: Corruption.mask_and_replace(num_timesteps=T, codebook_size=K, final_mask=0.9),
    "uniform": lambda T=T, K=K: Corruption.uniform(num_timesteps=T, codebook_size=K),
}
every_process = pytest.mark.parametrize("corruption", [make() for make in PROCESSES.values()], ids=list(PROCESSES))


def step_matrices(corruption):
    """Q_1..Q_T, each (K + 1, K + 1), row = from, written down one step at a time as in the paper (Eq. 8)."""
    matrices = []
    for t in range(1, corruption.num_timesteps + 1):
        keep_before, keep = corruption.keep_bar[t - 1], corruption.keep_bar[t]
        alive_before, alive = 1 - corruption.mask_bar[t - 1], 1 - corruption.mask_bar[t]
        alpha, gamma = keep / keep_before, 1 - alive / alive_before
        beta = (1 - alpha - gamma) / corruption.codebook_size
        matrix = torch.zeros(corruption.codebook_size + 1, corruption.codebook_size + 1, dtype=torch.float64)
        matrix[:-1, :-1] = beta
        matrix[:-1, :-1] += alpha * torch.eye(corruption.codebook_size, dtype=torch.float64)
        matrix[:-1, -1], matrix[-1, -1] = gamma, 1
        matrices.append(matrix)
    return matrices


def product(matrices, s, t, size):
    result = torch.eye(size, dtype=torch.float64)
    for matrix in matrices[s:t]:
        result = result @ matrix
    return result


def as_matrix(transition, size):
    matrix = torch.zeros(size, size, dtype=torch.float64)
    matrix[:-1, :-1] = transition.replace
    matrix[:-1, :-1] += transition.keep * torch.eye(size - 1, dtype=torch.float64)
    matrix[:-1, -1], matrix[-1, -1] = transition.mask, 1
    return matrix


def pairs(corruption):
    return [(s, t) for t in range(1, corruption.num_timesteps + 1) for s in range(t)]


@every_process
def test_composite_transitions_equal_the_product_of_the_step_matrices(corruption):
    matrices = step_matrices(corruption)
    for s, t in pairs(corruption):
        closed = as_matrix(corruption.between(torch.tensor(s), torch.tensor(t)), K + 1)
        torch.testing.assert_close(closed, product(matrices, s, t, K + 1), rtol=1e-7, atol=1e-12)


@every_process
def test_every_row_of_a_composite_transition_sums_to_one(corruption):
    for s, t in pairs(corruption):
        rows = as_matrix(corruption.between(torch.tensor(s), torch.tensor(t)), K + 1).sum(1)
        torch.testing.assert_close(rows, torch.ones_like(rows), rtol=0, atol=1e-12)


def enumerated_posterior(matrices, s, t):
    """q(x_s | x_t, x_0) by Bayes, (x_0, x_t, x_s); x_t that cannot be reached from x_0 are left out as nan."""
    size = len(matrices[0])
    before, step, total = product(matrices, 0, s, size), product(matrices, s, t, size), product(matrices, 0, t, size)
    return before[:-1, None, :] * step.T[None] / total[:-1, :, None]


@every_process
def test_the_strided_posterior_equals_bayes_on_the_enumerated_matrix_products(corruption):
    matrices = step_matrices(corruption)
    for s, t in pairs(corruption):
        expected = enumerated_posterior(matrices, s, t)
        for x_t in range(K + (corruption.mask_bar[-1] > 0)):
            closed = corruption.log_true_posterior(torch.arange(K)[:, None], torch.full((K, 1), x_t),
                                                   s=torch.full((K,), s), t=torch.full((K,), t), dtype=torch.float64)
            torch.testing.assert_close(closed.exp().squeeze(1), expected[:, x_t], rtol=1e-6, atol=1e-12)


@every_process
def test_the_model_posterior_is_the_mixture_of_true_posteriors(corruption):
    matrices = step_matrices(corruption)
    log_x_0 = torch.randn(1, 1, K, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    for s, t in pairs(corruption):
        expected = torch.einsum("a,abc->bc", log_x_0.exp().flatten(), enumerated_posterior(matrices, s, t))
        for x_t in range(K + (corruption.mask_bar[-1] > 0)):
            closed = corruption.log_posterior(log_x_0, torch.tensor([[x_t]]), s=torch.tensor([s]), t=torch.tensor([t]))
            torch.testing.assert_close(closed.exp().flatten(), expected[x_t], rtol=1e-6, atol=1e-12)


@every_process
def test_the_posterior_of_the_last_step_is_the_prediction_itself(corruption):
    log_x_0 = torch.randn(1, 1, K, dtype=torch.float64).log_softmax(-1)
    last = corruption.log_posterior(log_x_0, torch.tensor([[1]]), s=torch.tensor([0]), t=torch.tensor([3]))
    torch.testing.assert_close(last[..., :K], log_x_0)
    assert last[..., K].item() == float("-inf")


@every_process
def test_corrupted_tokens_follow_the_cumulative_transition(corruption):
    num, t = 20_000, 4
    x_t = corruption.corrupt(torch.full((num, 1), 2), torch.full((num,), t), draws=Draws.seeded(0))
    expected = num * as_matrix(corruption.cumulative(torch.tensor(t)), K + 1)[2]
    counts = torch.bincount(x_t.flatten(), minlength=K + 1).double()
    reached = expected > 0
    assert ((counts - expected)[reached] ** 2 / expected[reached]).sum() < 18.5   # chi-square, 4 degrees, p = .001
    assert counts[~reached].sum() == 0


@every_process
def test_the_kl_at_time_T_equals_its_enumeration(corruption):
    q = product(step_matrices(corruption), 0, T, K + 1)[2]
    p = corruption.start_logits().exp()
    reached = q > 0
    expected = (q[reached] * (q[reached] / p[reached]).log()).sum()
    torch.testing.assert_close(corruption.start_kl(), expected, rtol=1e-6, atol=1e-12)


@every_process
def test_every_step_has_a_finite_kl_and_gradient_in_float32_at_full_size(corruption):
    full = type(corruption)(corruption.keep_bar, corruption.mask_bar, codebook_size=1024)
    t = torch.arange(1, T + 1)
    x_0 = torch.randint(0, 1024, (T, 16), generator=torch.Generator().manual_seed(0))
    x_t = full.corrupt(x_0, t, draws=Draws.seeded(1))
    logits = (20 * torch.randn(T, 16, 1024)).requires_grad_()
    log_p = full.log_posterior(logits.log_softmax(-1), x_t, s=t - 1, t=t)
    kl = kl_divergence(full.log_true_posterior(x_0, x_t, s=t - 1, t=t, dtype=torch.float32), log_p)
    kl.sum().backward()
    assert kl.isfinite().all() and logits.grad.isfinite().all()


def test_the_published_schedule_ends_masked_and_replaces_one_token_in_a_million():
    corruption = Corruption.mask_and_replace(num_timesteps=100, codebook_size=1024)
    assert corruption.mask_bar[-1].item() == pytest.approx(0.99999)
    torch.testing.assert_close(corruption.replace_bar[1:], torch.full((100,), 1e-6, dtype=torch.float64), rtol=1e-6,
                               atol=0)


def test_a_schedule_that_never_replaces_is_refused_with_the_way_out():
    keep = torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64)
    with pytest.raises(ValueError, match="absorbing"):
        Corruption(keep, 1 - keep, codebook_size=4)


def test_a_schedule_that_keeps_more_later_is_refused():
    with pytest.raises(ValueError, match="fall from 1"):
        Corruption(torch.tensor([1.0, 0.5, 0.6]), torch.tensor([0.0, 0.1, 0.2]), codebook_size=4)
