"""Nonsense on the command line: named with the expectation and the way out, in seconds, and never a traceback."""

import dataclasses
import json
import os
import random
import socket
import subprocess
import sys

import pytest

from bench.compose import GROUPS, MOST_RUNS, expand
from bench.config import RunSpec
from bench.errors import InputError
from bench.rules import Number, Several, Whole, rules_of
from bench.run import main
from priors.options import AbsorbingOptions, AbsorbingSampler
from tests.faults.doors import SECONDS, at_most
from tests.faults.lines import NONSENSE
from vq.options import VQGANOptions

SMOKE = ["prior=unigram", "dataset=digits", "preset=smoke", "plan=true"]

HOSTILE = [   # (arguments, what the message must hold beside the key and value)
    (["vq.path=/dev/zero"], "a regular file"),
    (["prior.path=/usr"], "a regular file"),
    (["vq.path=/dev/tty"], "a regular file"),
    (["source=/dev/zero"], "prior, reconstruction, real or the path of"),
    (["dataset.path=/dev/zero", "dataset=folder"], "a folder"),
    (["vq.tokens=/dev/null"], "a folder"),
    (["results_dir=/dev/null"], "a folder"),
    (["results_dir=/dev/null/runs"], "inside a folder"),
    (["results_dir="], "a folder"),
    (["launcher.folder=/dev/zero"], "a folder"),
    (["launcher.max_parallel=0"], "1 to 10,000"),
    (["launcher.retries=-1"], "0 to 1,000"),
    (["launcher.signal_delay_s=-1"], "at least 0"),
    (["launcher.training.minutes=0"], "at least 1"),
    (["launcher.sampling.gpus=-1"], "0 to 1,024"),
    (["launcher.name=cloud"], "debug, local, slurm"),
    (["seed=range(0,100000)"], f"at most {MOST_RUNS}"),
    (["seed=range(0,30)", "sampler.seed=range(0,30)"], "multiply out to 900 runs"),
    (["seed=range(0,1e30)"], f"at most {MOST_RUNS}"),
    (["seed=range(0,3,0)"], "holds no value"),
    (["seed=glob(*)"], "the values themselves"),
    (["seed=interval(0,1)"], "the values themselves"),
    (["seed=-1"], "at least 0"),
    (["sampler.seed=-1"], "at least 0"),
    (["sampler.seed=x"], "at least 0"),
    (["threads=-1"], "torch's own choice"),
    (["speed.threads=0"], "torch's own choice"),
    (["speed.warmup=-1"], "0 to 1,000"),
    (["metrics.cache_gb=inf"], "at least 0"),
    (["metrics.cache_gb=nan"], "at least 0"),
    (["metrics.memory_gb=-1"], "above 0"),
    (["metrics.memory_gb=nan"], "above 0"),
    (["metrics.feature_batch_size=0"], "at least 1"),
    (["metrics.nll.budget=0"], "at least 1"),
    (["metrics.nll.batch_size=-3"], "at least 1"),
    (["metrics.prdc.backend=fast"], "blocked, reference"),
    (["protocol.nll_images=-3"], "at least 1"),
    (["protocol.neighbours_queries=0"], "at least 1"),
    (["protocol.neighbours_top_k=0"], "1 to 1,000"),
    (["protocol.neighbours_candidates=0"], "null for all"),
    (["protocol.neighbours_resolution=0"], "1 to 8,192"),
    (["protocol.num_fake=1"], "at least 2"),
    (["dataset.resolution=100000000"], "1 to 8,192"),
    (["dataset.validation_fraction=nan"], "above 0 and below 1"),
    (["dataset.default_preset=demo"], "preset=<name>"),
    (["prior.training.learning_rate=inf"], "at most 1000"),
    (["prior.training.learning_rate=nan"], "above 0"),
    (["prior.training.weight_decay=-1"], "at least 0"),
    (["prior.training.weight_decay=nan"], "at least 0"),
    (["prior.training.betas=[2,2]"], "below 1"),
    (["prior.training.betas=[0.9]"], "a list of 2"),
    (["prior.training.validation_batches=0"], "at least 1"),
    (["vq.training.warmup_steps=-5"], "at least 0"),
    (["vq.training.ema_decay=nan"], "below 1"),
    (["vq.beta=nan"], "finite"),
    (["vq.lambda_max=inf"], "finite"),
    (["vq.channel_multipliers=[a]"], "int"),
    (["vq.attention_resolutions=[[1]]"], "int"),
    (["prior.smoothing=nan"], "finite"),
    (["autoencoder.beta=nan"], "unknown key"),
    (["prior.layout=official"], "prior.path=<file>"),
    (["vq.layout=official"], "vq.path=<file>"),
    (["prior=json:loads"], "expected a class"),
    (["dataset=os:getcwd"], "expected a class"),
    (["vq=pathlib:Path"], "lacks Options"),
    (["metrics.names=['json:loads']"], "expected a class"),
    (["metrics.names=['nowhere:X']"], "nowhere"),
    (["protocol.extractor='json:loads'"], "expected a class"),
    (["prior.schema=os:path"], "has no 'pathOptions'"),
    (["prior.schema=.:X"], "package.module:Name"),
    (["prior=.:X"], "package.module:Name"),
    (["prior=os:"], "package.module:Name"),
    (["prior.name=absorbin"], "Did you mean 'absorbing'"),
    (["dataset.path=${oc.env:HOME}"], 'key="$NAME"'),
    (["protocol.name='x ${oc.env:HOME}'"], "the environment"),
    (["protocol.name='${oc.${prior.name}:HOME}'"], "the environment"),
    (["protocol.name=\\${oc.env:HOME}"], "the environment"),
    (["launcher.additional={a: '${oc.env:HOME}'}"], "the environment"),
    (["protocol.name=${oc.decode:1}"], "other resolvers"),
    (["protocol.name=a,${oc.env:HOME}"], "the environment"),
    ([f"vq.beta={'9' * 400}"], "expected a number below 1.8e+308"),
    (["vq.gumbel_straight_through={a: nan}"], "a finite number, a text of one line"),
]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VQ_PRIOR_BENCH_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("arguments", "expectation"), HOSTILE, ids=lambda value: str(value)[:60])
def test_a_hostile_argument_is_refused_with_its_value_the_expectation_and_the_way_out(arguments, expectation, capsys):
    with at_most(SECONDS):
        assert main([*SMOKE, *arguments]) == 2
    said = capsys.readouterr().err
    assert expectation in said
    key, _, value = arguments[0].partition("=")
    assert key in said or value.strip("'[]") in said
    assert any(way in said for way in ("expected", "Give ", "Valid:", "preset=<name>", "PYTHONPATH"))


