"""`bench.speed claims`: which sides are timed, with whose weights, what the record keeps. No test looks at a time."""

from functools import cache

import pytest
import torch
from safetensors.torch import save_file

from bench import registry
from bench.compose import compose
from bench.data.foreign import as_written
from bench.errors import InputError
from bench.records import Measurement, Record, load_records, save_record
from bench.reporting.claims import ledger
from bench.reporting.rows import gather
from bench.speed import main
from bench.store.store import Recipe, Store
from bench.timing.claim_turns import compare_speeds
from bench.timing.claims import Options, distinct, parse

SMOKE = ["preset=smoke", "dataset=digits", "vq.channel_multipliers=[1,2,2,2]"]   # four tokens an image
FAST = {"rounds": 7, "batches": (2, 3), "threads": 1}


@pytest.fixture(autouse=True)
def threads_put_back():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


composed = cache(lambda *arguments: compose([*SMOKE, *arguments]))


def trained(root, store, *arguments, seed=0, protocol="smoke-x"):
    """A record of a prior with its untrained weights in the store; the weights' key."""
    spec = composed(*arguments)
    cls = registry.resolve("priors", spec.prior.name)
    torch.manual_seed(seed)
    prior = cls(grid=(2, 2), codebook_size=16, options=cls.Options(**spec.prior.options))
    recipe = Recipe("prior", {"of": list(arguments), "seed": seed})
    artefact = store.obtain(recipe, lambda out, work: save_file(prior.state_dict(), out / "model.safetensors"))
    record = Record(f"{spec.prior.name}-{seed}", "2026", "prior", " ".join(arguments), as_written(spec), "key", "ok",
                    (Measurement("fid", 5.0, protocol, standard_error=1.0, n=24),),
                    {"artefacts": {"prior": {"key": artefact.key}}})
    save_record(record, root)
    return artefact.key


@pytest.fixture
def folder(tmp_path):
    """Records of both priors, whose weights are in the store beside them."""
    store = Store(tmp_path / "artefacts")
    keys = [trained(tmp_path, store, "prior=absorbing", "sampler.steps=2"),
            trained(tmp_path, store, "prior=autoregressive")]
    return tmp_path, store, keys


def compared(folder, **options):
    root, store, _ = folder
    said = []
    assert compare_speeds(Options(str(root), **(FAST | options)), said.append, store=store) == 0
    return next(r for r in load_records(root)[0] if r.role == "speed comparison"), said


def test_both_sides_are_timed_as_fast_as_they_go_and_as_published(folder):
    record, _ = compared(folder)
    assert [(side["prior"], side["sampler"].get("method"), side["sampler"].get("cache"))
            for side in record.spec["sides"]] == [
        (folder[2][0], "event", None), (folder[2][1], "sequential", True), (folder[2][0], "loop", None),
        (folder[2][1], "sequential", False)]


def test_every_side_keeps_its_rounds_of_one_image_and_of_its_best_batch(folder):
    record, _ = compared(folder)
    kept = {(m.extra["side"], m.metric): m.extra for m in record.measurements}
    assert len(kept) == 8 and all(len(extra["rounds"]) == 7 for extra in kept.values())
    assert {extra["batch"] for (_, metric), extra in kept.items() if metric == "seconds_per_image"} == {1}
    assert {extra["batch"] for (_, metric), extra in kept.items() if metric == "images_per_second"} <= {2, 3}
    assert {extra["threads"] for extra in kept.values()} == {1} and record.provenance["hardware"]


def test_the_report_judges_all_four_claims_from_it(folder):
    record, _ = compared(folder)
    verdicts = {v.claim.key: v for v in ledger(gather(folder[0]).groups[0], folder[0])}
    for key in ("speed", "speed-published", "throughput", "throughput-published"):
        assert verdicts[key].verdict != "not run" and verdicts[key].records == (record.id,)
        assert verdicts[key].low <= verdicts[key].value <= verdicts[key].high


def test_what_a_record_tells_is_not_timed_again_where_only_the_missing_is_asked_for(folder):
    root, store, _ = folder
    for _ in range(2):
        compared(folder, missing=True)
    assert len([r for r in load_records(root)[0] if r.role == "speed comparison"]) == 1
    compared(folder)
    assert len([r for r in load_records(root)[0] if r.role == "speed comparison"]) == 2


