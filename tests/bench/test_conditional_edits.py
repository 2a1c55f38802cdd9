"""Editing with a class and known tokens: whose condition a completion has, its distribution, and what is refused."""

import itertools
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import nn

from bench.compose import compose
from bench.edit import main
from bench.editing.benchmark import edit_of
from bench.editing.inputs import check_conditions
from bench.editing.options import EditOptions
from bench.errors import InputError
from bench.stages.base import Run
from bench.stages.completions import COMPLETIONS, hidden_of
from bench.stages.editor import Editor
from bench.stages.identity import protocol_details, protocol_id
from bench.store.store import Store
from priors.autoregressive import Autoregressive
from priors.base import UNKNOWN, Draws, Sample
from priors.conditions import Condition
from priors.options import AutoregressiveOptions, AutoregressiveSampler

TOKENIZER_FILE = Path(__file__).with_name("patch_means.py")
MODELS = ["vq=patch_means:PatchMeans", "preset=smoke", "dataset=digits", "prior=unigram", "condition=class"]


@pytest.fixture(scope="module", autouse=True)
def patches(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copy(TOKENIZER_FILE, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("VQ_PRIOR_BENCH_CACHE", str(folder / "cache"))
        yield


@pytest.fixture
def asked(monkeypatch):
    """The conditions that completions are asked for, of a prior that fills in zeros."""
    found = []

    def complete(editor, known, *, draws, condition=None, windows=None, order=None):
        found.append(None if condition is None else condition.labels.tolist())
        costs = torch.ones(2, len(known), dtype=torch.int64)
        return Sample(known.masked_fill(known == UNKNOWN, 0), *costs)

    monkeypatch.setattr(Editor, "complete", complete)
    return found


def benchmark_run(tmp_path, *arguments):
    spec = compose([*MODELS, *arguments])
    edited = edit_of(spec, "lower", EditOptions("benchmark", images=10))
    return Run(edited, store=Store(tmp_path / "artefacts"), announce=lambda text: None)


def test_completions_have_the_classes_of_the_images_they_complete(tmp_path, asked):
    run = benchmark_run(tmp_path, "sampling.chunk=6")
    run.open(COMPLETIONS)
    labels = run.splits.labels().validation[hidden_of(run).indices].tolist()
    assert asked == [labels[:6], labels[6:]] and len(set(labels)) > 1


def test_conditional_and_other_edits_are_two_protocols_and_two_artefacts(tmp_path):
    told, plain = benchmark_run(tmp_path), benchmark_run(tmp_path, "condition=none")
    assert protocol_id(told) != protocol_id(plain) and "condition" not in protocol_details(plain)
    assert protocol_details(told)["condition"]["sampled"] == "the completed image"
    assert told.recipe(COMPLETIONS).key != plain.recipe(COMPLETIONS).key


def test_a_held_out_image_is_painted_anew_under_its_own_class(tmp_path, asked):
    out = f"out={tmp_path / 'edits'}"
    assert main(["task=inpaint", "image=validation:3,validation:5", "box=4,4,12,12", "variants=2", out, *MODELS]) == 0
    labels = Run(compose(MODELS)).splits.labels().validation
    assert asked == [[labels[3]] * 2, [labels[5]] * 2] and labels[3] != labels[5]


@pytest.mark.parametrize(("options", "complaint"), [
    (dict(task="inpaint", image=("cat.png",), box=((0, 0, 4, 4),)),
     "image=cat.png with condition=class: the class of a held-out image alone is known"),
    (dict(task="stitch", image=("validation:0", "validation:1"), box=((0, 0, 4, 4), (4, 4, 8, 8))),
     "task=stitch with condition=class: no one image is completed"),
    (dict(task="enlarge", canvas=(8, 8)), "task=enlarge with condition=class"),
    (dict(task="filmstrip"), "task=filmstrip with condition=class")])
def test_what_nobody_knows_the_class_of_is_refused_with_the_way_out(options, complaint):
    with pytest.raises(InputError, match=f"{complaint}.*condition=none"):
        check_conditions(EditOptions(**options), "class")
    check_conditions(EditOptions(**options), "none")


def test_an_image_from_a_file_is_refused_before_any_work(tmp_path, capsys, asked):
    from PIL import Image
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "cat.png")
    command = ["task=inpaint", f"image={tmp_path / 'cat.png'}", "box=0,0,4,4", f"out={tmp_path / 'edits'}", *MODELS]
    assert main(command) == 2 and "with condition=class" in capsys.readouterr().err
    assert not asked and not (tmp_path / "edits").exists()


def test_a_data_set_without_captions_is_refused_before_any_work(capsys):
    assert main(["task=benchmark", "masks=lower", *MODELS[:-1], "prior=autoregressive", "condition=text"]) == 2
    assert "dataset=digits has no captions" in capsys.readouterr().err


def test_a_completion_has_the_enumerated_distribution_given_class_and_known_token():
    """Three tokens of three codes, two classes: p(x2, x3 | x1, class) from the likelihoods of all 27 images."""
    torch.manual_seed(1)
    prior = Autoregressive(grid=(1, 3), codebook_size=3, options=AutoregressiveOptions(
        width=8, num_layers=2, num_heads=2, num_labels=2)).eval().requires_grad_(False)
    for parameter in prior.parameters():
        nn.init.normal_(parameter, std=0.6)
    editor = Editor(SimpleNamespace(spec=None, device="cpu", open=lambda stage: prior))
    editor.sampler = AutoregressiveSampler()
    images = torch.tensor(list(itertools.product(range(3), repeat=3)))
    num, known = 4_000, torch.tensor([[2, UNKNOWN, UNKNOWN]])
    shares = []
    for label in range(2):
        labels = Condition(labels=torch.full((num,), label))
        nats = prior.nll(images, condition=labels[:27], draws=Draws.seeded(0)).nats
        expected = (-nats[images[:, 0] == 2]).exp()
        tokens = editor.complete(known.repeat(num, 1), condition=labels, draws=Draws.seeded(label)).tokens
        assert (tokens[:, 0] == 2).all()
        counts = torch.bincount(3 * tokens[:, 1] + tokens[:, 2], minlength=9)
        shares.append(expected / expected.sum())
        assert chisquare(counts, shares[-1] * num).pvalue > 1e-3
    assert (shares[0] - shares[1]).abs().max() > 0.05
