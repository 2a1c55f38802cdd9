"""`vq.path` and `prior.path`: checkpoints of every layout run through to records; a wrong one stops before any work."""

import pytest
import torch
from safetensors.torch import save_file

from bench.compose import compose, expand
from bench.errors import InputError
from bench.pipeline import run
from bench.run import main
from bench.stages.base import Run
from bench.stages.prior import PRIOR
from bench.stages.tokenizer import TOKENIZER
from bench.store.store import Store
from priors.absorbing import AbsorbingDiffusion
from priors.autoregressive import Autoregressive
from priors.official import PREFIX, _official_keys
from vq.checkpoints import LAYOUTS, _sources
from vq.options import VQGANOptions
from vq.vqgan import VQGAN

SIZES = dict(channels=32, channel_multipliers=(1, 2), num_res_blocks=1, attention_resolutions=(8,), embedding_dim=6,
             codebook_size=16)
COMMAND = ["dataset=digits", "preset=smoke", "baselines=false", "protocol.num_fake=4", "protocol.prdc_num=4",
           "sampling.chunk=4", "vq.channels=32", "vq.attention_resolutions=[8]", "vq.embedding_dim=6"]
BACKBONE = dict(width=32, num_layers=2, num_heads=2)


def quiet(text):
    pass


@pytest.fixture(scope="module", autouse=True)
def own_root(tmp_path_factory, cache):
    """Artefacts of this module's own, for what the command line builds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VQ_PRIOR_BENCH_CACHE", str(cache))
        yield


def tokenizer_like(layout, **more):
    """A model with random weights whose tokens differ from image to image, as the code base of the layout has it."""
    implied = {} if layout == "native" else VQGANOptions.of_layout(layout, SIZES | {"resolution": 16})
    if layout in ("taming", "llamagen"):
        implied["quant_convs"] = "separate"
    if layout == "native":
        implied = compose(COMMAND).vq.options | {"quant_convs": "none"}
    torch.manual_seed(0)
    model = VQGAN(options=VQGANOptions(**(implied | SIZES | more)), resolution=16).eval()
    torch.nn.init.normal_(model.quantizer.embedding.weight)
    return model


def checkpoint(model, layout, path):
    """The model's weights under the names that the code base gives them."""
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    if layout == "native":
        save_file(state, path / "model.safetensors")
        return path / "model.safetensors"
    theirs = {name: part.clone() for ours, names in _sources(model, LAYOUTS[layout])
              for name, part in zip(names, state[ours].chunk(len(names)) if len(names) > 1 else (state[ours],),
                                    strict=True)}
    torch.save({"state_dict": theirs, "global_step": 7} if layout == "taming" else theirs, path / "model.ckpt")
    return path / "model.ckpt"


@pytest.fixture(scope="module", params=["native", "unleashing", "taming"])
def imported(request, tmp_path_factory):
    """(layout, the model, the arguments that import it)."""
    model = tokenizer_like(request.param)
    file = checkpoint(model, request.param, tmp_path_factory.mktemp("checkpoint"))
    return request.param, model, [*COMMAND, f"vq.path={file}", f"vq.layout={request.param}"]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_an_imported_tokenizer_is_the_one_in_the_file(imported, store):
    _, model, command = imported
    foreign = Run(compose(command), store=store, announce=quiet)
    images = torch.from_numpy(foreign.splits.validation.images(range(8)))
    tokens = model.encode(images)
    assert len(tokens.unique()) > 3 and torch.equal(foreign.open(TOKENIZER).encode(images), tokens)
    assert (foreign.open(TOKENIZER).decode(tokens).int() - model.decode(tokens).int()).abs().max() <= 1


@pytest.mark.parametrize(("layout", "more"), [
    ("llamagen", ["vq.codebook_size=16", "vq.z_channels=256"]), ("taming", ["vq.quantizer=gumbel"])])
def test_llamagen_and_gumbel_tokenizers_are_those_in_the_file(layout, more, store, tmp_path):
    model = tokenizer_like(layout, **({"quantizer": "gumbel"} if "vq.quantizer=gumbel" in more else {}))
    file = checkpoint(model, layout, tmp_path)
    made = Run(compose([*COMMAND, f"vq.path={file}", f"vq.layout={layout}", *more]), store=store, announce=quiet)
    images = torch.from_numpy(made.splits.validation.images(range(8)))
    tokens = model.encode(images)
    assert len(tokens.unique()) > 3 and torch.equal(made.open(TOKENIZER).encode(images), tokens)


