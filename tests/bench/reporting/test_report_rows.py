"""From records to rows: grouping, seeds, repeats, holes."""

import dataclasses
import shutil

import pytest

from bench.errors import InputError
from bench.records import load_records, save_record
from bench.reporting.render import latex, markdown
from bench.reporting.rows import gather
from bench.reporting.tables import repeats, summary


def row_of(book, label, group=0):
    return next(row for row in book.groups[group].rows if row.label == label)


def test_runs_that_differ_in_sampling_seed_alone_are_one_row(demo_results):
    row = row_of(gather(demo_results), "absorbing, 16 steps")
    assert row.cells["fid"].seeds() == [(0, 0), (0, 1), (0, 2)]
    assert row.cells["fid"].value == pytest.approx(sum(p.value for p in row.cells["fid"].points()) / 3)


def test_real_images_are_one_row_of_one_run_whatever_the_seeds_of_the_sweep(synthetic, tmp_path):
    record = next(r for r in synthetic.write_demo(tmp_path, media=False) if r.role == "real")
    spec = record.spec | {"source": "real"}
    for seed in (0, 1, 2):
        save_record(dataclasses.replace(record, id=f"real{seed}", spec=spec | {"seed": seed}), tmp_path)
    assert row_of(gather(tmp_path), "real against real").cells["fid"].seeds() == [(0, 0)]


def test_priors_of_several_seeds_are_trainings_of_one_row(synthetic, tmp_path):
    record = next(r for r in synthetic.write_demo(tmp_path, media=False) if r.label == "absorbing 16")
    for seed in (1, 2):
        spec = record.spec | {"prior": record.spec["prior"] | {"seed": seed}}
        save_record(dataclasses.replace(record, id=f"again{seed}", run_key=f"again{seed}", spec=spec), tmp_path)
    row = next(r for r in gather(tmp_path).groups[0].rows if r.label == "absorbing, 16 steps")
    assert len({training for training, _ in row.cells["fid"].seeds()}) == 3


def test_a_seed_of_a_prior_that_is_no_number_is_damage(synthetic, tmp_path, by_hand):
    record = next(r for r in synthetic.write_demo(tmp_path, media=False) if r.label == "absorbing 16")
    path = tmp_path / "records" / f"{record.id}.json"
    by_hand(path, lambda raw: raw["spec"]["prior"].update(seed="one"))
    assert [damaged for damaged, reason in load_records(tmp_path)[1] if "seed" in reason] == [path]


def test_tables_say_which_rows_are_means_over_how_many_seeds(demo_results, tmp_path):
    shutil.copytree(demo_results, tmp_path, dirs_exist_ok=True)
    assert "absorbing, 16 steps (3 samplings)" in repeats(gather(tmp_path).groups[0])
    record = next(r for r in load_records(tmp_path)[0] if r.label.startswith("absorbing") and "16" in r.label)
    save_record(dataclasses.replace(record, id="again", run_key="again", spec=record.spec | {"seed": 1}), tmp_path)
    group, = gather(tmp_path).groups
    assert "absorbing, 16 steps (4 runs of 2 trainings)" in repeats(group)
    assert repeats(group) in markdown(summary(group)) and "Other rows are one run each." in repeats(group)


def test_protocols_never_share_a_group(troubled_results):
    book = gather(troubled_results)
    assert len(book.groups) == 2
    for group in book.groups:
        assert {s.measurement.protocol for row in group.rows for c in row.cells.values() for s in c.sources} == \
            {group.protocol}


def test_the_same_measurement_names_under_two_ids_of_one_protocol_name_stay_apart(synthetic, tmp_path):
    record = synthetic.write_demo(tmp_path, media=False)[-1]
    other = tuple(dataclasses.replace(m, protocol="demo-cifar10-ffff") for m in record.measurements)
    save_record(dataclasses.replace(record, id="other", run_key="other", measurements=other), tmp_path)
    assert [g.protocol for g in gather(tmp_path).groups] == ["demo-cifar10-7c1d", "demo-cifar10-ffff"]
    assert len({g.slug for g in gather(tmp_path).groups}) == 2
    assert [g.title for g in gather(tmp_path).groups] == [
        "cifar10, protocol demo-cifar10-7c1d", "cifar10, protocol demo-cifar10-ffff"]


def test_a_failed_run_is_a_row_with_the_last_line_of_its_traceback(troubled_results):
    row = row_of(gather(troubled_results), "vq_diffusion, 25 steps")
    assert (row.status, row.reason) == ("failed", "failed: MemoryError: 12 GB asked for")


def test_an_unsupported_run_prints_its_reason(troubled_results):
    rows = [r for r in gather(troubled_results).groups[0].rows if r.status == "unsupported"]
    assert {r.reason for r in rows} == {"unsupported: autoregressive decodes in raster order only",
                                        "unsupported: unigram has no sampler.steps"}


def test_a_measurement_without_value_is_a_hole_with_its_note(troubled_results):
    cell = row_of(gather(troubled_results), "uniform, 64 steps").cells["bits_per_token"]
    assert (cell.value, cell.note) == (None, "this prior has no bound yet")


