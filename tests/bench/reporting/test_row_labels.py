"""A row is named by what sets it apart, and by no default."""

import pytest

from bench.reporting.defaults import defaults_of
from bench.reporting.rows import gather


def labels_of(synthetic, folder, *specs):
    for index, spec in enumerate(specs):
        values = [synthetic.measurement("fid", 200.0 + index, 1.0, "demo-x")]
        synthetic.make_record(folder, "prior", spec, values, created=f"2026-01-{index + 1:02d}")
    return sorted(row.label for row in gather(folder).groups[0].rows)


def spec_with(synthetic, *, steps=8, schema="priors.options:Absorbing", options=None, **sampler):
    spec = synthetic.spec_of("absorbing", steps=steps, options=options)
    spec["prior"]["schema"], spec["backbone"] = schema, {"width": 128, "num_layers": 4, "num_heads": 4}
    spec["sampler"] |= {"order": "random", "schedule": "even"} | sampler
    return spec


def test_the_plain_row_keeps_its_name_beside_its_variants(synthetic, tmp_path):
    plain, variant = spec_with(synthetic), spec_with(synthetic, order="halton")
    assert labels_of(synthetic, tmp_path, plain, variant) == \
        ["absorbing, 8 steps", "absorbing, 8 steps (sampler.order=halton)"]


def test_a_variant_names_only_what_it_changed(synthetic, tmp_path):
    specs = [spec_with(synthetic, order="halton"), spec_with(synthetic, schedule="cosine")]
    assert labels_of(synthetic, tmp_path, *specs) == \
        ["absorbing, 8 steps (sampler.order=halton)", "absorbing, 8 steps (sampler.schedule=cosine)"]


def test_the_presets_size_is_plain_and_another_size_is_named(synthetic, tmp_path):
    specs = [spec_with(synthetic), spec_with(synthetic, options={"width": 256})]
    assert labels_of(synthetic, tmp_path, *specs) == ["absorbing, 8 steps", "absorbing, 8 steps (prior.width=256)"]


def test_rows_whose_defaults_differ_are_still_told_apart(synthetic, tmp_path):
    small, large = spec_with(synthetic), spec_with(synthetic, options={"width": 256})
    large["backbone"]["width"] = 256
    assert labels_of(synthetic, tmp_path, small, large) == \
        ["absorbing, 8 steps (prior.width=128)", "absorbing, 8 steps (prior.width=256)"]


def test_of_a_module_that_a_record_names_nothing_is_imported(synthetic):
    assert defaults_of(spec_with(synthetic, schema="antigravity:Absorbing")) == {}


@pytest.mark.parametrize("steps", [8, 16])
def test_steps_of_one_prior_are_one_series_whatever_else_was_run(synthetic, tmp_path, steps):
    from bench.reporting.paper_figures import step_series
    specs = [spec_with(synthetic, steps=n) for n in (8, 16, 32)] + [spec_with(synthetic, steps=steps, order="halton")]
    labels_of(synthetic, tmp_path, *specs)
    series = step_series(gather(tmp_path).groups[0], lambda row: row.steps, top=1000.0)
    assert {label: len(points) for label, points in series.items()} == {"absorbing": 3, "absorbing (order=halton)": 1}
