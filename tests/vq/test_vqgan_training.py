"""One training step: its gradients against the plain way, its schedule, and exact continuation."""

import copy

import pytest
import torch

from priors.base import Draws
from vq.diffaug import diffaug
from vq.options import VQGANOptions
from vq.training import LikelihoodTraining, VQGANTraining
from vq.vqgan import VQGAN

SMALL = dict(channels=8, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(), norm_groups=4,
             embedding_dim=4, codebook_size=16, disc_channels=4, disc_layers=2)


def squared_difference(x, y):
    return (x - y).square().mean((1, 2, 3))


def build(**options):
    torch.manual_seed(0)
    model = VQGAN(options=VQGANOptions(**{**SMALL, **options}), resolution=16)
    return VQGANTraining(model, perceptual=squared_difference, learning_rate=1e-3)


def optimize(loss, optimizer):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def batch(step):
    return torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(step))


def advance(training, steps):
    return [training.update(batch(step), step, Draws.seeded(step), optimize) for step in steps]


def plain_generator_gradients(training, images, draws):
    """Two full backward passes, as the formula says, over everything at once."""
    model, options = training.model, training.options
    x = model.to_float(images)
    latents, _, codebook_loss = model.quantizer(model.encoder(x))
    reconstruction = model.decoder(latents)
    nll = (x - reconstruction).abs().mean() + options.perceptual_weight * squared_difference(x, reconstruction).mean()
    adversarial = -model.discriminator(diffaug(reconstruction, draws)).mean()
    weight = model.decoder.last_weight
    norms = [torch.autograd.grad(loss, weight, retain_graph=True)[0].norm() for loss in (nll, adversarial)]
    lam = (norms[0] / (norms[1] + 1e-4)).clamp(0, options.lambda_max)
    parameters = training.optimizers()[0].param_groups[0]["params"]
    return lam, torch.autograd.grad(nll + lam * adversarial + codebook_loss, parameters)


@pytest.mark.parametrize("lambda_max", [1.0, 1e4])
def test_the_generators_gradient_is_that_of_the_plain_formula(lambda_max):
    training = build(disc_start_step=0, lambda_max=lambda_max)
    lam, expected = plain_generator_gradients(copy.deepcopy(training), batch(0), Draws.seeded(0))
    seen = []

    def record(loss, optimizer):
        optimizer.zero_grad()
        loss.backward()
        seen.append([parameter.grad.clone() for parameter in optimizer.param_groups[0]["params"]])

    log = training.update(batch(0), 0, Draws.seeded(0), record)
    torch.testing.assert_close(log["lambda"], lam.detach(), rtol=1e-4, atol=0)
    for ours, theirs in zip(seen[0], expected, strict=True):
        # float32 rounds each sum by its size, so a small element of a large gradient has no digits of its own
        assert float((ours - theirs).norm()) <= 1e-5 * float(theirs.norm())


def test_the_discriminator_waits_for_its_start_step():
    training = build(disc_start_step=2)
    before = copy.deepcopy(training.model.discriminator.state_dict())
    logs = advance(training, range(2))
    assert all(torch.equal(value, before[key]) for key, value in training.model.discriminator.state_dict().items())
    assert not any("lambda" in log for log in logs)
    assert "lambda" in advance(training, [2])[0]
    assert not torch.equal(training.model.discriminator.main[0].weight, before["main.0.weight"])


def test_lambda_rises_linearly_over_the_warm_up_while_the_discriminator_learns():
    options = dict(disc_start_step=1, lambda_max=1e-3)   # low enough for the clamp to decide
    logs = advance(build(**options, disc_warmup_steps=4), range(7))
    assert ["discriminator_loss" in log for log in logs] == [False] + 6 * [True]
    shares = [float(log["lambda"]) / 1e-3 for log in logs[1:]]
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    assert float(advance(build(**options), range(2))[1]["lambda"]) == pytest.approx(1e-3)


def test_without_a_start_step_there_is_one_optimizer_and_no_discriminator_update():
    training = build(disc_start_step=None)
    assert len(training.optimizers()) == 1
    assert "discriminator_loss" not in advance(training, [10**6])[0]


def test_lambda_stays_within_its_ceiling():
    assert all(0 <= log["lambda"] <= 0.3 for log in advance(build(disc_start_step=0, lambda_max=0.3), range(5)))


def test_the_discriminator_learns_to_tell_photographs_from_reconstructions():
    training = build(disc_start_step=0, disc_learning_rate_factor=5.0, diffaug=False, lambda_max=0.0)
    logs = [training.update(batch(0), step, Draws.seeded(step), optimize) for step in range(30)]
    assert logs[-1]["discriminator_loss"] < 0.5 < logs[0]["discriminator_loss"]


def test_the_reconstruction_improves_on_a_batch_seen_again_and_again():
    training = build(disc_start_step=None, codebook_init="data")
    losses = [training.update(batch(0), step, Draws.seeded(step), optimize)["loss"] for step in range(30)]
    assert losses[-1] < 0.9 * losses[0]