@pytest.mark.parametrize("kind", ["fifo", "socket", "link"])
def test_a_pipe_a_socket_or_a_link_to_a_device_is_no_checkpoint(kind, tmp_path, capsys):
    place = tmp_path / "model.safetensors"
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(place.name)
    else:
        place.symlink_to("/dev/zero")
    with at_most(SECONDS):
        assert main([*SMOKE, f"vq.path={place}"]) == 2
    assert "no device, pipe or socket" in capsys.readouterr().err


def test_every_field_of_the_schema_states_its_rule_and_every_number_a_finite_range():
    for key, kind, rule in rules_of(RunSpec):
        if kind is bool or key == "sampler":   # the sampler's own dataclass checks it
            continue
        assert rule is not None, key
        if any(number in str(kind) for number in ("int", "float")):
            number = rule.item if isinstance(rule, Several) else rule
            assert isinstance(number, Number) and number.low > -float("inf") and number.high < float("inf"), key
            assert isinstance(number, Whole) == ("int" in str(kind)), key
            assert not any(map(number.holds, (float("nan"), float("inf"), -float("inf"), True, "1", None, []))), key


def test_defaults_obey_their_own_rules():
    values = dataclasses.asdict(RunSpec())
    for key, kind, rule in rules_of(RunSpec):
        value = values
        for part in key.split("."):
            value = value[part]
        assert rule is None or value is None and "None" in str(kind) or rule.holds(value), key