def test_the_kind_of_a_bound_is_always_marked(demo_results, tmp_path):
    shutil.copytree(demo_results, tmp_path, dirs_exist_ok=True)
    assert "an upper bound of a kind that its record does not tell" in markdown(summary(gather(tmp_path).groups[0]))
    record = next(r for r in load_records(tmp_path)[0] if r.label.startswith("absorbing") and "16" in r.label)
    save_record(dataclasses.replace(record, measurements=tuple(
        dataclasses.replace(m, extra=m.extra | {"kind": "bound_T"} if m.bound else m.extra)
        for m in record.measurements)), tmp_path)
    table = summary(gather(tmp_path).groups[0])
    lines = markdown(table).splitlines()
    letter, = {line[1] for line in lines if "bound_T: an upper bound, that of the T steps" in line}
    marked = [line for line in lines if f"({letter}) |" in line and "<=" in line]
    assert len(marked) == 1 and "absorbing, 16 steps" in marked[0]
    assert rf"\textsuperscript{{{letter}}}" in latex(table)


def test_a_cell_of_a_sweep_without_record_is_a_missing_row(troubled_results):
    row = row_of(gather(troubled_results), "absorbing, 128 steps")
    assert row.status == "missing"
    assert "no record" in row.reason


def test_deleting_one_record_makes_one_explained_hole_and_changes_nothing_else(synthetic, tmp_path):
    records = synthetic.write_demo(tmp_path, media=False)
    before = summary(gather(tmp_path).groups[0])
    gone = next(r for r in records if r.spec["sampler"].get("steps") == 16)
    (tmp_path / "records" / f"{gone.id}.json").unlink()
    after = summary(gather(tmp_path).groups[0])
    assert [r.label for r in after.rows] == [r.label for r in before.rows]
    changed = [b.label for a, b in zip(after.rows, before.rows, strict=True) if a.cells != b.cells]
    assert changed == ["absorbing, 16 steps"]
    assert after.holes() == [("absorbing, 16 steps", "all", "no record: 1 run asked for by a sweep and not there yet")]


def test_a_missing_seed_is_told_on_the_row_that_has_the_others(synthetic, tmp_path):
    records = synthetic.write_demo(tmp_path, media=False, seeds=(0, 1, 2))
    gone = next(r for r in records if r.spec["sampler"].get("steps") == 16 and r.spec["sampler"]["seed"] == 1)
    (tmp_path / "records" / f"{gone.id}.json").unlink()
    row = row_of(gather(tmp_path), "absorbing, 16 steps")
    assert row.reason == "1 run of 3 not there yet"
    assert len(row.cells["fid"].points()) == 2


def test_a_repeat_that_succeeded_replaces_one_that_failed(synthetic, tmp_path):
    record = synthetic.write_demo(tmp_path, media=False)[-1]
    failed = dataclasses.replace(record, id="later", created="2027", status="failed", measurements=(), message="x",
                                 run_key="")
    save_record(failed, tmp_path)
    row = row_of(gather(tmp_path), "absorbing, 64 steps, temperature 0.9")
    assert (row.status, row.reason, len(row.records)) == ("ok", "", 1)


def test_metrics_measured_in_a_later_run_of_the_same_seeds_join_the_row(synthetic, tmp_path):
    spec = synthetic.spec_of("unigram")
    for index, (metric, value) in enumerate([("fid", 9.0), ("kid", 2.0), ("fid", 8.0)]):
        synthetic.make_record(tmp_path, "prior", spec, [synthetic.measurement(metric, value, None, "demo-x")],
                              created=f"2026-01-0{index + 1}")
    [row] = gather(tmp_path).groups[0].rows
    assert {metric: cell.value for metric, cell in row.cells.items()} == {"fid": 8.0, "kid": 2.0}


def test_steps_left_to_their_default_are_one_for_each_token(synthetic, tmp_path):
    for index, steps in enumerate((64, None)):
        spec = synthetic.spec_of("absorbing", steps=8)
        spec["sampler"]["steps"] = steps
        synthetic.make_record(tmp_path, "prior", spec, [synthetic.measurement("fid", 9.0, None, "demo-x")],
                              created=f"2026-01-0{index + 1}")
    assert [row.label for row in gather(tmp_path).groups[0].rows] == ["absorbing, 64 steps"]


def test_the_default_steps_of_a_prior_nobody_knows_stay_unknown(synthetic, tmp_path):
    spec = synthetic.spec_of("somebody_elses", steps=8)
    spec["sampler"]["steps"] = None
    synthetic.make_record(tmp_path, "prior", spec, [synthetic.measurement("fid", 9.0, None, "demo-x")], created="1")
    [row] = gather(tmp_path).groups[0].rows
    assert (row.label, row.steps) == ("somebody_elses", None)


def test_rows_with_one_label_are_told_apart_by_what_differs(synthetic, tmp_path):
    for width in (128, 256):
        spec = synthetic.spec_of("autoregressive", options={"width": width})
        values = [synthetic.measurement("fid", 200.0, 1.0, "demo-x")]
        synthetic.make_record(tmp_path, "prior", spec, values, created=f"2026-01-0{width // 128}")
    assert {r.label for r in gather(tmp_path).groups[0].rows} == \
        {"autoregressive (prior.width=128)", "autoregressive (prior.width=256)"}


def test_a_damaged_record_is_named_and_the_others_are_read(synthetic, demo_results, tmp_path):
    shutil.copytree(demo_results / "records", tmp_path / "records")
    path = synthetic.damage(tmp_path)
    book = gather(tmp_path)
    assert [p for p, _ in book.damaged] == [path]
    assert len(book.records) == len(load_records(demo_results)[0])


def test_an_empty_folder_is_an_input_error_that_says_what_to_run(tmp_path):
    with pytest.raises(InputError, match="python -m bench.run"):
        gather(tmp_path)


def test_a_filter_that_matches_nothing_names_the_nearest(troubled_results):
    with pytest.raises(InputError, match="Did you mean 'cifar10'"):
        gather(troubled_results, datasets=("cifar",))
