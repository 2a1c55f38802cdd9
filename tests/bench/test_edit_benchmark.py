"""The benchmark of edits on digits: its rows, what they cannot be, and that it goes on where it stopped."""

import dataclasses

import numpy as np
import pytest

from bench.edit import main
from bench.rebuild import settled
from bench.records import load_records, load_sweeps, save_record, save_sweep
from bench.reporting.rows import gather
from bench.store.store import Store

pytestmark = pytest.mark.network   # Inception and LPIPS weights


@pytest.fixture(scope="module")
def command(tmp_path_factory, cache):
    """The arguments of a tiny benchmark, run once; its records lie in the folder named by the last of them."""
    arguments = ["task=benchmark", "prior=absorbing,autoregressive", "dataset=digits", "preset=smoke", "images=12",
                 "masks=centre,lower", "protocol.num_real=16", "sampling.chunk=6",
                 f"results_dir={tmp_path_factory.mktemp('edits')}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VQ_PRIOR_BENCH_CACHE", str(cache))
        assert main(arguments) == 0
        yield arguments


@pytest.fixture(scope="module")
def records(command):
    found = load_records(command[-1].partition("=")[2])[0]
    return {(r.spec["protocol"]["name"], r.label): r for r in found}


def values(record) -> dict[str, float]:
    return {m.metric: m.value for m in record.measurements}


def test_every_prior_has_a_row_under_every_mask_with_the_reconstruction_beside_it(records):
    assert set(records) == {(f"edit-{mask}", row) for mask in ("centre", "lower")
                            for row in ("reconstruction", "absorbing", "autoregressive")}


def test_a_row_has_fid_lpips_border_and_cost(records):
    found = values(records["edit-centre", "absorbing"])
    assert {"fid", "lpips", "border_ratio", "seconds_per_image", "network_evaluations"} <= set(found)
    assert all(np.isfinite(value) for value in found.values())


def test_twelve_completions_have_an_fid_without_interval_and_say_why(records):
    (fid,) = [m for m in records["edit-centre", "absorbing"].measurements if m.metric == "fid"]
    assert (fid.ci_low, fid.ci_high) == (None, None) and fid.note.startswith("12 fake images: below 30")


def test_an_autoregressive_prior_is_unsupported_in_the_centre_and_measured_below(records):
    assert records["edit-centre", "autoregressive"].status == "unsupported"
    assert "raster order" in records["edit-centre", "autoregressive"].message
    assert records["edit-lower", "autoregressive"].status == "ok"


def test_masks_are_protocols_of_their_own(records):
    ids = {mask: {m.protocol for row in ("reconstruction", "absorbing") for m in records[mask, row].measurements}
           for mask in ("edit-centre", "edit-lower")}
    assert all(len(found) == 1 for found in ids.values()) and ids["edit-centre"] != ids["edit-lower"]


def test_evaluations_are_at_most_the_hidden_tokens(records):
    assert values(records["edit-centre", "absorbing"])["network_evaluations"] <= 16


def test_the_pictures_of_every_task_are_kept(records, command):
    media = records["edit-centre", "absorbing"].media
    assert set(media) == {"inpaint", "condition", "stitch", "canvas", "filmstrip"}
    assert set(records["edit-lower", "autoregressive"].media) == {"inpaint"}


def test_the_report_groups_the_rows_by_mask_and_judges_no_claim_on_them(command):
    groups = gather(command[-1].partition("=")[2]).groups
    assert [group.protocol_name for group in groups] == ["edit-centre", "edit-lower"]
    assert all(group.of_edits for group in groups)


def test_the_manifest_expects_every_row_so_that_a_report_can_print_the_missing_ones(records, command, tmp_path):
    results = command[-1].partition("=")[2]
    sweep = load_sweeps(results)[0][0]
    assert {cell["run_key"] for cell in sweep.cells} == {record.run_key for record in records.values()}
    save_sweep(sweep, tmp_path)
    for record in records.values():
        if record.label != "absorbing":
            save_record(record, tmp_path)
    groups = gather(str(tmp_path)).groups
    assert all(group.of_edits for group in groups)
    assert [(row.role, row.status) for group in groups for row in group.rows if row.label.startswith("absorbing")] == [
        ("edit", "missing")] * 2