def test_an_expectation_says_what_it_is_a_number_of_and_what_null_means():
    assert Whole(1, of="images", null="all").expected == (
        "a positive number of images, whole, at least 1 and at most 1,000,000,000, or null for all")
    assert Number(0.0, 1.0, high_open=True).expected == "a number, at least 0 and below 1"


def test_python_callers_are_checked_as_the_command_line_is():
    from bench.config.models import TrainingConfig
    with pytest.raises(InputError, match="TrainingConfig.learning_rate=nan"):
        TrainingConfig(learning_rate=float("nan"))


def test_an_interpolation_of_another_key_is_resolved():
    run, = expand(["seed=7", "sampler.seed=${seed}"])
    assert (run.spec.seed, run.spec.sampler["seed"]) == (7, 7)


def test_the_environment_reaches_no_spec(monkeypatch):
    monkeypatch.setenv("SECRET_OF_MINE", "hunter2")
    for text in ("${oc.env:SECRET_OF_MINE}", "\\${oc.env:SECRET_OF_MINE}", "'${oc.env:SECRET_OF_MINE}'",
                 "$\\{oc.env:SECRET_OF_MINE}", "\\\\${oc.env:SECRET_OF_MINE}"):
        try:
            specs = [dataclasses.asdict(run.spec) for run in expand([f"protocol.name={text}"])]
        except InputError as error:
            specs = [str(error)]
        assert "hunter2" not in json.dumps(specs)


def test_a_sweep_of_as_many_runs_as_are_allowed_is_not_refused_for_their_number(monkeypatch):
    monkeypatch.setattr("bench.compose.MOST_RUNS", 3)
    assert len(expand(["seed=range(0,3)"])) == 3
    with pytest.raises(InputError, match="at most 3"):
        expand(["seed=range(0,4)"])
    with pytest.raises(InputError, match="at most 3"):
        expand(["seed=0,1,2,3"])


def test_a_plug_in_whose_module_fails_is_named_with_its_error(tmp_path, monkeypatch, capsys):
    (tmp_path / "fails_when_imported.py").write_text("raise SystemExit('no')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main([*SMOKE, "prior=fails_when_imported:Mine"]) == 2
    assert "python -c 'import fails_when_imported'" in " ".join(capsys.readouterr().err.split())


def test_a_refusal_comes_before_torch_is_imported():
    code = ("import sys; from bench.run import main; "
            "assert main(['prior.training.betas=[2,2]', 'plan=true']) == main(['vq.path=/dev/zero']) == 2; "
            "sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode == 0


def _lines():
    """Every key with every nonsense value, in a random but fixed order."""
    fields = [("prior", AbsorbingOptions), ("sampler", AbsorbingSampler), ("vq", VQGANOptions)]
    keys = [*(key for key, _, _ in rules_of(RunSpec)), *GROUPS, "sampler.seed", "backbone", "metrics", "vq.training",
            "launcher.additional.x", "nothing", "", *(f"{section}.{field.name}" for section, cls in fields
                                                     for field in dataclasses.fields(cls))]
    lines = [f"{key}={value}" for key in sorted(set(keys)) for value in NONSENSE]
    random.Random(20261127).shuffle(lines)
    return lines


def _survives(line, capsys):
    """The line ends with 0 or 2, in time; an exception says which line it was."""
    try:
        with at_most(SECONDS):
            code = main(["prior=absorbing", *SMOKE[1:], line] if not line.startswith("plan=") else [*SMOKE, line])
    except BaseException as error:
        raise AssertionError(f"{line!r}: {type(error).__name__}: {error}") from error
    said = capsys.readouterr().err
    assert code in (0, 2), (line, code, said)
    assert code == 0 or "error:" in said, (line, said)


def test_a_sample_of_all_keys_with_nonsense_values_ends_with_a_plan_or_a_refusal(capsys):
    for line in _lines()[:30]:
        _survives(line, capsys)


@pytest.mark.slow
def test_all_keys_with_all_nonsense_values_end_with_a_plan_or_a_refusal(capsys):
    for line in _lines():
        _survives(line, capsys)
