"""Do priors and tokenizer work on another device than the CPU? Asked on a machine that has none.

A tensor of the pretended device holds its values on the CPU but says, to Python and to autograd, that it lies
elsewhere. Like CUDA it refuses to meet a CPU tensor of one dimension or more, except as an index and in a copy. Its
device is called "meta", because torch's CPU build lets no other name through backward passes; kernels, generators and
numerics of CUDA are not what is tested here.
"""

import contextlib
import inspect

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from priors.absorbing import AbsorbingDiffusion
from priors.any_order import AnyOrder
from priors.autoregressive import Autoregressive
from priors.base import Draws
from priors.block_diffusion import BlockDiffusion
from priors.canvas import CanvasSampler, sample_canvas, strided_windows
from priors.uniform import UniformDiffusion
from priors.unigram import Unigram
from priors.vq_diffusion import VQDiffusion
from vq.options import VQGANOptions
from vq.vqgan import VQGAN

ELSEWHERE = torch.device("meta")
INDEXING = ("index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put")
COPYING = ("copy_", "_local_scalar_dense")
SIZES = {"width": 16, "num_layers": 2, "num_heads": 2}


class Elsewhere(torch.Tensor):
    """A tensor of the pretended device; `values` lie on the CPU."""

    @staticmethod
    def __new__(cls, values):
        layout = {"strides": values.stride(), "storage_offset": values.storage_offset(), "dtype": values.dtype}
        made = torch.Tensor._make_wrapper_subclass(cls, values.size(), device=ELSEWHERE, **layout)
        made.values = values
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return carried_out(func, args, kwargs or {})

    def tolist(self):
        return self.values.tolist()


