"""What a figure shows when there is more than it can show, and when one row lies far off."""

import math

import pytest

from bench.reporting.claims import ledger
from bench.reporting.figures import COLOURS, value_of
from bench.reporting.paper_figures import (
    MANY_SERIES,
    after_the_start,
    beyond,
    bound_during_training,
    fid_against_evaluations,
    fid_against_seconds,
    fid_against_steps,
    frame_top,
    series_label,
    step_series,
    styles_of,
)
from bench.reporting.pictures import samples_figure
from bench.reporting.rows import gather
from bench.reporting.tables import summary


@pytest.fixture(scope="module")
def group(demo_results):
    return gather(demo_results).groups[0]


def fids(synthetic, folder, values):
    for index, fid in enumerate(values):
        spec = synthetic.spec_of("absorbing", steps=2 ** index)
        synthetic.make_record(folder, "prior", spec, [synthetic.measurement("fid", fid, 1.0, "demo-x")],
                              created=f"2026-01-{index + 1:02d}")
    return gather(folder).groups[0]


def test_no_two_series_look_alike(group):
    styles = styles_of(group)
    assert len(set(styles.values())) == len(styles) > 2


def test_a_series_looks_the_same_in_every_figure(group):
    drawn = {}
    for drawing in (fid_against_steps(group), fid_against_seconds(group)):
        for container in drawing.figure.axes[0].containers:
            drawn.setdefault(container.get_label(), set()).add(container.lines[0].get_color())
    assert all(len(colours) == 1 and colours < set(COLOURS) for colours in drawn.values())


def test_the_autoregressive_prior_is_a_point_with_and_without_cache(group):
    axes = fid_against_seconds(group).figure.axes[0]
    drawn = {c.get_label(): c.lines[0].get_alpha() for c in axes.containers}
    assert drawn["autoregressive"] == 1 and drawn["_autoregressive"] < 1   # told from each other by the ink alone
    assert "paler: no cache" in axes.get_legend_handles_labels()[1]


def test_the_legend_of_the_demo_takes_less_than_half_of_the_figure(group):
    figure = fid_against_seconds(group).figure
    figure.draw_without_rendering()
    assert figure.axes[0].get_legend().get_window_extent().height < 0.4 * figure.bbox.height


def test_numbers_of_a_wide_axis_do_not_touch(group):
    axes = fid_against_seconds(group).figure.axes[0]
    axes.figure.draw_without_rendering()
    ends = axes.get_xlim()
    boxes = [tick.label1.get_window_extent() for tick in axes.xaxis.get_major_ticks()
             if ends[0] <= tick.get_loc() <= ends[1] and tick.label1.get_text()]
    assert len(boxes) > 1 and all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))


def test_nothing_on_the_pareto_front_is_beaten_in_both_by_what_is_drawn(group):
    axes = fid_against_seconds(group).figure.axes[0]
    front = next(line for line in axes.lines if line.get_label() == "Pareto front").get_xydata()
    drawn = [point for container in axes.containers for point in container.lines[0].get_xydata()]
    assert len(drawn) > len(front) and all(any((point == other).all() for other in drawn) for point in front)
    assert not [1 for x, y in front for other in drawn if other[0] < x and other[1] < y]


def test_trainings_that_differ_in_their_seed_alone_are_one_entry_of_the_legend(synthetic, tmp_path):
    for seed in (0, 1):
        spec = synthetic.spec_of("absorbing", steps=8, seed=seed)
        record = synthetic.make_record(tmp_path, "prior", spec, [synthetic.measurement("fid", 9.0, 1.0, "demo-x")],
                                       created=f"2026-01-0{seed + 1}", curve_end=6.0)
        (tmp_path / record.curves["prior"]).write_text(
            f"step,metric,value\n100,validation_bits_per_token,{7 + seed}\n200,validation_bits_per_token,6\n")
    figure = bound_during_training(gather(tmp_path).groups[0], tmp_path).figure
    assert len(figure.axes[0].lines) == 2
    assert [line.get_label() for line in figure.axes[0].lines if not line.get_label().startswith("_")] == ["absorbing"]


def test_a_row_that_would_squash_the_others_is_named_instead_of_drawn(synthetic, tmp_path):
    far = fids(synthetic, tmp_path, [130, 140, 150, 400])
    assert frame_top(far) == 150
    assert beyond(far, 150) == " Above the frame: absorbing, 8 steps (400)."
    assert [len(points) for points in step_series(far, lambda row: row.steps, 150).values()] == [3]


def test_rows_of_like_distance_are_all_drawn(synthetic, tmp_path):
    near = fids(synthetic, tmp_path, [130, 140, 150, 165])
    assert frame_top(near) == math.inf
    assert beyond(near, math.inf) == ""


def test_training_curves_are_framed_without_their_first_tenth():
    assert after_the_start({"a": [[(100, 17.0), (500, 8.0), (1600, 6.0)]]}) == pytest.approx(8.08)


def test_strips_of_samples_leave_out_variants_before_priors(group, demo_results):
    names = {row.name for row in group.rows if row.role == "prior"}
    texts = {t.get_text() for axes in samples_figure(group, demo_results, max_rows=len(group.rows)).figure.axes
             for t in axes.texts}
    assert all(any(text.startswith(name) for text in texts) for name in names)


def test_completed_images_show_lpips_among_the_first_columns(synthetic, tmp_path):
    spec = synthetic.spec_of("absorbing", steps=64, protocol="edit-centre")
    values = [synthetic.measurement("fid", 160.0, 2.0, "edit-x"), synthetic.measurement("lpips", 0.1, 0.01, "edit-x")]
    synthetic.make_record(tmp_path, "edit", spec, values, created="1")
    shown = [column.key for column in summary(gather(tmp_path).groups[0]).columns if column.headline]
    assert shown == ["fid", "lpips"]


def test_a_group_of_real_images_alone_has_no_claims(synthetic, tmp_path):
    spec = synthetic.spec_of(None, protocol="naeem")
    synthetic.make_record(tmp_path, "real", spec, [synthetic.measurement("fid", 5.0, 0.1, "naeem-x")], created="1")
    assert ledger(gather(tmp_path).groups[0], tmp_path) == []


def test_legends_drop_the_section_of_an_option(group):
    row = next(row for row in group.rows if value_of(row, "fid") is not None and row.temperature < 1)
    assert series_label(row) == "absorbing, t = 0.9"


def test_evaluations_are_drawn_where_many_samplers_stand_side_by_side(synthetic, tmp_path):
    def folder_of(num):
        for index in range(num):
            spec = synthetic.spec_of("absorbing", steps=8)
            spec["sampler"]["top_p"] = 0.5 + 0.05 * index
            measured = [synthetic.measurement("fid", 80.0 - index, 1.0, "demo-x"),
                        synthetic.measurement("network_evaluations", 8.0 + index, 0.0, "demo-x")]
            synthetic.make_record(tmp_path / str(num), "prior", spec, measured, created=f"2026-01-{index + 1:02d}")
        return gather(tmp_path / str(num)).groups[0]

    assert fid_against_evaluations(folder_of(MANY_SERIES - 1)) == []
    drawing, = fid_against_evaluations(folder_of(MANY_SERIES))
    axes, = drawing.figure.axes
    assert axes.get_xlabel() == "network evaluations per image"
    assert len(axes.get_legend_handles_labels()[1]) == MANY_SERIES + 1   # and the front