def test_status_tells_which_rows_are_there(command, records, capsys, cache, monkeypatch):
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(cache))
    assert main([*command, "status=true"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "5 done, 1 unsupported"


def test_a_second_run_measures_nothing_again(command, records, capsys, cache, monkeypatch):
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(cache))
    assert main(command) == 0
    again = load_records(command[-1].partition("=")[2])[0]
    assert len([r for r in again if r.status == "ok"]) == len([r for r in records.values() if r.status == "ok"])


def test_a_row_of_completions_to_be_built_anew_is_no_row_that_is_done(records, cache, monkeypatch):
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(cache))
    record, store = records["edit-centre", "absorbing"], Store()
    key = record.provenance["artefacts"]["completions"]["key"]
    monkeypatch.setattr(store, "keys_asked_anew", lambda: {key})
    others = [r for r in records.values() if r is not record]
    assert [id(r) for r in settled([record, *others], store)] == [id(r) for r in others]


def numbers(record):
    """All that a record measured but seconds, which no two runs share, and when it was made."""
    measured = [dataclasses.asdict(m) for m in record.measurements if m.metric != "seconds_per_image"]
    protocol = record.provenance.get("protocol")
    return record.role, record.status, record.message, record.run_key, measured, protocol, sorted(record.media)


@pytest.mark.slow   # some thirty processes that import torch
def test_processes_of_the_local_launcher_end_in_the_records_of_one_process(command, records, cache, tmp_path,
                                                                           monkeypatch, capsys):
    for name in ("assets", "datasets"):
        (tmp_path / name).symlink_to((cache / name).resolve())
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(tmp_path))
    arguments = [*command[:-1], "launcher=local", "sampling.shards=2", f"results_dir={tmp_path / 'results'}"]
    assert main(arguments) == 0
    found = {(r.spec["protocol"]["name"], r.label): r for r in load_records(tmp_path / "results")[0]}
    assert {name: numbers(r) for name, r in found.items()} == {name: numbers(r) for name, r in records.items()}
    assert len(list((tmp_path / "launch").glob("*/outcomes/*.json"))) == 5   # each ended by a job
    capsys.readouterr()
    assert main([*arguments, "status=true"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == "5 done, 1 unsupported" and "edits: completions of 12 images" in said


def test_a_sampler_that_fails_leaves_a_failed_row_and_the_others_measured(command, records, cache, tmp_path,
                                                                          monkeypatch, capsys):
    monkeypatch.setenv("VQ_PRIOR_BENCH_CACHE", str(cache))
    (tmp_path / "faulty.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(str(tmp_path))
    results = tmp_path / "results"
    kept = [argument for argument in command[2:-1] if not argument.startswith("masks=")]
    arguments = [command[0], "prior=faulty:Careless,absorbing", *kept, "masks=centre", "baselines=false"]
    assert main([*arguments, f"results_dir={results}"]) == 1
    found = {record.label: record for record in load_records(results)[0]}
    assert found["faulty:Careless"].status == "failed" and found["faulty:Careless"].role == "edit"
    assert "changed known tokens" in found["faulty:Careless"].message and found["absorbing"].status == "ok"
    assert "failed: faulty:Careless" in capsys.readouterr().out
    assert main([*arguments, f"results_dir={results}", "status=true"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 failed, 1 done"


FAULTY = """
from dataclasses import replace
from priors.unigram import Unigram


class Careless(Unigram):
    name = "careless"

    def sample(self, num, **options):
        drawn = super().sample(num, **options)
        return replace(drawn, tokens=(drawn.tokens + 1) % self.codebook_size)
"""
