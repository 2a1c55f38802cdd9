"""`python -m bench.testing`: a class is named, every fault of it is printed, and the exit code says how it went."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import __main__ as commands
from bench.testing import CheckFailed, __main__, check_metric, check_prior

ROOT = Path(__file__).parents[2]
FAULTY = """
import dataclasses
from priors.unigram import Unigram

class Faulty(Unigram):
    def training_loss(self, tokens, *, draws):
        return super().training_loss(tokens, draws=draws) * len(tokens)

    def sample(self, num, *, sampler, known=None, draws):
        return super().sample(num, sampler=sampler, draws=draws)

class Unbuildable:
    name, columns = "mine", {}

    def __init__(self):
        raise RuntimeError("no such device")

    def applies(self, evidence): ...
    def __call__(self, evidence): ...

@dataclasses.dataclass(frozen=True)
class Named(Unigram.Options):
    nickname: str = "none"

class HasFreeText(Unigram):
    Options = Named
"""


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    (tmp_path / "faulty_plugins.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "examples"))
    yield "faulty_plugins"
    sys.modules.pop("faulty_plugins", None)


def test_a_prior_of_one_s_own_that_keeps_the_contract_exits_with_0(plugins, capsys):
    assert __main__.main(["prior=neighbourhood_prior:Neighbourhood", "prior.width=16"]) == 0
    assert "Neighbourhood: " in capsys.readouterr().out


def test_every_fault_is_printed_in_one_go(plugins, capsys):
    assert __main__.main([f"prior={plugins}:Faulty"]) == 1
    shown = capsys.readouterr().out
    assert "divide the sum by the number of images" in shown and "came back as others" in shown
    assert shown.count("  FAULT ") == 2 and "2 failed" in shown and "  ok    " in shown


def test_from_python_one_exception_names_every_fault(plugins):
    with pytest.raises(CheckFailed, match="(?s)divide the sum by the number.*came back as others") as caught:
        check_prior(f"{plugins}:Faulty")
    assert len(caught.value.report.faults) == 2 and caught.value.report.passed


def test_a_class_that_cannot_be_built_is_a_fault(plugins, capsys):
    assert __main__.main([f"metric={plugins}:Unbuildable"]) == 1
    assert "raised RuntimeError: no such device" in capsys.readouterr().out
    with pytest.raises(CheckFailed, match="no such device"):
        check_metric(f"{plugins}:Unbuildable")


def test_an_option_of_any_text_is_a_note_and_no_fault(plugins):
    assert any("takes any text as nickname" in note for note in check_prior(f"{plugins}:HasFreeText").notes)


def test_several_kinds_are_checked_by_one_command(plugins, capsys):
    words = ["vq=levels_tokenizer:Levels", "resolution=16", "metric=brightness_metric:Brightness,kid"]
    assert __main__.main(words) == 0
    shown = capsys.readouterr().out
    assert [name in shown for name in ("Levels: 6", "Brightness: 5", "KernelDistance: 5")] == [True] * 3


def test_the_grid_and_the_codebook_are_those_asked_for(capsys):
    assert __main__.main(["prior=unigram", "grid=1x4", "codebook_size=3", "sampler.temperature=0.9"]) == 0
    assert "Unigram: " in capsys.readouterr().out


@pytest.mark.parametrize("words, problem", [
    (["prior=unigramm"], "Did you mean 'unigram'"), (["priors=unigram"], "Did you mean 'prior'"),
    (["prior=unigram", "prior.smoothin=1"], "Did you mean 'smoothing'"),
    (["prior=unigram", "prior.smoothing=one"], "prior.smoothing=one"), (["prior=unigram", "grid=2"], "as 2x3"),
    (["prior=unigram", "grid=0x3"], "expected"), (["prior=unigram", "resolution=8"], "no vq= is being checked"),
    (["prior=unigram", "vq.levels=8"], "no vq= is being checked"), (["grid=2x3"], "nothing to check"),
    (["prior=unigram", "prior.smoothing=1,2"], "one value"), (["prior=nowhere.at_all:Mine"], "cannot import"),
    (["prior=unigram", "prior.smoothing=1", "prior.smoothing=2"], "given twice"), (["prior=os:path"], "no prior")])
def test_wrong_input_exits_with_2_and_says_what_was_expected(words, problem, capsys):
    assert __main__.main(words) == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize("words", [["prior=unigramm"], ["prior=unigram", "gird=2x3"], ["prior=unigram", "grid=2"],
                                   ["dataset=digits", "dataset.resolution=0"]])
def test_wrong_input_is_told_before_torch_is_imported(words):
    script = (f"import sys\nfrom bench.testing.__main__ import main\ncode = main({words})\n"
              "assert code == 2 and 'torch' not in sys.modules")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr


def test_the_command_is_listed(capsys):
    assert commands.main([]) == 0 and "  testing  Check a prior" in capsys.readouterr().out
