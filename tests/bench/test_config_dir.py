"""config_dir=: launchers, protocols, presets, data sets of a folder of one's own, beside those of the package."""

import pytest

from bench.compose import compose, expand
from bench.errors import InputError
from bench.keys import sections_of
from bench.run import main

SMOKE = ["preset=smoke", "dataset=digits", "metrics.names=[nll]"]


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "my conf's"   # quotes and spaces travel
    for group in ("launcher", "preset", "protocol", "dataset", "prior"):
        (place / group).mkdir(parents=True)
    (place / "launcher" / "mysite.yaml").write_text("name: slurm\npartition: gpu\nsetup: ['export A=$B']\n"
                                                     "training: {gpus: 4}\n")
    (place / "preset" / "tiny.yaml").write_text("# @package _global_\ndefaults: [smoke, _self_]\n"
                                                 "backbone: {width: 16}\n")
    (place / "protocol" / "mine.yaml").write_text("defaults: [smoke, _self_]\nname: mine\nnum_fake: 77\n")
    (place / "dataset" / "mine.yaml").write_text("name: digits\nresize: plain\ndefault_preset: tiny\n")
    (place / "prior" / "wide.yaml").write_text("defaults: [autoregressive, _self_]\noptions: {dropout: 0.25}\n")
    return place


def given(folder):
    return f"config_dir={folder}"


def test_a_file_of_ones_own_is_chosen_by_its_name(folder):
    spec = compose([*SMOKE, given(folder), "launcher=mysite", "protocol=mine"])
    assert (spec.launcher.name, spec.launcher.partition, spec.launcher.training.gpus) == ("slurm", "gpu", 4)
    assert spec.launcher.setup == ["export A=$B"]
    assert (spec.protocol.name, spec.protocol.num_fake) == ("mine", 77)


def test_the_preset_of_ones_own_data_set_is_ones_own(folder):
    spec = compose(["dataset=mine", given(folder), "metrics.names=[nll]"])
    assert (spec.dataset.name, spec.dataset.resize, spec.backbone.width) == ("digits", "plain", 16)


def test_a_prior_with_other_defaults_takes_the_keys_of_its_class(folder):
    specs = [request.spec for request in expand([*SMOKE, given(folder), "prior=wide,absorbing",
                                                 "sampler.temperature=0.9"])]
    assert [spec.prior.name for spec in specs] == ["autoregressive", "absorbing"]
    assert specs[0].prior.options["dropout"] == 0.25 and specs[0].sampler["temperature"] == 0.9
    assert "prior=autoregressive" in sections_of([*SMOKE, given(folder), "prior=wide"])


def test_without_the_folder_its_names_are_unknown():
    with pytest.raises(InputError, match="unknown launcher 'mysite'"):
        compose([*SMOKE, "launcher=mysite"])


def test_a_file_of_keys_may_name_the_folder(folder, tmp_path, capsys):
    asked = ["prior=unigram", *SMOKE, given(folder), "launcher=mysite", "plan=true"]
    assert main([*asked, f"config_out={tmp_path / 'kept.yaml'}"]) == 0
    assert main([f"config={tmp_path / 'kept.yaml'}", "plan=true"]) == 0


@pytest.mark.parametrize(("file", "text", "told"), [
    ("launchers/mysite.yaml", "name: slurm", "launchers/ is no group"),
    ("launcher/slurm.yaml", "name: slurm", "launcher=slurm is built in"),
    ("launcher/mysite.yaml", "name: [", "cannot be read"),
    ("launcher/mysite.yaml", "- name", "expected key: value pairs"),
    ("launcher/mysite.yaml", "account: ${oc.env:HOME}", "interpolations of other keys alone"),
    ("launcher/mysite.yaml", "name: slurm\npartitoin: gpu", "partitoin"),
    ("launcher/mysite.txt", "name: slurm", "holds 0 files"),
])
def test_what_is_wrong_with_it_is_told_before_anything_is_built(tmp_path, file, text, told, capsys):
    path = tmp_path / "own" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    chosen = ["launcher=mysite"] if path.name == "mysite.yaml" else []
    assert main([*SMOKE, "prior=unigram", f"config_dir={tmp_path / 'own'}", *chosen, "plan=true"]) == 2
    assert told in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(("group", "text"), [
    ("prior", "defaults: 5\nname: absorbing"), ("prior", "options: {dropout: 0.1}"), ("prior", "name: [absorbing]"),
    ("prior", "name: absorbing\nschema: 3"), ("prior", "defaults: [mine]\nname: absorbing"),
    ("prior", "defaults: [other]\nname: absorbing"), ("prior", "name: absorbing\nrecipe: nothing"),
    ("prior", "name: absorbing\nrecipe: mine"), ("prior", "name: ${prior.name}"),
    ("dataset", "name: digits\ndefault_preset: [demo]"), ("dataset", "default_preset: nothing"), ("dataset", ""),
    ("protocol", "num_fake: many"), ("preset", "# @package _global_\nbackbone: 3"), ("vq", "name: vqgan\ntarget: 7"),
    ("sampler", "seed: x"), ("launcher", "partition: gpu"), ("condition", "condition: {name: x}")])
def test_nonsense_in_a_file_is_told_without_a_traceback(tmp_path, group, text, capsys):
    for name in ("mine", "other"):
        (tmp_path / "own" / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / "own" / group / f"{name}.yaml").write_text(text)
    chosen = {"preset": "smoke", "dataset": "digits", "prior": "absorbing"} | {group: "mine"}
    if group == "dataset":
        del chosen["preset"]   # then its own is asked
    words = [f"{key}={value}" for key, value in chosen.items()]
    assert main([*words, f"config_dir={tmp_path / 'own'}", "sampler.steps=4", "plan=true"]) == 2
    assert "error: " in capsys.readouterr().err


def test_a_sampler_file_may_leave_the_seed_out(tmp_path):
    (tmp_path / "sampler").mkdir()
    (tmp_path / "sampler" / "mine.yaml").write_text("steps: 4")
    spec = compose(["prior=absorbing", "dataset=digits", "preset=smoke", "sampler=mine", f"config_dir={tmp_path}"])
    assert (spec.sampler["steps"], spec.sampler["seed"]) == (4, 0)


@pytest.mark.parametrize("words", [["config_dir=/nowhere/at/all"], ["config_dir="], ["config_dir=/dev/zero"],
                                   ["config_dir=.", "config_dir=."]])
def test_a_folder_that_is_none_is_refused(words, capsys):
    assert main([*SMOKE, "prior=unigram", *words, "plan=true"]) == 2
    assert "config_dir" in capsys.readouterr().err