def test_the_interrupted_run_ends_in_the_weights_of_the_undisturbed_one():
    options = dict(disc_start_step=1, codebook_init="data", restart_dead_codes_every=2)
    undisturbed = build(**options)
    advance(undisturbed, range(6))
    first = build(**options)
    advance(first, range(3))
    state, states = first.state_dict(), [optimizer.state_dict() for optimizer in first.optimizers()]
    second = build(**options)
    second.load_state_dict(copy.deepcopy(state))
    for optimizer, saved in zip(second.optimizers(), states, strict=True):
        optimizer.load_state_dict(copy.deepcopy(saved))
    advance(second, range(3, 6))
    assert all(torch.equal(value, undisturbed.state_dict()[key]) for key, value in second.state_dict().items())


def test_the_perceptual_network_is_no_part_of_the_state():
    training = VQGANTraining(build().model, perceptual=torch.nn.Linear(1, 1), learning_rate=1e-3)
    assert all(key.startswith("model.") for key in training.state_dict())


def test_logged_values_carry_no_graph():
    assert not any(value.requires_grad for value in advance(build(disc_start_step=0), [0])[0].values())


def test_codes_are_taken_from_the_first_batch_only():
    training = build(codebook_init="data")
    assert not training.model.quantizer.started
    advance(training, [0])
    assert training.model.quantizer.started
    codes = training.model.quantizer.embedding.weight.clone()
    advance(training, [1])
    assert (training.model.quantizer.embedding.weight - codes).abs().max() < 0.01   # one step of Adam, no restart


def test_validation_measures_the_model_it_is_given():
    training, other = build(), build().model
    torch.nn.init.zeros_(other.decoder.last_weight)
    terms = training.validate(other, batch(0), Draws.seeded(0))
    expected = (other.to_float(batch(0)) - other.decoder.blocks[-1].bias.view(1, 3, 1, 1)).abs().mean()
    torch.testing.assert_close(terms["l1"], expected)
    assert terms["loss"] == terms["l1"] + terms["lpips"]


def test_a_folded_model_cannot_be_trained():
    with pytest.raises(ValueError, match="fold=False"):
        build(quant_convs="folded")


def test_separate_quant_convs_are_trained_too():
    training = build(quant_convs="separate", disc_start_step=None)
    before = training.model.decoder.post_quant_conv.weight.clone()
    advance(training, [0])
    assert not torch.equal(training.model.decoder.post_quant_conv.weight, before)


def test_gumbel_models_train():
    training = build(quantizer="gumbel", disc_start_step=None)
    before = training.model.quantizer.proj.weight.clone()
    advance(training, [0])
    assert not torch.equal(training.model.quantizer.proj.weight, before)


def fine_tuned(steps, **options):
    tokenizer = build(**options).model.requires_grad_(False)
    training = LikelihoodTraining(tokenizer, bits=8, learning_rate=1e-2)
    return tokenizer, training, [training.update(batch(0), step, Draws.seeded(step), optimize)["loss"]
                                 for step in range(steps)]


def test_likelihood_training_changes_the_head_alone_and_raises_the_likelihood():
    before = build().model.state_dict()
    tokenizer, training, losses = fine_tuned(20)
    changed = {key for key, value in tokenizer.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and all(key.startswith("decoder.logsigma.") for key in changed)
    assert losses[-1] < losses[0]
    assert training.validate(training.model, batch(0), Draws.seeded(0))["loss"] < losses[0]


@pytest.mark.parametrize("input_range", ["unit", "signed"])
def test_the_likelihood_loss_is_what_the_tokenizer_reports(input_range):
    tokenizer, training, _ = fine_tuned(2, input_range=input_range)
    reported = -tokenizer.log_likelihood(batch(1), bits=8).mass.mean() / (3 * 16 * 16 * torch.tensor(2.0).log())
    loss = training.validate(training.model, batch(1), Draws.seeded(0))["loss"]
    torch.testing.assert_close(loss.double(), reported.double(), rtol=1e-4, atol=0)


def test_the_state_of_likelihood_training_holds_no_other_weights_than_the_head_s():
    tokenizer, training, _ = fine_tuned(0)
    assert set(training.state_dict()) == {f"model.{key}" for key in tokenizer.decoder.logsigma.state_dict()}


def test_likelihood_training_bears_a_background_predicted_exactly():
    """Where the mean is right to a hundredth of a level, the density's optimum is infinite; the probability's is 1."""
    tokenizer = build().model.requires_grad_(False)
    last = tokenizer.decoder.blocks[-1]
    last.weight.zero_(), last.bias.zero_()
    training = LikelihoodTraining(tokenizer, bits=8, learning_rate=3e-2)
    black = torch.zeros(4, 3, 16, 16, dtype=torch.uint8)
    losses = [training.update(black, step, Draws.seeded(step), optimize)["loss"] for step in range(200)]
    assert torch.stack(losses).isfinite().all() and 0 <= losses[-1] < 0.01
