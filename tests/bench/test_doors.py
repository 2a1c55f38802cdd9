"""The whole word where one word is expected: commands, lists, files of keys, JSON, and names that clash."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import bench.__main__ as commands
from bench import door, listing, run
from bench.compose import expand
from bench.errors import InputError

ROOT = Path(__file__).parents[2]
SMOKE = ["prior=unigram", "preset=smoke", "dataset=digits", "baselines=false"]


def start(words, folder, **environment):
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT), **environment})
    return done.returncode, done.stdout, done.stderr


def test_a_wrong_key_of_a_file_names_the_file(tmp_path, capsys):
    (tmp_path / "sweep.yaml").write_text("pruor: absorbing\n")
    assert run.main([f"config={tmp_path / 'sweep.yaml'}", "plan=true"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "Did you mean 'prior'" in said and f"config={tmp_path / 'sweep.yaml'}" in said


def test_the_commands_are_listed_with_a_line_each(capsys):
    assert commands.main([]) == 0
    shown = capsys.readouterr().out
    for name, module in commands.COMMANDS.items():
        assert f"  {name} " in shown and commands.what(module) in shown and len(commands.what(module)) > 20


def test_a_command_is_run_by_its_name_and_an_unknown_one_is_named(capsys):
    assert commands.main(["run", "list=presets"]) == 0
    assert "smoke" in capsys.readouterr().out
    assert commands.main(["rnu"]) == 2
    assert "Did you mean 'run'" in capsys.readouterr().err


@pytest.mark.parametrize("kind", listing.KINDS)
def test_every_kind_is_listed_with_a_line_for_each_name(kind):
    found = listing.entries(kind)
    assert found and all(entry.line and len(entry.line) < 320 and entry.source == "built in" for entry in found)


def test_listing_imports_no_model(tmp_path):
    code = "import sys; from bench import listing; [listing.entries(kind) for kind in listing.KINDS]; " \
           "assert 'torch' not in sys.modules"
    assert start(["-c", code], tmp_path)[0] == 0


def test_what_another_package_registers_is_listed_with_its_name(tmp_path):
    info = tmp_path / "theirs-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[vq_prior_bench.metrics]\nmine = their_metric:Mine\n")
    (tmp_path / "their_metric.py").write_text('raise SystemExit\n\nclass Mine:\n    """Counts what is red."""\n')
    code, shown, problem = start(["-m", "bench.run", "list=metrics", "json=true"], ROOT,
                                 PYTHONPATH=f"{ROOT}:{tmp_path}")
    assert {"name": "mine", "line": "Counts what is red.", "source": "theirs"} in json.loads(shown), problem


def test_a_kind_there_is_none_of_names_the_nearest(capsys):
    assert run.main(["list=prior"]) == 2
    assert "Did you mean 'priors'" in capsys.readouterr().err


def test_a_file_of_keys_is_read_and_the_command_line_wins(tmp_path):
    (tmp_path / "sweep.yaml").write_text("prior: absorbing,unigram\npreset: smoke\ndataset: digits\nsampler:\n"
                                         "  steps: 4,8\nmetrics.names: [nll, 'my:Mine']\nlabel: \"'a, b'\"\nseed: 3\n")
    held, rest = door.split_off([f"config={tmp_path / 'sweep.yaml'}", "seed=4", "metrics.names=[nll]"])
    runs = expand(rest, announce=lambda text: None)
    assert held.config and [run.spec.sampler.get("steps") for run in runs] == [4, 8, None]
    assert {(run.spec.seed, run.spec.label, *run.spec.metrics.names) for run in runs} == {(4, "a, b", "nll")}


def test_what_is_kept_in_a_file_gives_the_same_runs(tmp_path, capsys):
    words = ["prior=absorbing,unigram", "preset=smoke", "dataset=digits", "sampler.steps=4,8", "metrics.names=[fid]",
             "sampler.temperature=0.9", "label=\"it's 1, 2\"", "dataset.max_train=null", "plan=true"]
    path = tmp_path / "sweep.yaml"
    assert run.main([*words, f"config_out={path}"]) == 0
    again = door.split_off([f"config={path}"])[1]
    assert [r.overrides for r in expand(again)] == [r.overrides for r in expand(words[:-1])]
    assert run.main([*words, f"config_out={path}"]) == 0 and run.main([*words, "seed=1", f"config_out={path}"]) == 2


@pytest.mark.parametrize("text, words", [
    ("just a text", "key: value pairs"), ("[1, 2]", "key: value pairs"), ("", "key: value pairs"), ("a: [", "no YAML"),
    ("seed: 1\nseed: 2", "given twice"), ("1: 2", "no key"), ("rebuild: prior", "belongs on the command line"),
    ("config: other.yaml", "belongs on the command line"), ("seed: 2020-01-01", "expected a text"),
    ("seed: !!python/object/apply:os.getcwd []", "no YAML"), ("a: &a {b: *a}", "no YAML"), ("\x00", "no YAML")])
def test_a_file_of_anything_else_is_refused(text, words, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=words):
        door.split_off([f"config={tmp_path / 'a.yaml'}"])


def test_a_missing_file_a_pipe_and_a_long_one_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "long").write_text("# " + "x" * door.MOST_BYTES)
    for name in ("missing", "pipe", "long", "."):
        with pytest.raises(InputError, match="config="):
            door.split_off([f"config={tmp_path / name}"])


@pytest.mark.parametrize("words", [["keys=maybe"], ["json=1"], ["list="], ["list=priors", "list=metrics"],
                                   ["config=/dev/zero"]])
def test_words_of_the_door_are_checked(words):
    with pytest.raises(InputError):
        door.split_off(words)


def test_a_plan_and_a_status_are_printed_for_machines(own_cache, tmp_path, capsys):
    common = [*SMOKE, "json=true", f"results_dir={tmp_path}"]
    assert run.main([*common, "plan=true"]) == 0
    assert [step["state"] for step in json.loads(capsys.readouterr().out)]
    assert run.main([*common, "status=true"]) == 0
    assert {"label", "key", "state", "job", "detail"} == set(json.loads(capsys.readouterr().out)[0])


@pytest.mark.network
def test_a_summary_for_machines_is_all_that_is_printed(own_cache, tmp_path, capsys):
    assert run.main([*SMOKE, "json=true", "metrics.names=[nll]", f"results_dir={tmp_path}"]) == 0
    record, = json.loads(capsys.readouterr().out)
    assert record["status"] == "ok" and record["measurements"][0]["metric"] == "bits_per_token"


@pytest.mark.parametrize("name", ["vq.py", "priors.py", "vq/__init__.py"])
def test_a_file_that_hides_a_package_of_ours_is_named(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("raise RuntimeError('theirs was imported')")
    code, _, problem = start(["-m", "bench.run", "list=presets"], tmp_path)
    assert code == 2 and "hides the package" in problem and str(tmp_path) in problem


@pytest.mark.parametrize("name", ["bench.py", "vq.py", "results/__init__.py", "priors/__init__.py"])
def test_the_console_script_is_safe_from_files_of_the_current_folder(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("raise RuntimeError('theirs was imported')")
    child = "import subprocess; subprocess.run([sys.executable, '-m', 'bench.run', 'list=presets'], check=True)"
    script = "import sys\nsys.argv[1:] = ['run', 'list=presets']\nfrom bench.__main__ import console_script\n"
    code, shown, problem = start(["-P", "-c", f"{script}assert console_script() == 0\n{child}"], tmp_path)
    assert code == 0 and shown.count("smoke") == 2, problem
    assert (name.startswith("results")) is ("of its own" not in problem)


def test_a_bench_of_one_s_own_never_runs_silently(tmp_path):
    (tmp_path / "bench.py").write_text("")
    code, _, problem = start(["-m", "bench.run", "list=presets"], tmp_path)
    assert code != 0 and "bench" in problem


def test_results_of_one_s_own_are_not_in_the_way_of_the_published_numbers(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "__init__.py").write_text("raise RuntimeError")
    assert start(["-c", "from bench.reporting.published import published; assert published(2)"], tmp_path)[0] == 0


def test_plug_ins_of_the_current_folder_are_found_by_the_console_script(tmp_path):
    (tmp_path / "my_own_module.py").write_text("")
    script = "from bench.shadows import come_last\ncome_last(print)\nimport my_own_module"
    assert start(["-P", "-c", script], tmp_path)[0] == 0


def test_the_wheel_is_typed_and_has_a_console_script():
    text = (ROOT / "pyproject.toml").read_text()
    assert 'vq-prior-bench = "bench.__main__:console_script"' in text
    for package in ("bench", "priors", "vq"):
        assert (ROOT / package / "py.typed").is_file() and f"{package} = [" in text


def test_files_written_are_plain_yaml(tmp_path):
    door.keep(str(tmp_path / "a.yaml"), ["prior=absorbing", "seed=1,2", "plan=true"], command="python -m bench.run ...")
    assert yaml.safe_load((tmp_path / "a.yaml").read_text()) == {"prior": "absorbing", "seed": "1,2"}