@pytest.mark.network
def test_reconstructions_of_an_imported_tokenizer_end_in_a_record(imported, store, tmp_path):
    spec = compose([*imported[2], "source=reconstruction", "metrics.names=[reconstruction]",
                    f"results_dir={tmp_path / 'runs'}"])
    record = run(spec, store=store, announce=quiet)
    assert record.status == "ok" and {m.metric for m in record.measurements} >= {"psnr", "codebook_usage"}


def test_samples_are_drawn_over_an_imported_tokenizer(imported, store, tmp_path):
    spec = compose([*imported[2], "prior=unigram", "metrics.names=[nll]", f"results_dir={tmp_path / 'runs'}"])
    record = run(spec, store=store, announce=quiet)
    assert record.status == "ok" and record.measurements[0].value > 0 and "samples" in record.media


def test_a_likelihood_head_is_the_file_s_or_a_fresh_one_that_is_tuned(imported, store, tmp_path):
    layout, model, command = imported
    spec = compose([*command, "vq.likelihood_head=true", "prior=unigram", "metrics.names=[pixel_nll]",
                    f"results_dir={tmp_path / 'runs'}"])
    images = torch.from_numpy(Run(spec, store=store, announce=quiet).splits.validation.images(range(8)))
    tokenizer = Run(spec, store=store, announce=quiet).open(TOKENIZER)
    assert torch.equal(tokenizer.encode(images), model.encode(images))
    if layout == "unleashing":
        assert torch.equal(tokenizer.likelihood_head[0].weight, model.likelihood_head[0].weight)
    measured, = run(spec, store=store, announce=quiet).measurements
    assert measured.metric == "bits_per_dim" and 0 < measured.value < 20


def test_a_layout_sets_what_it_implies_over_the_preset_s():
    command = ["dataset=cifar10", "preset=demo", "vq.path=x.ckpt", "vq.layout=taming", "vq.channels=64"]
    options = compose(command).vq.options
    assert (options["lookup"], options["quant_convs"], options["decoder_res_blocks"]) == ("euclidean", "folded", 2)
    assert options["norm_groups"] == 32 and options["embedding_dim"] == 32


def official_prior(cls, path):
    torch.manual_seed(0)
    prior = cls(grid=(8, 8), codebook_size=16, options=cls.Options(**BACKBONE)).eval()
    kind = "absorbing" if cls is AbsorbingDiffusion else "autoregressive"
    state = {PREFIX[kind] + key: part.clone() for name, value in prior.net.state_dict().items()
             for key, part in zip(_official_keys(name), value.chunk(len(_official_keys(name))), strict=True)}
    torch.save(state, path / f"{kind}.th")
    return kind, prior, path / f"{kind}.th"


@pytest.mark.network
@pytest.mark.parametrize("cls", [AbsorbingDiffusion, Autoregressive])
def test_an_official_prior_runs_through_to_its_record(cls, store, tmp_path):
    kind, prior, file = official_prior(cls, tmp_path)
    spec = compose([*COMMAND, f"prior={kind}", f"prior.path={file}", "prior.layout=official", "vq.training.steps=1",
                    "metrics.names=[nll]", f"results_dir={tmp_path / 'runs'}"])
    record = run(spec, store=store, announce=quiet)
    assert record.status == "ok" and record.measurements[0].value > 0
    tokens = torch.zeros(1, 64, dtype=torch.int64)
    imported = Run(spec, store=store, announce=quiet).open(PRIOR)
    torch.testing.assert_close(imported.logits(tokens), prior.logits(tokens))


# -- what is wrong is said before anything is built -------------------------------------------------------------------


def refused(capsys, tmp_path, *arguments):
    command = [*COMMAND, "prior=unigram", "metrics.names=[nll]", f"results_dir={tmp_path / 'runs'}", *arguments]
    assert main(command) == 2
    said = capsys.readouterr()
    assert "building" not in said.out and not list((tmp_path / "runs").glob("records/*"))
    return " ".join(said.err.split())