def test_the_sides_take_turns_and_every_call_has_draws_of_its_own(folder, monkeypatch):
    calls = []
    for name in ("absorbing", "autoregressive"):
        cls = registry.resolve("priors", name)

        def sample(self, num, *, sampler, draws, known=None, name=name, original=cls.sample):
            calls.append((name, getattr(sampler, "method", None), num, draws.generator.initial_seed()))
            return original(self, num, sampler=sampler, draws=draws, known=known)

        monkeypatch.setattr(cls, "sample", sample)
    compared(folder)
    of_one = [call for call in calls if call[2] == 1]
    assert len(of_one) == 4 * (1 + 7)   # one sampling of each side warms up
    loop = [seed for name, method, _, seed in of_one if method == "loop"]
    event = [seed for name, method, _, seed in of_one if method == "event"]
    assert loop == event and len(set(loop)) == 8
    first_round = [name for name, *_ in of_one[4:8]]
    assert first_round == ["absorbing", "autoregressive"] * 2


def test_weights_that_are_gone_are_an_error_that_names_them(folder):
    root, store, keys = folder
    with pytest.raises(InputError, match=f"{keys[0]}, are not in .*run record absorbing-0 again"):
        compare_speeds(Options(str(root), **FAST), print, store=Store(root / "elsewhere"))
    assert not [r for r in load_records(root)[0] if r.role == "speed comparison"]


def test_weights_of_other_sizes_are_an_error_before_anything_is_timed(folder, by_hand):
    root, store, keys = folder
    for name in ("absorbing", "autoregressive"):
        by_hand(root / "records" / f"{name}-0.json", lambda raw: raw["spec"]["prior"]["options"].update(width=64))
    by_hand(root / "records" / "absorbing-0.json", lambda raw: raw["spec"]["backbone"].update(width=64))
    with pytest.raises(InputError, match="do not fit the prior of its record"):
        compare_speeds(Options(str(root), **FAST), print, store=store)


def test_a_pair_with_a_condition_is_named_and_left_out(folder):
    root, store, _ = folder
    for prior in (["prior=absorbing", "sampler.steps=2"], ["prior=autoregressive"]):
        trained(root, store, *prior, "condition=class", seed=1, protocol="smoke-class")
    record, said = compared(folder)
    assert record.spec["sides"][0]["prior"] == folder[2][0]
    assert sum("have a condition" in line for line in said) == 1


def test_a_pair_whose_weights_are_gone_does_not_stop_the_others(folder):
    root, store, _ = folder
    other = Store(root / "elsewhere")
    for prior in (["prior=absorbing", "sampler.steps=2"], ["prior=autoregressive"]):
        trained(root, other, *prior, "prior.width=16", seed=2, protocol="smoke-other")
    _, said = compared(folder)
    assert any("left out:" in line and "are not in" in line for line in said)


def test_a_folder_without_a_pair_says_which_command_makes_one(tmp_path):
    store = Store(tmp_path / "artefacts")
    trained(tmp_path, store, "prior=absorbing", "sampler.steps=2")
    with pytest.raises(InputError, match="python -m bench.run"):
        compare_speeds(Options(str(tmp_path)), print, store=store)


def test_the_same_weights_under_two_protocols_are_timed_once():
    class Twin:
        prior, sampler = "key", {"steps": 2}

    assert len(distinct([[Twin(), Twin()], [Twin(), Twin()]])) == 1


@pytest.mark.parametrize("argument, hint", [
    ("rounds=6", "at least 7"), ("rounds=many", "whole numbers"), ("batches=8,0", "whole numbers"),
    ("missing=yes", "true or false"),
    ("round=9", "Did you mean 'rounds'"), ("threads=1,2", "one value"), ("results_dir=", "empty value")])
def test_wrong_options_name_the_right_ones(argument, hint):
    with pytest.raises(InputError, match=hint):
        parse([argument])


def test_the_command_reaches_it(tmp_path, capsys):
    assert main(["claims", f"results_dir={tmp_path}"]) == 2
    assert "no records in" in capsys.readouterr().err
    assert parse(["rounds=11", "batches=4,8"]) == Options(rounds=11, batches=(4, 8))
    assert parse(["missing=true"]).missing and not parse([]).missing