class PretendedDevice(TorchDispatchMode):
    """Inside, tensors can be made on the pretended device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return carried_out(func, args, kwargs or {})


def carried_out(func, args, kwargs):
    """The operator on the values, its result where CUDA would leave it. Raises RuntimeError where devices meet."""
    if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        with PretendedDevice():
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    is_there = any(isinstance(tensor, Elsewhere) for tensor in tensors)
    if kwargs.get("device") is not None:
        is_there = torch.device(kwargs["device"]) == ELSEWHERE
        kwargs = {**kwargs, "device": torch.device("cpu")}
    elif is_there:
        _check_meeting(func, args, tensors)
    result = func(*_values(args), **_values(kwargs))
    if func.overloadpacket.__name__ == "copy_":
        return args[0]
    written = {id(tensor.values): tensor for tensor in tensors if isinstance(tensor, Elsewhere)}

    def wrapped(leaf):
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return written[id(leaf)] if id(leaf) in written else Elsewhere(leaf)

    return tree_map(wrapped, result) if is_there else result


def _values(tree):
    return tree_map(lambda leaf: leaf.values if isinstance(leaf, Elsewhere) else leaf, tree)


def _check_meeting(func, args, tensors):
    name = func.overloadpacket.__name__
    if name in COPYING:
        return
    if name in INDEXING and isinstance(args[0], Elsewhere):
        tensors = [tensor for tensor in tensors if not any(tensor is index for index in args[1])]
    first_is_cpu = not isinstance(tensors[0], Elsewhere) and (name.endswith("_") or name in INDEXING)
    if first_is_cpu or any(not isinstance(tensor, Elsewhere) and tensor.ndim for tensor in tensors):
        raise RuntimeError(f"{func} of tensors on two devices")


class DrawsOn(Draws):
    """Draws whose generator is on the named device."""

    def __init__(self, where):
        super().__init__(torch.Generator().manual_seed(0))
        self.where = torch.device(where)

    device = property(lambda self: self.where)

    def uniform(self, *shape):
        return torch.rand(shape, generator=self.generator).to(self.where)

    def integers(self, low, high, *shape):
        return torch.randint(low, high, shape, generator=self.generator).to(self.where)


@pytest.fixture(autouse=True)
def pretended_device(monkeypatch):
    monkeypatch.setattr("torch.autocast", lambda *args, **kwargs: contextlib.nullcontext())   # it knows no such device
    with PretendedDevice():
        yield


FAMILIES = {
    "absorbing": (AbsorbingDiffusion, SIZES),
    "absorbing, fixed masks": (AbsorbingDiffusion, SIZES | {"objective": "mlm", "mask_schedule": "fixed"}),
    "absorbing, dropout": (AbsorbingDiffusion, SIZES | {"dropout": 0.1}),
    "autoregressive": (Autoregressive, SIZES),
    "any_order": (AnyOrder, SIZES),
    "vq_diffusion": (VQDiffusion, SIZES | {"timesteps": 6}),
    "vq_diffusion, even times": (VQDiffusion, SIZES | {"timesteps": 6, "importance_sampling": False}),
    "d3pm": (UniformDiffusion, SIZES | {"form": "d3pm", "timesteps": 6}),
    "udlm": (UniformDiffusion, SIZES | {"form": "udlm"}),
    "perturbation": (UniformDiffusion, SIZES | {"form": "perturbation"}),
    "unigram": (Unigram, {}),
    "block_diffusion": (BlockDiffusion, SIZES | {"block_size": 2}),
}


def prior_elsewhere(family):
    cls, options = FAMILIES[family]
    return cls(grid=(2, 3), codebook_size=5, options=cls.Options(**options)).to(ELSEWHERE)


def tokens_elsewhere(num=4):
    return torch.arange(num * 6).remainder(5).view(num, 6).to(ELSEWHERE)


def sampled(prior, draws, known=None, **options):
    """Without the decorators: inference mode bypasses the pretended device."""
    with torch.no_grad():
        return inspect.unwrap(type(prior).sample)(prior, 3, sampler=prior.Sampler(**options), known=known, draws=draws)


def test_a_cpu_tensor_is_refused_beside_one_of_the_pretended_device():
    with pytest.raises(RuntimeError, match="two devices"):
        torch.ones(3, device=ELSEWHERE) + torch.ones(3)


def test_the_pretended_device_takes_cpu_indices_but_gives_none_to_the_cpu():
    there, index = torch.arange(3.0).to(ELSEWHERE), torch.tensor([2])
    assert there[index].device == ELSEWHERE and there[index].tolist() == [2.0]
    with pytest.raises(RuntimeError, match="two devices"):
        torch.arange(3.0)[index.to(ELSEWHERE)]


@pytest.mark.parametrize("where", ["cpu", "meta"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_prior_trains_on_its_device_with_draws_of_any(family, where):
    prior = prior_elsewhere(family).train()
    loss = prior.training_loss(tokens_elsewhere(), draws=DrawsOn(where))
    assert loss.device == ELSEWHERE
    if family != "unigram":   # which has no gradient
        loss.backward()


@pytest.mark.parametrize("budget", [None, 4, 12])
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "perturbation"])   # it has none
def test_a_likelihood_stays_on_the_device_of_its_prior(family, budget):
    with torch.no_grad():
        found = prior_elsewhere(family).eval().nll(tokens_elsewhere(), draws=DrawsOn(ELSEWHERE), budget=budget)
    assert found.nats.device == found.monte_carlo_variance.device == ELSEWHERE


@pytest.mark.parametrize("where", ["cpu", "meta"])
@pytest.mark.parametrize("family, options", [
    ("absorbing", {}), ("absorbing", {"steps": 3, "schedule": "cosine", "top_k": 2, "top_p": 0.9}),
    ("absorbing", {"steps": 3, "order": "halton"}), ("absorbing", {"steps": 3, "order": "confidence"}),
    ("absorbing", {"steps": 3, "method": "loop"}), ("absorbing", {"steps": 3, "method": "remask"}),
    ("absorbing", {"steps": 3, "method": "remdm", "remasking": "confidence"}),
    ("absorbing", {"steps": 3, "method": "predictor_corrector"}),
    ("autoregressive", {}), ("autoregressive", {"cache": False}), ("vq_diffusion", {"steps": 4}),
    ("autoregressive", {"method": "jacobi"}), ("autoregressive", {"method": "jacobi", "cache": False}),
    ("vq_diffusion", {"steps": 4, "method": "purity", "purity_weight": 1.0}), ("d3pm", {"steps": 4}),
    ("perturbation", {"steps": 3}), ("unigram", {}), ("block_diffusion", {}), ("block_diffusion", {"cache": False}),
    ("any_order", {}), ("any_order", {"cache": False, "order": "random"}),
    ("any_order", {"method": "jacobi"}), ("any_order", {"method": "speculative"}),
    ("any_order", {"method": "speculative", "cache": False}),
    ("any_order", {"method": "speculative", "order": "random", "speculative_window": 2})])
def test_tokens_are_drawn_on_the_device_of_the_prior_and_costs_counted_on_the_cpu(family, options, where):
    sample = sampled(prior_elsewhere(family).eval(), DrawsOn(where), **options)
    assert sample.tokens.device == ELSEWHERE
    assert sample.network_evaluations.device.type == sample.token_forwards.device.type == "cpu"
    assert 0 <= int(sample.tokens.min()) and int(sample.tokens.max()) < 5


@pytest.mark.parametrize("family", ["absorbing", "autoregressive", "any_order", "vq_diffusion", "perturbation",
                                    "unigram", "block_diffusion"])
def test_known_tokens_may_come_from_the_cpu(family):
    known = torch.full((3, 6), -1)
    known[:, :2], known[1, :4] = 1, 2
    tokens = sampled(prior_elsewhere(family).eval(), DrawsOn(ELSEWHERE), known=known).tokens.cpu()
    assert tokens[known != -1].tolist() == known[known != -1].tolist()


def test_a_calibrated_schedule_is_used_on_the_device_of_the_prior():
    prior = prior_elsewhere("absorbing").eval()
    prior.calibrate(tokens_elsewhere(), draws=DrawsOn(ELSEWHERE))
    assert sampled(prior, DrawsOn(ELSEWHERE), steps=3, schedule="optimal").tokens.device == ELSEWHERE


@pytest.mark.parametrize("options", [{}, {"steps": 4, "order": "halton", "schedule": "cosine"}])
def test_a_canvas_is_filled_on_the_device_of_the_prior(options):
    windows = strided_windows((3, 4), (2, 3))
    with torch.no_grad():
        sample = inspect.unwrap(sample_canvas)(prior_elsewhere("absorbing").eval(), 2, windows=windows,
                                               sampler=CanvasSampler(**options), draws=DrawsOn(ELSEWHERE))
    assert sample.tokens.device == ELSEWHERE and int(sample.tokens.min()) >= 0


QUANTIZERS = {
    "nearest": {}, "restarted": {"codebook_init": "data", "restart_dead_codes_every": 1}, "gumbel": {
        "quantizer": "gumbel"}, "cosine": {"lookup": "cosine", "quant_convs": "separate"}}


def vqgan_elsewhere(**options):
    sizes = VQGANOptions(channels=4, channel_multipliers=(1, 2), norm_groups=2, disc_channels=4, num_res_blocks=1,
                         attention_resolutions=(4,), embedding_dim=4, codebook_size=8, disc_start_step=0, disc_layers=1,
                         **options)
    images = torch.arange(4 * 3 * 64).remainder(256).to(torch.uint8).view(4, 3, 8, 8)
    return VQGAN(options=sizes, resolution=8).to(ELSEWHERE), images


def descend(loss, optimizer):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@pytest.mark.parametrize("where", ["cpu", "meta"])
@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_a_vqgan_trains_on_its_device_with_draws_of_any(quantizer, where):
    model, images = vqgan_elsewhere(**QUANTIZERS[quantizer])
    task = model.trainable(perceptual=lambda x, y: (x - y).square().mean((1, 2, 3)), learning_rate=1e-3,
                           betas=(0.9, 0.99)).train()
    for step in range(2):   # the second restarts dead codes
        logged = task.update(images.to(ELSEWHERE), step, DrawsOn(where), descend)
    assert logged["loss"].device == ELSEWHERE


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_images_from_the_cpu_become_tokens_and_images_on_the_device_of_the_vqgan(quantizer):
    model, images = vqgan_elsewhere(**QUANTIZERS[quantizer])
    tokens = model.eval().encode(images)
    assert tokens.device == ELSEWHERE and model.decode(tokens.cpu()).device == ELSEWHERE


def test_a_pixel_likelihood_is_trained_and_measured_on_the_device_of_the_vqgan():
    model, images = vqgan_elsewhere(likelihood_head=True)
    task = model.trainable_likelihood(bits=5, learning_rate=1e-3, betas=(0.9, 0.99))
    task.update(images.to(ELSEWHERE), 0, DrawsOn(ELSEWHERE), descend)
    found = model.log_likelihood(images, bits=5)
    assert found.mass.device == ELSEWHERE and float(found.mass.max()) <= 0
