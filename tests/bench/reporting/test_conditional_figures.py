"""Figures of conditional runs, drawn from records made up for it: what they show, and when there are none."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from bench.records import Sheet, save_record
from bench.reporting.conditional_figures import captioned_samples, figures_of, samples_by_class
from bench.reporting.guidance_figure import fidelity_against_obedience, guidance_of, guidance_sweeps
from bench.reporting.pictures import first_tiles
from bench.reporting.rows import gather
from bench.reporting.webpage import render_page

GUIDANCES, CLASSES = (0.0, 1.0, 2.0, 4.0), ("cat", "dog", "frog")


def spec_of(synthetic, prior, condition, guidance, **more):
    spec = synthetic.spec_of(prior, **more)
    spec["condition"] = {"name": condition, "encoder": None, "length": None}
    spec["sampler"] |= {"guidance": guidance, "guidance_schedule": "constant"} if prior else {}
    return spec


def numbers(synthetic, protocol, rng, at):
    return [*synthetic.fidelity(200 + 10 * (at - 2) ** 2, protocol, rng),
            synthetic.measurement("class_accuracy", 0.2 + 0.15 * at, 0.03, protocol)]


@pytest.fixture(scope="module")
def results(synthetic, tmp_path_factory):
    """Two priors over four guidances and a reconstruction, of condition=class; one prior without a condition."""
    root, rng = tmp_path_factory.mktemp("conditional"), np.random.default_rng(0)
    stamps = iter(f"2026-01-02T00:{minute:02d}:00Z" for minute in range(60))
    synthetic.make_record(root, "reconstruction", spec_of(synthetic, None, "class", 1) | {"source": "reconstruction"},
                          numbers(synthetic, "demo-class", rng, 2), created=next(stamps))
    for prior in ("absorbing", "autoregressive"):
        for at, guidance in enumerate(GUIDANCES):
            spec = spec_of(synthetic, prior, "class", guidance, steps=16 if prior == "absorbing" else None)
            synthetic.make_record(root, "prior", spec, numbers(synthetic, "demo-class", rng, at),
                                  created=next(stamps))
    synthetic.make_record(root, "prior", synthetic.spec_of("absorbing", steps=16),
                          numbers(synthetic, "demo-none", rng, 1), created=next(stamps))
    return root


@pytest.fixture(scope="module")
def told(results):
    return next(group for group in gather(results).groups if group.protocol == "demo-class")


def test_every_prior_is_a_curve_from_the_least_guidance_to_the_most(told):
    sweeps = guidance_sweeps(told, "fid")
    assert list(sweeps) == ["absorbing, 16 steps", "autoregressive"]
    assert all([guidance_of(row) for row in rows] == list(GUIDANCES) for rows in sweeps.values())


def test_the_figure_labels_its_points_by_guidance_and_has_bars_both_ways(told):
    axes, = fidelity_against_obedience(told).figure.axes
    assert [text.get_text() for text in axes.texts] == ["0", "1", "2", "4"] * 2
    assert axes.get_legend_handles_labels()[1] == ["absorbing, 16 steps", "autoregressive", "reconstruction"]
    assert all(drawn.has_xerr and drawn.has_yerr for drawn in axes.containers)
    assert axes.get_xlabel() == "class accuracy of samples" and axes.get_ylabel() == "FID@500"


def test_other_options_are_other_curves(synthetic, tmp_path):
    rng = np.random.default_rng(0)
    for at, (guidance, steps) in enumerate([(1, 8), (2, 8), (1, 64), (2, 64), (3, 32)]):
        synthetic.make_record(tmp_path, "prior", spec_of(synthetic, "absorbing", "class", guidance, steps=steps),
                              numbers(synthetic, "demo-class", rng, at), created=f"2026-01-02T00:0{at}:00Z")
    sweeps = guidance_sweeps(gather(tmp_path).groups[0], "fid")
    assert {label: [guidance_of(row) for row in rows] for label, rows in sweeps.items()} == {
        "absorbing, 8 steps": [1, 2], "absorbing, 64 steps": [1, 2]}


def test_without_a_second_guidance_or_a_sheet_there_is_no_figure(results, tmp_path):
    plain = next(group for group in gather(results).groups if group.protocol == "demo-none")
    assert figures_of(plain, results) == []


def test_conditional_and_other_runs_of_a_protocol_are_two_groups_with_names_of_their_own(results):
    groups = {group.protocol: group for group in gather(results).groups}
    assert {key: group.heading for key, group in groups.items()} == {
        "demo-class": "demo, condition=class", "demo-none": "demo"}
    assert {group.slug for group in groups.values()} == {"cifar10-demo-class", "cifar10-demo"}


def shade(name):
    return 20 + 60 * CLASSES.index(name)


def with_sheet(synthetic, root, prior, condition, labels, rows, columns, *, shades, created, guidance=1.0):
    """A record whose sheet has tiles of one shade each."""
    spec = spec_of(synthetic, prior, condition, guidance)
    record = synthetic.make_record(root, "prior", spec, numbers(synthetic, f"demo-{condition}",
                                   np.random.default_rng(0), 1), created=created, media=("samples",))
    tiles = np.repeat(np.repeat(np.array(shades, np.uint8).reshape(rows, columns), 8, 0), 8, 1)
    sheet = Sheet(record.media["samples"].path, rows, columns, (8, 8), tuple(labels))
    Image.fromarray(np.stack([tiles] * 3, -1)).save(root / sheet.path)
    save_record(replace(record, media={"samples": sheet}), root)


@pytest.fixture
def by_class(synthetic, tmp_path):
    """Two priors; of the second no dog was drawn."""
    for at, names in enumerate((CLASSES, ("cat", "frog"))):
        with_sheet(synthetic, tmp_path, ("absorbing", "unigram")[at], "class", names, len(names), 2,
                   shades=[shade(name) for name in names for _ in range(2)], created=f"2026-01-02T00:0{at}:00Z")
    return tmp_path


def test_samples_by_class_has_a_column_a_prior_and_the_class_asked_for_in_each_row(by_class):
    figure = samples_by_class(gather(by_class).groups[0], by_class).figure
    assert [axes.get_title().split("\n")[0] for axes in figure.axes] == ["absorbing", "unigram"]
    assert [text.get_text() for text in figure.axes[0].texts] == list(CLASSES)
    pictures = [axes.images[0].get_array() for axes in figure.axes]
    assert [picture[4, 4, 0] for picture in np.split(pictures[0], 3)] == [shade(name) for name in CLASSES]
    assert [picture[4, 4, 0] for picture in np.split(pictures[1], 3)] == [shade("cat"), 255, shade("frog")]


def test_the_first_tiles_of_a_sheet_by_class_are_one_of_each_class(by_class):
    record = next(r for r in gather(by_class).records.values() if r.spec["prior"]["name"] == "absorbing")
    sheet = record.media["samples"]
    assert first_tiles(by_class / sheet.path, sheet)[:, 0, 0, 0].tolist() == [shade(name) for name in CLASSES] * 2


def test_of_many_rows_every_prior_has_one_before_any_has_two(synthetic, tmp_path):
    for at in range(12):
        prior, guidance = ("absorbing", 1 + at) if at < 11 else ("unigram", 1)
        with_sheet(synthetic, tmp_path, prior, "class", CLASSES, 3, 2, shades=[9] * 6, guidance=float(guidance),
                   created=f"2026-01-02T00:{at:02d}:00Z")
    figure = samples_by_class(gather(tmp_path).groups[0], tmp_path).figure
    names = [axes.get_title().split("\n")[0] for axes in figure.axes]
    assert len(names) == 8 and names.count("unigram") == 1


def test_every_picture_of_a_text_run_has_its_caption_below(synthetic, tmp_path):
    captions = ["a grinning face", "a red heart",
                "a cat with wry smile and a very long name that goes on and on and has no end", "flag"]
    with_sheet(synthetic, tmp_path, "absorbing", "text", captions, 2, 2, shades=[10, 20, 30, 40],
               created="2026-01-02T00:00:00Z")
    group = gather(tmp_path).groups[0]
    figure = captioned_samples(group, tmp_path).figure
    below = [axes.texts[0].get_text().replace("\n", " ") for axes in figure.axes[:4]]
    assert below[:2] == captions[:2] and below[3] == "flag" and below[2].endswith("…")
    assert [axes.images[0].get_array()[0, 0, 0] for axes in figure.axes[:4]] == [10, 20, 30, 40]
    assert samples_by_class(group, tmp_path) is None


def test_the_page_shows_every_class_of_a_sheet_and_names_them(synthetic, tmp_path):
    names = [f"class {number}" for number in range(10)]
    with_sheet(synthetic, tmp_path, "absorbing", "class", names, 10, 2, shades=range(20),
               created="2026-01-02T00:00:00Z")
    book, sizes = gather(tmp_path), []
    group = book.groups[0]
    page = render_page(book, {group.slug: []}, {group.slug: []})
    for uri in re.findall(r"data:image/webp;base64,([A-Za-z0-9+/=]+)", page):
        sizes.append(Image.open(io.BytesIO(base64.b64decode(uri))).size)
    assert "a row a class: class 0, class 1" in page and (17, 89) in sizes   # 10 tiles of 8 pixels, a line between