@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt"])
@pytest.mark.parametrize("layout", ["native", "unleashing", "taming"])
def test_a_damaged_tokenizer_file_is_named(capsys, tmp_path, name, layout):
    (tmp_path / name).write_bytes(b"not a checkpoint" * 8)
    said = refused(capsys, tmp_path, f"vq.path={tmp_path / name}", f"vq.layout={layout}")
    assert f"vq.path={tmp_path / name}" in said and "damaged" in said


@pytest.mark.parametrize("layout", ["native", "taming"])
def test_a_tokenizer_of_values_that_are_not_numbers_is_refused(capsys, tmp_path, layout):
    model = tokenizer_like(layout)
    model.decoder.blocks[0].weight.data[3, 1] = float("nan")
    path = checkpoint(model, layout, tmp_path)
    assert main([*COMMAND, "prior=unigram", f"vq.path={path}", f"vq.layout={layout}",
                 f"results_dir={tmp_path / 'runs'}"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "decoder.blocks.0.weight holds values that are not numbers" in said and str(path) in said


def test_a_file_that_holds_something_else_is_named(capsys, tmp_path):
    torch.save(torch.zeros(3), tmp_path / "model.th")
    assert "holds a Tensor" in refused(capsys, tmp_path, f"vq.path={tmp_path / 'model.th'}", "vq.layout=unleashing")


@pytest.mark.parametrize("claimed", ["native", "unleashing", "taming"])
def test_a_wrong_layout_or_wrong_sizes_are_named(imported, capsys, tmp_path, claimed):
    layout, _, command = imported
    wrong = "vq.embedding_dim=4" if claimed == layout else f"vq.layout={claimed}"
    said = refused(capsys, tmp_path, *command[len(COMMAND):], wrong) if claimed == layout else \
        refused(capsys, tmp_path, command[-2], wrong)
    assert "is not a checkpoint of this model" in said and ("embedding" in said or claimed != layout)


@pytest.mark.parametrize(("arguments", "fragment"), [
    (["vq.layout=unleashed"], "vq.layout='unleashed': expected native or one of unleashing, taming"),
    (["vq.path=/no/such.file"], "vq.path=/no/such.file: no such file"),
    (["vq.path=/no/such.file", "vq.layout=taming", "vq.quant_convs=both"], "quant_convs='both'"),
])
def test_a_wrong_import_is_refused_without_reading(capsys, tmp_path, arguments, fragment):
    if len(arguments) == 1 and "layout" in arguments[0]:
        arguments = ["vq.path=model.th", *arguments]
    assert fragment in refused(capsys, tmp_path, *arguments)


def test_a_layout_without_a_file_is_an_error():
    with pytest.raises(InputError, match="no checkpoint. Give vq.path"):
        expand(["vq.layout=taming"])


def test_an_option_that_contradicts_the_layout_is_named(capsys, tmp_path):
    file = checkpoint(tokenizer_like("taming"), "taming", tmp_path)
    said = refused(capsys, tmp_path, f"vq.path={file}", "vq.layout=taming", "vq.input_range=unit")
    assert "input_range=unit (the file: signed)" in said


@pytest.mark.parametrize("wrong", ["prior.width=64", "prior.num_layers=3", "prior.layout=native",
                                   "prior.layout=unleashing", "vq.codebook_size=8"])
def test_a_wrong_prior_is_refused_before_its_tokenizer_is_trained(capsys, tmp_path, wrong):
    _, _, file = official_prior(AbsorbingDiffusion, tmp_path)
    layout = [] if "layout" in wrong else ["prior.layout=official"]
    said = refused(capsys, tmp_path, "prior=absorbing", f"prior.path={file}", *layout, wrong)
    assert f"prior.path={file} is not a checkpoint of this model" in said


def test_a_prior_that_reads_native_files_alone_says_so(capsys, tmp_path):
    _, _, file = official_prior(AbsorbingDiffusion, tmp_path)
    said = refused(capsys, tmp_path, f"prior.path={file}", "prior.layout=official")
    assert "unigram reads no other layout than native" in said
