"""The key reference names every key, says what each is, and the committed page is what the code says."""

import dataclasses
from pathlib import Path

import pytest

from bench import keys, run
from bench.compose import compose
from bench.config import RunSpec
from bench.rules import rules_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sections():
    return keys.sections(built_in=True)


def test_the_committed_page_is_fresh(sections):
    assert keys.markdown(sections) == (ROOT / "docs" / "keys.md").read_text(), "python -m bench.keys docs/keys.md"


def test_every_key_of_the_schema_is_there_once(sections):
    listed = [key.name for key in sections["A run"]]
    assert set(listed) == {name for name, _, _ in rules_of(RunSpec)} - set(keys.COMPOSED) | {"sampler.seed"}
    assert len(listed) == len(set(listed))


def test_every_key_says_what_it_is_in_a_line(sections):
    assert {key.name: title for title, found in sections.items() for key in found if not key.line} == {}
    assert max(len(key.line) for found in sections.values() for key in found) < 600


def test_every_default_is_what_a_command_line_takes():
    spec = compose([])
    named = {key.name: key.default for key in keys.keys_of_run(spec)}
    some = [f"{name}={named[name]}" for name in ("prior.training.betas", "metrics.names", "dataset.path",
                                                 "speed.threads", "prior.training.learning_rate", "baselines")]
    assert dataclasses.asdict(compose(some)) == dataclasses.asdict(spec)


def test_what_a_docstring_says_reaches_its_fields():
    text = """About it.

    one: the first; two, three: both
        of them (None: neither).
    four (None: 4): the fourth.

    Heading
    five: the fifth.
    """
    assert keys._documented(text, ["one", "two", "three", "four", "five"]) == {
        "one": "the first", "two": "both of them (None: neither)", "three": "both of them (None: neither)",
        "four": "the fourth", "five": "the fifth"}


def test_help_after_a_prior_prints_that_prior_s_keys_as_this_command_sets_them(capsys):
    for words in (["--help", "prior=uniform"], ["prior=uniform", "prior.width=32", "-h"]):
        assert run.main(words) == 0
    shown = capsys.readouterr().out
    assert "prior.perturbed_share" in shown and "sampler.top_p" in shown and "prior.mask_schedule" not in shown


def test_help_alone_explains_the_command(capsys):
    assert run.main(["--help"]) == 0
    assert capsys.readouterr().out.startswith("Run benchmarks")


def test_help_with_a_prior_there_is_none_of_is_wrong_input(capsys):
    assert run.main(["prior=absorbin", "--help"]) == 2
    assert "Did you mean 'absorbing'" in capsys.readouterr().err


def test_keys_are_printed_on_request(sections, capsys, monkeypatch):
    monkeypatch.setattr(run, "sections", lambda arguments: sections)
    assert run.main(["keys=true"]) == run.main(["--keys"]) == 0
    shown = capsys.readouterr().out
    assert "prior.training.patience" in shown and "vq.codebook_size" in shown and "prior=vq_diffusion" in shown
